"""How far the stream falls behind while the server writes as fast as it can, and how soon it has caught up."""
import threading
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.store import stores

LIMIT = 5.0


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "lag")
    cluster.start()
    kind = arguments.data.split(",", maxsplit=1)[0]
    cluster.table("grown", kind)
    column = "customer" if kind == "rows" else "content"
    file = cluster.chunk(kind)
    # COPY runs in several statements, so that the table grows to about the size that was asked for.
    copies = max(1, int(arguments.size * 1e9 / (48 << 20)))
    statements = {
        "COPY": "; ".join([f"copy grown from '{file}'"] * copies),
        "CREATE INDEX": f"create index grown_index on grown ({column}, created)" if kind == "rows" else f"create index grown_index on grown (md5({column}))",
        "VACUUM FULL": "vacuum full grown",
    }
    worst = 0.0
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"lag-{store.name}")
        archiver.start()
        archiver.wait_confirmed(cluster.lsn())
        for what, statement in statements.items():
            rows = []
            for _ in range(arguments.runs):
                archiver.forget_peak()
                cluster.sql("drop index if exists grown_index")
                if what == "COPY":
                    cluster.sql("truncate grown")
                archiver.wait_confirmed(cluster.lsn())
                rows.append(once(cluster, archiver, statement))
            caught = [row["caught up s"] for row in rows]
            worst = max(worst, *caught)
            figures.add(store=store.name, burst=what, **{name: median([row[name] for row in rows]) for name in rows[0]},
                        **{"slowest s": max(caught), "peak MiB": archiver.memory("VmHWM")})
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    verdict = "within" if worst < LIMIT else "NOT within"
    figures.note(f"After a burst everything of it was durable after {worst:.2f} s at most: {verdict} the limit of {LIMIT:.0f} s.")


def once(cluster, archiver, statement):
    begun, before = time.monotonic(), cluster.lsn()
    behind, over = [], threading.Event()

    def watch():
        while not over.wait(0.1):
            behind.append(cluster.number(
                "select pg_current_wal_flush_lsn() - flush_lsn from pg_stat_replication where application_name = 'walseal_bench'"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        cluster.sql(statement)
        took, end = time.monotonic() - begun, cluster.lsn()
    finally:
        over.set()
        watcher.join()
    archiver.wait_confirmed(end)
    caught = time.monotonic() - begun - took
    return {"WAL MB": (end - before) / 1e6, "server MB/s": (end - before) / 1e6 / took, "most behind MB": max(behind) / 1e6,
            "caught up s": caught}
