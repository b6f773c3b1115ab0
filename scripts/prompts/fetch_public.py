#!/usr/bin/env python3
"""Fetches the public suite of 1,894 prompts (arXiv 2606.09864) and checks every byte.

  scripts/prompts/fetch_public.py --out .data/benchmarks              downloads from the publishers
  scripts/prompts/fetch_public.py --out .data/benchmarks --from DIR   copies a folder laid out the same
  scripts/prompts/fetch_public.py --check DIR                         only checks and counts

Each file is pinned by SHA-256; a file that differs is refused with both digests and nothing is
left half-written. Files that are already there and right are not fetched again. Prints prompts per set
and split; `plumb prompts verify DIR` prints the same from C++. Only Python's standard library is needed.
The prompts stay outside the repository: they are data under their own licences.
"""
import argparse
import csv
import hashlib
import io
import json
import os
import pathlib
import re
import sys
import tempfile
import urllib.error
import urllib.request

RAW = "https://raw.githubusercontent.com/"
PAPER = RAW + "Adarsh321123/kv-quantization-alignment/682b9f6143234a69de6bae95fbad6f8a9e2d2afd/data/prompts/"
SPLITS = ("A", "B", "validation", "test")

# path, set, SHA-256, prompts, licence, source. services/prompts/public_suite.cc holds the same pins.
FILES = (
    ("advbench.csv", "advbench",
     "6cd1a5c63c07610d7eb67307772ee5606017ee950b5770ab288a2c487489d3e1", 520, "MIT",
     RAW + "llm-attacks/llm-attacks/main/data/advbench/harmful_behaviors.csv"),
    ("harmbench.csv", "harmbench",
     "75d257b3e7428c52eb7b0154318f455af3e01b09a3794b5e2f3d36054f3c0e29", 320, "MIT",
     RAW + "centerforaisafety/HarmBench/main/data/behavior_datasets/harmbench_behaviors_text_test.csv"),
    ("xstest.csv", "xstest",
     "11783fb294ed017473ee53c207d71f2161c7672c8d0b037501e78387f801cb5a", 450, "CC-BY-4.0",
     RAW + "paul-rottger/xstest/main/xstest_prompts.csv"),
    ("ifeval.jsonl", "ifeval",
     "67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49", 541, "Apache-2.0",
     RAW + "google-research/google-research/master/instruction_following_eval/data/input_data.jsonl"),
    ("custom/refusal.txt", "custom-refusal",
     "976c8d100a8015287cd8b28c1ec988e6d56120bf95e47e4170a8be2f9c95c8df", 19, "MIT",
     PAPER + "refusal.txt"),
    ("custom/privacy.txt", "custom-privacy",
     "587a888c4320735fea3135cad2e7e8801c4fc9f65c36ee0cc897f0b0900d8790", 21, "MIT",
     PAPER + "privacy.txt"),
    ("custom/jailbreak.txt", "custom-jailbreak",
     "98ff593a57d39d5a011a5fce3e2c174df7f199da38a0a8e84e4825a200bb6a18", 23, "MIT",
     PAPER + "jailbreak.txt"),
)


def fail(message):
    sys.exit("fetch_public: " + message)


def normalize(text):
    lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    return re.sub(r"[ \t\n\v\f\r]+", " ", lowered).strip(" ")


def split_of(text):
    """25 / 20 / 20 / 35 by the hash of the normalized text, as in services/prompts/splits.cc."""
    digest = hashlib.sha256(b"plumbline-split/1\n" + normalize(text).encode("utf-8")).hexdigest()
    place = int(digest[:16], 16) % 100
    return 0 if place < 25 else 1 if place < 45 else 2 if place < 65 else 3


def prompts_of(path, data):
    text = data.decode("utf-8")
    if path.endswith(".txt"):
        return [l.strip() for l in text.split("\n") if l.strip() and not l.strip().startswith("#")]
    if path.endswith(".jsonl"):
        return [json.loads(l)["prompt"] for l in text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    if "goal" in rows[0]:
        return [r["goal"] for r in rows]
    if "Behavior" in rows[0]:
        return [(r["ContextString"] + "\n\n---\n\n" if r["ContextString"] else "") + r["Behavior"]
                for r in rows]
    return [r["prompt"] for r in rows]


def read_source(path, url, folder):
    if folder is None:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.read(), url
        except (urllib.error.URLError, OSError) as error:
            fail(f"cannot download {url}: {error}; with a copy at hand use --from DIR")
    source = folder / path
    try:
        return source.read_bytes(), str(source)
    except OSError as error:
        fail(f"cannot read {source}: {error.strerror}; --from wants the layout "
             + " ".join(f[0] for f in FILES))


def checked(path, pin, data, origin):
    digest = hashlib.sha256(data).hexdigest()
    if digest != pin:
        fail(f"{origin}: SHA-256 is {digest}, pinned is {pin}: the file is not the published one "
             "(or its publisher changed it); nothing was written")
    return data


def write_atomically(target, data):
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name + ".")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        os.chmod(temporary, 0o600)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, help="folder to fill")
    parser.add_argument("--from", dest="source", type=pathlib.Path, help="copy from here, no download")
    parser.add_argument("--check", type=pathlib.Path, help="only check and count this folder")
    args = parser.parse_args()
    if (args.out is None) == (args.check is None):
        parser.error("give --out DIR or --check DIR")
    total, sums = 0, [0] * 4
    print(f"{'set':18s} {'rows':>6s} {'A':>6s} {'B':>6s} {'validation':>11s} {'test':>6s}")
    for path, name, pin, rows, _, url in FILES:
        folder = args.out or args.check
        target = folder / path
        if args.check or (target.exists() and
                          hashlib.sha256(target.read_bytes()).hexdigest() == pin):
            data = checked(path, pin, *read_source(path, url, folder))
        else:
            data = checked(path, pin, *read_source(path, url, args.source))
            write_atomically(target, data)
        prompts = prompts_of(path, data)
        if len(prompts) != rows:
            fail(f"{path}: {len(prompts)} prompts, expected {rows}")
        counts = [0] * 4
        for prompt in prompts:
            counts[split_of(prompt)] += 1
        total += rows
        sums = [a + b for a, b in zip(sums, counts)]
        print(f"{name:18s} {rows:6d} {counts[0]:6d} {counts[1]:6d} {counts[2]:11d} {counts[3]:6d}")
    print(f"{'total':18s} {total:6d} {sums[0]:6d} {sums[1]:6d} {sums[2]:11d} {sums[3]:6d}")


if __name__ == "__main__":
    main()
