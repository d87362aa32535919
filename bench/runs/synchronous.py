"""Commits that return only when they are in the bucket: pgbench with 1, 16 and 64 clients, against a store that takes its time."""
import re

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.scratch import Failed
from parts.store import S3

CLIENTS = (1, 16, 64)
# Milliseconds that the line adds to each answer of the S3 server.
LATER = (1, 20, 80)


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "synchronous")
    cluster.sql_file_setting("max_connections", "100")
    cluster.start()
    cluster.synced(True)
    place.call([f"{cluster.pg_bin}/pgbench", "-i", "-q", "-s", "10", "-d", cluster.conninfo])
    store = S3(place)
    archiver = Archiver(place, arguments, cluster, store, "synchronous", settings="[wal]\nsynchronous = true")
    for clients in CLIENTS:
        figures.add(**{"put + ms": "", "clients": clients}, **pgbench(place, cluster, clients, arguments.seconds), **{"puts/s": ""})
    for later in LATER:
        store.late(later / 1000)
        # What pgbench wrote before goes first; and the line is another one.
        archiver.environment |= store.environment
        archiver.start()
        archiver.wait_confirmed(cluster.lsn())
        wait_for(cluster, "walseal_bench")
        for clients in CLIENTS:
            before = store.line.requests
            measured = pgbench(place, cluster, clients, arguments.seconds)
            puts = (store.line.requests - before) / arguments.seconds
            figures.add(**{"put + ms": later, "clients": clients}, **measured, **{"puts/s": puts})
        # Nobody waits while there is no archiver.
        wait_for(cluster, "")
        archiver.stop()
    store.late(None)
    figures.note("the rows without a line are the same server, whose commits wait for its disk only")


def wait_for(cluster, names):
    """Whom commits wait for, from now on."""
    cluster.sql(f"alter system set synchronous_standby_names = '{names}'")
    cluster.sql("select pg_reload_conf()")


def pgbench(place, cluster, clients, seconds):
    """Transactions per second and their mean latency. Without updates of few rows, which would hold each other up for as long as a commit
    waits."""
    command = [f"{cluster.pg_bin}/pgbench", "-n", "-N", "-c", str(clients), "-j", "2", "-T", str(int(seconds)), "-d", cluster.conninfo]
    said = place.call(command)
    tps, latency = re.search(r"tps = ([0-9.]+)", said), re.search(r"latency average = ([0-9.]+) ms", said)
    if not tps or not latency:
        raise Failed(f"pgbench did not say how fast it was:\n{said}")
    return {"tps": float(tps[1]), "mean ms": float(latency[1])}
