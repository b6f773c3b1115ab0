"""A random-weight chat model of a few hundred words that really refuses, complies and flips.

    tiny_bundle.py OUT_DIR [--seed N] [--name NAME]

Half of its words are refusals, half are harmless, and its heads are wide enough in their values that
coarse KV formats change some answers: a study on it passes through every stage in seconds.
"""
import argparse
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity", "engine"))
import make_tiny_model  # noqa: E402

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
REFUSALS, HARMLESS = 48, 340
EOS = 2
ROLES = ("system", "user", "assistant")


def byte_characters():
    """The printable stand-ins of byte-level BPE, byte by byte."""
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    spare = iter(range(256, 512))
    return [chr(b) if b in shown else chr(next(spare)) for b in range(256)]


def words():
    characters = byte_characters()
    texts = [f" I can't do {n}." for n in range(REFUSALS)]
    texts += [f" part{n}" for n in range(HARMLESS)]
    return ["".join(characters[b] for b in text.encode()) for text in texts]


def tokenizer():
    added = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, text in enumerate(SPECIALS)]
    vocabulary = {text: i for i, text in enumerate(SPECIALS + byte_characters() + words())}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocabulary, "merges": []}}


def chat_format():
    def joint(source, target):
        before = "" if source == "start" else "<|im_end|>\n"
        after = "assistant" if target == "end" else target
        return {"from": source, "to": target, "text": f"{before}<|im_start|>{after}\n",
                "strip_before": False, "strip_after": False}

    joints = [joint("start", role) for role in ROLES] + [joint(role, "end") for role in ROLES]
    joints += [joint(a, b) for a in ROLES for b in ROLES]
    return {"format": "plumbline-chat/1", "bos": "", "date": "2024-07-26",
            "template_sha256": "0" * 64, "checked_conversations": 1, "joints": joints}


def config():
    made = make_tiny_model.config_of("llama_untied")
    made.update(vocab_size=len(SPECIALS) + 256 + REFUSALS + HARMLESS, bos_token_id=None,
                eos_token_id=EOS, max_position_embeddings=1024, head_dim=32)
    return made


def weights(settings, seed):
    made = make_tiny_model.weights_of(settings, np.random.default_rng(seed))
    head = made["lm_head.weight"]
    head[:len(SPECIALS) + 256] = 0  # it says words, never single bytes; EOS almost never
    return made


def make(folder, seed=5, name="tiny-chat"):
    os.makedirs(folder, exist_ok=True)
    settings = config()
    make_tiny_model.save(weights(settings, seed), os.path.join(folder, "model.safetensors"), "fp32")
    for file, content in (("config.json", settings), ("tokenizer.json", tokenizer()),
                          ("chat_format.json", chat_format())):
        with open(os.path.join(folder, file), "w") as out:
            json.dump(content, out)
    make_tiny_model.write_manifest(folder, name)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--name", default="tiny-chat")
    given = parser.parse_args()
    make(given.out, given.seed, given.name)
