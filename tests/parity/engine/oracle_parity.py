"""Engine against transformers, unquantized: tokens and logits.

    oracle_parity.py --dump build/tests/engine_dump --model BUNDLE [--dtype fp32|bf16] [--prompts N]
                     [--new N] [--threads N] [--tiny]

Both sides generate greedily from the same ids. The bar: tokens equal on at least 99% of all positions, so
that a first difference counts for the rest of its sequence, and each of the engine's two best logits, fed
the oracle's own tokens, within a bound of the oracle's logit for the same id.

The bound: both sum the same products in another order. A sum of n products of magnitude m differs by
about eps * sqrt(n) * m; through L blocks of two sublayers each the differences add like a random walk
that the residual stream carries to the head. We allow eps * sqrt(2 L n) * scale * 4, with scale the
largest absolute logit of the row and n the hidden size: two standard deviations for each of two sides. In
bf16 sums run in fp32 and only what each sublayer adds to the stream is rounded: eps * sqrt(2 L) * scale * 4.
Of some steps the whole row of logits is compared within it, and the likelihood of one text, scored in
windows, within what follows from it (whole_rows.py). With --tiny, a weight row bent by a thousandth must
break it: of attention in the best logits and the likelihood, of one token's head in the whole rows alone.
"""
import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import whole_rows  # noqa: E402
from make_tiny_model import VARIANTS, make, write_manifest  # noqa: E402

UTILITY_TEXT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "data", "text",
                            "utility.txt")
EPS = {"fp32": 2.0 ** -24, "bf16": 2.0 ** -8}


def custom_prompts(root):
    prompts = []
    for name in ("refusal", "privacy", "jailbreak"):
        with open(os.path.join(root, f"{name}.txt"), encoding="utf-8") as f:
            prompts += [line.strip() for line in f if line.strip()]
    return prompts


def builtin_prompts():
    acts = ["Explain how", "Write a note on why", "Tell me whether", "List three ways", "Describe when",
            "Summarize what", "Say briefly how"]
    things = ["a bicycle stays upright.", "bread rises.", "tides follow the moon.",
              "a lens bends light.", "salt melts ice.", "a sail pulls a boat.", "cats land on their feet.",
              "rust forms on iron.", "a kite stays in the air."]
    return [f"{act} {thing}" for act in acts for thing in things]


def chat_ids(bundle, prompts):
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(bundle, "tokenizer.json"))
    text = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
            "<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n")
    return [tokenizer.encode(text.format(p), add_special_tokens=False).ids for p in prompts]


def utility_windows(bundle):
    """The first two windows of the built-in utility text, as a study cuts them."""
    from tokenizers import Tokenizer
    with open(UTILITY_TEXT, encoding="utf-8") as file:
        ids = Tokenizer.from_file(os.path.join(bundle, "tokenizer.json")).encode(
            file.read(), add_special_tokens=False).ids
    return whole_rows.windows(ids[:896], 512, 384)


def load_oracle(bundle, dtype):
    kind = torch.float32 if dtype == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(bundle, dtype=kind, attn_implementation="eager")
    return model.eval()


@torch.no_grad()
def oracle_generate(model, ids, new):
    """Greedy ids and every step's logits, one sequence alone, without stopping."""
    logits, cache = [], None
    step = torch.tensor([ids])
    tokens = []
    for _ in range(new):
        out = model(step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        row = out.logits[0, -1].float()
        logits.append(row)
        tokens.append(int(row.argmax()))
        step = torch.tensor([[tokens[-1]]])
    return tokens, torch.stack(logits)


def engine(dump, bundle, dtype, requests, threads):
    run = subprocess.run([dump, "--model", bundle, "--dtype", dtype, "--threads", str(threads)],
                         input="\n".join(json.dumps(r) for r in requests), text=True,
                         capture_output=True)
    if run.returncode != 0:
        sys.exit(f"engine_dump failed: {run.stderr.strip()}")
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return {line["id"]: line for line in lines if "id" in line}, lines[-1]


@dataclasses.dataclass
class Figures:
    agreement: float = 0.0  # share of equal tokens
    best_two: float = 0.0  # this and the following: largest difference, in units of the bound
    rows: float = 0.0
    moved_row: float = 0.0  # of the twins, which must exceed 1
    likelihood: float = 0.0
    moved_likelihood: float = 0.0
    row_values: int = 0
    scored: int = 0
    stats: dict = dataclasses.field(default_factory=dict)

    @property
    def within(self):
        return max(self.best_two, self.rows, self.likelihood) <= 1

    @property
    def complete(self):
        return self.row_values > 0 and self.scored > 0 and min(self.moved_row, self.moved_likelihood) > 1


def bound_of(dtype, config):
    terms = config.hidden_size if dtype == "fp32" else 1
    walk = (2 * config.num_hidden_layers * terms) ** 0.5
    return lambda row: EPS[dtype] * walk * float(row.abs().max()) * 4


def compare(dump, bundle, dtype, prompts, new, threads, model, text):
    """text: (token ids, first scored index) of each window of one text."""
    run = lambda requests: engine(dump, bundle, dtype, requests, threads)  # noqa: E731
    bound, figures = bound_of(dtype, model.config), Figures()
    free, figures.stats = run([{"id": i, "prompt": p, "kv": "*:fp", "max_new": new}
                               for i, p in enumerate(prompts)])
    oracle = [oracle_generate(model, p, new) for p in prompts]
    with tempfile.TemporaryDirectory() as folder:
        rows = whole_rows.Rows(folder, new)
        forced, _ = run(rows.ask([{"id": i, "prompt": p, "kv": "*:fp", "max_new": new,
                                   "forced": oracle[i][0]} for i, p in enumerate(prompts)]))
        figures.row_values, figures.rows, figures.moved_row = rows.compare(
            [logits for _, logits in oracle], bound)
    figures.scored, figures.likelihood, figures.moved_likelihood = whole_rows.compare_likelihood(
        lambda requests: run(requests)[0], model, text, bound)
    same = 0
    for i, (tokens, logits) in enumerate(oracle):
        same += sum(a == b for a, b in zip(tokens, free[i]["tokens"]))
        for step, row in zip(forced[i]["steps"], logits):
            for token, logit in ((step[0], step[2]), (step[1], step[3])):
                figures.best_two = max(figures.best_two, abs(float(row[token]) - logit) / bound(row))
    figures.agreement = same / (new * len(prompts))
    return figures


def check(name, figures, bar):
    ok = figures.agreement >= bar and figures.within and figures.complete
    print(f"{'ok  ' if ok else 'FAIL'} {name}: tokens equal {figures.agreement:.4f} (bar {bar}); largest "
          f"difference, in bounds: two best logits {figures.best_two:.3f}, {figures.row_values} logits of "
          f"whole rows {figures.rows:.3f} (one moved {figures.moved_row:.1f}), likelihood of "
          f"{figures.scored} tokens {figures.likelihood:.3f} (one moved {figures.moved_likelihood:.1f})",
          flush=True)
    return ok


def tiny_models(dump, threads):
    ok = True
    generator = torch.Generator().manual_seed(5)
    draw = lambda n: torch.randint(3, 90, (n,), generator=generator).tolist()  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        for variant in sorted(VARIANTS):
            for dtype in ("fp32", "bf16"):
                bundle = os.path.join(folder, f"{variant}-{dtype}")
                make(bundle, variant, dtype=dtype)
                model = load_oracle(bundle, dtype)
                figures = compare(dump, bundle, dtype, [draw(n) for n in (1, 7, 40, 150)], 24, threads,
                                  model, whole_rows.windows(draw(200), 96, 64))
                # bf16 logits of random weights tie and flip often: the logit bound decides there.
                ok &= check(f"{variant} {dtype}", figures, 0.99 if dtype == "fp32" else 0.3)
        ok &= teeth(dump, folder, threads)
    return ok


def bent(folder, variant, tensor, row):
    """The variant's bundle with one row of one weight moved by a thousandth."""
    from safetensors.torch import load_file, save_file
    bundle = os.path.join(folder, f"{variant}-fp32")
    copy = tempfile.mkdtemp(dir=folder)
    shutil.copytree(bundle, copy, dirs_exist_ok=True)
    path = os.path.join(copy, "model.safetensors")
    weights = load_file(path)
    weights[tensor][row] *= 1.001
    save_file(weights, path, {"format": "pt"})
    write_manifest(copy, "bent")
    return copy, load_oracle(bundle, "fp32")


def teeth(dump, folder, threads):
    prompt, text = [5, 6, 7, 8], whole_rows.windows(list(range(3, 90)), 96, 64)
    copy, straight = bent(folder, "llama_tied", "model.layers.1.self_attn.v_proj.weight", 3)
    attention = compare(dump, copy, "fp32", [prompt], 8, threads, straight, text)
    straight = load_oracle(os.path.join(folder, "llama_untied-fp32"), "fp32")
    logits = oracle_generate(straight, prompt, 8)[1]
    unlikely = int(logits.amax(0).argmin())  # never among the two best
    copy, straight = bent(folder, "llama_untied", "lm_head.weight", unlikely)
    head = compare(dump, copy, "fp32", [prompt], 8, threads, straight, text)
    ok = min(attention.best_two, attention.rows, attention.likelihood) > 1 and head.rows > 1 >= head.best_two
    print(f"{'ok  ' if ok else 'FAIL'} teeth: bent attention is {attention.best_two:.1f} of the bound in the "
          f"two best logits, {attention.rows:.1f} in whole rows, {attention.likelihood:.1f} in likelihood; "
          f"a bent head row {head.best_two:.1f} and {head.rows:.1f}")
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--model")
    parser.add_argument("--custom", help="folder with refusal.txt, privacy.txt, jailbreak.txt; "
                        "built-in prompts where it is not there")
    parser.add_argument("--dtype", choices=sorted(EPS), default="fp32")
    parser.add_argument("--prompts", type=int, default=63)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    ok = True
    if args.tiny:
        ok &= tiny_models(args.dump, args.threads)
    if args.model and not os.path.exists(os.path.join(args.model, "manifest.json")):
        print(f"SKIPPED: no model bundle at {args.model}; scripts/quickstart.sh makes it")
    elif args.model:
        given = args.custom and os.path.isdir(args.custom)
        texts = custom_prompts(args.custom) if given else builtin_prompts()
        print(f"prompts: {args.custom if given else 'built-in'}", flush=True)
        prompts = chat_ids(args.model, texts[:args.prompts])
        figures = compare(args.dump, args.model, args.dtype, prompts, args.new, args.threads,
                          load_oracle(args.model, args.dtype), utility_windows(args.model))
        print(json.dumps(figures.stats))
        bar = 0.99 if args.dtype == "fp32" else 0.3
        ok &= check(f"{args.model} {len(prompts)} prompts x {args.new}", figures, bar)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
