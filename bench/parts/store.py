"""Where repositories go: a directory, or an S3 server; a slow line to it, and one that stalls."""
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
import socket

from .scratch import Failed, say

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Directory:
    name, environment = "directory", {}

    def __init__(self, place):
        self.place = place

    def url(self, name):
        return f"file://{self.place.folder(f'repository-{name}')}"

    def empty(self, name):
        shutil.rmtree(os.path.join(self.place.path, f"repository-{name}"), ignore_errors=True)

    def leave(self, name):
        """As where its file system is not mounted any more."""
        os.rename(self.place.folder(f"repository-{name}"), os.path.join(self.place.path, f"unmounted-{name}"))

    def come_back(self, name):
        os.rename(os.path.join(self.place.path, f"unmounted-{name}"), os.path.join(self.place.path, f"repository-{name}"))


class S3:
    """scripts/s3-server, in a folder of its own."""

    name = "s3"

    def __init__(self, place, tls=False):
        # Each bench of a run has its own.
        self.folder = next(path for path in (f"{place.bucket}/s3-{number}" for number in itertools.count()) if not os.path.exists(path))
        say("starting an S3 server")
        place.at_end(self.stop)
        script = os.path.join(ROOT, "scripts", "s3-server")
        started = subprocess.run([script, "start", *(["--tls"] if tls else []), self.folder], stdout=subprocess.PIPE, text=True, check=False)
        if started.returncode != 0:
            raise Failed("the S3 server did not start")
        self.settings = dict(line.split("=", 1) for line in started.stdout.split())
        self.line = None

    @property
    def environment(self):
        settings = dict(self.settings)
        if self.line is not None:
            settings["S3_ENDPOINT"] = f"http://127.0.0.1:{self.line.port}"
        return {key: value for key, value in settings.items() if key != "S3_BUCKET"}

    def url(self, name):
        return f"s3://{self.settings['S3_BUCKET']}/{name}"

    def empty(self, name):
        """Its objects stay until the server's folder goes."""

    def slow(self, rate):
        """From now on the line takes `rate` bytes per second; `None`: as many as come."""
        if self.line is not None:
            self.line.close()
        self.line = None
        if rate is not None:
            self.line = SlowLine(int(self.settings["S3_ENDPOINT"].rsplit(":", 1)[1]), rate)

    def late(self, seconds):
        """From now on each answer comes later by so many seconds; `None`: as soon as it is there."""
        if self.line is not None:
            self.line.close()
        self.line = None
        if seconds is not None:
            self.line = LateLine(int(self.settings["S3_ENDPOINT"].rsplit(":", 1)[1]), seconds)

    def pid(self):
        with open(f"{self.folder}/pid", encoding="ascii") as file:
            return int(file.read())

    def stall(self):
        """Accepts connections and answers nothing."""
        os.kill(self.pid(), signal.SIGSTOP)

    def go_on(self):
        os.kill(self.pid(), signal.SIGCONT)

    def leave(self, _name):
        """The worst kind of outage: nobody knows yet that it is one."""
        self.stall()

    def come_back(self, _name):
        self.go_on()

    def stop(self):
        self.slow(None) if getattr(self, "line", None) else None
        if os.path.exists(f"{self.folder}/pid"):
            self.go_on()
        if os.path.isdir(self.folder):
            subprocess.run([os.path.join(ROOT, "scripts", "s3-server"), "stop", self.folder], check=True)


class SlowLine:
    """Passes bytes to a port of this machine: those upwards at a rate, over all connections together."""

    def __init__(self, target, rate):
        self.target, self.rate = target, rate
        self.free_at, self.lock = time.monotonic(), threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                # Small, so that the line and not the kernel's buffers is what is seen.
                near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            threading.Thread(target=self.carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, False), daemon=True).start()

    def carry(self, source, target, upwards):
        try:
            while chunk := source.recv(32 << 10):
                if upwards:
                    with self.lock:
                        self.free_at = max(self.free_at, time.monotonic()) + len(chunk) / self.rate
                        wait = self.free_at - time.monotonic()
                    if wait > 0:
                        time.sleep(wait)
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()

    def close(self):
        self.listener.close()


class LateLine:
    """Passes bytes to a port of this machine, and answers later: each by itself, as on a long way."""

    def __init__(self, target, seconds):
        self.target, self.seconds = target, seconds
        self.requests = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for side in (near, far):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            asked = threading.Event()
            threading.Thread(target=self.carry, args=(near, far, asked, True), daemon=True).start()
            threading.Thread(target=self.carry, args=(far, near, asked, False), daemon=True).start()

    def carry(self, source, target, asked, upwards):
        try:
            while chunk := source.recv(64 << 10):
                if upwards:
                    asked.set()
                elif asked.is_set():
                    # The first bytes of an answer; the rest follows at once.
                    asked.clear()
                    self.requests += 1
                    time.sleep(self.seconds)
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()

    def close(self):
        self.listener.close()


def stores(place, names):
    """Each store in turn; an S3 server is started only where it is asked for."""
    for name in names.split(","):
        if name == "directory":
            yield Directory(place)
        elif name == "s3":
            yield S3(place)
        else:
            raise Failed(f"there is no store {name}; there are directory and s3")
