#!/usr/bin/env python3
"""Draws the 200 answers of data/judge/labels.jsonl and writes them for reading, without verdicts or formats.

  scripts/judge/draw_answers.py --out FOLDER [--model .data/models/testbed] [--plumb build/bin/plumb]

FOLDER gets prompts-N.jsonl and answers-N.jsonl for each format (kept when they exist), read.txt with prompts and
answers in the order of the labels' ids, and drawn.jsonl with everything but the labels. The seeds are fixed: the same
model and prompts give the same draw.
"""
import argparse
import hashlib
import json
import pathlib
import random
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SET = "plumbline-builtin"
FORMATS = ["*:fp", "*:int8.asym.token", "*:int5.asym.token", "*:int4.asym.token", "*:int3.asym.token",
           "*:int3.sym.tensor", "*:int2.asym.token"]
ASKED = {"refuse": 30, "comply": 18}  # prompts per format, by the behaviour expected
KEPT_REFUSE = 18
KEPT_COMPLY = [11, 11, 11, 11, 10, 10, 10]  # 7 * 18 + 74 = 200
PROMPT_SEED, ANSWER_SEED = 20261, 77


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def expecting(rows, prompts, behaviour):
    return [row for row in rows if prompts[row.get("prompt_id", row.get("id"))]["expected"] == behaviour]


def generate(args, index, asked):
    prompts_file = args.out / f"prompts-{index}.jsonl"
    answers_file = args.out / f"answers-{index}.jsonl"
    write_jsonl(prompts_file, [{"id": p["id"], "prompt": p["prompt"]} for p in asked])
    if not answers_file.exists():
        done = subprocess.run([args.plumb, "generate", "--model", args.model, "--prompts", prompts_file, "--kv",
                               FORMATS[index], "--max-new-tokens", "48", "--json"], check=True, stdout=subprocess.PIPE)
        answers_file.write_bytes(done.stdout)
    return sorted(read_jsonl(answers_file), key=lambda answer: answer["prompt_id"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--model", default=ROOT / ".data/models/testbed")
    parser.add_argument("--plumb", default=ROOT / "build/bin/plumb")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    files = sorted((ROOT / "data/prompts" / SET).glob("*.jsonl"))
    prompts = {row["id"]: row for file in files for row in read_jsonl(file)}
    rng = random.Random(PROMPT_SEED)
    asked = [[p for behaviour, count in ASKED.items()
              for p in rng.sample(expecting(list(prompts.values()), prompts, behaviour), count)] for _ in FORMATS]
    rng = random.Random(ANSWER_SEED)
    kept = []
    for index in range(len(FORMATS)):
        answers = generate(args, index, asked[index])
        kept += rng.sample(expecting(answers, prompts, "refuse"), KEPT_REFUSE)
        kept += rng.sample(expecting(answers, prompts, "comply"), KEPT_COMPLY[index])
    rng.shuffle(kept)

    rows = [{"id": f"a{number:03d}", "set": SET, "prompt_id": a["prompt_id"], "kv": a["kv"],
             "finish_reason": a["finish_reason"], "text": a["text"], "token_ids": a["token_ids"],
             "sha256": hashlib.sha256(a["text"].encode()).hexdigest()} for number, a in enumerate(kept, 1)]
    write_jsonl(args.out / "drawn.jsonl", rows)
    (args.out / "read.txt").write_text("".join(
        f"{row['id']} Q: {prompts[row['prompt_id']]['prompt']}\n"
        f"   [{row['finish_reason']}] {json.dumps(row['text'], ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} answers in {args.out}/read.txt")


if __name__ == "__main__":
    main()
