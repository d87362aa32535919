"""Full base backups of clusters of growing size: seconds, CPU and memory, and whether they are in proportion."""
import os

from parts import chart
from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.scratch import say
from parts.store import stores

# Of the slowest MB/s to the fastest.
LINEAR = 0.8
LIMIT = 192.0


def run(place, arguments, figures):
    kind = arguments.data.split(",", maxsplit=1)[0]
    cluster = Cluster(place, arguments.pg_bin, "growth")
    cluster.start()
    taken = {}
    for size in sorted(map(float, arguments.sizes.split(","))):
        cluster.fill(kind, size * 1e9)
        for store in stores(place, arguments.stores):
            name = f"growth-{store.name}-{size:g}"
            row = measure(place, arguments, cluster, store, name)
            taken.setdefault(store.name, []).append(row)
            figures.add(store=store.name, **row)
            store.empty(name)
    for store, rows in taken.items():
        rates = [row["MB/s"] for row in rows]
        verdict = "linear" if min(rates) >= LINEAR * max(rates) else "NOT linear"
        figures.note(f"{store}: {min(rates):.0f} to {max(rates):.0f} MB/s over {rows[0]['GB']:.1f} to {rows[-1]['GB']:.1f} GB: {verdict} "
                     f"(the slowest is {min(rates) / max(rates):.2f} of the fastest; it must be {LINEAR} or more).")
    worst = max(row["peak MiB"] for rows in taken.values() for row in rows)
    figures.note(f"The highest peak is {worst:.0f} MiB: {'within' if worst < LIMIT else 'NOT within'} the limit of {LIMIT:.0f} MiB.")
    os.makedirs(figures.output, exist_ok=True)
    path = os.path.join(figures.output, "growth.svg")
    lines = {store: [(row["GB"], row["median s"]) for row in rows] for store, rows in taken.items()}
    chart.write(path, "Full base backup", "size of the cluster, GB", "seconds", lines)
    say(f"drawn in {path}")


def measure(place, arguments, cluster, store, name):
    archiver = Archiver(place, arguments, cluster, store, name)
    archiver.start()
    archiver.wait_confirmed(cluster.lsn())
    archiver.forget_peak()
    runs = [archiver.backed_up("--full") for _ in range(arguments.runs)]
    peak = archiver.memory("VmHWM")
    archiver.stop()
    cluster.sql("select pg_drop_replication_slot('walseal_bench')")
    size, seconds = runs[-1]["base"]["cluster_size"], median([run["s"] for run in runs])
    return {"GB": size / 1e9, "median s": seconds, "MB/s": size / 1e6 / seconds, "CPU s": median([run["cpu"] for run in runs]),
            "CPU s/GB": median([run["cpu"] for run in runs]) / (size / 1e9), "peak MiB": peak}
