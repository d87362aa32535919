"""What a base backup costs a server that is busy with pgbench, with base.backoff and without, and what the backup takes then."""
import re
import statistics
import subprocess
import threading
import time

from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.scratch import Failed
from parts.store import stores

CLIENTS = 16
# pgbench begins after the backup has looked how the server usually answers.
LATER = 3.0


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "strain")
    cluster.start()
    cluster.fill(arguments.data.split(",", maxsplit=1)[0], arguments.size * 1e9)
    place.call([f"{cluster.pg_bin}/pgbench", "-i", "-q", "-s", str(max(1, int(10 * arguments.size))), cluster.conninfo])
    # Each commit waits for the disk.
    cluster.synced(True)
    load = Load(place, cluster, arguments.seconds)
    figures.add(what="pgbench alone", store="", **load.measured())
    for store in stores(place, arguments.stores):
        for backoff in ("false", "true"):
            name = f"strain-{store.name}-{backoff}"
            archiver = Archiver(place, arguments, cluster, store, name, base=f"backoff = {backoff}")
            archiver.start()
            archiver.wait_confirmed(cluster.lsn())
            for what, later in (("pgbench before the backup", 0.0), ("pgbench after it has begun", LATER)):
                figures.add(what=what, store=store.name, **{"base.backoff": backoff}, **beside(archiver, load, later))
            for line in archiver.words_of("base.backoff", "at full speed again", "paused again and again"):
                figures.note(f"base.backoff = {backoff}: {line}")
            archiver.stop()
            cluster.sql("select pg_drop_replication_slot('walseal_bench')")


def beside(archiver, load, later):
    """A backup and pgbench, one of them begins first; as long as both go on."""
    taken = {}

    def back_up():
        try:
            taken.update(archiver.backed_up("--full"))
        except BaseException as error:  # noqa: BLE001: it is raised again below, where it is seen.
            taken["error"] = error

    thread = threading.Thread(target=back_up, daemon=True)
    if later:
        thread.start()
        time.sleep(later)
        measured = load.measured(until=thread)
    else:
        measured = load.measured(first=thread.start, until=thread)
    thread.join()
    if "error" in taken:
        raise taken["error"]
    return measured | {"backup s": taken["s"]}


class Load:
    def __init__(self, place, cluster, seconds):
        self.place, self.cluster, self.seconds = place, cluster, seconds

    def measured(self, first=None, until=None):
        """Runs pgbench for the given time, or for as long as `until` lives: transactions per second, and latencies of the seconds."""
        command = [f"{self.cluster.pg_bin}/pgbench", "-n", "-c", str(CLIENTS), "-j", "2", "-P", "1", "-T",
                   str(int(self.seconds) if until is None else 36_000), self.cluster.conninfo]
        process = self.place.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reader.start()
        if first is not None:
            time.sleep(2)
            lines.clear()
            first()
        if until is not None:
            until.join()
            process.terminate()
        if process.wait() != 0 and until is None:
            raise Failed("pgbench failed:\n" + "".join(lines))
        reader.join()
        seconds = [re.search(r"([0-9.]+) tps, lat ([0-9.]+) ms", line) for line in lines]
        seconds = [(float(found[1]), float(found[2])) for found in seconds if found]
        if not seconds:
            raise Failed("pgbench said nothing of its progress: the backup was too short; give it more --size\n" + "".join(lines))
        return {"tps": statistics.mean(tps for tps, _ in seconds), "mean ms": statistics.mean(latency for _, latency in seconds),
                "worst second ms": max(latency for _, latency in seconds)}
