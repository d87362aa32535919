"""A folder of its own, and everything that was started in it: both are gone at the end, also after Ctrl-C."""
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile

ACCOUNT = "postgres"


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Failed(SystemExit):
    """A step that must work did not."""

    def __init__(self, text):
        super().__init__(f"bench/run: {text}")


class Scratch:
    """`bucket` is where S3 servers keep their objects: in the same folder, or in one of its own below another `parent`."""

    def __init__(self, parent, bucket=None):
        try:
            self.account = pwd.getpwnam(ACCOUNT)
        except KeyError:
            raise Failed(f"there is no user {ACCOUNT}; run: apt-get install -y postgresql-15") from None
        for folder in (parent, bucket or parent):
            if not os.path.isdir(folder):
                raise Failed(f"there is no folder {folder}")
        self.path = tempfile.mkdtemp(prefix="walseal-bench-", dir=parent)
        os.chmod(self.path, 0o755)
        self.bucket = tempfile.mkdtemp(prefix="walseal-bench-", dir=bucket) if bucket else self.path
        self.ends = []

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupted)
        return self

    @staticmethod
    def _interrupted(_number, _frame):
        raise KeyboardInterrupt

    def __exit__(self, *_):
        # A second Ctrl-C must not leave a server behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for end in reversed(self.ends):
            try:
                end()
            except Exception as error:  # noqa: BLE001: the others must end, too.
                say(f"while cleaning up: {error}")
        for path in {self.path, self.bucket}:
            shutil.rmtree(path, ignore_errors=True)

    def at_end(self, end):
        """Calls `end` when all is over; it must do nothing where its work is done already."""
        self.ends.append(end)

    def folder(self, name):
        """A folder that the server's user owns."""
        path = os.path.join(self.path, name)
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.chown(path, self.account.pw_uid, self.account.pw_gid)
        return path

    def file(self, name, content, mode=0o600):
        path = os.path.join(self.path, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(content)
        os.chown(path, self.account.pw_uid, self.account.pw_gid)
        return path

    def start(self, command, **more):
        """Starts a program as the server's user."""
        return subprocess.Popen(
            command, user=self.account.pw_uid, group=self.account.pw_gid, extra_groups=[], cwd=self.path,
            start_new_session=True, **more,
        )

    def call(self, command, **more):
        """Runs a program as the server's user; returns what it printed."""
        process = self.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        try:
            out, err = process.communicate()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.returncode != 0:
            raise Failed(f"{' '.join(command)} ended with {process.returncode}:\n{err or out}")
        return out


def end_process(process, patience=10):
    """SIGTERM, then SIGKILL."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
