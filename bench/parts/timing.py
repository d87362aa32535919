"""Wall and CPU time of one program."""
import os
import subprocess
import time

from .scratch import Failed


def quiet_disk():
    """Nothing that ran before is still being written back."""
    os.sync()


def timed(place, command, environment):
    """Runs it as the server's user: `s`, and `cpu` of it and its children, in seconds; `peak` of the largest of them, in MiB."""
    quiet_disk()
    begun = time.monotonic()
    process = place.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env={"PATH": "/usr/bin:/bin"} | environment)
    err = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    took = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{err}")
    return {"s": took, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}
