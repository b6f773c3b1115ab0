"""A layer ablation here and with transformers and Python hooks, in interleaved pairs of one run."""
import argparse
import datetime
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

from plumbline_side import PlumblineSide
from processes import cpu_name
from summary import floor_work, summarize, table

HERE = os.path.dirname(os.path.abspath(__file__))
WARM_UP_PROMPTS = 4
FULL_SIZE = {"prompts": 20, "tokens": 48}  # and every layer
FULL_SIZE_BAR = 5.0
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:4.0f}s] {text}", file=sys.stderr, flush=True)


class TransformersSide:
    def __init__(self, model, threads, batch, bits):
        argv = [sys.executable, os.path.join(HERE, "transformers_side.py"), "--model", model,
                "--threads", str(threads), "--batch", str(batch), "--bits", str(bits)]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the transformers side ended with {self.process.wait()}")
        return json.loads(line)

    def run(self, prompts, layers, tokens):
        self.process.stdin.write(json.dumps({"prompts": prompts, "layers": layers, "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


def load_prompts(pattern, model, count):
    """The first `count` prompts of the files, as the chat text and as token ids."""
    from tokenizers import Tokenizer

    with open(os.path.join(model, "chat_format.json")) as file:
        chat = json.load(file)
    joint = {(j["from"], j["to"]): j["text"] for j in chat["joints"]}
    before, after = joint["start", "user"], joint["user", "end"]
    texts = []
    for path in sorted(glob.glob(pattern)):
        with open(path) as file:
            texts += [before + json.loads(line)["prompt"] + after for line in file if line.strip()]
    if len(texts) < count:
        raise SystemExit(f"error: {pattern} holds {len(texts)} prompts, {count} are needed; "
                         "give fewer --prompts or another --prompt-files")
    tokenizer = Tokenizer.from_file(os.path.join(model, "tokenizer.json"))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts[:count]]
    return texts[:count], ids


def split_layers(count, model_layers, pairs):
    """`count` layers spread over the model's depth, dealt out so that every pair has shallow and deep ones."""
    layers = [i * model_layers // count for i in range(count)]
    return [layers[first::pairs] for first in range(pairs)]


def check_same_model(ours, theirs):
    """Share of equal tokens of unquantized answers: both sides must run the same model and prompts."""
    answers = [ours["answers"][key] for key in sorted(ours["answers"])]
    equal = sum(a == b for x, y in zip(answers, theirs["answers"]) for a, b in zip(x, y))
    share = equal / theirs["generated"]
    if ours["generated"] != theirs["generated"] or share < 0.5:
        raise SystemExit(f"error: the two sides disagree on unquantized answers ({share:.0%} of tokens equal): "
                         "not the same model or prompts")
    return share


def run_pairs(args, chunks, texts, ids, ours, theirs):
    pairs = []
    plan = lambda layer: f"*:fp,{layer}:int{args.bits}.sym.tensor"
    for number, layers in enumerate(chunks, 1):
        turns = {"plumbline": lambda: ours.run(texts, [plan(l) for l in layers], args.tokens),
                 "transformers": lambda: theirs.run(ids, layers, args.tokens)}
        pair = {"layers": layers, "load_average": os.getloadavg()}
        # Who goes first changes from pair to pair.
        for side in list(turns)[:: 1 if number % 2 else -1]:
            pair[side] = turns[side]()
            pair[side].pop("answers")
            say(f"pair {number}/{args.pairs}: {side}: {pair[side]['generated']} tokens in "
                f"{pair[side]['seconds']:.1f} s")
        expected = len(layers) * len(texts) * args.tokens
        for side in turns:
            if pair[side]["generated"] != expected:
                raise SystemExit(f"error: {side} generated {pair[side]['generated']} tokens, not {expected}")
        pairs.append(pair)
    return pairs


def bar_of(args, model_layers):
    """(ratio to reach or None, what is said of it)."""
    if args.require is not None:
        return args.require or None, f"bar: {args.require:g}x" if args.require else "no bar: --require 0"
    full = args.layers == model_layers and all(getattr(args, k) >= size for k, size in FULL_SIZE.items())
    if full:
        return FULL_SIZE_BAR, f"bar: {FULL_SIZE_BAR:g}x, that of the full size"
    return None, (f"no bar applies below the full size ({model_layers} layers x {FULL_SIZE['prompts']} prompts x "
                  f"{FULL_SIZE['tokens']} tokens); --require sets one")


def measure_floor(model, threads):
    argv = [sys.executable, os.path.join(HERE, "product_floor.py"), "--model", model, "--threads", str(threads)]
    return json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True).stdout)


def parse_args():
    parser = argparse.ArgumentParser(prog="bench_cpu.sh", description=__doc__)
    parser.add_argument("--model", required=True, help="bundle folder (default: the test model)")
    parser.add_argument("--bin", required=True, help="folder of the built binaries")
    parser.add_argument("--out", required=True, help="folder for the raw numbers")
    parser.add_argument("--prompt-files", required=True, help="jsonl files with `prompt` (a glob)")
    parser.add_argument("--layers", type=int, metavar="N",
                        help="ablate N layers spread over the depth (default: all)")
    parser.add_argument("--prompts", type=int, default=FULL_SIZE["prompts"])
    parser.add_argument("--tokens", type=int, default=FULL_SIZE["tokens"],
                        help="length of every answer; EOS is ignored")
    parser.add_argument("--pairs", type=int, default=3, help="the layers are split over this many pairs")
    parser.add_argument("--batch", type=int, default=4, help="batch of the transformers side")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each side")
    parser.add_argument("--require", type=float, metavar="RATIO",
                        help=f"exit 1 if the tokens/s ratio is below (default {FULL_SIZE_BAR:g} at full size, "
                             "none at smaller ones; 0: no bar)")
    return parser.parse_args()


def main():
    args = parse_args()
    with open(os.path.join(args.model, "config.json")) as file:
        model_layers = json.load(file)["num_hidden_layers"]
    args.layers = min(args.layers or model_layers, model_layers)
    args.pairs = min(args.pairs, args.layers)
    texts, ids = load_prompts(args.prompt_files, args.model, args.prompts + WARM_UP_PROMPTS)
    say(f"{args.layers} layers x {args.prompts} prompts x {args.tokens} tokens in {args.pairs} pairs, fp32, "
        f"{args.threads} threads, load average {os.getloadavg()[0]:.1f}")
    floors = [measure_floor(args.model, args.threads)]
    with tempfile.TemporaryDirectory() as folder:
        ours = PlumblineSide(args.bin, args.model, args.threads, folder)
        theirs = None
        try:
            theirs = TransformersSide(args.model, args.threads, args.batch, args.bits)
            say("both models are loaded; warming up")
            warm_ours = ours.run(texts[args.prompts :], ["*:fp"], args.tokens)
            share = check_same_model(warm_ours, theirs.run(ids[args.prompts :], [], args.tokens))
            say(f"unquantized answers: {share:.0%} of tokens equal on both sides")
            chunks = split_layers(args.layers, model_layers, args.pairs)
            pairs = run_pairs(args, chunks, texts[: args.prompts], ids[: args.prompts], ours, theirs)
        finally:
            ours.stop()
            if theirs is not None:
                theirs.stop()
    floors.append(measure_floor(args.model, args.threads))
    finish(args, pairs, floors, share, [len(p) for p in ids[: args.prompts]], model_layers)


def finish(args, pairs, floors, share, prompt_tokens, model_layers):
    for pair in pairs:
        said = pair["plumbline"].pop("prompt_tokens").values()
        if sorted(said) != sorted(prompt_tokens):
            raise SystemExit("error: the two sides see prompts of different lengths")
    engine = [pair["plumbline"]["engine"] for pair in pairs]
    decode = sum(e["decode_tokens"] for e in engine)
    generated = sum(pair["plumbline"]["generated"] for pair in pairs)
    work = floor_work([p["layers"] for p in pairs], prompt_tokens, model_layers, decode, generated)
    best = {rows: {key: min(f[rows][key] for f in floors) for key in ("block_row_seconds", "head_row_seconds")}
            for rows in floors[0]}
    summary = summarize(pairs, best, work)
    raw = {
        "arguments": vars(args), "cpu": cpu_name(), "load_average_at_end": os.getloadavg(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "unquantized_tokens_equal": share, "prompt_tokens": prompt_tokens,
        "floor_work": {"block_rows": work[0], "head_rows": work[1]}, "floors": floors,
        "pairs": pairs, "summary": summary}
    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, f"cpu-{datetime.datetime.now():%Y%m%d-%H%M%S}.json")
    with open(path, "w") as file:
        json.dump(raw, file, indent=1)
    loads = [pair["load_average"][0] for pair in pairs] + [os.getloadavg()[0]]
    print(f"\nlayer ablation, int{args.bits}.sym.tensor: {args.layers} layers x {args.prompts} prompts x "
          f"{args.tokens} tokens, fp32, {args.threads} threads\n{cpu_name()}, load average "
          f"{min(loads):.1f} to {max(loads):.1f} (the benchmark itself makes up to {args.threads})\n")
    print(table(summary, args.batch))
    bar, said = bar_of(args, model_layers)
    print(f"\nraw numbers: {path}\n{said}")
    if bar is not None and not summary["speedup"] >= bar:
        raise SystemExit(f"error: {summary['speedup']:.2f}x is below {bar:g}x")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
