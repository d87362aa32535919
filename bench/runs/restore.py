"""A base backup, rebuilt: beside other tools, and beside writing as many bytes with one dd per core."""
import os
import shutil
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.peers import Peers
from parts.store import stores
from parts.timing import timed


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "restore")
    # pgBackRest wants it on; what is archived goes nowhere.
    for name, value in (("archive_mode", "on"), ("archive_command", "true")):
        cluster.sql_file_setting(name, value)
    cluster.start()
    cluster.fill(arguments.data.split(",", maxsplit=1)[0], arguments.size * 1e9)
    bench = Bench(place, arguments, cluster, figures)
    bench.dd()
    peers = Peers(place, cluster, arguments.peers)
    for store in stores(place, arguments.stores):
        for make in peers.ways(store):
            tool = make()
            timed(place, tool.backup, tool.environment)
            bench.measure(tool.name, store, tool.restore, tool.environment)
        archiver = Archiver(place, arguments, cluster, store, f"restore-{store.name}")
        archiver.start()
        archiver.backed_up("--full")
        archiver.stop()
        bench.measure("walseal", store, archiver.restore, archiver.environment)
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")


class Bench:
    def __init__(self, place, arguments, cluster, figures):
        self.place, self.runs, self.figures, self.size = place, arguments.runs, figures, cluster.size()

    def dd(self):
        cores = os.cpu_count()
        took = []
        for _ in range(self.runs):
            folder = self.place.folder("dd")
            megabytes = int(self.size / cores / (1 << 20))
            writers = " & ".join(f"dd if=/dev/zero of={folder}/{core} bs=1M count={megabytes} conv=fsync" for core in range(cores))
            took.append(timed(self.place, ["/bin/sh", "-c", f"{writers} & wait"], {}))
            shutil.rmtree(folder)
            settle()
        self.add(f"dd, {cores} at once", "nothing", took)

    def measure(self, what, store, restore, environment):
        took = []
        for _ in range(self.runs):
            # walseal keeps its plan beside the data directory.
            parent, folder = self.place.folder("target"), self.place.folder("target/data")
            took.append(timed(self.place, restore(folder), environment))
            shutil.rmtree(parent)
            settle()
        self.add(what, store.name, took)

    def add(self, what, store, took):
        seconds = median([one["s"] for one in took])
        self.figures.add(what=what, store=store, **{"median s": seconds, "MB/s": self.size / 1e6 / seconds,
                         "CPU s": median([one["cpu"] for one in took])})


def settle():
    """ext4 walks past the inodes that were deleted in the last five seconds for each new file (`recently_deleted` in its ialloc.c)."""
    os.sync()
    time.sleep(6)
