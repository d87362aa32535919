"""walseal as a user runs it: configuration, keys, `init`, the daemon, `backup`, `status`."""
import json
import os
import shutil
import subprocess
import time

from .cluster import lsn_number
from .scratch import Failed, end_process
from .timing import quiet_disk

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Archiver:
    """One repository for one cluster, in a store."""

    def __init__(self, place, arguments, cluster, store, name, settings="", base=""):
        self.place, self.cluster, self.store = place, cluster, store
        self.folder = place.folder(name)
        built = arguments.bin or os.path.join(ROOT, "target", "release")
        self.programs = {}
        for program in ("walseal-archiver", "walseal-restorer"):
            source = os.path.join(built, program)
            if not os.path.exists(source):
                raise Failed(f"there is no {source}; run: cargo build --release")
            # Copied, so that the server's user can run it and a build meanwhile changes nothing.
            target = os.path.join(place.path, program)
            if not os.path.exists(target):
                shutil.copy2(source, target)
                os.chmod(target, 0o755)
            self.programs[program] = target
        self.environment = {"PATH": "/usr/bin:/bin", **store.environment}
        self.daemon_environment = dict(pair.split("=", 1) for pair in arguments.env)
        writer, identity = f"{self.folder}/writer.key", f"{self.folder}/identity.key"
        public = self.run("walseal-archiver", "keygen", "--output", writer, configured=False).split()[-1]
        recipient = self.run("walseal-restorer", "keygen", "--output", identity, configured=False).split()[-1]
        self.config = place.file(f"{name}/walseal.toml", f"""
[cluster]
name = "bench"
conninfo = "{cluster.conninfo}"
state_dir = "{self.folder}/state"
[repository]
url = "{store.url(name)}"
[base]
schedule = "off"
{base}
[keys]
recipients = ["{recipient}"]
writer_key_file = "{writer}"
{settings}
""")
        # What a restore host has.
        self.restorer_config = place.file(f"{name}/restorer.toml", f"""
[repository]
url = "{store.url(name)}"
[keys]
identity_files = ["{identity}"]
trusted_writers = ["{public}"]
""")
        self.public, self.identity = public, identity
        self.daemon, self.log = None, None
        place.at_end(self.kill)
        # The slot keeps WAL from the last checkpoint on: what an earlier bench wrote is not to be streamed first.
        cluster.sql("checkpoint")
        self.run("walseal-archiver", "init")

    def drill_config(self, pg_bin, settings=""):
        """What a drill host has: a key of its own, and room."""
        key = f"{self.folder}/drill.key"
        if not os.path.exists(key):
            self.drill_key = self.run("walseal-archiver", "keygen", "--output", key, configured=False).split()[-1]
            self.place.folder(f"{os.path.basename(self.folder)}/scratch")
        return self.place.file(f"{os.path.basename(self.folder)}/drill.toml", f"""
[repository]
url = "{self.store.url(os.path.basename(self.folder))}"
[keys]
identity_files = ["{self.identity}"]
writer_key_file = "{key}"
trusted_writers = ["{self.public}", {{ key = "{self.drill_key}", roles = ["drill", "base"] }}]
[drill]
scratch_dir = "{self.folder}/scratch"
pg_bin = "{pg_bin}"
{settings}
""")

    def run(self, program, *arguments, configured=True):
        command = [self.programs[program], *(["--config", self.config] if configured else []), *arguments]
        return self.place.call(command, env=self.environment)

    def start(self):
        """Starts the daemon, and waits until it streams."""
        self.log = open(f"{self.folder}/log", "a", encoding="utf-8")
        command = [self.programs["walseal-archiver"], "--config", self.config, "run"]
        self.daemon = self.place.start(command, stdout=self.log, stderr=self.log, env=self.environment | self.daemon_environment)
        self.wait(self.streams, 60, "the daemon does not stream")

    def streams(self):
        return self.cluster.sql("select count(*) from pg_stat_replication where state = 'streaming'") == "1"

    def wait(self, done, patience, otherwise):
        end = time.monotonic() + patience
        while not done():
            if self.daemon is not None and self.daemon.poll() is not None:
                raise Failed(f"the daemon ended:\n{self.words()}")
            if time.monotonic() > end:
                raise Failed(f"{otherwise} after {patience} s:\n{self.words()}")
            time.sleep(0.02)

    def words(self):
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as file:
            return file.read()[-3000:]

    def words_of(self, *texts):
        """Lines of its log that contain one of these."""
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as file:
            return [line.strip() for line in file if any(text in line for text in texts)]

    def confirmed(self):
        """What the server was told is durable."""
        text = self.cluster.sql(
            "select coalesce(confirmed, '0/0') from (select max(flush_lsn) as confirmed from pg_stat_replication "
            "where application_name = 'walseal_bench') as _"
        )
        return lsn_number(text)

    def wait_confirmed(self, lsn, patience=1800):
        self.wait(lambda: self.confirmed() >= lsn, patience, "the WAL is not durable")

    def backup(self, *options):
        """Starts a base backup through the daemon. A process to wait for."""
        command = [self.programs["walseal-archiver"], "--config", self.config, "backup", *options]
        return self.place.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment
        )

    def backed_up(self, *options):
        """Takes a base backup: seconds, CPU seconds of the daemon, and its line in `status`."""
        quiet_disk()
        cpu, begun = self.cpu(), time.monotonic()
        process = self.backup(*options)
        _, err = process.communicate()
        took = time.monotonic() - begun
        if process.returncode != 0:
            raise Failed(f"the backup failed:\n{err}\n{self.words()}")
        return {"s": took, "cpu": self.cpu() - cpu, "base": self.status()["bases"][-1]}

    def restore(self, folder):
        """The command that rebuilds the cluster there, at its latest state."""
        return [self.programs["walseal-restorer"], "--config", self.restorer_config, "restore", "--to", "latest", "--target-dir", folder]

    def hook(self):
        """The archive_command."""
        return f"{self.programs['walseal-archiver']} --config {self.config} push %p"

    def status(self):
        return json.loads(self.run("walseal-archiver", "status", "--json"))

    def memory(self, what):
        """`VmHWM` or `VmRSS` of the daemon, in MiB."""
        with open(f"/proc/{self.daemon.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(what):
                    return int(line.split()[1]) / 1024
        raise Failed(f"no {what} of the daemon")

    def forget_peak(self):
        """Begins VmHWM anew: proc(5), clear_refs."""
        with open(f"/proc/{self.daemon.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")

    def cpu(self):
        """Seconds of CPU time that the daemon has used."""
        with open(f"/proc/{self.daemon.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        """SIGTERM; seconds until the daemon has ended well."""
        before = time.monotonic()
        self.daemon.terminate()
        if self.daemon.wait(120) != 0:
            raise Failed(f"the daemon ended with {self.daemon.returncode}:\n{self.words()}")
        self.daemon = None
        return time.monotonic() - before

    def kill(self):
        if self.daemon is not None:
            end_process(self.daemon, patience=3)
            self.daemon = None
