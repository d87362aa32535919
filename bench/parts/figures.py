"""What was measured: a table for people, JSON beside it, with the command and the machine."""
import json
import os
import platform
import statistics
import subprocess
import sys
import time

from .scratch import say

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def machine():
    """What the figures were measured on."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / 1048576
    commit = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "kernel": platform.release(),
        "load": os.getloadavg()[0], "commit": commit.stdout.strip(),
    }


class Figures:
    """Rows of one bench. Columns are named by the first row that has them."""

    def __init__(self, name, arguments):
        self.name, self.rows, self.notes = name, [], []
        self.output = arguments.output or os.path.join(HERE, "results")
        self.command = "bench/run " + " ".join(sys.argv[1:])
        self.machine, self.begun = machine(), time.strftime("%Y-%m-%dT%H:%M:%S%z")

    def __enter__(self):
        return self

    def add(self, **row):
        self.rows.append(row)
        say("  ".join(f"{key} {shown(value)}" for key, value in row.items()))

    def note(self, text):
        """A sentence below the table."""
        self.notes.append(text)

    def __exit__(self, kind, *_):
        if not self.rows:
            return
        # What was measured before a failure is worth keeping, too.
        if kind is not None:
            self.note("The bench did not end; the rows are those before it failed.")
        self.machine["load_after"] = os.getloadavg()[0]
        print(self.table(), flush=True)
        os.makedirs(self.output, exist_ok=True)
        path = os.path.join(self.output, f"{self.name}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"bench": self.name, "schema": 1, "command": self.command, "begun": self.begun,
                       "machine": self.machine, "rows": self.rows, "notes": self.notes}, file, indent=1)
        say(f"written to {path}")

    def table(self):
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        cells = [columns] + [[shown(row.get(column, "")) for column in columns] for row in self.rows]
        widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
        lines = ["  ".join(cell.ljust(width) if row is cells[0] or n == 0 else cell.rjust(width)
                           for n, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in cells]
        m = self.machine
        about = (f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB, Linux {m['kernel']}, commit {m['commit']}, "
                 f"load {m['load']:.1f} before and {m['load_after']:.1f} after")
        return "\n".join(["", f"{self.name}: {self.command}", about, "", *lines, *self.notes, ""])


def shown(value):
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def median(values):
    return statistics.median(values)
