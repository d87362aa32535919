"""A throw-away cluster with tables of a given size."""
import os
import subprocess
import time

from . import data
from .scratch import Failed, end_process, say

TABLES = 4


class Cluster:
    """Made once per run of the bench; the segment size can be changed in between."""

    def __init__(self, place, pg_bin, name="cluster"):
        self.place, self.pg_bin = place, pg_bin
        if not os.path.exists(f"{pg_bin}/initdb"):
            raise Failed(f"there is no PostgreSQL in {pg_bin}; run: apt-get install -y postgresql-15")
        self.sockets = place.folder(f"{name}-sockets")
        self.path = os.path.join(place.folder(f"{name}-home"), "data")
        self.port, self.chunks = 5432, {}
        place.call([f"{pg_bin}/initdb", "-D", self.path, "-U", "postgres", "-A", "trust", "--no-sync", "-k"])
        with open(f"{self.path}/postgresql.conf", "a", encoding="utf-8") as conf:
            # The server's disk is not what is measured, and a fast server is the harder test.
            conf.write(f"""
listen_addresses = ''
unix_socket_directories = '{self.sockets}'
fsync = off
wal_level = replica
max_wal_size = 20GB
checkpoint_timeout = 1h
shared_buffers = 256MB
max_wal_senders = 10
log_destination = stderr
logging_collector = off
autovacuum = off
""")
        place.at_end(self.destroy)

    @property
    def conninfo(self):
        return f"host={self.sockets} port={self.port} user=postgres dbname=postgres"

    def ctl(self, *arguments, timeout=600):
        log = os.path.join(os.path.dirname(self.path), "log")
        return self.place.call(
            [f"{self.pg_bin}/pg_ctl", "-D", self.path, "-l", log, "-t", str(timeout), "-w", *arguments]
        )

    def start(self):
        # Files that pg_ctl's child inherits would keep our pipes open.
        log = os.path.join(os.path.dirname(self.path), "log")
        command = [f"{self.pg_bin}/pg_ctl", "-D", self.path, "-l", log, "-t", "600", "-w", "start"]
        started = self.place.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if started.wait() != 0:
            with open(log, encoding="utf-8", errors="replace") as file:
                raise Failed(f"the cluster did not start:\n{file.read()[-2000:]}")

    def stop(self, mode="fast"):
        """Seconds that it took."""
        before = time.monotonic()
        self.ctl("-m", mode, "stop")
        return time.monotonic() - before

    def running(self):
        return os.path.exists(f"{self.path}/postmaster.pid")

    def destroy(self):
        if self.running():
            self.stop("immediate")

    def segments(self, mebibytes):
        """Changes the segment size; the cluster must be stopped."""
        self.place.call([f"{self.pg_bin}/pg_resetwal", f"--wal-segsize={mebibytes}", "-D", self.path])
        # min_wal_size must be two segments at least.
        self.sql_file_setting("min_wal_size", f"{max(80, 4 * mebibytes)}MB")

    def sql_file_setting(self, name, value):
        with open(f"{self.path}/postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"{name} = '{value}'\n")

    def sql(self, text):
        """Runs SQL; the answer's rows, tab-separated."""
        command = [f"{self.pg_bin}/psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo, "-c", text]
        return self.place.call(command).strip()

    def number(self, text):
        return int(self.sql(text))

    def synced(self, whether):
        """Whether the server waits for its disk from now on."""
        self.sql(f"alter system set fsync = {'on' if whether else 'off'}")
        self.sql("select pg_reload_conf()")

    def native(self):
        """Whether the server can send changed blocks only."""
        return self.number("select current_setting('server_version_num')") >= 170000

    def summarize(self):
        """From here on it notes which blocks change."""
        self.sql("alter system set summarize_wal = on")
        self.sql("select pg_reload_conf()")

    def session(self):
        """A psql that is fed line by line."""
        command = [f"{self.pg_bin}/psql", "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo]
        return self.place.start(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )

    def chunk(self, kind):
        """A file for COPY, made once."""
        if kind not in self.chunks:
            self.chunks[kind] = os.path.join(self.place.path, f"chunk-{kind}")
            data.write(kind, self.chunks[kind])
        return self.chunks[kind]

    def fill(self, kind, size):
        """Tables of `kind` until the cluster has `size` bytes."""
        say(f"filling a cluster with {size / 1e9:.2f} GB of {kind}")
        file, number = self.chunk(kind), 0
        while self.size() < size:
            table = f"{kind}{number % TABLES}"
            self.table(table, kind)
            self.sql(f"copy {table} from '{file}'")
            number += 1
        self.sql("checkpoint")

    def table(self, name, kind):
        self.sql(f"create table if not exists {name} {data.columns(kind)}")
        if kind == "noise":
            self.sql(f"alter table {name} alter content set storage external")

    def size(self):
        return self.number("select sum(pg_database_size(oid)) from pg_database")

    def ended_cpu(self):
        """CPU seconds of all server processes that have ended; those of a base backup are among them once it is done."""
        while self.number("select count(*) from pg_stat_activity where backend_type = 'walsender' and state <> 'active'") > 0:
            time.sleep(0.01)
        with open(f"{self.path}/postmaster.pid", encoding="ascii") as file:
            pid = int(file.readline())
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def lsn(self):
        return self.number("select pg_current_wal_flush_lsn() - '0/0'")

    def tablespace(self):
        """The second tablespace of a burst. A cluster that is replayed must have it in its base backup: what creates it would be
        replayed into this folder otherwise."""
        if self.sql("select count(*) from pg_tablespace where spcname = 'aside'") == "0":
            self.sql(f"create tablespace aside location '{self.place.folder(os.path.basename(self.sockets) + '-aside')}'")

    def burst(self, kind, size):
        """Writes `size` bytes of WAL, as fast as the server can: a table is moved to and fro between two tablespaces,
        which logs each of its pages. Rows that are inserted would cost the server more CPU than the archiver.
        A process to wait for."""
        if self.sql("select to_regclass('burst') is null") == "t":
            self.tablespace()
            self.table("burst", kind)
            for _ in range(4):
                self.sql(f"copy burst from '{self.chunk(kind)}'")
        loop = f"""do $$
declare begun pg_lsn := pg_current_wal_insert_lsn();
begin
    while pg_current_wal_insert_lsn() - begun < {int(size)} loop
        alter table burst set tablespace aside;
        alter table burst set tablespace pg_default;
        commit;
    end loop;
end $$"""
        command = [f"{self.pg_bin}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo, "-c", loop]
        return self.place.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, process, what):
        _, err = process.communicate()
        if process.returncode != 0:
            raise Failed(f"{what} failed:\n{err}")


def lsn_number(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


__all__ = ["Cluster", "end_process", "lsn_number"]
