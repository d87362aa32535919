"""A verification without keys of many objects: seconds, objects and bytes a second, memory."""
import datetime
import os

from parts.figures import median
from parts.scratch import Failed, say
from parts.simulated import CLUSTER, ROOT, writer_in
from runs.plan import called

MIB = 1 << 20
FULL = 16 << 20
BACKUPS = 10


class Simulated:
    """`objects` small objects that are all what an archiver would have signed: nine in ten of base backups, the others WAL; or full ones."""

    def __init__(self, folder, objects, content):
        self.writer = writer_in(folder)
        self.writer.segment_size = MIB
        self.objects, self.content = objects, content

    def name(self, segment):
        return f"{1:08X}{segment // 4096:08X}{segment % 4096:08X}"

    def write(self):
        writer = self.writer
        body = {"format": 1, "cluster": CLUSTER, "postgres_major": 15, "segment_size": MIB, "predecessor": None,
                "capabilities": {"conditional_put": True, "delete": True}}
        writer.put("identity", "identity", [writer.compare], body=body)
        segments = max(self.objects // 10, BACKUPS)
        for segment in range(1, segments + 1):
            writer.put_whole(writer.branch, segment * MIB, bytes(MIB))
        each = (self.objects - segments) // BACKUPS
        for number in range(BACKUPS):
            self.put_base(1 + number * (segments // BACKUPS), number, each)

    def put_base(self, segment, number, count):
        from rescuer.names import lsn_text
        begun = datetime.datetime(2026, 11, 1 + number, tzinfo=datetime.timezone.utc)
        base_id = f"{begun:%Y%m%dT%H%M%SZ}-{number:08x}"
        frames = [self.content[at : at + MIB] for at in range(0, len(self.content), MIB)]
        objects = [self.writer.put("data", f"base/{base_id}/data/{n:08}", frames) for n in range(count)]
        manifest = [self.writer.put("manifest", f"base/{base_id}/manifest/00000000", [b""])]
        time_text = f"{begun:%Y-%m-%dT%H:%M:%SZ}"
        body = {
            "id": base_id, "type": "full", "parent": None, "branch": self.writer.branch, "start": lsn_text(segment * MIB + 40),
            "stop": lsn_text(segment * MIB + 400), "start_time": time_text, "stop_time": time_text, "highest_time": None,
            "postgres_version": 150018, "segment_size": MIB, "cluster_size": count * len(self.content),
            "stored_size": sum(one["size"] for one in objects), "tablespaces": 0, "suspect": 0, "manifest": manifest, "objects": objects,
        }
        self.writer.put("label", f"base/{base_id}/label", body=body)


def run(place, arguments, figures):
    archiver = os.path.join(arguments.bin or os.path.join(ROOT, "target", "release"), "walseal-archiver")
    if not os.path.exists(archiver):
        raise Failed(f"there is no {archiver}; run: cargo build --release")
    full = max(int(arguments.size * 1e9) // FULL, BACKUPS)
    for what, objects, content in (("small", arguments.scrub_objects, os.urandom(8000)), ("full", full * 10 // 9, os.urandom(FULL))):
        folder = os.path.join(place.path, what)
        say(f"writing {objects} {what} objects")
        simulated = Simulated(folder, objects, content)
        simulated.write()
        config = place.file(f"{what}.toml", f"""
[cluster]
name = "{what}"
state_dir = "{place.path}/state-{what}"
[repository]
url = "file://{folder}"
[keys]
trusted_writers = ["{simulated.writer.writer_text}"]
""")
        os.makedirs(os.path.join(place.path, f"state-{what}"))
        size = sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names)
        for flags in ([], ["--quick"]):
            measure(figures, [archiver, "--config", config, "verify", "--json", *flags], f"{what} {' '.join(flags)}".strip(), objects, size, arguments.runs)
    figures.note(f"In a directory, read from the page cache. Small: {arguments.scrub_objects} objects of about 9 kB; full: of 16 MiB that do not shrink.")


def measure(figures, command, what, objects, size, runs):
    seconds, peak = called(command, runs)
    took = median(seconds)
    figures.add(what=what, **{"median s": took, "objects/s": objects / took, "MB/s": size / took / 1e6, "peak MiB": peak})
