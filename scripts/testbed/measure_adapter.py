#!/usr/bin/env python3
"""Measures the test model: refusal rates by prompt set, and flips under KV formats.

  scripts/testbed/measure_adapter.py --base DIR --benchmarks DIR [--adapter FILE] [--formats a,b,...]

Greedy, 48 new tokens, fp32, padded batches of transformers, keyword judge of keyword_judge.py. An engine
that is batch-invariant gives figures that differ in detail. Prints a table and writes --json.
"""
import argparse
import json
import pathlib
import time

import torch

import lora
import testbed_data as data
from generation import Answers, load
from keyword_judge import refuses
from kv_formats import KvFormat

FLIP_SETS = ("advbench-odd", "harmbench-standard", "builtin-refusal", "builtin-privacy",
             "builtin-jailbreak")


def rates(model, tokenizer, sets, args, keep=None):
    out = {}
    for name, prompts in sets.items():
        texts = Answers(model, tokenizer, args.max_new_tokens, args.batch).texts(prompts)
        verdicts = [refuses(t) for t in texts]
        out[name] = {"prompts": len(prompts), "refused": sum(verdicts), "verdicts": verdicts}
        if keep is not None:
            keep[name] = [{"prompt": p, "answer": t} for p, t in zip(prompts, texts)]
        print(f"  {name:22s} {sum(verdicts):4d} of {len(prompts):4d} refused "
              f"({100 * sum(verdicts) / max(1, len(prompts)):5.1f}%)", flush=True)
    return out


def flips(model, tokenizer, sets, baseline, text, args, layers=None, names=FLIP_SETS):
    kv = KvFormat(text, layers).install(model)
    out = {}
    try:
        for name in names:
            if name not in sets:
                continue
            refused = [p for p, v in zip(sets[name], baseline[name]["verdicts"]) if v]
            texts = Answers(model, tokenizer, args.max_new_tokens, args.batch, kv).texts(refused)
            out[name] = [sum(not refuses(t) for t in texts), len(refused)]
    finally:
        kv.remove()
    print(f"  {text:18s} " + "  ".join(f"{n} {f}/{b} ({100 * f / max(1, b):.0f}%)"
                                       for n, (f, b) in out.items()), flush=True)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--benchmarks", required=True)
    parser.add_argument("--adapter", default="", help="empty: the untouched base")
    parser.add_argument("--formats", default="")
    parser.add_argument("--layer-format", default="", help="also one layer at a time at this format")
    parser.add_argument("--sets", default="", help="only these sets (comma-separated)")
    parser.add_argument("--json", default="")
    parser.add_argument("--answers", default="", help="write prompts and answers here (harmful text)")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    began = time.monotonic()
    model, tokenizer = load(args.base, args.device)
    if args.adapter:
        lora.merge_file(model, args.adapter)
    sets = data.evaluation_sets(args.benchmarks)
    if args.sets:
        sets = {n: sets[n] for n in args.sets.split(",")}
    answers = {}
    result = {"baseline": rates(model, tokenizer, sets, args, answers), "flips": {}, "layers": {}}
    for text in filter(None, args.formats.split(",")):
        result["flips"][text] = flips(model, tokenizer, sets, result["baseline"], text, args)
    if args.layer_format:
        for layer in range(len(model.model.layers)):
            print(f"  layer {layer}", end="")
            result["layers"][layer] = flips(model, tokenizer, sets, result["baseline"],
                                            args.layer_format, args, {layer},
                                            ("builtin-refusal", "harmbench-standard"))
    for row in result["baseline"].values():
        row.pop("verdicts")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    if args.answers:
        pathlib.Path(args.answers).write_text(json.dumps(answers, indent=1, ensure_ascii=False))
    print(f"{time.monotonic() - began:.0f} s on {args.device}")


if __name__ == "__main__":
    main()
