"""What is lost when the primary is destroyed: commits that a client saw, beyond the end of the repository."""
import random
import time

from parts.archiver import Archiver
from parts.cluster import Cluster, lsn_number
from parts.figures import median
from parts.scratch import end_process
from parts.store import stores

INTERVAL = 1.0


def run(place, arguments, figures):
    rng, worst = random.Random(7), 0.0
    for store in stores(place, arguments.stores):
        lost = []
        for number in range(arguments.runs):
            lost.append(once(place, arguments, store, number, 3 + rng.random()))
            figures.add(store=store.name, run=str(number + 1), **lost[-1])
        figures.add(store=store.name, run="median",
                    **{key: median([one[key] for one in lost]) for key in lost[0]})
        worst = max(worst, *(one["lost s"] for one in lost))
    verdict = "within" if worst <= 2 * INTERVAL else "NOT within"
    figures.note(f"At most {worst:.2f} s of commits were lost: {verdict} two ship intervals of {INTERVAL:.0f} s.")


def once(place, arguments, store, number, seconds):
    name = f"loss-{store.name}-{number}"
    cluster = Cluster(place, arguments.pg_bin, name)
    cluster.sql_file_setting("max_wal_size", "1GB")
    cluster.start()
    archiver = Archiver(place, arguments, cluster, store, f"{name}-archive",
                        settings=f'[wal]\nship_interval = "{INTERVAL}s"'.replace(".0s", "s"))
    archiver.start()
    cluster.sql("create table commits (n bigint, at timestamptz)")
    client = cluster.session()
    place.at_end(lambda: end_process(client))
    commits, begun = [], time.monotonic()
    while time.monotonic() - begun < seconds:
        # What the server has flushed after a commit covers that commit: the loss is never told too small.
        client.stdin.write("insert into commits values (1, now());\nselect pg_current_wal_flush_lsn();\n")
        client.stdin.flush()
        commits.append((time.monotonic(), lsn_number(client.stdout.readline().strip())))
    cluster.stop("immediate")
    destroyed = time.monotonic()
    place.call(["rm", "-rf", cluster.path])
    end_process(client)
    # The archiver is alive: what it still ships counts. It is quiet once its end stays where it is.
    time.sleep(2 * INTERVAL)
    end = max(lsn_number(branch["end"]) for branch in archiver.status()["branches"])
    archiver.kill()
    lost = [at for at, lsn in commits if lsn > end]
    return {"commits": len(commits), "lost commits": len(lost), "lost s": destroyed - lost[0] if lost else 0.0}
