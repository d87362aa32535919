"""CPU seconds of a full base backup, beside the sum of its parts, each measured alone."""
from parts import kernels
from parts.archiver import Archiver
from parts.cluster import Cluster
from parts.figures import median
from parts.store import stores
from parts.timing import timed

LIMIT = 1.15


def run(place, arguments, figures):
    cluster = Cluster(place, arguments.pg_bin, "parts")
    cluster.start()
    cluster.fill(arguments.data.split(",", maxsplit=1)[0], arguments.size * 1e9)
    parts = alone(place, arguments, cluster)
    total = sum(parts.values())
    for what, seconds in parts.items():
        figures.add(what=what, **{"CPU s": seconds, "MB/s": cluster.size() / 1e6 / seconds, "of the sum": seconds / total})
    figures.add(what="sum of the parts", **{"CPU s": total, "MB/s": cluster.size() / 1e6 / total, "of the sum": 1.0})
    for store in stores(place, arguments.stores):
        archiver = Archiver(place, arguments, cluster, store, f"parts-{store.name}")
        archiver.start()
        archiver.wait_confirmed(cluster.lsn())
        spent = []
        for _ in range(arguments.runs):
            before = cluster.ended_cpu()
            taken = archiver.backed_up("--full")
            spent.append(taken["cpu"] + cluster.ended_cpu() - before)
        archiver.stop()
        cluster.sql("select pg_drop_replication_slot('walseal_bench')")
        seconds = median(spent)
        figures.add(what=f"walseal, full, {store.name}", **{"CPU s": seconds, "MB/s": cluster.size() / 1e6 / seconds,
                    "of the sum": seconds / total})
        if store.name == "directory":
            verdict = "within" if seconds <= LIMIT * total else "NOT within"
            figures.note(f"A full backup takes {seconds / total:.2f} of the sum of its parts: {verdict} the limit of {LIMIT}.")


def alone(place, arguments, cluster):
    """CPU seconds of each part, over the same bytes."""
    base = [f"{cluster.pg_bin}/pg_basebackup", "-d", cluster.conninfo, "-Ft", "-X", "none", "-c", "fast", "--manifest-checksums=CRC32C", "-D"]
    server, receive = [], []
    for _ in range(arguments.runs):
        before = cluster.ended_cpu()
        receive.append(timed(place, [*base, "-"], {})["cpu"])
        server.append(cluster.ended_cpu() - before)
    folder = place.folder("parts-tar")
    timed(place, [*base, folder], {})
    found = [kernels.measure(place, f"{folder}/base.tar") for _ in range(arguments.runs)]
    part = lambda name: median([one[name] for one in found])  # noqa: E731: one line, used below.
    return {
        "server: read and send": median(server), "receive (pg_basebackup)": median(receive),
        "CRC-32C and BLAKE3 of the plaintext": part("digests"), "zstd": part("zstd"), "XChaCha20-Poly1305": part("seal"),
        "CRC-32 and BLAKE3 of the ciphertext": part("checks"), "write": part("write"),
    }
