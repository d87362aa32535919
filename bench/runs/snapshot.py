"""A dump of a database: sealed into a repository, beside pg_dump alone and pg_dump into zstd, both to nothing."""
import json

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.store import stores
from parts.timing import timed

LIMIT = 96.0


def run(place, arguments, figures):
    size = arguments.size * 1e9
    for kind in arguments.data.split(","):
        cluster = Cluster(place, arguments.pg_bin, f"cluster-{kind}")
        cluster.start()
        cluster.fill(kind, size)
        beside = {}
        dump = f"{arguments.pg_bin}/pg_dump -Fc --compress=0 '{cluster.conninfo}'"
        for what, command in {"pg_dump": dump, "pg_dump | zstd -1": f"{dump} | zstd -q -1"}.items():
            timings = [timed(place, ["/bin/bash", "-o", "pipefail", "-c", f"{command} > /dev/null"], {}) for _ in range(arguments.runs)]
            beside[what] = row(figures, kind, "", what, timings)
        for store in stores(place, arguments.stores):
            name = f"snapshot-{kind}-{store.name}"
            archiver = Archiver(place, arguments, cluster, store, name)
            command = [archiver.programs["walseal-archiver"], "--config", archiver.config, "snapshot", "--json"]
            timings = [timed(place, command, archiver.environment) for _ in range(arguments.runs)]
            took = row(figures, kind, store.name, "walseal-archiver snapshot", timings)
            ratio = took / beside["pg_dump | zstd -1"]
            figures.note(f"{kind}, {store.name}: {ratio:.2f} of the time of pg_dump | zstd -1 to nothing.")
            listing = [archiver.programs["walseal-restorer"], "--config", archiver.restorer_config, "snapshot", "list", "--json"]
            newest = json.loads(place.call(listing, env=archiver.environment))["snapshots"][-1]
            figures.note(f"{kind}, {store.name}: {newest['dump_size'] / newest['stored_size']:.2f} to 1.")
            cluster.sql("select pg_drop_replication_slot('walseal_bench')")
            store.empty(name)
        cluster.destroy()
    worst = max(one["peak MiB"] for one in figures.rows if one["what"].startswith("walseal"))
    verdict = "within" if worst < LIMIT else "NOT within"
    figures.note(f"The highest peak of walseal is {worst:.0f} MiB: {verdict} the limit of {LIMIT:.0f} MiB.")


def row(figures, kind, store, what, timings):
    """Adds a row of medians; gives the seconds."""
    took = median([one["s"] for one in timings])
    figures.add(**{
        "data": kind, "store": store, "what": what, "s": took,
        "CPU s": median([one["cpu"] for one in timings]), "peak MiB": max(one["peak"] for one in timings),
    })
    return took
