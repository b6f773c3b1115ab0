"""The GPU benchmark behind scripts/bench_gpu.sh: runs the parts, prints one table, keeps the raw numbers."""

import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MIXED = "*:int4.asym.token;*:int3.sym.tensor"
PARTS = ("decode", "rivals", "ablation", "sweep", "kernels", "low", "shapes", "verdict", "study")
# Published for this kind of GPU and shape, not run here.
VLLM_PUBLISHED = {4: 604, 64: 7884, 256: 18067, 512: 22667}
PROMPT, ANSWER = 64, 256


class Bench:
    def __init__(self, args):
        self.args, self.raw, self.rows = args, {"parts": {}}, []

    def add(self, what, value, beside="", goal=""):
        self.rows.append((what, value, beside, goal))
        print(f"  {what:58} {value:>16}  {beside:34} {goal}", flush=True)

    def skip(self, part, why):
        self.raw["parts"][part] = {"skipped": why}
        print(f"SKIPPED  {part}: {why}", flush=True)

    def program(self, name):
        path = os.path.join(self.args.bin, name)
        return path if os.access(path, os.X_OK) else None

    def lines(self, command):
        """The JSON lines that a program prints; its failure ends the part."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not rows:
            told = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
            raise RuntimeError(f"{os.path.basename(command[0])} ended with {done.returncode}: {told[0][:200]}")
        return rows

    def engine(self, *flags):
        program = self.program("gpu_engine_bench")
        if program is None:
            raise RuntimeError(f"no gpu_engine_bench in {self.args.bin}")
        return self.lines([program, *map(str, flags)])

    def decode(self, part, flags, label="", published=False):
        rows = self.engine(*flags)
        self.raw["parts"].setdefault(part, []).extend(rows)
        steps = {}
        for row in rows:
            if "tokens_per_s" in row and "mix" in row:
                rate = row
            if "step_ms" not in row:
                continue
            plain = row["mix"] == "*:fp"
            name = f"{label}{row['running']} cells, {'unquantized' if plain else 'int4.asym.token + int3.sym.tensor'}"
            beside = f"step {row['step_ms']:.2f} ms, {beside_floors(row['step_ms'], row['floor_ms'], row['steady_floor_ms'])}"
            if published:
                beside += f"; vLLM published {VLLM_PUBLISHED[row['running']]}"
            self.add(name, f"{rate['tokens_per_s']:.0f} tokens/s", beside, "" if published else "goal 1.15x")
            steps[row["running"], plain] = row["step_ms"]
            if (row["running"], True) in steps and not plain:
                cost = row["step_ms"] / steps[row["running"], True] - 1
                self.add(f"{label}{row['running']} cells, cost of the mix", f"{cost:.1%}")
        return rows

    def run_decode(self):
        rows = self.decode("decode", ["--running", "256,512", "--plans", f"*:fp/{MIXED}"])
        self.ours = {r["running"]: r["tokens_per_s"] for r in rows if r.get("mix") == "*:fp" and "tokens_per_s" in r}

    def run_low(self):
        self.decode("low", ["--running", "4,64", "--chunk", "64"], "chunk 64: ", published=True)

    def run_shapes(self):
        for shape in ("qwen2.5-7b", "llama-3.2-1b"):
            self.decode("shapes", ["--shape", shape, "--running", "256,512", "--plans", f"*:fp/{MIXED}"], f"{shape}: ")
            self.ablations("shapes", ["--shape", shape, "--running", "512", "--ablation", 63], f"{shape}: ")

    def ablations(self, part, flags, label=""):
        rows = self.engine(*flags)
        self.raw["parts"].setdefault(part, []).extend(rows)
        for row, floor, steady in with_floors(rows, "ablation", shared_prompts=True):
            full = row["answer"] == ANSWER
            self.add(
                f"{label}ablation {row['cells']} cells x {row['answer']}, {row['running']} at once, {row['ablation']}",
                f"{row['seconds']:.2f} s",
                beside_floors(row["seconds"], floor, steady),
                "" if label else "goal 1.15x" if full else "goal 5 s",
            )

    def run_ablation(self):
        for running in self.args.ablation_running.split(","):
            self.ablations("ablation", ["--running", running, "--ablation", 63])

    def run_sweep(self):
        rows = self.engine("--running", 512, "--sweep", "136,1353", "--widths", "7")
        rows += self.engine("--running", 512, "--sweep", "1353", "--widths", "1")
        self.raw["parts"]["sweep"] = rows
        for row, floor, steady in with_floors(rows, "sweep", shared_prompts=False):
            whole = row["sweep"] == 1353 and row["widths"] == 7
            self.add(
                f"sweep {row['sweep']} prompts x {row['widths']} widths x {row['answer']} tokens",
                f"{row['seconds']:.1f} s",
                f"{row['seconds_per_cell'] * 1e3:.2f} ms a cell, {beside_floors(row['seconds'], floor, steady)}",
                "goal 120 s" if whole else "linear: ms a cell",
            )

    def run_rivals(self):
        rows = self.lines([sys.executable, os.path.join(HERE, "transformers_gpu.py")])
        self.raw["parts"]["rivals"] = rows
        ours = getattr(self, "ours", {}).get(256)
        for row in rows:
            hooks = row["rival"] == "hooks"
            name = f"transformers {row['transformers']} generate, batch {row['batch']}" + (", hooks" if hooks else "")
            beside = f"ours at 256 cells: {ours / row['tokens_per_s']:.1f}x" if ours else "ours was not run"
            self.add(name, f"{row['tokens_per_s']:.0f} tokens/s", beside, "goal 250x" if hooks else "goal 6x" if row["batch"] == 256 else "")

    def run_kernels(self):
        program = self.program("gpu_kernel_bench")
        if program is None:
            raise RuntimeError(f"no gpu_kernel_bench in {self.args.bin}")
        done = subprocess.run([program], capture_output=True, text=True, check=True, timeout=600)
        result = json.loads(done.stdout)
        self.raw["parts"]["kernels"] = result
        copy = next(r["GB_per_s"] for r in result["rows"] if r["name"].startswith("copy"))
        read = next(r["GB_per_s"] for r in result["rows"] if r["name"].startswith("read"))
        for row in result["rows"]:
            if row["name"].startswith("attention"):
                beside = f"{row['GB_per_s'] / copy:.0%} of copy, {row['GB_per_s'] / read:.0%} of read"
                self.add(f"{row['name']}, {row['us']:.1f} us", f"{row['GB_per_s']:.0f} GB/s", beside)

    def run_verdict(self):
        if not self.args.model:
            raise RuntimeError("no --model, whose tokenizer.json it needs: make the test model with scripts/testbed/make_model.sh")
        tokenizer = os.path.join(self.args.model, "tokenizer.json")
        for shape in ("llama-3.1-8b", "llama-3.2-1b"):
            rows = self.engine("--shape", shape, "--running", "256,512", "--verdict", tokenizer)
            self.raw["parts"].setdefault("verdict", []).extend(rows)
            for row in rows:
                if "verdict" not in row:
                    continue
                host = f"host {row['host_us_per_step']:.0f} us of {row['ms_per_step']:.2f} ms ({row['host_share']:.1%}), {row['ns_per_token']:.0f} ns a token"
                self.add(
                    f"{shape}: {row['running']} cells, early stop by verdict",
                    f"{row['slowdown']:+.2%}",
                    f"best {row['best_slowdown']:+.2%}; {host}",
                    "goal 2%",
                )

    def run_study(self):
        if self.program("plumb") is None:
            raise RuntimeError(f"no plumb in {self.args.bin}")
        if not self.args.model:
            raise RuntimeError("no --model: make the test model with scripts/testbed/make_model.sh")
        large = self.args.large_model or os.path.join(self.args.out, "testbed-8b")
        if not os.path.isfile(os.path.join(large, "manifest.json")):
            embed = [sys.executable, os.path.join(HERE, "embed_model.py"), "--model", self.args.model, "--out", large]
            subprocess.run(embed, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        common = ["--device", "cuda", "--dtype", "bf16", "--target", "int4.asym.token"]
        study = self.study("study", ["diagnose", "--model", large, "--max-new-tokens", "48", "--max-prompts", "300", *common])
        total = study["total"]
        gpu = "not measured" if total["gpu_share"] is None else f"{total['gpu_share']:.0%}"
        self.add("diagnose, 300 prompts, through the services", f"{total['seconds']:.1f} s", f"start and weights {study['load_seconds']:.1f} s", "goal 60 s")
        self.add("  of it a kernel runs", gpu, f"the engine steps {total['engine_share']:.0%}", "goal 80%")
        for stage in study["stages"]:
            share = "" if stage["gpu_share"] is None else f", GPU {stage['gpu_share']:.0%}"
            self.add(f"    {stage['stage']}", f"{stage['seconds']:.2f} s", f"engine {stage['engine_share']:.0%}{share}")

    def study(self, name, plumb):
        out = os.path.join(self.args.out, name)
        command = [sys.executable, os.path.join(HERE, "measured_study.py"), "--bin", self.args.bin, "--out", out, "--", *plumb]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        if done.returncode != 0:
            raise RuntimeError(f"the study ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        with open(os.path.join(out, "study.json"), encoding="utf-8") as file:
            self.raw["parts"][name] = json.load(file)
        return self.raw["parts"][name]


def floor_seconds(row, floor_of, shared_prompts):
    """The products at this many rows, once for each token of each cell and each prompt row that must pass, and the keys
    and values that the answers read. With shared prompts a cell's prompt passes the layers from its quantized one on
    (half of them on average), and each prompt the ones below once."""
    context = PROMPT + row["answer"] / 2
    steps = row["cells"] * row["answer"] / row["running"]
    prompt_rows = row["cells"] * PROMPT * (0.5 if shared_prompts else 1)
    products = (steps + prompt_rows / row["running"]) * floor_of["products_ms"]
    return (products + steps * floor_of["kv_ms_per_position"] * context) / 1e3


def with_floors(rows, kind, shared_prompts):
    """The rows of one kind with their floors, which stand on the products that the engine timed before them: at the
    clock of the first milliseconds, and at the one that the card holds under this work."""
    for row in rows:
        if "products_ms" in row:
            floor_of = row
            middle = row["products_ms"] + row["kv_ms_per_position"] * (PROMPT + ANSWER / 2)
            steady = row["steady_floor_ms"] / middle
        if kind in row:
            floor = floor_seconds(row, floor_of, shared_prompts)
            yield row, floor, floor * steady


def beside_floors(value, floor, steady):
    return f"floor {floor:.2f}, {value / floor:.2f}x; at the clock held {steady:.2f}, {value / steady:.2f}x"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the built or packed programs")
    parser.add_argument("--out", required=True)
    parser.add_argument("--only", default=",".join(PARTS), help="parts: " + ", ".join(PARTS))
    parser.add_argument("--model", help="bundle of the test model, for the study and the verdicts")
    parser.add_argument("--large-model", help="its embedding in the large shape, where it is made already")
    parser.add_argument("--ablation-running", default="512,256")
    args = parser.parse_args()
    wanted = args.only.split(",")
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        parser.error(f"--only: no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    os.makedirs(args.out, exist_ok=True)
    bench, failed = Bench(args), False
    for part in PARTS:
        if part not in wanted:
            continue
        print(f"== {part}", flush=True)
        started = time.monotonic()
        try:
            getattr(bench, f"run_{part}")()
        except (RuntimeError, subprocess.SubprocessError, OSError, ValueError) as error:
            failed = True
            bench.skip(part, str(error))
        bench.raw.setdefault("part_seconds", {})[part] = round(time.monotonic() - started, 1)
        with open(os.path.join(args.out, "bench_gpu.json"), "w", encoding="utf-8") as file:
            json.dump({**bench.raw, "table": bench.rows}, file, indent=1)
    print(f"raw numbers: {os.path.join(args.out, 'bench_gpu.json')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
