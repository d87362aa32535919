"""find over summaries of a busy day: seconds and memory, and no WAL opened."""
import datetime
import json
import os

from parts.scratch import Failed, say
from parts.simulated import PAGE_SEGMENTS, Years, text
from runs.plan import measure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RUN = 16
LISTED = 200
UNLISTED = 8000


class Day(Years):
    """A summary for each 16 segments, each with 200 transactions one by one and thousands in sums."""

    def write(self):
        super().write()
        for first in range(self.first, self.last + 1, RUN):
            name = f"summary/{self.writer.branch}/{self.name(first)}-{self.name(first + RUN - 1)}"
            self.writer.put("summary", name, [json.dumps(self.summary(first), separators=(",", ":")).encode()])

    def summary(self, first):
        from rescuer.names import lsn_text
        begin, end = self.time(first), self.time(first + RUN - 1, 0.5)
        step = (end - begin) / LISTED
        start = first * (16 << 20)

        def transaction(number):
            at = start + 4096 * (number + 1)
            tables = {f"1663/5/{16384 + (first + number + table) % 300}": {"updated": 40 + (first * number) % 400, "bytes": 9000} for table in range(4)}
            return {
                "end": {"outcome": "commit", "xid": 1000 + (first * LISTED + number) % (1 << 31), "time": text(begin + number * step), "subtransactions": 0},
                "first": lsn_text(at), "commit": lsn_text(at + 2048), "commit_end": lsn_text(at + 2088), "records": 200, "bytes": 40_000,
                "relations": tables, "left_out": 0,
            }

        sums = {f"1663/5/{16384 + table}": {"transactions": 100, "inserted": 50, "updated": 300, "bytes": 90_000} for table in range(300)}
        return {
            "commits": LISTED + UNLISTED, "times": {"lowest": text(begin), "highest": text(end)},
            "transactions": [transaction(number) for number in range(LISTED)],
            "unlisted": {"transactions": UNLISTED, "structural": 0, "largest": 39, "relations": sums},
            "after": {"open": [], "files": {"classes": {}}},
        }


def run(place, arguments, figures):
    restorer = os.path.join(arguments.bin or os.path.join(ROOT, "target", "release"), "walseal-restorer")
    if not os.path.exists(restorer):
        raise Failed(f"there is no {restorer}; run: cargo build --release")
    # Whole pages of the catalog, so that no header has to be read.
    segments = -(-arguments.summaries // PAGE_SEGMENTS) * PAGE_SEGMENTS
    folder = os.path.join(place.path, "day")
    say(f"writing {segments} segments and the summaries of all of them")
    day = Day(folder, segments, 2, 10)
    day.write()
    identity = os.path.join(place.path, "identity.key")
    with open(os.open(identity, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(day.writer.identity_text)
    config = place.file("day.toml", f"""
[repository]
url = "file://{folder}"
[keys]
identity_files = ["{identity}"]
trusted_writers = ["{day.writer.writer_text}"]
""")
    since = text(day.time(day.first) - datetime.timedelta(days=1))
    for what, more in (("the worst of all", []), ("deletes and drops", ["--kind", "drop,truncate,delete"]), ("updates of 1000 rows", ["--min-rows", "1000"])):
        measure(figures, [restorer, "--config", config, "find", "--json", "--since", since, *more], f"find, {what}", arguments.runs)
    figures.note(f"{segments} segments of 16 MiB, a summary of {LISTED} transactions and {UNLISTED} in sums for each {RUN}, in a directory.")
