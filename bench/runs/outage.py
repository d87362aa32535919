"""Minutes without a store, under load: what the server keeps, what the daemon takes and says, and how fast it catches up."""
import subprocess
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.scratch import end_process
from parts.store import stores

LIMIT = 128.0
# Of the WAL that is written meanwhile, beside what pgbench writes.
PORTIONS = 10


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "outage")
    cluster.start()
    place.call([f"{cluster.pg_bin}/pgbench", "-i", "-q", "-s", "10", "-d", cluster.conninfo], env={"PATH": "/bin"})
    kind, worst = arguments.data.split(",", maxsplit=1)[0], 0.0
    for store in stores(place, arguments.stores):
        name = f"outage-{store.name}"
        # The alert is about what lasts; it is not to wait for more WAL than is written here.
        archiver = Archiver(place, arguments, cluster, store, name, settings='[alerts]\nbacklog = "256MiB"')
        archiver.start()
        archiver.wait_confirmed(cluster.lsn())
        usual = burst(cluster, archiver, kind, arguments.size * 1e9)
        archiver.forget_peak()
        bench = place.start([f"{cluster.pg_bin}/pgbench", "-n", "-c", "4", "-R", "400", "-T", str(int(arguments.outage) + 3600), "-d", cluster.conninfo],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        place.at_end(lambda bench=bench: end_process(bench))
        before = archiver.confirmed()
        store.leave(name)
        try:
            write(cluster, kind, arguments.size * 1e9, arguments.outage)
        finally:
            store.come_back(name)
        begun, until = time.monotonic(), cluster.lsn()
        # The stream may be away itself: the server says then what the slot keeps.
        archiver.wait(lambda: slot(cluster) >= until, 1800, "the backlog is not durable")
        took = time.monotonic() - begun
        peak = archiver.memory("VmHWM")
        worst = max(worst, peak)
        end_process(bench)
        archiver.wait_confirmed(cluster.lsn())
        figures.add(store=store.name, **{"away s": arguments.outage, "backlog MB": (until - before) / 1e6, "caught up s": took,
                    "MB/s": (until - before) / 1e6 / took, "a burst, MB/s": usual, "peak MiB": peak})
        for line in archiver.words_of("WARN", "ERROR"):
            figures.note(f"{store.name}: {line}")
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    verdict = "within" if worst < LIMIT else "NOT within"
    figures.note(f"The highest peak is {worst:.0f} MiB: {verdict} the limit of {LIMIT:.0f} MiB.")


def burst(cluster, archiver, kind, size):
    """MB/s of a burst that is streamed as it is written."""
    begun, before = time.monotonic(), cluster.lsn()
    cluster.finish(cluster.burst(kind, size), "the burst")
    end = cluster.lsn()
    archiver.wait_confirmed(end)
    return (end - before) / 1e6 / (time.monotonic() - begun)


def write(cluster, kind, size, seconds):
    """So many bytes of WAL, spread over the time."""
    begun = time.monotonic()
    for portion in range(PORTIONS):
        cluster.finish(cluster.burst(kind, size / PORTIONS), "the load")
        # The load's own pace.
        time.sleep(max(0.0, begun + (portion + 1) * seconds / PORTIONS - time.monotonic()))


def slot(cluster):
    """Up to where the slot keeps nothing any more."""
    return cluster.number("select restart_lsn - '0/0' from pg_replication_slots where slot_name = 'walseal_bench'")
