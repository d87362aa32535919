"""A backlog of segments through archive_command, beside other tools; and segments that streaming has shipped already."""
import json
import os
import subprocess

from parts import peers
from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.scratch import Failed, say
from parts.store import stores

SEGMENT = 16 << 20
HOOK = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "parts", "hook.py")


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "push")
    # No command yet: segments become ready and stay.
    for name, value in (("archive_mode", "on"), ("archive_command", ""), ("wal_keep_size", "40GB"), ("max_wal_size", "60GB")):
        cluster.sql_file_setting(name, value)
    cluster.start()
    backlog = Backlog(place, cluster, arguments)
    segments = backlog.make(arguments.backlog)
    chosen = arguments.peers.split(",")
    number = 0
    for store in stores(place, arguments.stores):
        for peer in chosen:
            for make in ways(peer, place, cluster):
                took, largest = [], 0.0
                # pgBackRest speaks TLS only.
                at = store.over_tls() if peer == "pgbackrest" and store.is_s3 else store
                for _ in range(arguments.runs):
                    number += 1
                    tool = make(at, number)
                    if tool is None:
                        break
                    found = backlog.push(tool.command, tool.environment, segments)
                    tool.end()
                    took.append(found["seconds"])
                    largest = max(largest, found["largest child MiB"])
                if took:
                    add(figures, tool.name, at, segments, took, largest)
        for at in [store, store.over_tls()] if store.is_s3 and "pgbackrest" in chosen else [store]:
            ours(place, arguments, cluster, at, backlog, segments, figures)


def ours(place, arguments, cluster, store, backlog, segments, figures):
    word = store.name.replace(" ", "-")
    took, largest = [], 0.0
    for attempt in range(arguments.runs):
        archiver = Archiver(place, arguments, cluster, store, f"push-{word}-{attempt}")
        found = backlog.push(archiver.hook(), archiver.environment, segments)
        took.append(found["seconds"])
        largest = max(largest, found["largest child MiB"])
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    add(figures, "walseal, no daemon", store, segments, took, largest)
    took, peak = [], 0.0
    for attempt in range(arguments.runs):
        archiver = Archiver(place, arguments, cluster, store, f"push-{word}-daemon-{attempt}")
        archiver.start()
        archiver.wait_confirmed(cluster.lsn())
        archiver.forget_peak()
        took.append(backlog.push(archiver.hook(), archiver.environment, segments)["seconds"])
        peak = max(peak, archiver.memory("VmHWM"))
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    add(figures, "walseal, daemon", store, segments, took, peak)
    archiver = Archiver(place, arguments, cluster, store, f"push-{word}-streamed")
    archiver.start()
    streamed = backlog.make(arguments.backlog)
    archiver.wait_confirmed(cluster.lsn())
    archiver.forget_peak()
    runs = [backlog.push(archiver.hook(), archiver.environment, streamed) for _ in range(arguments.runs)]
    add(figures, "walseal, streamed already", store, streamed, [one["seconds"] for one in runs], archiver.memory("VmHWM"),
        [call for one in runs for call in one["calls"]])
    archiver.stop()
    cluster.sql("select pg_drop_replication_slot('walseal_bench')")


def add(figures, what, store, segments, took, largest, calls=None):
    row = {"what": what, "store": store.name, "segments/s": len(segments) / median(took), "median s": median(took),
           "peak MiB": largest}
    if calls:
        row["median call ms"] = median(calls) * 1000
    figures.add(**row)


def ways(peer, place, cluster):
    """Each way in which a tool is measured, made for a store and a number."""
    if peer == "cp":
        return [lambda store, number: peers.Copy(place, number) if store.name == "directory" else None]
    if peer == "pgbackrest":
        return [lambda store, number, level=level: peers.PgBackRest(place, cluster, store, level, number) for level in (3, 1)]
    if peer == "walrus":
        program = peers.walrus()
        return [lambda store, number, daemon=daemon: peers.WalRus(place, cluster, store, program, daemon, number)
                for daemon in (False, True)]
    if peer == "none":
        return []
    raise Failed(f"there is no peer {peer}; there are cp, pgbackrest, walrus and none")


class Backlog:
    """Segments in pg_wal that are ready to be archived."""

    def __init__(self, place, cluster, arguments):
        self.place, self.cluster, self.kind = place, cluster, arguments.data.split(",", maxsplit=1)[0]
        self.pg_wal = f"{cluster.path}/pg_wal"
        with open(HOOK, encoding="utf-8") as file:
            self.loop = place.file("hook.py", file.read())

    def ready(self):
        names = (name for name in os.listdir(f"{self.pg_wal}/archive_status") if name.endswith(".ready"))
        return sorted(name.removesuffix(".ready") for name in names if len(name) == 30)

    def make(self, count):
        """Writes `count` segments of WAL and a few more; the names of the newest `count`, the last one left out."""
        say(f"writing {count} segments")
        known = set(self.ready())
        self.cluster.finish(self.cluster.burst(self.kind, (count + 2) * SEGMENT), "the burst")
        self.cluster.sql("select pg_switch_wal()")
        fresh = [name for name in self.ready() if name not in known]
        # The first ones hold what came before the burst.
        chosen = fresh[-count - 1:-1]
        if len(chosen) != count:
            raise Failed(f"{len(chosen)} segments became ready where {count} should")
        return chosen

    def push(self, command, environment, segments):
        """Pushes them as PostgreSQL does, one after another."""
        status = f"{self.pg_wal}/archive_status"
        wanted = set(segments)
        for name in os.listdir(status):
            # What is ready and not of this backlog must not be looked ahead at.
            base, _, state = name.rpartition(".")
            if base in wanted and state == "done":
                os.rename(f"{status}/{name}", f"{status}/{base}.ready")
            elif base not in wanted and state == "ready":
                os.rename(f"{status}/{name}", f"{status}/{base}.done")
        process = self.place.start(["/usr/bin/python3", "-I", self.loop, self.pg_wal, command, *segments], env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate()
        if process.returncode != 0:
            raise Failed(f"pushing failed:\n{err}")
        return json.loads(out)
