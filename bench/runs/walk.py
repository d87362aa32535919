"""What it takes of a core to tell what transactions did while WAL is streamed: the walk alone, over WAL that a server wrote."""
import json
import os
import shutil
import subprocess

from parts.cluster import Cluster
from parts.figures import median
from parts.scratch import Failed, say

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RATE = 50e6


def run(place, arguments, figures):
    program = built(arguments)
    for what, write in (("pgbench", pgbench), ("COPY and UPDATE", bulk)):
        folder = wal(place, arguments, what, write)
        found = [measured(program, folder) for _ in range(arguments.runs)]
        last = found[-1]
        share = {key: median([one[key] / (one["bytes"] / RATE) * 100 for one in found]) for key in ("without", "with")}
        figures.add(what=what, **{"WAL MB": last["bytes"] / 1e6, "records": last["records"], "commits": last["commits"],
                    "% of a core, commit times": share["without"], "% of a core, changes too": share["with"],
                    "% of a core, for find": share["with"] - share["without"]})
        shutil.rmtree(folder)
    figures.note("CPU of the walk alone, of one thread without any I/O, at 50 MB/s of WAL; for find: what changes cost beyond commit times.")


def built(arguments):
    """The example of walseal-common, in the folder of the binaries where it is there."""
    program = os.path.join(arguments.bin or os.path.join(ROOT, "target", "release"), "examples", "walk")
    if arguments.bin is None:
        say("building the example walk")
        if subprocess.run(["cargo", "build", "--quiet", "--release", "-p", "walseal-common", "--example", "walk"], cwd=ROOT, check=False).returncode:
            raise Failed("the example walk could not be built")
        folder = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
        program = os.path.join(folder, "release", "examples", "walk")
    if not os.path.exists(program):
        raise Failed(f"there is no {program}; run: cargo build --release -p walseal-common --example walk")
    return program


def measured(program, folder):
    done = subprocess.run([program, folder], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{program} ended with {done.returncode}")
    return json.loads(done.stdout)


def wal(place, arguments, what, write):
    """A folder with the whole segments of some WAL, at least --size GB of it up to 1."""
    cluster = Cluster(place, arguments.pg_bin, f"walk-{what.split()[0]}")
    cluster.sql_file_setting("wal_keep_size", "10GB")
    cluster.start()
    size = int(min(arguments.size, 1.0) * 1e9)
    begun = cluster.lsn()
    say(f"writing {size / 1e9:.2f} GB of WAL, {what}")
    while cluster.lsn() - begun < size:
        write(place, cluster)
    cluster.sql("select pg_switch_wal()")
    last = cluster.sql("select pg_walfile_name(pg_current_wal_flush_lsn() - 1)")
    cluster.stop("immediate")
    folder = place.folder(f"wal-{what.split()[0]}")
    source = f"{cluster.path}/pg_wal"
    # The one that the switch ended is filled with nothing.
    for name in sorted(os.listdir(source)):
        if len(name) == 24 and name < last:
            shutil.copy(os.path.join(source, name), folder)
    return folder


def pgbench(place, cluster):
    command = [f"{cluster.pg_bin}/pgbench"]
    if cluster.sql("select to_regclass('pgbench_accounts') is null") == "t":
        place.call([*command, "-i", "-q", "-s", "20", cluster.conninfo])
    place.call([*command, "-n", "-c", "4", "-j", "2", "-T", "10", cluster.conninfo])


def bulk(_place, cluster):
    cluster.table("walked", "rows")
    cluster.sql(f"copy walked from '{cluster.chunk('rows')}'")
    column = cluster.sql("select attname from pg_attribute where attrelid = 'walked'::regclass and attnum = 1")
    cluster.sql(f"update walked set {column} = {column}")
    cluster.sql("truncate walked")
