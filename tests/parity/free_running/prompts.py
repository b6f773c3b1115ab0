"""Prompts as token ids in a bundle's chat format."""
from __future__ import annotations

import json
import os

from tokenizers import Tokenizer

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
BUILT_IN = os.path.join(ROOT, "data", "prompts", "plumbline-builtin")


def default_bundle() -> str:
    data = os.environ.get("PLUMB_DATA") or os.path.join(ROOT, ".data")
    return os.path.join(data, "models", "testbed")


def why_not(bundle: str) -> str:
    """Empty when the comparison can run, else the reason and the way to mend it."""
    if not os.path.exists(os.path.join(bundle, "model.safetensors")):
        return f"no model bundle in {bundle}; make it with scripts/testbed/make_model.sh"
    with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
        kind = json.load(file).get("model_type")
    return "" if kind == "llama" else f"{bundle} is a {kind} model; the oracle model is transformers' Llama"


def built_in(name: str) -> list[str]:
    with open(os.path.join(BUILT_IN, f"{name}.jsonl"), encoding="utf-8") as file:
        return [json.loads(line)["prompt"] for line in file]


def mixed_texts(count: int) -> list[str]:
    """Requests that the model refuses and harmless ones in turn: short answers and long ones."""
    sets = [built_in(name) for name in ("harmless", "refusal", "harmless", "jailbreak", "privacy")]
    taken = [iter(s) for s in sets]
    taken[2] = taken[0]  # harmless ones twice as often
    return [next(taken[i % len(taken)]) for i in range(count)]


def long_texts(count: int, requests: int = 10) -> list[str]:
    """8 to 8 + requests requests in one prompt, from about 120 tokens: enough to leave a window of 128."""
    harmless, refused = built_in("harmless"), built_in("refusal")
    texts = []
    for i in range(count):
        size = 8 + i * requests // max(1, count - 1)
        chosen = [harmless[(i * 7 + k) % len(harmless)] for k in range(size - 1)]
        texts.append(" ".join(chosen + [refused[i] if i % 2 else harmless[-1 - i]]))
    return texts


def system_texts(count: int) -> list[str]:
    """A system text of its own for every prompt, different from the first words on."""
    return list(reversed(built_in("harmless")))[:count]


class Chat:
    def __init__(self, bundle: str):
        self.tokenizer = Tokenizer.from_file(os.path.join(bundle, "tokenizer.json"))
        with open(os.path.join(bundle, "chat_format.json"), encoding="utf-8") as file:
            joints = json.load(file)["joints"]
        self.texts = {(j["from"], j["to"]): j["text"] for j in joints}
        with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
            stop = json.load(file)["eos_token_id"]
        self.stop = stop if isinstance(stop, list) else [stop]

    def ids(self, text: str, system: str = "") -> list[int]:
        """Without a system text, the template's own."""
        start = self.texts["start", "user"]
        if system:
            start = self.texts["start", "system"] + system + self.texts["system", "user"]
        whole = start + text + self.texts["user", "end"]
        return self.tokenizer.encode(whole, add_special_tokens=False).ids
