"""Wall and CPU time of one program."""
import os
import subprocess
import time

from .scratch import Failed


def quiet_disk():
    """Nothing that ran before is still being written back."""
    os.sync()


def timed(place, command, environment):
    """Runs it as the server's user: `s`, and `cpu` of it and its children, in seconds."""
    quiet_disk()
    before, begun = os.times(), time.monotonic()
    process = place.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env={"PATH": "/usr/bin:/bin"} | environment)
    _, err = process.communicate()
    took, after = time.monotonic() - begun, os.times()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)} failed:\n{err}")
    return {"s": took, "cpu": after.children_user + after.children_system - before.children_user - before.children_system}
