"""Texts to compare on: the benchmark prompts where they are present, and seeded random ones."""

import csv
import json
import random

BENCHMARK_PROMPTS = 1894
LOOK_ALIKES = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|begin_of_text|>",
    "<tool_call>",
    "<mask>",
    "</s>",
    "word",
    "<both>",
    "  ",
    "caf\u00e9!",
    "cafe\u0301!",
    "\uff21\uff22",
    "<|im",
    "<|im_<|im_end|>",
    "<|im_end|",
    "``",
]
RANGES = [
    (0x20, 0x7E),
    (0xA0, 0x24F),
    (0x300, 0x36F),
    (0x370, 0x5FF),
    (0x600, 0x6FF),
    (0x900, 0xDFF),
    (0x1100, 0x11FF),
    (0x2000, 0x206F),
    (0x2150, 0x218F),
    (0x3000, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xFB00, 0xFB06),
    (0xFE00, 0xFFEF),
    (0x1D400, 0x1D7FF),
    (0x1F300, 0x1FAFF),
    (0x0, 0x1F),
    (0x7F, 0x9F),
    (0xE000, 0xE0FF),
    (0x180E, 0x180E),
]
WORDS = [
    "the",
    "I'll",
    "DON'T",
    "it\u017f'\u017f",
    "x2",
    "3.14159",
    "2024-07-26",
    "\u0663\u0664",
    "\u00b2\u00bd",
    "naive",
    "a" * 40,
    "\n\n",
    "\r\n",
    "\t",
    "   ",
    " \n ",
    "\u00a0",
    "\u3000",
    "-->",
    "A-B",
    "##",
    "CamelCase",
    "\u0130",
    "\u00df",
]


def benchmark_prompts(folder):
    """The prompts of the public sets, or None where the folder is not present."""
    if not folder.is_dir():
        return None
    prompts = [
        row["goal"]
        for row in csv.DictReader(open(folder / "advbench.csv", encoding="utf-8", newline=""))
    ]
    prompts += [
        row["Behavior"]
        for row in csv.DictReader(open(folder / "harmbench.csv", encoding="utf-8", newline=""))
    ]
    prompts += [
        row["prompt"]
        for row in csv.DictReader(open(folder / "xstest.csv", encoding="utf-8", newline=""))
    ]
    prompts += [
        json.loads(line)["prompt"] for line in open(folder / "ifeval.jsonl", encoding="utf-8")
    ]
    for name in ("refusal", "privacy", "jailbreak"):
        lines = open(folder / "custom" / f"{name}.txt", encoding="utf-8").read().splitlines()
        prompts += [line for line in lines if line.strip() and not line.startswith("#")]
    return prompts


def random_character(rng, ranges):
    while True:
        low, high = rng.choice(ranges)
        code = rng.randint(low, high)
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def random_text(rng, words=None):
    parts = []
    for _ in range(rng.choice((0, 1, 2, 4, 8, 16))):
        kind = rng.random()
        if kind < 0.15:
            parts.append(rng.choice(LOOK_ALIKES))
        elif kind < 0.4:
            parts.append(rng.choice(WORDS))
        elif kind < 0.55:
            parts.append("".join(rng.choice("0123456789") for _ in range(rng.randint(1, 7))))
        elif kind < 0.7 and words:
            parts.append(rng.choice(words))
        elif kind < 0.95:
            parts.append("".join(random_character(rng, RANGES) for _ in range(rng.randint(1, 6))))
        else:
            parts.append(random_character(rng, [(0, 0x10FFFF)]))
        if rng.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def random_texts(seed, count, words=None):
    rng = random.Random(seed)
    return [random_text(rng, words) for _ in range(count)]


def broken_bytes(seed, count):
    """UTF-8 that was cut, spliced and overwritten."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):
        raw = bytearray(random_text(rng).encode("utf-8") or b"\xf0\x9f\x98\x80")
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(raw))
            raw[at : at + rng.randint(0, 2)] = bytes(
                rng.choice((0x80, 0xBF, 0xC0, 0xE0, 0xED, 0xF0, 0xF4, 0xF5, 0xFF, 0x41))
                for _ in range(rng.randint(0, 3))
            )
            raw = raw or bytearray(b"\xe2\x82")
        out.append(bytes(raw[: rng.randint(1, len(raw))]))
    return out
