"""Names of objects, branches and LSNs (FORMAT.md section 1)."""

import re
from dataclasses import dataclass

from blake3 import blake3

from .errors import Damaged

PART = 16 << 20
_BRANCH, _SEGMENT, _ID = (
    r"(?P<branch>[0-9A-F]{8}-[0-9a-f]{8})",
    r"(?P<segment>[0-9A-F]{24})",
    r"(?P<base>\d{8}T\d{6}Z-[0-9a-fA-F]{8})",
)
_PATTERNS = [
    (kind, re.compile(pattern, re.ASCII))
    for kind, pattern in (
        ("identity", "identity"),
        ("wal", f"wal/{_BRANCH}/{_SEGMENT}(/(?P<part>[0-9]{{2}}))?"),
        ("partial", f"wal/{_BRANCH}/{_SEGMENT}\\.partial"),
        ("tail", f"tail/{_BRANCH}/{_SEGMENT}/(?P<first>[0-9A-F]{{16}})-(?P<last>[0-9A-F]{{16}})"),
        ("history", f"history/{_BRANCH}"),
        ("label", f"base/{_ID}/label"),
        ("manifest", f"base/{_ID}/manifest/(?P<number>[0-9]{{8}})"),
        ("data", f"base/{_ID}/data/(?P<number>[0-9]{{8}})"),
        ("resume", f"base/{_ID}/resume/(?P<number>[0-9]{{8}})"),
        ("names", f"base/{_ID}/names/(?P<number>[0-9]{{8}})"),
        ("config", f"base/{_ID}/config/(?P<number>[0-9]{{8}})"),
        ("snapshot", f"snapshot/{_ID}/label"),
        ("dump", f"snapshot/{_ID}/data/(?P<number>[0-9]{{8}})"),
        ("lease", "lease/[0-9a-f]{16}/(?P<number>[0-9]{8})"),
        ("adopt", f"adopt/{_BRANCH}/(?P<number>[0-9]{{8}})"),
        ("catalog", f"catalog/{_BRANCH}/{_SEGMENT}-(?P<until>[0-9A-F]{{24}})"),
        ("frontier", "frontier/(?P<writer>walsealw1[02-9ac-hj-np-z]+)/(?P<count>[0-9]{10})"),
        ("ledger", "ledger/(?P<writer>walsealw1[a-z0-9]+)/[0-9a-f]{16}/(?P<number>[0-9]{8})"),
        ("summary", f"summary/{_BRANCH}/{_SEGMENT}-(?P<until>[0-9A-F]{{24}})"),
        ("evidence", "evidence/(?P<writer>walsealw1[a-z0-9]+)/[0-9a-f]{16}/(?P<number>[0-9]{8})"),
    )
]
KINDS = frozenset(kind for kind, _ in _PATTERNS)
WAL_KINDS = frozenset(("wal", "partial", "tail"))


@dataclass(frozen=True)
class Name:
    """An object name, taken apart. Members that a kind does not have are None."""

    text: str
    kind: str
    branch: str | None = None
    segment: str | None = None
    part: int | None = None
    first: int | None = None
    last: int | None = None
    base: str | None = None
    number: int | None = None
    until: str | None = None  # The last segment of a catalog page, or of a summary.
    writer: str | None = None
    count: int | None = None  # Counts down: the lowest is the newest.
    conflict: str | None = None  # The whole name, when `text` is the name that was taken.


def parse_name(text):
    """The name's parts, or None for a name that this version of the format does not know."""
    if text.startswith("conflict/"):
        inner = parse_name(text.removeprefix("conflict/").rpartition("/")[0])
        return Name(**{**inner.__dict__, "conflict": text}) if inner and not inner.conflict else None
    for kind, pattern in _PATTERNS:
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            for key, radix in (("part", 10), ("number", 10), ("count", 10), ("first", 16), ("last", 16)):
                if found.get(key) is not None:
                    found[key] = int(found[key], radix)
            return Name(text, kind, **found)
    return None


def lsn_text(lsn):
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text):
    if not isinstance(text, str) or not re.fullmatch(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}", text, re.ASCII | re.IGNORECASE):
        raise Damaged(f"{text!r} is not an LSN such as 0/3000060")
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def segment_start(segment, size):
    """The LSN of the first byte of a segment, from PostgreSQL's file name for it (XLogFromFileName)."""
    per_log = (1 << 32) // size
    low = int(segment[16:], 16)
    if low >= per_log:
        raise Damaged(f"{segment} is not the name of a segment of {size} bytes")
    return (int(segment[8:16], 16) * per_log + low) * size


def segment_name(timeline, lsn, size):
    """PostgreSQL's file name of the segment that holds the byte at `lsn` (XLogFileName)."""
    number, per_log = lsn // size, (1 << 32) // size
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def branch_timeline(branch):
    return int(branch[:8], 16)


@dataclass(frozen=True)
class Switch:
    """One entry of a history file: the timeline that was left, and where."""

    timeline: int
    lsn: int
    reason: bytes


def parse_history(content):
    """The entries of a history file (PostgreSQL's src/backend/access/transam/timeline.c, readTimeLineHistory)."""
    entries = []
    for line in content.split(b"\n"):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        match = re.fullmatch(rb"(\d+)\s+([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})(?:\s+(.*))?", line, re.DOTALL)
        if not match:
            raise Damaged("a line of the history file is not: timeline, switch LSN, reason")
        entry = Switch(int(match[1]), int(match[2], 16) << 32 | int(match[3], 16), match[4] or b"")
        if entries and (entry.timeline <= entries[-1].timeline or entry.lsn < entries[-1].lsn):
            raise Damaged("the entries of the history file are not in ascending order")
        entries.append(entry)
    return entries


def branch_name(cluster, timeline, entries, adopted=()):
    """`adopted`: `(from, number, writer)` of each adoption on the way to the branch."""
    content = cluster.encode()
    for entry in entries:
        content += f"\n{entry.timeline}\t{lsn_text(entry.lsn)}\t".encode() + entry.reason
    for start, number, writer in adopted:
        content += f"\nadopted\t{lsn_text(start)}\t{number}\t{writer}".encode()
    digest = blake3(content, derive_key_context="walseal 2026-11 branch").digest()
    return f"{timeline:08X}-{digest[:4].hex()}"
