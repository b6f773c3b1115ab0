"""Ctrl-C leaves a study: one that runs by itself stops and goes on with the printed command, one that was
asked to wait for a model which no worker has says so at once and stays until it is cancelled. An idle cluster
is gone within a second, and its studies go on without it.
"""
import json
import os
import re
import signal
import subprocess
import time

from cluster import PATIENCE, PLUMB, Cluster, Study, alive, await_true, children, end, run, say, workplace


def finished(experiment, data):
    listed = run("results", experiment, "--data", data).stdout.splitlines()
    return sum("finish_reason" in json.loads(line).get("result", {}) for line in listed)


def check_wrong_model(folder):
    cluster = Cluster(os.path.join(folder, "served"), os.path.join(folder, "models"), workers=1)
    try:
        # The cluster is up a moment before its worker has told the coordinator of its models.
        run("custom", "--coordinator", cluster.address, "--model", "tiny-chat", "--kv", "*:fp", "--max-prompts", "1",
            "--max-new-tokens", "1")
        for more in ([], ["--detach"]):
            refused = run("diagnose", "--coordinator", cluster.address, "--model", "tiny-chta", *more, check=False)
            assert refused.returncode == 2 and not refused.stdout, refused
            assert "'tiny-chta'" in refused.stderr and "offer tiny-chat (" in refused.stderr, refused.stderr
        assert cluster.count("experiments") == 1
        asked = time.monotonic()
        study = Study("diagnose", "--coordinator", cluster.address, "--model", "tiny-chta", "--wait-for-model")
        try:
            await_true(lambda: "To end it: plumb cancel" in study.output() and
                       "offer tiny-chat (" in study.output(), 20, "word of what it waits for")
            seconds = time.monotonic() - asked
            study.process.send_signal(signal.SIGINT)
            code = study.process.wait(20 * PATIENCE)
        finally:
            end(study.process)
        output = study.output()
        assert code == 130, f"exit {code}\n{output}"
        assert "'tiny-chta'" in output and "offer tiny-chat (" in output, output
        stored = cluster.query("SELECT message FROM experiments WHERE message != ''")[0][0]
        assert stored in output and "offer tiny-chat (" in stored, (stored, output)
        listed = run("list", "--coordinator", cluster.address).stdout
        assert re.search(r"diagnose +pending .* tiny-chta", listed), listed
        cancel = re.search(r"plumb (cancel \S+ --coordinator \S+)$", output, re.MULTILINE).group(1)
        assert "cancelled" in run(*cancel.split()).stdout
        say(f"a model that no worker has: told after {seconds:.1f} s: {stored}")
        stop_idle(cluster)
    finally:
        end(cluster.process)


def stop_idle(cluster):
    """A cluster without work is gone within a second; a busy machine gets some more."""
    services = list(children(cluster.process.pid))
    asked = time.monotonic()
    cluster.process.send_signal(signal.SIGINT)
    code = cluster.process.wait(30 * PATIENCE)
    seconds = time.monotonic() - asked
    left = [pid for pid in services if alive(pid)]
    assert code == 0 and len(services) == 6 and not left, (code, services, left)
    say(f"an idle cluster of {len(services)} services stopped in {seconds:.2f} s")
    assert seconds < 2.5 * PATIENCE


def check_up_stopped(folder):
    """A study that a stopped `plumb up` leaves goes on with its data folder alone, from any folder."""
    data = os.path.join(folder, "left")
    cluster = Cluster(data, os.path.relpath(os.path.join(folder, "models")), workers=1)
    try:
        with cluster.stopped("worker-0"):
            experiment = run("custom", "--coordinator", cluster.address, "--model", "tiny-chat", "--kv", "*:int8.asym.token",
                             "--max-prompts", "8", "--max-new-tokens", "4", "--detach").stdout.strip()
            run("cancel", experiment, "--coordinator", cluster.address)
    finally:
        end(cluster.process)
    done = run("resume", experiment, "--data", data, cwd=folder)
    assert done.stdout.lstrip().startswith("MEASURED"), (done.stdout, done.stderr)
    say("after `plumb up` has stopped, resume finds the models that it served")


def main():
    with workplace() as folder:
        check_wrong_model(folder)
        check_up_stopped(folder)
        data = os.path.join(folder, "data")
        # More cells than two workers hold at once (512 each): what they hold they finish before they go.
        plans = [word for bits in (8, 6, 5, 4, 3, 2) for word in ("--kv", f"*:int{bits}.asym.token")]
        study = Study("custom", "--model", os.path.join(folder, "models", "tiny"), "--data", data,
                      "--kv", "*:fp", *plans, "--kv", "*:int3.sym.tensor",
                      "--max-new-tokens", "48", "--full-answers", "--workers", "2")
        try:
            experiment = study.id()
            await_true(lambda: re.search(r"\b[1-9]\d*/\d+ cells", study.output()), 120, "first cells")
            services = list(children(study.process.pid))
            study.process.send_signal(signal.SIGINT)
            asked = time.monotonic()
            code = study.process.wait(60 * PATIENCE)
            seconds = time.monotonic() - asked
        finally:
            end(study.process)
        output = study.output()
        assert code == 130, f"exit {code}\n{output}"
        assert len(services) == 7, services
        left = [pid for pid in services if alive(pid)]
        assert not left, f"orphans: {left}"
        command = re.search(r"^ *plumb (watch \S+ --data \S+)$", output, re.MULTILINE)
        assert command, output
        listed = run("list", "--data", data).stdout
        assert experiment in listed and "succeeded" not in listed, listed
        done = finished(experiment, data)
        say(f"Ctrl-C: exit 130 after {seconds:.1f} s, {len(services)} services gone, {done} cells kept; "
            f"printed: plumb {command.group(1)}")

        again = subprocess.run([PLUMB, *command.group(1).split()], capture_output=True, text=True,
                               timeout=300 * PATIENCE, stdin=subprocess.DEVNULL, check=False)
        assert again.returncode == 0, again.stderr
        listed = run("list", "--data", data).stdout
        assert re.search(experiment + r" +custom +succeeded", listed), listed
        cells = finished(experiment, data)
        assert cells > done > 0, f"{done} of {cells} cells before the signal: nothing was tested"
        say(f"the printed command ended the study: {cells} cells")


if __name__ == "__main__":
    main()
