"""A full base backup and a WAL burst, beside what the server alone can do."""
import subprocess
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.scratch import Failed
from parts.store import stores


def run(place, arguments, figures):
    kind = arguments.data.split(",", maxsplit=1)[0]
    cluster = Cluster(place, arguments.pg_bin, "speed")
    cluster.start()
    cluster.fill(kind, arguments.size * 1e9)
    size = cluster.size()
    for what, command in peers(cluster):
        took = [timed(place, command) for _ in range(arguments.runs)]
        figures.add(what=what, store="nothing", **{"median s": median(took), "MB/s": size / 1e6 / median(took)})
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"speed-{store.name}")
        archiver.start()
        took, cpu = [], []
        for _ in range(arguments.runs):
            taken = archiver.backed_up("--full")
            took.append(taken["s"])
            cpu.append(taken["cpu"])
        figures.add(what="walseal backup", store=store.name, **{"median s": median(took),
                    "MB/s": size / 1e6 / median(took), "archiver CPU s": median(cpu)})
        took, cpu, rates = [], [], []
        for _ in range(arguments.runs):
            begun, used, before = time.monotonic(), archiver.cpu(), cluster.lsn()
            cluster.finish(cluster.burst(kind, arguments.size * 1e9), "the burst")
            end = cluster.lsn()
            archiver.wait_confirmed(end)
            took.append(time.monotonic() - begun)
            cpu.append(archiver.cpu() - used)
            rates.append((end - before) / 1e6 / took[-1])
        figures.add(what="walseal WAL burst", store=store.name, **{"median s": median(took), "MB/s": median(rates),
                    "archiver CPU s": median(cpu)})
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    took, rates = [], []
    for _ in range(arguments.runs):
        begun, before = time.monotonic(), cluster.lsn()
        cluster.finish(cluster.burst(kind, arguments.size * 1e9), "the burst")
        took.append(time.monotonic() - begun)
        rates.append((cluster.lsn() - before) / 1e6 / took[-1])
    figures.add(what="WAL burst, no archiver", store="nothing", **{"median s": median(took), "MB/s": median(rates)})


def peers(cluster):
    base = [f"{cluster.pg_bin}/pg_basebackup", "-d", cluster.conninfo, "-Ft", "-X", "none", "-c", "fast", "-D", "-"]
    return [("pg_basebackup", [*base, "--no-manifest"]), ("pg_basebackup zstd:1", [*base, "--no-manifest", "--compress=client-zstd:1"])]


def timed(place, command):
    begun = time.monotonic()
    process = place.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    _, err = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{err}")
    return time.monotonic() - begun
