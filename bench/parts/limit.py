"""A bound on memory that the kernel enforces: a cgroup, of version 2 or 1, and no swap."""
import os

from .scratch import Failed, say

ROOT = "/sys/fs/cgroup"


class MemoryLimit:
    """A cgroup of its own that may have so many MiB; it goes when the bench ends."""

    def __init__(self, place, mebibytes):
        unified = os.path.exists(f"{ROOT}/cgroup.controllers")
        parent = ROOT if unified else f"{ROOT}/memory{own_path()}"
        self.path = f"{parent}/walseal-bench-{os.getpid()}"
        limit, swap = ("memory.max", "memory.swap.max") if unified else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        self.events = "memory.events" if unified else "memory.oom_control"
        try:
            os.mkdir(self.path)
            place.at_end(self.remove)
            self.write(limit, mebibytes << 20)
        except OSError as error:
            raise Failed(f"no cgroup with a memory limit can be made here: {error}") from None
        # Not there where the kernel does not account for swap; then there must be none.
        if os.path.exists(f"{self.path}/{swap}"):
            self.write(swap, 0 if unified else mebibytes << 20)
        else:
            say("swap is not accounted for here: without swap off, memory may go there")

    def write(self, name, value):
        with open(f"{self.path}/{name}", "w", encoding="ascii") as file:
            file.write(str(value))

    def hold(self, pid):
        """Puts a process in; what it had before counts for others."""
        self.write("cgroup.procs", pid)

    def kills(self):
        """How many processes the kernel has killed for it."""
        with open(f"{self.path}/{self.events}", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)

    def remove(self):
        if os.path.isdir(self.path):
            os.rmdir(self.path)


def own_path():
    with open("/proc/self/cgroup", encoding="ascii") as file:
        for line in file:
            _, controllers, path = line.strip().split(":", 2)
            if "memory" in controllers.split(","):
                return path.rstrip("/")
    raise Failed("no cgroup accounts for memory here")
