"""A drill, stage by stage: restore, recovery, checks, and with a base backup made of it."""
import json
import os

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.scratch import Failed
from parts.store import stores
from parts.timing import quiet_disk

# What `--drill` names, and what it sets under [drill].
KINDS = {"plain": "", "make_base": "make_base = true", "deep": 'amcheck = "heapallindexed"'}


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "drill")
    cluster.start()
    cluster.fill(arguments.data.split(",", maxsplit=1)[0], arguments.size * 1e9)
    size = cluster.size()
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"drill-{store.name}")
        archiver.start()
        _, err = (backup := archiver.backup("--full")).communicate()
        if backup.returncode != 0:
            raise Failed(f"the backup failed:\n{err}\n{archiver.words()}")
        for kind in arguments.drill.split(","):
            if kind not in KINDS:
                raise Failed(f"--drill knows {', '.join(KINDS)}, not {kind}")
            measure(place, arguments, figures, (archiver, store, kind, size))
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")


def measure(place, arguments, figures, what):
    archiver, store, kind, size = what
    config = archiver.drill_config(arguments.pg_bin, KINDS[kind])
    reports = [drill(place, archiver, config, arguments) for _ in range(arguments.runs)]
    first = reports[0]
    of = lambda read: median([read(report) for report in reports])
    names = [stage["name"] for stage in first["stages"]]
    stages = {name: of(lambda report, name=name: seconds_of(report["stages"], name)) for name in names}
    checks = {check["name"]: of(lambda report, name=check["name"]: seconds_of(report["checks"], name)) for check in first["checks"]}
    shown = ("amcheck", "rows", "pages")
    figures.add(what=kind, store=store.name, **{"GB": size / 1e9, "total s": of(lambda report: report["seconds"]),
                "first query s": of(lambda report: report["first_query_seconds"])},
                **{f"{name} s": seconds for name, seconds in stages.items() if name != "checks"},
                **{f"{name} s": checks[name] for name in shown if name in checks})


def seconds_of(parts, name):
    return sum(part["seconds"] for part in parts if part["name"] == name)


def drill(place, archiver, config, arguments):
    """Its report."""
    # WAL behind the newest backup, for recovery to replay, with a checkpoint, so that a backup that is made of it is a newer one.
    cluster, kind = archiver.cluster, arguments.data.split(",", maxsplit=1)[0]
    file, _ = cluster.chunk(kind), cluster.sql("checkpoint")
    cluster.sql(f"copy {kind}0 from '{file}'")
    cluster.sql("checkpoint")
    archiver.wait_confirmed(cluster.lsn())
    quiet_disk()
    command = [archiver.programs["walseal-restorer"], "--config", config, "drill", "--json"]
    report = json.loads(place.call(command, env=archiver.environment))
    if report["verdict"] != "passed":
        raise Failed(f"the drill failed: {json.dumps(report['checks'], indent=1)}")
    left = [name for name in os.listdir(f"{archiver.folder}/scratch") if name.startswith("drill-")]
    if left:
        raise Failed(f"the drill left {', '.join(left)} behind")
    return report
