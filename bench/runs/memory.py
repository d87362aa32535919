"""Peak memory of the daemon: a WAL burst, a base backup, and both at once, one after the other in one daemon."""
import threading
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.limit import MemoryLimit
from parts.scratch import Failed
from parts.store import stores

LIMIT = 128.0


def run(place, arguments, figures):
    size = arguments.size * 1e9
    limit = MemoryLimit(place, arguments.limit) if arguments.limit else None
    for kind in arguments.data.split(","):
        cluster = Cluster(place, arguments.pg_bin, f"cluster-{kind}")
        cluster.start()
        cluster.fill(kind, size)
        for store in stores(place, arguments.stores):
            troubles = arguments.trouble.split(",") if store.is_s3 else ["none"]
            for segments in map(int, arguments.segments.split(",")):
                for trouble in troubles:
                    combination(place, arguments, figures, cluster, store, kind, segments, trouble, size, limit)
        cluster.destroy()
    worst = max(row["peak MiB"] for row in figures.rows)
    verdict = "within" if worst < LIMIT else "NOT within"
    if limit:
        figures.note(f"The kernel allowed {arguments.limit} MiB, and killed {limit.kills()} processes for it.")
    figures.note(f"The highest peak is {worst:.0f} MiB: {verdict} the limit of {LIMIT:.0f} MiB.")


def combination(place, arguments, figures, cluster, store, kind, segments, trouble, size, limit):
    if cluster.running():
        cluster.stop()
    cluster.segments(segments)
    cluster.start()
    if store.is_s3:
        store.slow(arguments.rate * 1e6 if trouble == "slow" else None)
    name = f"memory-{kind}-{store.name}-{segments}-{trouble}"
    archiver = Archiver(place, arguments, cluster, store, name)
    archiver.start()
    if limit:
        limit.hold(archiver.daemon.pid)
    for phase in ("burst", "backup", "both"):
        archiver.forget_peak()
        row = {"store": store.name, "segment MiB": segments, "data": kind, "trouble": trouble, "phase": phase}
        row |= measure(archiver, cluster, store, kind, phase, trouble, size)
        row |= {"peak MiB": archiver.memory("VmHWM"), "then MiB": archiver.memory("VmRSS")}
        figures.add(**row)
    archiver.stop()
    cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    store.empty(name)


def measure(archiver, cluster, store, kind, phase, trouble, size):
    """Runs a phase; MB/s of each half, and the daemon's CPU seconds."""
    begun, cpu, stored = time.monotonic(), archiver.cpu(), {}
    ends = []
    if trouble == "stalled":
        threading.Timer(2, store.stall).start()
        threading.Timer(22, store.go_on).start()
    if phase != "backup":
        before = cluster.lsn()
        burst = cluster.burst(kind, size)

        def shipped():
            cluster.finish(burst, "the burst")
            end = cluster.lsn()
            # The newest WAL of an outage comes only once the daemon has connected again.
            archiver.wait_confirmed(end)
            stored["burst MB/s"] = (end - before) / 1e6 / (time.monotonic() - begun)

        ends.append(shipped)
    if phase != "burst":
        backup = archiver.backup("--full")

        def copied():
            _, err = backup.communicate()
            if backup.returncode != 0:
                raise Failed(f"the backup failed:\n{err}\n{archiver.words()}")
            label = archiver.status()["bases"][-1]
            stored["backup MB/s"] = label["cluster_size"] / 1e6 / (time.monotonic() - begun)
            stored["ratio"] = label["cluster_size"] / label["stored_size"]

        ends.append(copied)
    errors = []

    def guarded(end):
        try:
            end()
        except BaseException as error:  # noqa: BLE001: it is raised again below, where it is seen.
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(end,), daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
    if errors:
        raise errors[0]
    took = time.monotonic() - begun
    nothing = {"burst MB/s": "", "backup MB/s": "", "ratio": ""}
    return nothing | stored | {"CPU": (archiver.cpu() - cpu) / took}
