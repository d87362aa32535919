"""A repository of years, as names and headers: what a plan reads of it is real, signed and sealed, all else is empty files."""
import datetime
import os
import struct
import sys

from .scratch import Failed

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SEGMENT = 16 << 20
PAGE_SEGMENTS = 256
CLUSTER = "7437123456789012345"
BEGIN = datetime.datetime(2025, 10, 1, tzinfo=datetime.timezone.utc)
POSTGRES_EPOCH = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)


def writer_in(folder):
    """The writer of scripts/rescue_test.py, which was written from docs/FORMAT.md alone."""
    sys.path.insert(0, os.path.join(ROOT, "scripts"))
    try:
        from rescue_test_writer import RepositoryWriter
    except ImportError as error:
        raise Failed(f"{error}; run it with a Python that has scripts/rescue-requirements.txt (scripts/test makes one: "
                     "target/test-python/bin/python)") from None
    return RepositoryWriter(folder, CLUSTER, SEGMENT)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Years:
    """`segments` segments from number 256 on, a base backup every so many, one commit at the start of each segment."""

    def __init__(self, folder, segments, backups, objects):
        self.writer = writer_in(folder)
        self.first, self.segments, self.backups, self.objects = PAGE_SEGMENTS, segments, backups, objects
        self.every = segments // backups
        self.day = datetime.timedelta(days=1) / self.every
        self.real = {self.base(number) for number in range(backups)} | {self.middle, self.last - 1, self.last}

    @property
    def last(self):
        return self.first + self.segments - 1

    @property
    def middle(self):
        """The segment that a time target leads to: between two base backups."""
        return self.base(self.backups // 2) + self.every // 2

    def base(self, number):
        return self.first + number * self.every

    def time(self, segment, part=0.0):
        return BEGIN + (segment - self.first + part) * self.day

    def target(self):
        """A moment between the two commits of the segment in the middle."""
        return text(self.time(self.middle, 0.25))

    def name(self, segment):
        per_log = (1 << 32) // SEGMENT
        return f"{1:08X}{segment // per_log:08X}{segment % per_log:08X}"

    def write(self):
        writer = self.writer
        body = {"format": 1, "cluster": CLUSTER, "postgres_major": 15, "segment_size": SEGMENT, "predecessor": None,
                "capabilities": {"conditional_put": True, "delete": True}}
        writer.put("identity", "identity", [writer.compare], body=body)
        folder = writer.path(f"wal/{writer.branch}")
        folder.mkdir(parents=True)
        for segment in range(self.first, self.last + 1):
            if segment not in self.real:
                os.close(os.open(folder / self.name(segment), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        for segment in self.real:
            times = {"count": 2, "lowest": text(self.time(segment)), "highest": text(self.time(segment, 0.5))}
            writer.put_whole(writer.branch, segment * SEGMENT, self.wal(segment)[0], wal={"transactions": times})
        for page in range(self.first, self.last + 1 - PAGE_SEGMENTS + 1, PAGE_SEGMENTS):
            self.put_page(page)
        for number in range(self.backups):
            self.put_base(self.base(number))

    def put_page(self, first):
        writer, last = self.writer, first + PAGE_SEGMENTS - 1

        def entry(segment):
            highest = text(self.time(segment, 0.5 if segment in self.real else 0.0))
            count = 2 if segment in self.real else 1
            return {"count": count, "lowest": text(self.time(segment)), "highest": highest, "running": highest,
                    "digest": f"{segment:064x}", "size": 4_000_000}

        name = f"catalog/{writer.branch}/{self.name(first)}-{self.name(last)}"
        from rescuer.keys import key_id
        from rescuer.names import lsn_text
        body = {"branch": writer.branch, "segment_size": SEGMENT, "first": self.name(first), "begin": lsn_text(self.first * SEGMENT),
                "compare_key": key_id("compare key", writer.compare), "segments": [entry(n) for n in range(first, last + 1)]}
        writer.put("catalog", name, body=body)

    def put_base(self, segment):
        from rescuer.names import lsn_text
        begun = self.time(segment, 0.1)
        base_id = f"{begun:%Y%m%dT%H%M%SZ}-{segment:08x}"
        start, stop = self.wal(segment)[1]
        own = f"base/{base_id}/data/"
        body = {
            "id": base_id, "type": "full", "parent": None, "branch": self.writer.branch, "start": lsn_text(start), "stop": lsn_text(stop),
            "start_time": text(begun), "stop_time": text(self.time(segment, 0.4)), "highest_time": text(self.time(segment)),
            "postgres_version": 150018, "segment_size": SEGMENT, "cluster_size": self.objects * SEGMENT, "stored_size": self.objects * 6_000_000,
            "tablespaces": 0, "suspect": 0, "manifest": [{"name": f"base/{base_id}/manifest/00000000", "size": 1000, "digest": "0" * 64}],
            "objects": [{"name": f"{own}{n:08}", "size": 6_000_000, "digest": f"{segment:032x}{n:032x}"} for n in range(self.objects)],
        }
        self.writer.put("label", f"base/{base_id}/label", body=body)
        # By these names backups are found; enough of them that one page of a listing does not hold several backups.
        folder = self.writer.path(f"base/{base_id}/data")
        folder.mkdir()
        for number in range(self.objects):
            file = os.open(folder / f"{number:08}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.truncate(file, 6_000_000)
            os.close(file)

    def wal(self, segment):
        """A segment with two commits and a switch (xlogrecord.h, xact.h); and where the first ends and the second begins."""
        start = segment * SEGMENT
        page = struct.pack("<HHIQIIQII", 0xD110, 2, 1, start, 0, 0, int(CLUSTER), SEGMENT, 8192)
        previous, ends = 0, []

        def record(rmgr, info, xid, data):
            nonlocal page, previous
            payload = struct.pack("<BB", 255, len(data)) + data if data else b""
            head = struct.pack("<IIQBBH", 24 + len(payload), xid, previous, info, rmgr, 0)
            previous = start + len(page)
            page += head + struct.pack("<I", crc32c(payload + head)) + payload
            page += bytes(-len(page) % 8)
            ends.append(start + len(page))

        for part, xid in ((0.0, 2 * segment % (1 << 31) + 1000), (0.5, 2 * segment % (1 << 31) + 1001)):
            since = self.time(segment, part) - POSTGRES_EPOCH
            record(1, 0, xid, struct.pack("<q", since // datetime.timedelta(microseconds=1)))
        record(0, 0x40, 0, b"")
        return page + bytes(SEGMENT - len(page)), (start + 40, ends[0])


def text(moment):
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
