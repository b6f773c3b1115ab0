"""Ctrl-C on a study that runs by itself: everything stops, and the printed command ends the study."""
import json
import os
import re
import signal
import subprocess
import time

from cluster import PLUMB, Study, alive, await_true, children, end, run, say, workplace


def finished(experiment, data):
    listed = run("results", experiment, "--data", data).stdout.splitlines()
    return sum("finish_reason" in json.loads(line).get("result", {}) for line in listed)


def main():
    with workplace() as folder:
        data = os.path.join(folder, "data")
        study = Study("custom", "--model", os.path.join(folder, "models", "tiny"), "--data", data,
                      "--kv", "*:fp", "--kv", "*:int4.asym.token", "--kv", "*:int3.sym.tensor",
                      "--max-new-tokens", "24", "--full-answers", "--workers", "2")
        try:
            experiment = study.id()
            await_true(lambda: re.search(r"\b[1-9]\d*/\d+ cells", study.output()), 120, "first cells")
            services = list(children(study.process.pid))
            study.process.send_signal(signal.SIGINT)
            asked = time.monotonic()
            code = study.process.wait(60)
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
                               timeout=300, stdin=subprocess.DEVNULL, check=False)
        assert again.returncode == 0, again.stderr
        listed = run("list", "--data", data).stdout
        assert re.search(experiment + r" +custom +succeeded", listed), listed
        cells = finished(experiment, data)
        assert cells > done > 0, f"{done} of {cells} cells before the signal: nothing was tested"
        say(f"the printed command ended the study: {cells} cells")


if __name__ == "__main__":
    main()
