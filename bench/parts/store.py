"""Where repositories go: a directory, or an S3 server; a slow line to it, and one that stalls."""
import copy
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import threading
import time
import socket

from .scratch import Failed, end_process, say

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Directory:
    name, environment, is_s3 = "directory", {}, False

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

    name, is_s3 = "s3", True

    def __init__(self, place, tls=False):
        self.begin(place)
        if tls:
            self.name = "s3 over TLS"
        script = os.path.join(ROOT, "scripts", "s3-server")
        started = subprocess.run([script, "start", *(["--tls"] if tls else []), self.folder], stdout=subprocess.PIPE, text=True, check=False)
        if started.returncode != 0:
            raise Failed("the S3 server did not start")
        self.settings = dict(line.split("=", 1) for line in started.stdout.split())
        if tls:
            self.settings["S3_CA_FILE"] = readable(place, self.settings["S3_CA_FILE"])

    def begin(self, place):
        # Each bench of a run has its own.
        self.folder = next(path for path in (f"{place.bucket}/s3-{number}" for number in itertools.count()) if not os.path.exists(path))
        say("starting an S3 server")
        place.at_end(self.stop)
        self.place, self.line, self.secure = place, None, None

    def over_tls(self):
        """One of its kind for tools that speak nothing else."""
        self.secure = self.secure or S3(self.place, tls=True)
        return self.secure

    @property
    def environment(self):
        settings = dict(self.settings)
        if self.line is not None:
            settings["S3_ENDPOINT"] = f"http://127.0.0.1:{self.line.port}"
        if "S3_CA_FILE" in settings:
            settings["AWS_CA_BUNDLE"] = settings.pop("S3_CA_FILE")
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


class LightS3(S3):
    """s3s-fs: a server that takes little of this machine, as a bucket elsewhere takes nothing of it. Each put is written to a folder, and
    hashed once."""

    name = "s3-light"

    def __init__(self, place):  # pylint: disable=super-init-not-called
        self.begin(place)
        self.processes = []
        bucket, key, secret = "bench", "bench", secrets.token_hex(16)
        os.makedirs(f"{self.folder}/{bucket}", mode=0o700)
        port = free_port()
        server = built("s3s-fs", "0.14.1", "s3s-fs", "--stores directory,s3", "--locked", "--features", "binary")
        program = [server, "--host", "127.0.0.1", "--port", str(port), "--access-key", key, "--secret-key", secret, self.folder]
        self.serve(program, port)
        self.settings = {"S3_ENDPOINT": f"http://127.0.0.1:{port}", "S3_BUCKET": bucket, "S3_ACCESS_KEY_ID": key,
                         "S3_SECRET_ACCESS_KEY": secret, "S3_REGION": "us-east-1"}

    def serve(self, command, port):
        with open(f"{self.folder}.log", "ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={"RUST_LOG": "error", "PATH": "/usr/bin:/bin"})
        self.processes.append(process)
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    with open(f"{self.folder}.log", encoding="utf-8", errors="replace") as log:
                        raise Failed(f"{command[0]} did not start:\n{log.read()[-2000:]}") from None
                time.sleep(0.02)

    def over_tls(self):
        """The same server, behind stunnel."""
        if self.secure is None:
            if shutil.which("stunnel") is None:
                raise Failed("there is no stunnel; run: apt-get install -y stunnel4")
            port, plain = free_port(), self.settings["S3_ENDPOINT"].rsplit(":", 1)[1]
            key, certificate, config = (f"{self.folder}.{part}" for part in ("key", "pem", "conf"))
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
                            "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL)
            with open(config, "w", encoding="ascii") as file:
                file.write(f"foreground = yes\nsyslog = no\n[s3]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{plain}\n"
                           f"cert = {certificate}\nkey = {key}\n")
            self.serve(["stunnel", config], port)
            self.secure = copy.copy(self)
            self.secure.name = "s3-light over TLS"
            self.secure.settings = {**self.settings, "S3_ENDPOINT": f"https://127.0.0.1:{port}", "S3_CA_FILE": readable(self.place, certificate)}
        return self.secure

    def pid(self):
        return self.processes[0].pid

    def stop(self):
        if self.line is not None:
            self.slow(None)
        for process in getattr(self, "processes", []):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
            end_process(process)


def readable(place, certificate):
    """A copy that the server's user can read."""
    with open(certificate, encoding="ascii") as file:
        return place.file(f"{os.path.basename(os.path.dirname(certificate))}-{os.path.basename(certificate)}", file.read())


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def built(crate, version, name, instead, *how):
    """The program `name` of a crate; built once, which takes minutes. `instead` is how to do without."""
    tools = os.environ.get("WALSEAL_TOOLS", os.path.join(ROOT, "target", "tools"))
    program = os.path.join(tools, name, "bin", name)
    if not os.path.exists(program):
        say(f"building {crate} {version}; it takes some minutes")
        build = ["cargo", "install", "--quiet", crate, "--version", version, "--root", os.path.join(tools, name), *how]
        if subprocess.run(build, check=False).returncode != 0:
            raise Failed(f"{crate} could not be built; leave it out with {instead}")
    return program


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
        elif name == "s3-light":
            yield LightS3(place)
        else:
            raise Failed(f"there is no store {name}; there are directory, s3 and s3-light")
