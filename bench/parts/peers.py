"""Other tools, each set up as its documentation says, with encryption: archive_command and base backups."""
import os
import secrets
import shutil
import subprocess
import time

from .scratch import Failed, end_process
from .store import built


class Peer:
    """One repository of one tool. `command` has %p and %f, as archive_command does; `backup` takes a full base
    backup, `restore(folder)` is the command that rebuilds it there."""

    name, command, backup, environment = "", "", [], {}

    def end(self):
        """Ends what it started."""


class Copy(Peer):
    """No tool at all: the limit of the disk."""

    name = "cp"

    def __init__(self, place, number):
        folder = place.folder(f"cp-{number}")
        self.environment = {"PATH": "/usr/bin:/bin"}
        self.command = f"test ! -f {folder}/%f && cp %p {folder}/%f"


class PgBackRest(Peer):
    """Asynchronous, two processes, AES-256, Zstandard."""

    def __init__(self, place, cluster, store, level, number):
        if shutil.which("pgbackrest") is None:
            raise Failed("there is no pgbackrest; run: apt-get install -y pgbackrest")
        self.name = f"pgBackRest, zst {level}"
        folder = place.folder(f"pgbackrest-{number}")
        for part in ("spool", "lock", "log"):
            place.folder(f"pgbackrest-{number}/{part}")
        if store.is_s3:
            address = store.settings["S3_ENDPOINT"].split("://", 1)[1]
            host, port = address.rsplit(":", 1)
            repository = f"""repo1-type=s3
repo1-path=/pgbackrest-{number}
repo1-s3-bucket={store.settings["S3_BUCKET"]}
repo1-s3-endpoint={host}
repo1-storage-port={port}
repo1-storage-verify-tls=n
repo1-s3-uri-style=path
repo1-s3-region={store.settings["S3_REGION"]}
repo1-s3-key={store.settings["S3_ACCESS_KEY_ID"]}
repo1-s3-key-secret={store.settings["S3_SECRET_ACCESS_KEY"]}"""
        else:
            repository = f"repo1-path={place.folder(f'pgbackrest-{number}/repository')}"
        config = place.file(f"pgbackrest-{number}/config", f"""[global]
{repository}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass={secrets.token_hex(24)}
compress-type=zst
compress-level={level}
process-max=2
archive-async=y
spool-path={folder}/spool
lock-path={folder}/lock
log-path={folder}/log
log-level-console=warn
log-level-file=off
[bench]
pg1-path={cluster.path}
pg1-socket-path={cluster.sockets}
pg1-port={cluster.port}
pg1-user=postgres
pg1-database=postgres
""")
        self.environment = {"PATH": "/usr/bin:/bin"}
        self.tool = f"pgbackrest --config={config} --stanza=bench"
        place.call(["/bin/sh", "-c", f"{self.tool} stanza-create"], env=self.environment)
        self.command = f"{self.tool} archive-push %p"
        # WAL is no part of what is compared; the server has none archived.
        self.backup = [*self.tool.split(), "backup", "--type=full", "--no-archive-check", "--start-fast"]

    def restore(self, folder):
        return [*self.tool.split(), "restore", f"--pg1-path={folder}"]


class WalRus(Peer):
    """Zstandard, libsodium, two threads; by its daemon or without it."""

    def __init__(self, place, cluster, store, program, daemon, number):
        self.name = "WAL-RUS, daemon" if daemon else "WAL-RUS"
        folder = place.folder(f"walrus-{number}")
        key = place.file(f"walrus-{number}/key", secrets.token_hex(32))
        self.environment = {
            "PATH": "/usr/bin:/bin", "HOME": folder, "WALG_COMPRESSION_METHOD": "zstd", "WALG_LIBSODIUM_KEY_PATH": key,
            "WALG_LIBSODIUM_KEY_TRANSFORM": "hex", "WALG_THREADS": "2",
            "PGHOST": cluster.sockets, "PGPORT": str(cluster.port), "PGUSER": "postgres", "PGDATABASE": "postgres",
        }
        if store.is_s3:
            settings = store.settings
            self.environment |= {
                "WALG_S3_PREFIX": f"s3://{settings['S3_BUCKET']}/walrus-{number}", "AWS_ENDPOINT": settings["S3_ENDPOINT"],
                "AWS_ACCESS_KEY_ID": settings["S3_ACCESS_KEY_ID"], "AWS_SECRET_ACCESS_KEY": settings["S3_SECRET_ACCESS_KEY"],
                "AWS_REGION": settings["S3_REGION"], "AWS_S3_FORCE_PATH_STYLE": "true",
            }
        else:
            self.environment["WALG_FILE_PREFIX"] = place.folder(f"walrus-{number}/repository")
        # Copied, so that the server's user can run it.
        copy = os.path.join(place.path, "walrus")
        if not os.path.exists(copy):
            shutil.copy2(program, copy)
            os.chmod(copy, 0o755)
        self.process, self.command = None, f"{copy} wal-push %p"
        self.backup = [copy, "backup-push", "--full", "--fast", cluster.path]
        if daemon:
            socket = f"{folder}/socket"
            self.process = place.start([copy, "daemon", "--socket", socket], env=self.environment, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            place.at_end(self.end)
            end = time.monotonic() + 10
            while not os.path.exists(socket):
                if self.process.poll() is not None or time.monotonic() > end:
                    raise Failed("WAL-RUS' daemon did not start")
                time.sleep(0.02)
            self.command = f"{copy} daemon-client --socket {socket} wal-push %p"

    def restore(self, folder):
        return [self.backup[0], "backup-fetch", folder, "LATEST"]

    def end(self):
        if self.process is not None:
            end_process(self.process)
            self.process = None


class Peers:
    """Those that were chosen, each with a repository of its own for each run."""

    def __init__(self, place, cluster, chosen):
        self.place, self.cluster, self.chosen = place, cluster, [name for name in chosen.split(",") if name not in ("cp", "none")]
        self.number = 0
        for name in self.chosen:
            if name not in ("pgbackrest", "walrus"):
                raise Failed(f"there is no peer {name}; there are pgbackrest, walrus and none")

    def ways(self, store):
        """For each way in which a tool is measured, what makes one."""
        for name in self.chosen:
            if name == "walrus":
                program = walrus()
                yield lambda: WalRus(self.place, self.cluster, store, program, False, self.next())
                continue
            # It speaks TLS only.
            at = store.over_tls() if store.is_s3 else store
            for level in (3, 1):
                yield lambda level=level: PgBackRest(self.place, self.cluster, at, level, self.next())

    def next(self):
        self.number += 1
        return self.number


def walrus():
    """WAL-RUS' program."""
    return built("wal-rus", "0.4.1", "walrus", "--peers cp,pgbackrest")
