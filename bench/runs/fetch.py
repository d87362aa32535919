"""Segments through restore_command, in a plain loop and during real replay, beside other tools."""
import json
import os
import shutil
import subprocess
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.peers import Copy, PgBackRest
from parts.scratch import Failed, end_process, say
from parts.store import stores
from runs.push import Backlog

GETTER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "parts", "getter.py")


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "fetch")
    # No command yet: segments become ready and stay.
    for name, value in (("archive_mode", "on"), ("archive_command", ""), ("wal_keep_size", "40GB"), ("max_wal_size", "60GB")):
        cluster.sql_file_setting(name, value)
    cluster.start()
    cluster.tablespace()
    backlog = Backlog(place, cluster, arguments)
    bench = Bench(place, arguments, figures)
    copied = False
    for number, store in enumerate(stores(place, arguments.stores)):
        archiver = Archiver(place, arguments, cluster, store, f"fetch-{store.name}")
        archiver.start()
        backup = archiver.backup("--full")
        _, err = backup.communicate()
        if backup.returncode != 0:
            raise Failed(f"the backup failed:\n{err}\n{archiver.words()}")
        # All of it is replayed; the segments of the loop are the last ones of it.
        segments = backlog.make(arguments.backlog)
        archiver.wait_confirmed(cluster.lsn())
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
        bench.begin(archiver, segments)
        chosen = arguments.peers.split(",")
        if "cp" in chosen and not copied:
            copied = True
            tool = Copy(place, f"fetch-{number}")
            push(backlog, tool, cluster)
            folder = tool.command.rsplit(" ", 1)[1].removesuffix("/%f")
            bench.measure("cp from a folder", "folder", lambda _data, folder=folder: f"cp {folder}/%f %p", tool.environment)
        if "pgbackrest" in chosen:
            # It speaks TLS only.
            at = store.over_tls() if store.is_s3 else store
            tool = PgBackRest(place, cluster, at, 3, f"fetch-{number}")
            push(backlog, tool, cluster)
            bench.measure("pgBackRest, asynchronous", store.name,
                          lambda data, tool=tool: f"{tool.tool} --pg1-path={data} archive-get %f %p", tool.environment)
        # Its own command, with the plan beside the data directory.
        bench.measure("walseal", store.name, None, archiver.environment)
        without = {**archiver.environment, "WALSEAL_FETCH_PREFETCH": "0"}
        bench.measure("walseal, fetch.prefetch = 0", store.name, None, without)


def push(backlog, tool, cluster):
    """Archives everything that the server has ready, so that replay finds it, too."""
    say(f"archiving with {tool.name}")
    backlog.push(tool.command, tool.environment, all_segments(cluster))
    tool.end()


def all_segments(cluster):
    status = f"{cluster.path}/pg_wal/archive_status"
    names = (name.rsplit(".", 1)[0] for name in os.listdir(status))
    return sorted(name for name in names if len(name) == 24)


class Bench:
    def __init__(self, place, arguments, figures):
        self.place, self.runs, self.figures, self.pg_bin = place, arguments.runs, figures, arguments.pg_bin
        with open(GETTER, encoding="utf-8") as file:
            self.getter = place.file("getter.py", file.read())
        self.archiver, self.segments = None, []

    def begin(self, archiver, segments):
        self.archiver, self.segments = archiver, segments

    def measure(self, what, store, command, environment):
        """`command` gives restore_command for a data directory; without one it is that which the restore wrote."""
        environment = {"PATH": "/usr/bin:/bin"} | environment
        loops = [self.loop(command, environment) for _ in range(self.runs)]
        replays = [self.replay(command, environment) for _ in range(self.runs)]
        seconds = median([one["seconds"] for one in loops])
        self.figures.add(**{
            "what": what, "store": store, "loop segments/s": len(self.segments) / seconds,
            "median call ms": median([call for one in loops for call in one["calls"]]) * 1000,
            "peak MiB": max(one["largest child MiB"] for one in loops),
            "replay segments/s": median([one["segments"] / one["seconds"] for one in replays]),
            "replay s": median([one["seconds"] for one in replays]),
        })

    def restored(self):
        """A data directory that is ready to be started, and the command that its restore wrote."""
        shutil.rmtree(os.path.join(self.place.path, "target"), ignore_errors=True)
        self.place.folder("target")
        data = os.path.join(self.place.path, "target", "data")
        aside = self.place.folder("target/tablespaces")
        self.place.call([*self.archiver.restore(data), "--tablespace-dir", aside], env=self.archiver.environment)
        with open(f"{data}/postgresql.auto.conf", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith("restore_command"))
        own = line.split("=", 1)[1].strip().strip("'").replace("''", "'")
        return data, own

    def loop(self, command, environment):
        data, own = self.restored()
        line = command(data) if command else own
        process = self.place.start(["/usr/bin/python3", "-I", self.getter, data, line, *self.segments], env=environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate()
        if process.returncode != 0:
            raise Failed(f"getting failed:\n{err}")
        return json.loads(out)

    def replay(self, command, environment):
        """Recovery from the first segment to the last: by the server's own clock, from the first file that it got to "redo done"."""
        data, own = self.restored()
        sockets, log = self.place.folder("target/sockets"), os.path.join(self.place.path, "target", "log")
        settings = {
            "restore_command": command(data) if command else own, "archive_mode": "off", "unix_socket_directories": sockets,
            "log_line_prefix": "%n ", "recovery_target_timeline": "current", "recovery_target_action": "promote",
        }
        call = [f"{self.pg_bin}/postgres", "-D", data]
        for name, value in settings.items():
            call += ["-c", f"{name}={value}"]
        with open(log, "w", encoding="utf-8") as file:
            server = self.place.start(call, env=environment, stdout=file, stderr=file)
        try:
            return self.follow(server, log)
        finally:
            # An immediate shutdown: nobody needs it any more.
            if server.poll() is None:
                server.send_signal(3)
                try:
                    server.wait(60)
                except subprocess.TimeoutExpired:
                    end_process(server)

    @staticmethod
    def follow(server, log):
        end = time.monotonic() + 1800
        while True:
            with open(log, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
            got = [line for line in lines if 'LOG:  restored log file "' in line]
            done = [line for line in lines if "LOG:  redo done at" in line]
            if done and got:
                seconds = float(done[0].split(" ", 1)[0]) - float(got[0].split(" ", 1)[0])
                return {"segments": len(got), "seconds": seconds}
            if server.poll() is not None or time.monotonic() > end:
                raise Failed("recovery did not come to its end:\n" + "\n".join(lines[-15:]))
            time.sleep(0.05)
