#!/usr/bin/env python3
"""Runs one study through the real services and says where its wall time went, stage by stage.

  measured_study.py --bin build/bin --out OUT -- diagnose --model DIR --device cuda --dtype bf16 --max-prompts 300

Everything behind `--` goes to plumb; a data folder OUT/data is added. Written: OUT/study.json (the split),
OUT/report.json (canonical), OUT/results.jsonl (every cell, no texts), OUT/log.txt. The clock starts when the services
are up, weights loaded. Per stage: wall seconds; seconds that the engine's steps took (the worker's metrics page); share
of time in which the GPU ran a kernel (the driver's own sampling, where there is a GPU).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request

METRICS = {
    "step_seconds": "plumb_worker_step_duration_seconds_sum",
    "steps": "plumb_worker_step_duration_seconds_count",
    "prompt_tokens": 'plumb_worker_tokens_total{phase="prompt"}',
    "decode_tokens": 'plumb_worker_tokens_total{phase="decode"}',
}
SAMPLE_SECONDS = 0.1
FINISHED = re.compile(r"^(\d+)/\1\s*$")


class Samples:
    """(time, worker counters, GPU share) every tenth of a second, from a thread of its own."""

    def __init__(self, ports_file):
        self.ports_file, self.rows, self.gpu = ports_file, [], []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._metrics), threading.Thread(target=self._gpu)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _metrics(self):
        while not self.stopping.wait(SAMPLE_SECONDS):
            page = self._page()
            if page:
                values = {}
                for name, key in METRICS.items():
                    found = re.search(re.escape(key) + r" (\S+)", page)
                    values[name] = float(found[1]) if found else 0.0
                self.rows.append((time.monotonic(), values))

    def _page(self):
        try:
            with open(self.ports_file, encoding="utf-8") as file:
                ports = dict(line.split() for line in file)
            address = f"http://127.0.0.1:{ports['metrics']}/metrics"
            with urllib.request.urlopen(address, timeout=1) as page:
                return page.read().decode()
        except (OSError, KeyError, ValueError):
            return None

    def _gpu(self):
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:  # no GPU, no driver or no package: said in the output
            self.gpu = str(error) or type(error).__name__
            return
        last, to_clock = 0, time.monotonic() - time.time()
        while not self.stopping.wait(SAMPLE_SECONDS):
            try:
                kind, samples = pynvml.nvmlDeviceGetSamples(
                    handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, last
                )
            except pynvml.NVMLError:
                continue
            for sample in samples:
                if sample.timeStamp > last:
                    last = sample.timeStamp
                    self.gpu.append((sample.timeStamp / 1e6 + to_clock, sample.sampleValue.uiVal / 100))


def at(rows, when):
    """The counters at a time, between two samples in proportion."""
    before = after = None
    for row in rows:
        if row[0] <= when:
            before = row
        else:
            after = row
            break
    if before is None or after is None:
        return dict((before or after or (0, dict.fromkeys(METRICS, 0.0)))[1])
    part = (when - before[0]) / (after[0] - before[0])
    return {k: before[1][k] + part * (after[1][k] - before[1][k]) for k in METRICS}


def share(gpu, begin, end):
    inside = [value for when, value in gpu if begin < when <= end] if isinstance(gpu, list) else []
    return sum(inside) / len(inside) if inside else None


def between(samples, begin, end):
    a, b = at(samples.rows, begin), at(samples.rows, end)
    out = {"seconds": end - begin}
    out.update({k: b[k] - a[k] for k in METRICS})
    out["engine_share"] = out["step_seconds"] / out["seconds"] if out["seconds"] > 0 else 0
    out["gpu_share"] = share(samples.gpu, begin, end)
    return out


def stage_of(line):
    """'3/14 layer screen  [===> ] 5%' -> (3, 'layer screen')"""
    found = re.match(r"^(\d+)/\d+ (.*)$", line)
    if not found:
        return None
    name = re.split(r"\s+\[|\s{2,}", found[2].strip())[0].strip()
    return (int(found[1]), name) if name else None


def follow(process, log, ports_file):
    """Reads the progress lines; returns (ready, [(time, stage)], end, samples, experiment)."""
    samples = Samples(ports_file)
    samples.start()
    ready, stages, experiment, end = None, [], None, None
    try:
        for line in process.stderr:
            now = time.monotonic()
            log.write(f"{now:.3f} {line}")
            if ready is None and line.startswith("experiment "):
                ready, experiment = now, line.split()[1]
            stage = stage_of(line)
            if ready is not None and stage and (not stages or stages[-1][1] != stage[1]):
                stages.append((now, stage[1]))
            if FINISHED.match(line):
                end = now
        process.wait()
    finally:
        samples.stop()
    return ready, stages, end, samples, experiment


def reach(args):
    """How plumb finds the study: a coordinator that runs, or a data folder of its own."""
    if args.coordinator:
        return ["--coordinator", args.coordinator]
    return ["--data", os.path.join(args.out, "data")]


def measure(args):
    os.makedirs(args.out, exist_ok=True)
    ports = args.ports or os.path.join(args.out, "data/run/worker-0.ports")
    command = [os.path.join(args.bin, "plumb"), *args.plumb, *reach(args)]
    started = time.monotonic()
    with open(os.path.join(args.out, "log.txt"), "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout))
        reader.start()
        ready, stages, end, samples, experiment = follow(
            process, log, ports
        )
        reader.join()
        log.writelines(lines)
    if ready is None or end is None or process.returncode != 0:
        raise SystemExit(f"error: plumb ended with {process.returncode}; see {args.out}/log.txt")
    split = []
    for i, (begin, name) in enumerate(stages):
        until = stages[i + 1][0] if i + 1 < len(stages) else end
        split.append({"stage": name, **between(samples, begin, until)})
    total = between(samples, ready, end)
    return {
        "experiment": experiment,
        "epoch_at_zero": time.time() - time.monotonic(),  # log.txt's times + this are seconds since 1970
        "load_seconds": ready - started,
        "total": total,
        "stages": split,
        "gpu_sampling": "ok" if isinstance(samples.gpu, list) else samples.gpu,
        "gpu_samples": len(samples.gpu) if isinstance(samples.gpu, list) else 0,
        "headline": "".join(lines).strip().split("\n")[0],
    }


def keep_files(args, experiment):
    plumb = os.path.join(args.bin, "plumb")
    report = os.path.join(args.out, "report.json")
    subprocess.run(
        [plumb, "report", experiment, "--canonical", "--out", report, *reach(args)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with open(os.path.join(args.out, "results.jsonl"), "wb") as file:
        subprocess.run([plumb, "results", experiment, *reach(args)], check=True, stdout=file)


def show(outcome):
    def line(name, row):
        gpu = "-" if row["gpu_share"] is None else f"{row['gpu_share']:.0%}"
        print(
            f"{name:20} {row['seconds']:8.2f} {row['step_seconds']:8.2f} {row['engine_share']:7.0%} {gpu:>6} "
            f"{row['steps']:7.0f} {row['prompt_tokens']:9.0f} {row['decode_tokens']:9.0f}"
        )

    print(f"{'stage':20} {'wall s':>8} {'engine s':>8} {'engine':>7} {'GPU':>6} {'steps':>7} {'prompt':>9} {'decode':>9}")
    for row in outcome["stages"]:
        line(row["stage"], row)
    line("all", outcome["total"])
    print(f"start and weights {outcome['load_seconds']:.1f} s; {outcome['headline'][:160]}")
    if outcome["gpu_sampling"] != "ok":
        print(f"SKIPPED  share of the GPU: {outcome['gpu_sampling']}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", required=True, help="folder of plumb and the services' binaries")
    parser.add_argument("--out", required=True)
    parser.add_argument("--coordinator", help="HOST:PORT of a running cluster, instead of one of its own")
    parser.add_argument("--ports", help="with --coordinator: the worker's port file, for its metrics")
    parser.add_argument("plumb", nargs="+", help="plumb's command and flags, behind --")
    args = parser.parse_args()
    outcome = measure(args)
    with open(os.path.join(args.out, "study.json"), "w", encoding="utf-8") as file:
        json.dump(outcome, file, indent=1)
    show(outcome)
    keep_files(args, outcome["experiment"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
