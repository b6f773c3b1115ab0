"""This project's side of the CPU benchmark: a worker of its own, asked by `plumb generate`."""
import json
import os
import subprocess
import time
import urllib.request

from processes import cpu_seconds, peak_rss_bytes

PARTS = ("matmul", "attention", "quantize", "other")


def parse_metrics(page):
    """What the engine says about itself on the worker's metrics page."""
    values = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    part = lambda name: values.get(f'plumb_worker_engine_seconds_total{{part="{name}"}}', 0.0)
    tokens = lambda phase: values.get(f'plumb_worker_tokens_total{{phase="{phase}"}}', 0.0)
    return {
        **{name: part(name) for name in PARTS},
        "steps": values.get("plumb_worker_step_duration_seconds_count", 0.0),
        "step_seconds": values.get("plumb_worker_step_duration_seconds_sum", 0.0),
        "prompt_tokens": tokens("prompt"),
        "decode_tokens": tokens("decode"),
    }


class PlumblineSide:
    def __init__(self, bin_dir, model, threads, folder):
        self.bin_dir, self.model, self.folder = bin_dir, model, folder
        ports = os.path.join(folder, "ports")
        self.log = open(os.path.join(folder, "worker.log"), "w")
        settings = [
            f"model_roots.0={os.path.abspath(model)}", "dtype=fp32", f"threads={threads}",
            "server.listen=127.0.0.1:0", "server.metrics_listen=127.0.0.1:0", f"server.port_file={ports}"]
        argv = [os.path.join(bin_dir, "plumb-worker")]
        for setting in settings:
            argv += ["--set", setting]
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=self.log)
        self.ports = self._await_ports(ports)

    def _await_ports(self, path):
        while True:
            if os.path.exists(path):
                with open(path) as file:
                    ports = dict(line.split() for line in file if len(line.split()) == 2)
                if "grpc" in ports and "metrics" in ports:
                    return ports
            if self.process.poll() is not None:
                raise RuntimeError(f"plumb-worker ended with {self.process.returncode}; see {self.log.name}")
            time.sleep(0.05)

    def metrics(self):
        port = self.ports["metrics"].rpartition(":")[2]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            return parse_metrics(response.read().decode())

    def run(self, texts, plans, tokens):
        """Answers of every (plan, prompt); what they cost."""
        prompts = os.path.join(self.folder, "prompts.jsonl")
        with open(prompts, "w") as file:
            for i, text in enumerate(texts):
                file.write(json.dumps({"id": f"p{i:04}", "prompt": text}) + "\n")
        argv = [
            os.path.join(self.bin_dir, "plumb"), "generate", "--model", self.model, "--prompts", prompts,
            "--worker", f"127.0.0.1:{self.ports['grpc'].rpartition(':')[2]}", "--max-new-tokens", str(tokens),
            "--raw", "--parse-special", "--ignore-eos", "--json"]
        for plan in plans:
            argv += ["--kv", plan]
        before, cpu, started = self.metrics(), cpu_seconds(self.process.pid), time.perf_counter()
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=self.log, check=True, text=True)
        seconds = time.perf_counter() - started
        after = self.metrics()
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return {
            "seconds": seconds,
            "cpu_seconds": cpu_seconds(self.process.pid) - cpu,
            "generated": sum(len(row["token_ids"]) for row in rows),
            "peak_rss_bytes": peak_rss_bytes(self.process.pid),
            "engine": {key: after[key] - before[key] for key in after},
            "answers": {(row["kv"], row["prompt_id"]): row["token_ids"] for row in rows},
            "prompt_tokens": {row["prompt_id"]: row["prompt_tokens"] for row in rows},
        }

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()
