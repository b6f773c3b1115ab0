"""Talks to the C++ tokenizer_dump binary: one JSON line a request."""

import json
import subprocess


def ask(binary, tokenizer_path, requests, chat_path=None):
    command = [binary, str(tokenizer_path)] + ([str(chat_path)] if chat_path else [])
    lines = "\n".join(json.dumps(request) for request in requests) + "\n"
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"tokenizer_dump failed on {tokenizer_path}: {done.stderr}")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(requests):
        raise SystemExit(f"tokenizer_dump gave {len(answers)} answers to {len(requests)} requests")
    return answers


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8")


def encode_requests(texts, special):
    return [{"op": "encode", "hex": as_bytes(text).hex(), "special": special} for text in texts]
