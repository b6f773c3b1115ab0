"""Runs the product's own programs for the end-to-end tests: a study, a cluster, its processes.

Whatever is started here is ended here, by its own pid, however the test goes.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import tiny_bundle

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("PLUMB_BIN") or os.path.join(ROOT, "build", "bin")
PLUMB = os.path.join(BIN, "plumb")
# Times every wait: instrumented programs are slow.
PATIENCE = float(os.environ.get("PLUMB_E2E_PATIENCE") or 1)


def await_true(check, seconds, what):
    """Polls `check` until it gives something true, and gives that back."""
    until = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < until:
        got = check()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds * PATIENCE:g} s")


def run(*words, timeout=120, check=True, **kwargs):
    """`plumb words...` to its end."""
    done = subprocess.run([PLUMB, *map(str, words)], capture_output=True, text=True,
                          timeout=timeout * PATIENCE,
                          stdin=subprocess.DEVNULL, errors="replace", **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"plumb {' '.join(map(str, words))}: exit {done.returncode}\n{done.stderr}")
    return done


def children(pid):
    """pid -> command line of the direct children of a process."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            if int(fields[1]) != pid or fields[0] == "Z":
                continue
            with open(f"/proc/{entry}/cmdline") as line:
                found[int(entry)] = line.read().replace("\0", " ").strip()
    return found


def alive(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    return False


def end(process):
    """Ends a process that this test started, and the children it has left."""
    left = children(process.pid) if process.poll() is None else {}
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(40 * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
    for pid in left:
        with contextlib.suppress(OSError):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


class Study:
    """A study command that runs beside the test."""

    def __init__(self, *words):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([PLUMB, *map(str, words)], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=subprocess.STDOUT)

    def output(self):
        return os.pread(self.log.fileno(), 1 << 22, 0).decode(errors="replace")

    def id(self):
        return await_true(lambda: re.search(r"experiment (\S+)", self.output()) or self._must_run(),
                          60, "the study's id").group(1)

    def _must_run(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the study ended ({self.process.returncode}):\n{self.output()}")

    def finish(self, seconds):
        try:
            self.process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the study runs after {seconds} s:\n{self.output()[-2000:]}") from None
        assert self.process.returncode == 0, f"exit {self.process.returncode}\n{self.output()[-2000:]}"


class Cluster:
    """`plumb up` on a data folder of its own."""

    def __init__(self, data, models, workers=2, settings=()):
        self.data = data
        words = ["up", "--data", data, "--model-root", models, "--workers", str(workers)]
        for setting in settings:
            words += ["--set", setting]
        self.log = open(os.path.join(os.path.dirname(data), os.path.basename(data) + ".log"), "w+")
        self.process = subprocess.Popen([PLUMB, *words], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT)
        try:
            self.address = await_true(self._address, 120, "the cluster's address")
        except BaseException:
            end(self.process)
            raise

    def _address(self):
        text = os.pread(self.log.fileno(), 1 << 20, 0).decode()
        if self.process.poll() is not None:
            raise AssertionError(f"plumb up ended ({self.process.returncode}):\n{text}")
        found = re.search(r"--coordinator (\S+)", text)
        return found and found.group(1)

    def pid(self, service):
        """The present process of a service, which its supervisor may just be starting again."""
        def look():
            for pid, line in children(self.process.pid).items():
                if line.endswith(f"/{service}.txtpb"):
                    return pid
            return None
        return await_true(look, 30, f"a process of {service}")

    def ports(self, service):
        """{"grpc": "PORT", "metrics": "PORT"}, as the service wrote them down."""
        with open(f"{self.data}/run/{service}.ports") as file:
            return dict(line.split() for line in file)

    def kill(self, service, then=lambda: None):
        """What `then` gives right after the kill, once the service is there again."""
        pid = self.pid(service)
        os.kill(pid, signal.SIGKILL)
        got = then()
        await_true(lambda: self.pid(service) != pid, 30, f"{service} started again")
        return got

    @contextlib.contextmanager
    def stopped(self, service):
        pid = self.pid(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def query(self, sql):
        """Rows of the coordinator's store, read beside it."""
        with contextlib.closing(sqlite3.connect(
                f"file:{self.data}/plumbline.sqlite?mode=ro", uri=True, timeout=30)) as store:
            return store.execute(sql).fetchall()

    def count(self, what):
        return self.query(f"SELECT COUNT(*) FROM {what}")[0][0]

    def canonical(self, experiment):
        return run("report", experiment, "--canonical", "--out", "-", "--coordinator",
                   self.address).stdout.encode()


def study(cluster, kind, *words, model="tiny-chat", out=None):
    """(experiment id, process) of a study that ran to its end on a cluster."""
    done = run(kind, "--coordinator", cluster.address, "--model", model, "--max-new-tokens", 8,
               "--out", out or os.path.join(cluster.data, "reports"), *words)
    return re.search(r"^experiment (\S+)", done.stderr, re.MULTILINE).group(1), done


def report_of(cluster, experiment):
    return json.loads(run("report", experiment, "--format", "json", "--out", "-", "--coordinator",
                          cluster.address).stdout)


@contextlib.contextmanager
def workplace():
    """A folder with the tiny model in models/tiny; kept where PLUMB_E2E_KEEP is set."""
    folder = tempfile.mkdtemp(prefix="plumb-e2e-")
    try:
        tiny_bundle.make(os.path.join(folder, "models", "tiny"))
        yield folder
    finally:
        if os.environ.get("PLUMB_E2E_KEEP"):
            print("kept:", folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def say(*words):
    print(*words)
    sys.stdout.flush()
