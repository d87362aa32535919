"""The loop that PostgreSQL's archiver runs: one command for each segment that is ready. Run as the server's user:
hook.py PG_WAL COMMAND SEGMENT …, with %p and %f in COMMAND. Prints JSON: seconds of each call, and the largest child."""
import json
import os
import resource
import subprocess
import sys
import time


def main():
    pg_wal, command, *segments = sys.argv[1:]
    status = os.path.join(pg_wal, "archive_status")
    took = []
    begun = time.monotonic()
    for name in segments:
        ready, before = os.path.join(status, f"{name}.ready"), time.monotonic()
        if not os.path.exists(ready):
            # A tool that looks ahead may say so itself (pgarch.c skips these, too).
            continue
        line = command.replace("%p", os.path.join(pg_wal, name)).replace("%f", name)
        done = subprocess.run(["/bin/sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{line} ended with {done.returncode}:\n{done.stdout}")
        if os.path.exists(ready):
            os.rename(ready, os.path.join(status, f"{name}.done"))
        took.append(time.monotonic() - before)
    whole = time.monotonic() - begun
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps({"seconds": whole, "calls": took, "largest child MiB": largest}))


if __name__ == "__main__":
    main()
