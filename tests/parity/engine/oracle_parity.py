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
With --tiny, a weight row bent by a thousandth must break it.
"""
import argparse
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
from make_tiny_model import VARIANTS, make, write_manifest  # noqa: E402

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


def compare(dump, bundle, dtype, prompts, new, threads, model):
    free, stats = engine(dump, bundle, dtype,
                         [{"id": i, "prompt": p, "kv": "*:fp", "max_new": new}
                          for i, p in enumerate(prompts)], threads)
    oracle = [oracle_generate(model, p, new) for p in prompts]
    forced, _ = engine(dump, bundle, dtype,
                       [{"id": i, "prompt": p, "kv": "*:fp", "max_new": new, "forced": oracle[i][0]}
                        for i, p in enumerate(prompts)], threads)
    same = total = 0
    worst = 0.0  # in units of the bound
    config = model.config
    terms = config.hidden_size if dtype == "fp32" else 1
    walk = (2 * config.num_hidden_layers * terms) ** 0.5
    for i, (tokens, logits) in enumerate(oracle):
        mine = free[i]["tokens"]
        total += new
        same += sum(a == b for a, b in zip(tokens, mine))
        for step, row in zip(forced[i]["steps"], logits):
            bound = EPS[dtype] * walk * float(row.abs().max()) * 4
            for token, logit in ((step[0], step[2]), (step[1], step[3])):
                worst = max(worst, abs(float(row[token]) - logit) / bound)
    return same / total, worst, stats


def check(name, agreement, worst, bar):
    ok = agreement >= bar and worst <= 1
    print(f"{'ok  ' if ok else 'FAIL'} {name}: tokens equal {agreement:.4f} (bar {bar}), "
          f"largest logit difference {worst:.3f} of the bound", flush=True)
    return ok


def tiny_models(dump, threads):
    ok = True
    generator = torch.Generator().manual_seed(5)
    with tempfile.TemporaryDirectory() as folder:
        for variant in sorted(VARIANTS):
            for dtype in ("fp32", "bf16"):
                bundle = os.path.join(folder, f"{variant}-{dtype}")
                make(bundle, variant, dtype=dtype)
                model = load_oracle(bundle, dtype)
                prompts = [torch.randint(3, 90, (n,), generator=generator).tolist()
                           for n in (1, 7, 40, 150)]
                agreement, worst, _ = compare(dump, bundle, dtype, prompts, 24, threads, model)
                # bf16 logits of random weights tie and flip often: the logit bound decides there.
                ok &= check(f"{variant} {dtype}", agreement, worst, 0.99 if dtype == "fp32" else 0.3)
        ok &= teeth(dump, folder, threads)
    return ok


def teeth(dump, folder, threads):
    """A weight moved by a thousandth in one row must break the logit bound."""
    from safetensors.torch import load_file, save_file
    bundle, bent = os.path.join(folder, "llama_tied-fp32"), os.path.join(folder, "bent")
    shutil.copytree(bundle, bent)
    path = os.path.join(bent, "model.safetensors")
    weights = load_file(path)
    weights["model.layers.1.self_attn.v_proj.weight"][3] *= 1.001
    save_file(weights, path, {"format": "pt"})
    write_manifest(bent, "bent")
    _, worst, _ = compare(dump, bent, "fp32", [[5, 6, 7, 8]], 8, threads, load_oracle(bundle, "fp32"))
    print(f"{'ok  ' if worst > 1 else 'FAIL'} teeth: a bent weight is {worst:.1f} of the bound")
    return worst > 1


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
        agreement, worst, stats = compare(args.dump, args.model, args.dtype, prompts, args.new,
                                          args.threads, load_oracle(args.model, args.dtype))
        print(json.dumps(stats))
        bar = 0.99 if args.dtype == "fp32" else 0.3
        ok &= check(f"{args.model} {len(prompts)} prompts x {args.new}", agreement, worst, bar)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
