"""A plan, a list and a status over a repository of years: seconds, memory, and what is asked of the store."""
import os
import subprocess
import time

from parts.figures import median
from parts.scratch import Failed, say
from parts.simulated import Years

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run(place, arguments, figures):
    restorer = os.path.join(arguments.bin or os.path.join(ROOT, "target", "release"), "walseal-restorer")
    if not os.path.exists(restorer):
        raise Failed(f"there is no {restorer}; run: cargo build --release")
    folder = os.path.join(place.path, "years")
    say(f"writing {arguments.wal_segments} segments and {arguments.backups} base backups")
    years = Years(folder, arguments.wal_segments, arguments.backups, arguments.objects)
    years.write()
    identity = os.path.join(place.path, "identity.key")
    with open(os.open(identity, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write(years.writer.identity_text)
    config = place.file("years.toml", f"""
[repository]
url = "file://{folder}"
[keys]
identity_files = ["{identity}"]
trusted_writers = ["{years.writer.writer_text}"]
""")
    for target in (years.target(), "latest", "immediate"):
        measure(figures, [restorer, "--config", config, "plan", "--json", "--to", target], f"plan --to {target}", arguments.runs)
    measure(figures, [restorer, "--config", config, "list", "--json"], "list", arguments.runs)
    figures.note(f"{arguments.wal_segments} segments of 16 MiB, {arguments.backups} base backups of {arguments.objects} objects each, in a directory.")


def measure(figures, command, what, runs):
    seconds, peak = called(command, runs)
    figures.add(what=what, **{"median s": median(seconds), "best s": min(seconds), "peak MiB": peak})


def called(command, runs):
    """Seconds of each run, and the highest peak in MiB. Each is a process of its own, as a person starts it."""
    seconds, peak = [], 0.0
    for _ in range(runs):
        begun = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None:
            peak = max(peak, high_water(process.pid))
            time.sleep(0.002)
        seconds.append(time.monotonic() - begun)
        if process.returncode != 0:
            raise Failed(f"{' '.join(command)} failed:\n{process.stderr.read()}")
    return seconds, peak


def high_water(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return next((int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")), 0.0)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
