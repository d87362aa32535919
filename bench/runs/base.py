"""Full base backups beside other tools, and incremental ones after a part of the cluster has changed."""
from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.peers import Peers
from parts.store import stores
from parts.timing import timed


def run(place, arguments, figures):
    kind = arguments.data.split(",", maxsplit=1)[0]
    cluster = Cluster(place, arguments.pg_bin, "base")
    # pgBackRest wants it on; what is archived goes nowhere.
    for name, value in (("archive_mode", "on"), ("archive_command", "true")):
        cluster.sql_file_setting(name, value)
    cluster.start()
    native = cluster.native()
    if native:
        cluster.summarize()
    cluster.fill(kind, arguments.size * 1e9)
    bench = Bench(place, arguments, cluster, figures)
    bench.server_alone()
    for store in stores(place, arguments.stores):
        bench.others(store)
        bench.ours(store, native)


class Bench:
    def __init__(self, place, arguments, cluster, figures):
        self.place, self.arguments, self.cluster, self.figures = place, arguments, cluster, figures
        self.size, self.row = cluster.size(), 1
        self.peers = Peers(place, cluster, arguments.peers)

    def server_alone(self):
        base = [f"{self.cluster.pg_bin}/pg_basebackup", "-d", self.cluster.conninfo, "-Ft", "-X", "none", "-c", "fast", "-D", "-",
                "--no-manifest"]
        for what, more in (("pg_basebackup", []), ("pg_basebackup zstd:1", ["--compress=client-zstd:1"])):
            self.add(what, "nothing", [timed(self.place, [*base, *more], {}) for _ in range(self.arguments.runs)])

    def others(self, store):
        for make in self.peers.ways(store):
            took = []
            for _ in range(self.arguments.runs):
                tool = make()
                took.append(timed(self.place, tool.backup, tool.environment))
            self.add(tool.name, store.name, took)

    def ours(self, store, native):
        archiver = Archiver(self.place, self.arguments, self.cluster, store, f"base-{store.name}")
        archiver.start()
        archiver.wait_confirmed(self.cluster.lsn())
        archiver.forget_peak()
        full = [archiver.backed_up("--full") for _ in range(self.arguments.runs)]
        self.add("walseal, full", store.name, full, archiver)
        whole = median([stored_size(took) for took in full])
        for change in ("clustered", "scattered"):
            took = []
            for _ in range(self.arguments.runs):
                self.change(change)
                archiver.wait_confirmed(self.cluster.lsn())
                archiver.forget_peak()
                took.append(archiver.backed_up("--incremental"))
            way = "native" if native else "compared"
            self.add(f"walseal, 1 % changed, {change}, {way}", store.name, took, archiver, whole)
        archiver.stop()
        self.cluster.sql("select pg_drop_replication_slot('walseal_bench')")

    def change(self, how):
        """Changes about one in a hundred of the blocks of each table."""
        for table in self.cluster.sql("select relname from pg_class where relkind = 'r' and relname ~ '^(rows|noise)'").split():
            pages = self.cluster.number(f"select pg_relation_size('{table}') / 8192")
            first, last, step = (pages // 3, pages // 3 + pages // 100, 1) if how == "clustered" else (7, pages - 1, 100)
            self.cluster.sql(f"delete from {table} where ctid = any (array(select format('(%s,%s)', block, {self.row})::tid "
                             f"from generate_series({first}, {last}, {step}) as block))")
        # Each time another row of those blocks.
        self.row += 1
        self.cluster.sql("checkpoint")

    def add(self, what, store, runs, archiver=None, whole=None):
        seconds = median([run["s"] for run in runs])
        row = {"what": what, "store": store, "median s": seconds, "MB/s": self.size / 1e6 / seconds,
               "CPU s": median([run["cpu"] for run in runs])}
        if archiver:
            stored = median([stored_size(run) for run in runs])
            row |= {"peak MiB": archiver.memory("VmHWM"), "stored MB": stored / 1e6}
            if whole:
                row["% of full"] = 100 * stored / whole
        self.figures.add(**row)


def stored_size(took):
    return took["base"]["stored_size"]
