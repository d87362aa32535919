"""How long a commit takes into the bucket while pgbench runs, and what an idle cluster puts there."""
import os
import subprocess
import threading
import time

from parts.archiver import Archiver
from parts.cluster import Cluster, lsn_number
from parts.scratch import Failed, end_process
from parts.store import stores

LIMITS = {"p50": 0.7, "p99": 1.3}


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "delay")
    cluster.start()
    place.call([f"{cluster.pg_bin}/pgbench", "-i", "-q", "-s", "10", "-d", cluster.conninfo], env={"PATH": "/bin"})
    cluster.sql("create table beat (number bigint)")
    held = True
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"delay-{store.name}")
        archiver.start()
        archiver.wait_confirmed(cluster.lsn())
        archiver.forget_peak()
        bench = place.start([f"{cluster.pg_bin}/pgbench", "-n", "-c", "4", "-R", "400", "-T", "600", "-d", cluster.conninfo],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        place.at_end(lambda bench=bench: end_process(bench))
        try:
            delays = sorted(measure(cluster, arguments.seconds))
        finally:
            end_process(bench)
        p50, p99 = (delays[int(len(delays) * part)] for part in (0.5, 0.99))
        held = held and p50 < LIMITS["p50"] and p99 < LIMITS["p99"]
        peak = archiver.memory("VmHWM")
        archiver.wait_confirmed(cluster.lsn())
        figures.add(store=store.name, commits=len(delays), **{"p50 s": p50, "p99 s": p99, "longest s": delays[-1], "peak MiB": peak,
                    "objects in an idle minute": idle(place, store, archiver, cluster, 60)})
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    verdict = "within" if held else "NOT within"
    figures.note(f"p50 and p99 are {verdict} their limits of {LIMITS['p50']} s and {LIMITS['p99']} s.")


def measure(cluster, seconds):
    """Seconds from each commit's return until the server was told that it is durable."""
    waiting, delays, over = [], [], threading.Event()
    lock = threading.Lock()

    def follow():
        session = cluster.session()
        while not (over.is_set() and not waiting):
            confirmed = lsn_number(ask(session, "select coalesce(max(flush_lsn), '0/0') from pg_stat_replication "
                                                "where application_name = 'walseal_bench';"))
            now = time.monotonic()
            with lock:
                while waiting and waiting[0][1] <= confirmed:
                    delays.append(now - waiting.pop(0)[0])
            time.sleep(0.005)
        session.stdin.close()
        session.wait()

    follower = threading.Thread(target=follow)
    follower.start()
    session, end = cluster.session(), time.monotonic() + seconds
    while time.monotonic() < end:
        # Autocommit: what is asked next sees the commit's end.
        lsn = lsn_number(ask(session, "insert into beat values (1); select pg_current_wal_insert_lsn();"))
        with lock:
            waiting.append((time.monotonic(), lsn))
        time.sleep(0.02)
    session.stdin.close()
    session.wait()
    over.set()
    follower.join(60)
    if follower.is_alive():
        raise Failed("the last commits did not become durable within a minute")
    return delays


def ask(session, line):
    session.stdin.write(line + "\n")
    session.stdin.flush()
    answer = session.stdout.readline().strip()
    if not answer:
        raise Failed(f"psql ended: {session.stderr.read()}")
    return answer


def idle(place, store, archiver, cluster, seconds):
    """Objects that appear while nothing is written; told for a directory, where they can be counted past walseal."""
    if store.name != "directory":
        return ""
    # What the server writes by itself after a load (a checkpoint, a snapshot of running transactions) comes first.
    cluster.sql("checkpoint")
    end, before = time.monotonic() + 120, None
    while before != (before := cluster.lsn()):
        if time.monotonic() > end:
            raise Failed("the server does not become idle")
        time.sleep(20)
    archiver.wait_confirmed(before)
    count = objects(place)
    time.sleep(seconds)
    return objects(place) - count


def objects(place):
    return sum(len(files) for _, _, files in os.walk(os.path.join(place.path, "repository-delay-directory")))
