"""The calls that PostgreSQL's recovery makes: restore_command for one segment after another. Run as the server's user:
getter.py DATA COMMAND SEGMENT …, with %p and %f in COMMAND. Prints JSON: seconds of each call, and the largest child."""
import json
import os
import resource
import subprocess
import sys
import time


def main():
    data, command, *segments = sys.argv[1:]
    os.chdir(data)
    place, took = "pg_wal/RECOVERYXLOG", []
    begun = time.monotonic()
    for name in segments:
        before = time.monotonic()
        line = command.replace("%p", place).replace("%f", name).replace("%%", "%")
        done = subprocess.run(["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{line} ended with {done.returncode}:\n{done.stdout}")
        # PostgreSQL gives it its name, and removes it at the next restartpoint.
        os.remove(place)
        took.append(time.monotonic() - before)
    whole = time.monotonic() - begun
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": whole, "calls": took, "largest child MiB": largest}))


if __name__ == "__main__":
    main()
