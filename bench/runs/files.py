"""Memory where a cluster has very many small files: a full base backup, an incremental one, and the restore of that."""
import os

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.store import stores
from parts.timing import timed

LIMIT = 512.0
PER_FOLDER = 4_000
# ext4 gives a file at most 65,000 names.
PER_SOURCE = 60_000


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "files")
    cluster.start()
    if cluster.native():
        cluster.summarize()
    spread(cluster, arguments.files)
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"files-{store.name}")
        archiver.start()
        for kind in ("full", "incremental"):
            archiver.wait_confirmed(cluster.lsn())
            archiver.forget_peak()
            took = archiver.backed_up(f"--{kind}")
            base = took["base"]
            figures.add(what=f"backup, {kind}", store=store.name, files=arguments.files, **{"s": took["s"], "CPU s": took["cpu"],
                        "MB": base["cluster_size"] / 1e6, "stored MB": base["stored_size"] / 1e6,
                        "peak MiB": archiver.memory("VmHWM"), "then MiB": archiver.memory("VmRSS")})
        archiver.stop()
        place.folder("target")
        took = timed(place, archiver.restore(place.folder("target/data")), archiver.environment)
        figures.add(what="restore", store=store.name, files=arguments.files, **{"s": took["s"], "CPU s": took["cpu"],
                    "MB": base["cluster_size"] / 1e6, "peak MiB": took["peak"]})
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    worst = max(row["peak MiB"] for row in figures.rows)
    figures.note(f"The highest peak is {worst:.0f} MiB: {'within' if worst < LIMIT else 'NOT within'} the limit of {LIMIT:.0f} MiB.")


def spread(cluster, count):
    """Gives the data directory so many more files of a few hundred bytes. Most are further names of the same ones, which costs no room on
    the disk; the server sends each as a file of its own."""
    top = os.path.join(cluster.path, "many")
    owner = os.stat(cluster.path)
    os.mkdir(top, 0o700)
    os.chown(top, owner.st_uid, owner.st_gid)
    with open(cluster.chunk("rows"), "rb") as file:
        text = file.read(1 << 20)
    source, folder = None, None
    for number in range(count):
        if number % PER_FOLDER == 0:
            folder = os.path.join(top, f"{number // PER_FOLDER:05}")
            os.mkdir(folder, 0o700)
            os.chown(folder, owner.st_uid, owner.st_gid)
        path = os.path.join(folder, f"file_{number:09}")
        if number % PER_SOURCE == 0:
            source = path
            begin = number // PER_SOURCE * 700 % len(text)
            with open(path, "wb") as file:
                file.write(text[begin:begin + 600])
            os.chmod(path, 0o600)
            os.chown(path, owner.st_uid, owner.st_gid)
        else:
            os.link(source, path)
