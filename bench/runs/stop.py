"""How long `pg_ctl stop -m fast` takes while the daemon streams from a server under load."""
import threading
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.scratch import end_process
from parts.store import stores

LIMIT = 2.0
LOADS = ("pgbench", "COPY", "VACUUM FULL", "burst, fsync", "burst")


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "stop")
    cluster.start()
    cluster.table("grown", "rows")
    for _ in range(4):
        cluster.sql(f"copy grown from '{cluster.chunk('rows')}'")
    place.call([f"{cluster.pg_bin}/pgbench", "-i", "-q", "-s", "10", "-d", cluster.conninfo], env={"PATH": "/bin"})
    worst, without_disk = 0.0, 0.0
    for load in LOADS:
        took = [alone(place, cluster, load) for _ in range(arguments.runs)]
        figures.add(store="none", state="no archiver", load=load, **{"median s": median(took), "slowest s": max(took)})
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"stop-{store.name}")
        archiver.start()
        for load in LOADS:
            took = [once(place, cluster, archiver, load) for _ in range(arguments.runs)]
            if load == "burst":
                without_disk = max(without_disk, *took)
            else:
                worst = max(worst, *took)
            figures.add(store=store.name, state="up", load=load, **{"median s": median(took), "slowest s": max(took)})
        if store.is_s3:
            took = [stalled(place, cluster, archiver, store) for _ in range(arguments.runs)]
            figures.add(store=store.name, state="stalled, buffer full", load="burst",
                        **{"median s": median(took), "slowest s": max(took)})
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    verdict = "under" if worst < LIMIT else "NOT under"
    figures.note(f"With the store up the slowest stop took {worst:.2f} s: {verdict} the limit of {LIMIT:.0f} s.")
    figures.note(f"That is without the burst of a server that never waits for its disk (fsync = off), which writes more than this machine "
                 f"compresses meanwhile; after it a stop took {without_disk:.2f} s at the most.")


def alone(place, cluster, load):
    """What the server itself needs: its last checkpoint, mostly."""
    busy = start(place, cluster, load)
    time.sleep(4)
    took = cluster.stop("fast")
    busy.wait()
    cluster.start()
    return took


def once(place, cluster, archiver, load):
    busy = start(place, cluster, load)
    time.sleep(4)
    took = cluster.stop("fast")
    busy.wait()
    again(cluster, archiver)
    return took


def stalled(place, cluster, archiver, store):
    busy = start(place, cluster, "burst")
    time.sleep(1)
    store.stall()
    # Long enough for the buffer to fill; shorter than the stall limit of 5 s after that.
    time.sleep(3)
    try:
        took = cluster.stop("fast")
    finally:
        store.go_on()
    busy.wait()
    again(cluster, archiver)
    return took


def again(cluster, archiver):
    cluster.start()
    archiver.wait(archiver.streams, 120, "the daemon did not come back")
    archiver.wait_confirmed(cluster.lsn())


def start(place, cluster, load):
    cluster.synced(load == "burst, fsync")
    if load.startswith("burst"):
        process = cluster.burst("rows", 8e9)
    elif load != "pgbench":
        statement = f"copy grown from '{cluster.chunk('rows')}'" if load == "COPY" else "vacuum full grown"
        process = place.start(["/bin/sh", "-c", f"while {cluster.pg_bin}/psql -Xq -d '{cluster.conninfo}' -c \"{statement}\"; do :; done"],
                              stdout=-3, stderr=-3)
    else:
        process = place.start([f"{cluster.pg_bin}/pgbench", "-n", "-c", "4", "-T", "600", "-d", cluster.conninfo],
                              stdout=-3, stderr=-3)
    # Its messages are of no use here, but a full pipe would stop it.
    if process.stderr is not None:
        threading.Thread(target=process.stderr.read, daemon=True).start()
    place.at_end(lambda: end_process(process))
    return process
