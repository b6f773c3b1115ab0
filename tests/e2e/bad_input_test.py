"""Bad input of every kind ends in seconds with a message that names it, and leaves nothing behind.

A table of cases; each runs one command and checks four things: the exit status says "your input" (2),
no signal ended it, the message holds the words that name what is wrong, and the folders that it was to
write hold what they held before. --show prints every message for reading.
"""
import concurrent.futures
import json
import os
import socket
import subprocess
import sys
import time

from bad_bundles import BUNDLES, make_all
from cluster import BIN, PATIENCE, Cluster, end, run, say, workplace

SECONDS = 25 * PATIENCE  # of one case on a busy machine; nearly all of them take less than one
SHOW = "--show" in sys.argv[1:]

PROMPT_FILES = {
    "empty.jsonl": (b"", ["empty.jsonl"]),
    "broken.jsonl": (b'{"id": "a", "prompt": "x"}\n{"id": "b", "pro\n', ["broken.jsonl", "2"]),
    "nameless.jsonl": (b'{"id": "a", "text_of_it": "x"}\n', ["nameless.jsonl", "1"]),
    "number.jsonl": (b'{"id": "a", "prompt": 7}\n', ["number.jsonl", "1"]),
    "list.jsonl": (b'[1, 2]\n', ["list.jsonl", "1"]),
    "twice.jsonl": (b'{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n', ["'a'"]),
    "role.jsonl": (b'{"id": "a", "turns": [{"role": "pirate", "text": "x"}]}\n', ["role.jsonl"]),
    "quote.csv": (b'prompt\n"never closed\n', ["quote.csv"]),
    "header.csv": (b'colour,size\nred,2\n', ["header.csv"]),
    "bytes.txt": (b"fine\n\xff\xfe broken\n", ["bytes.txt"]),
    "nul.txt": (b"a\x00b\n", ["nul.txt"]),
    "sheet.xlsx": (b"PK\x03\x04", ["sheet.xlsx"]),
    "long.txt": (b"word " * 4000, ["prompt 'long-", "20018", "1024"]),
}

# plan -> what its message must hold
PLANS = {
    "": ["plan"], "*": ["character"], "*:": ["character"], "*:int9.asym.token": ["int9"],
    "*:int4.asym.tokens": ["tokens"], "*:int4.asym.group0": ["'0'"], "*:int4": ["int4"],
    "99:int4.asym.token": ["99"], "*:fp,3-1:int4.asym.token": ["3-1"],
    "*:fp,2:int4.asym.token,": ["character"], "0:int4.asym.token": ["layers 1-3"],
    "*:fp8_e4m3.asym": ["fp8_e4m3"], "*:int4.asym.token|": ["character"],
    "*:fp;rm -rf": ["character"], "*:int4.asym.token.window0": ["window0"],
    "*:int4.asym.token*": ["character"], "*:int99999999999999999999.asym.token": ["int9999"],
    "*:\u00efnt4.asym.token": ["character"],
    "int4.asym.token": ["character 1", "did you mean *:int4.asym.token"],
    "int4.asym.token|fp": ["did you mean *:int4.asym.token|fp"],
}

CONFIGS = {
    "unknown.txtpb": (b"colour: 3\n", ["unknown.txtpb", "colour"]),
    "type.txtpb": (b"workers { threads: \"many\" }\n", ["type.txtpb"]),
    "negative.txtpb": (b"workers { threads: -4 }\n", ["negative.txtpb"]),
    "open.txtpb": (b"workers {\n", ["open.txtpb"]),
    "broken.json": (b'{"workers": [', ["broken.json"]),
    "unknown.json": (b'{"wrokers": []}', ["unknown.json", "wrokers"]),
}
SETS = {"data_dir": ["data_dir"], "nosuch.field=1": ["nosuch"], "workers.9.threads=1": ["9"],
        "workers.0.threads=-1": ["-1"], "workers.0.threads=lots": ["lots"],
        "coordinator.server.listen=0.0.0.0:0": ["0.0.0.0"], "judge.server.listen=nowhere": ["nowhere"],
        "workers.0.dtype=int4": ["int4"], "workers.0.device=abacus": ["abacus"],
        "workers.0.device=cuda:1000": ["cuda:1000"],
        "coordinator.lease_ttl_seconds=1e9": ["1e9"]}

FLAGS = [
    (["frobnicate"], ["frobnicate"]), ([], ["subcommand"]), (["sweep"], ["--model"]),
    (["list", "--nosuch"], ["--nosuch"]),
    (["generate", "--max-new-tokens", "0"], ["--max-new-tokens", "0"]),
    (["generate", "--max-new-tokens", "many"], ["many"]),
    (["generate", "--stop-on-verdict", "--force", "any.jsonl"], ["--stop-on-verdict", "--force"]),
    (["generate", "--temperature", "-1"], ["--temperature"]),
    (["generate", "--temperature", "nan"], ["nan"]), (["generate", "--top-p", "2"], ["--top-p"]),
    (["generate", "--dtype", "int4"], ["int4"]), (["generate", "--device", "abacus"], ["abacus"]),
    (["generate", "--device", "cuda:1000"], ["cuda:1000"]), (["generate", "--device", "cuda:-1"], ["cuda:-1"]),
    (["diagnose", "--device", "gpu"], ["gpu", "cuda:N"]), (["diagnose", "--device", "cuda:1000"], ["cuda:1000"]),
    (["generate", "--worker", "127.0.0.1:1", "--dtype", "bf16"], ["--dtype", "--worker"]),
    (["sweep", "--coordinator", "127.0.0.1:1", "--workers", "2"], ["--workers", "--coordinator"]),
    (["sweep", "--detach"], ["--detach", "plumb up", "--coordinator"]), (["generate", "--seed", "-1"], ["-1"]),
    (["generate", "--threads", "-2"], ["-2"]), (["generate", "--max-running", "-5"], ["-5"]),
    (["generate", "--max-new-tokens", "2000"], ["2000"]),
    (["sweep", "--workers", "0"], ["--workers"]), (["sweep", "--policy", "nope"], ["nope"]),
    (["sweep", "--flip-limit", "7"], ["--flip-limit"]), (["sweep", "--max-prompts", "-3"], ["-3"]),
    (["diagnose", "--target", "int4.nope.token"], ["nope"]),
    (["diagnose", "--jitter-replicas", "99999999999"], ["99999999999"]),
    (["diagnose", "--jitter-replicas", "0"], ["--jitter-replicas", "1 to 16"]),
    (["diagnose", "--utility-text", "no/such.txt"], ["no/such.txt"]),
    (["sweep", "--utility-text", "none"], ["--utility-text"]),
    (["generate", "--top-p", "0.5"], ["0.5", "--temperature"]), (["sweep", "--top-p", "0.5"], ["0.5", "--temperature"]),
    (["sweep", "--detach", "--coordinator", "127.0.0.1:1", "--out", "any"], ["--detach", "any"]),
    (["sweep", "--exclude", "no/such.list"], ["no/such.list"]),
]

# Cases of which the input as it was written is not at fault.
FAILURES = {"bundle manifest-digest", "bundle file-short", "bundle file-flipped", "bundle weights-empty",
            "data is a file", "coordinator 127.0.0.1:1", "worker port 1", "study that measures nothing"}

# Requests to a running coordinator and worker.
REQUESTS = [
    (["report", "exp-nosuch"], ["exp-nosuch"]),
    (["report", "DONE", "--canonical", "--format", "csv"], ["--canonical", "csv"]), (["results", "exp-nosuch"], ["exp-nosuch"]),
    (["watch", "exp-nosuch"], ["exp-nosuch"]), (["cancel", "exp-nosuch"], ["exp-nosuch"]),
    (["resume", "exp-nosuch"], ["exp-nosuch"]), (["purge", "exp-nosuch"], ["exp-nosuch"]),
    (["gate", "exp-nosuch"], ["exp-nosuch"]), (["gate", "DONE", "--max-flip-rate", "2"], ["2"]),
    (["gate", "DONE", "--condition", "nosuch"], ["nosuch"]),
    (["export", "exp-nosuch", "--engine", "vllm"], ["exp-nosuch"]),
    (["export", "DONE", "--engine", "vllm", "--plan", "nosuch"], ["nosuch"]),
    (["export", "DONE", "--engine", "abacus"], ["abacus"]),
    (["sweep", "--model", "tiny-chat", "--prompts", "nosuch"], ["nosuch"]),
    (["sweep", "--model", "tiny-chat", "--prompts", "nosuch.csv"], ["--prompts", "cannot open nosuch.csv"]),
    (["custom", "--model", "tiny-chat", "--kv", "*:int9"], ["int9"]),
    (["canary", "--model", "tiny-chat", "--kv", "nope"], ["nope"]),
    (["mitigate", "--model", "tiny-chat", "--kv", "*:fp,0:fq"], ["fq"]),
    (["custom", "--model", "tiny-chat", "--kv", "77:fp"], ["77"]),
    (["custom", "--model", "tiny-chat", "--kv", "*:fp", "--max-new-tokens", "4000"], ["4000"]),
    (["sweep", "--model", "tiny-chat", "--judge", "oracle"], ["'oracle'", "keyword"]),
]


def base_cases(folder):
    """(name, words, words of the message, paths that must stay absent)"""
    tiny, fine = f"{folder}/models/tiny", f"{folder}/fine.txt"
    for name, (_, _, needles) in BUNDLES.items():
        yield f"bundle {name}", ["generate", "--model", f"{folder}/bad/{name}", "--prompts", fine], \
            needles, []
    yield "bundle absent", ["generate", "--model", f"{folder}/none", "--prompts", fine], ["none"], []
    for name, (_, needles) in PROMPT_FILES.items():
        yield f"prompts {name}", ["generate", "--model", tiny, "--prompts", f"{folder}/{name}"], \
            needles, []
        if name != "long.txt":
            data = f"{folder}/import-{name}"
            yield f"prompts import {name}", ["prompts", "import", f"{folder}/{name}", "--data", data], \
                needles, [f"{data}/prompts/{name.partition('.')[0]}"]
    yield "prompts absent", ["generate", "--model", tiny, "--prompts", f"{folder}/none.txt"], \
        ["none.txt"], []
    yield "prompts verify", ["prompts", "verify", f"{folder}/none"], ["none"], []
    for plan, needles in PLANS.items():
        yield f"plan {plan!r}", ["generate", "--model", tiny, "--prompts", fine, "--kv", plan], \
            needles, []
    for name, (_, needles) in CONFIGS.items():
        yield f"config {name}", ["up", "--config", f"{folder}/{name}", "--data", f"{folder}/up-c"], \
            needles, [f"{folder}/up-c"]
    yield "config absent", ["up", "--config", f"{folder}/none.txtpb"], ["none.txtpb"], []
    for number, (setting, needles) in enumerate(SETS.items()):
        yield f"set {setting}", ["up", "--model-root", f"{folder}/models", "--set", setting, "--data",
                                 f"{folder}/up-{number}"], needles, []
    yield "data is a file", ["up", "--data", fine], ["fine.txt"], []
    for words, needles in FLAGS:
        more = [] if len(words) < 2 or words[0] == "list" else ["--model", tiny, "--prompts", fine]
        if words and words[0] in ("sweep", "diagnose") and more:
            more += ["--data", f"{folder}/flags-{words[-2].strip('-')}"]
        yield f"flags {' '.join(words)}", words + more, needles, []


def file_cases(folder):
    """Imports that must not leave half a bundle."""
    fine, out = f"{folder}/fine.txt", f"{folder}/imported"
    for name, source, needles in (("absent", f"{folder}/none", ["none"]),
                                  ("text", fine, ["fine.txt"]),
                                  ("not gguf", f"{folder}/weights.gguf", ["weights.gguf"]),
                                  ("empty folder", f"{folder}/empty", ["empty"])):
        yield f"import {name}", ["models", "import", source, "--out", out], needles, [out]
    yield "show absent", ["models", "show", f"{folder}/none"], ["none"], []
    yield "watch nothing", ["watch", "exp-1", "--data", f"{folder}/no-data"], ["no-data", "no results"], \
        [f"{folder}/no-data"]
    yield "no results", ["report", "exp-1", "--data", f"{folder}/no-data"], ["no-data"], \
        [f"{folder}/no-data"]
    tiny = f"{folder}/models/tiny"
    known = fine_id(folder)
    for name, (content, needles) in forced_answers(known).items():
        path = f"{folder}/force-{name}.jsonl"
        with open(path, "w") as file:
            file.write(content)
        yield f"force {name}", ["generate", "--model", tiny, "--prompts", fine, "--force", path], \
            [*needles, *([] if name == "range" else [path])], []


def forced_answers(known):
    """name -> (content of the --force file, words of the message)"""
    def row(prompt, tokens="[5]"):
        return f'{{"id": "{prompt}", "token_ids": {tokens}}}\n'

    return {"text": ("hello\n", [":1"]), "word": (row(known, '["x"]'), [":1"]),
            "range": (row(known, "[5, 99999999]"), ["99999999"]),
            "stranger": (row(known) + row("nobody-1"), ["'nobody-1'", known]),
            "strangers": (row("a1") + row("a2") + row("a3") + row("a4"), ["'a1'", "1 more"]),
            "twice": (row(known) + row(known), [":2", known]),
            "empty": ("", [known])}


def fine_id(folder):
    done = run("generate", "--model", f"{folder}/models/tiny", "--prompts", f"{folder}/fine.txt",
               "--max-new-tokens", "1", "--json")
    return json.loads(done.stdout.splitlines()[0])["prompt_id"]


def request_cases(folder, address, worker, experiment):
    for words, needles in REQUESTS:
        words = [experiment if word == "DONE" else word for word in words]
        if words[0] in ("sweep", "custom", "canary", "mitigate") and "--prompts" not in words:
            words += ["--prompts", f"{folder}/fine.txt"]
        yield f"request {' '.join(words[:4])}", words + ["--coordinator", address], needles, []
    fine = ["--prompts", f"{folder}/fine.txt", "--worker", worker]
    yield "request model", ["generate", "--model", "nosuch", *fine], ["nosuch"], []
    yield "request plan", ["generate", "--model", "tiny-chat", "--kv", "*:int9", *fine], ["int9"], []
    yield "request context", ["generate", "--model", "tiny-chat", "--max-new-tokens", "4000", *fine], \
        ["4000"], []
    for where, needle in (("127.0.0.1:1", "127.0.0.1:1"), ("nowhere", "nowhere"),
                          ("192.0.2.1:7070", "192.0.2.1")):
        yield f"coordinator {where}", ["list", "--coordinator", where], [needle], []
    yield "worker port 1", ["generate", "--model", "x", "--prompts", f"{folder}/fine.txt", "--worker",
                            "127.0.0.1:1"], ["127.0.0.1:1"], []


def nothing_measured(folder, address):
    """Every cell is set aside, for no prompt fits the model: no verdict, and no success."""
    return ("study that measures nothing",
            ["canary", "--model", "tiny-chat", "--kv", "*:int8.asym.token", "--prompts",
             f"{folder}/long.txt", "--coordinator", address, "--out", f"{folder}/nothing-report"],
            ["baseline", "the only cell failed", "exceeds the model's context"],
            [f"{folder}/nothing-report"])


def check(case):
    """What is wrong with the way this case ended; empty if nothing."""
    name, words, needles, absent = case
    started = time.monotonic()
    try:
        done = subprocess.run([os.path.join(BIN, "plumb"), *words], capture_output=True,
                              timeout=SECONDS, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return f"{name}: still running after {SECONDS:g} s", name, SECONDS
    seconds = time.monotonic() - started
    message = done.stderr.decode(errors="replace")
    wrong = []
    # 1: a damaged file, a peer that is not there, a study that failed. 2: anything else that was given.
    if done.returncode != (1 if name in FAILURES else 2):
        wrong.append(f"exit {done.returncode}")
    wrong += [f"does not name {needle!r}" for needle in needles if needle not in message]
    wrong += [f"left {path}" for path in absent if os.path.exists(path)]
    if SHOW:
        say(f"--- {name} ({seconds:.1f} s, exit {done.returncode})\n{message.strip()}")
    return f"{name}: {', '.join(wrong)}\n    {message.strip()}" if wrong else "", name, seconds


def garbage_at_ports(cluster):
    """Bytes that are no gRPC at all leave every service up."""
    before = {name: cluster.pid(name) for name in ("coordinator", "judge", "worker-0", "pcr",
                                                   "quantsim", "capture")}
    for name in before:
        for port in cluster.ports(name).values():
            with socket.create_connection(("127.0.0.1", int(port)), 5) as wire:
                wire.sendall(b"GET / HTTP/9.9\r\n\r\n" + os.urandom(4096))
    time.sleep(1)
    after = {name: cluster.pid(name) for name in before}
    assert before == after, "a service ended after bytes that are no request"
    return len(before)


def prepare(folder):
    os.makedirs(f"{folder}/bad")
    os.makedirs(f"{folder}/empty")
    make_all(f"{folder}/bad", f"{folder}/models/tiny")
    files = {"fine.txt": (b"Say something about moss.\n", []),
             "weights.gguf": (b"GGUF\x03\x00\x00\x00" + b"\xff" * 40, [])}
    for name, (content, _) in {**PROMPT_FILES, **CONFIGS, **files}.items():
        with open(f"{folder}/{name}", "wb") as file:
            file.write(content)


def run_all(cases, workers):
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return list(pool.map(check, cases))


def with_cluster(folder):
    cluster = Cluster(f"{folder}/served", f"{folder}/models", workers=1)
    try:
        done = run("custom", "--model", "tiny-chat", "--kv", "*:fp", "--max-new-tokens", "2",
                   "--prompts", f"{folder}/fine.txt", "--coordinator", cluster.address, "--out",
                   f"{folder}/served-report")
        experiment = next(w for w in done.stderr.split() if w.startswith("exp-"))
        worker = f"127.0.0.1:{cluster.ports('worker-0')['grpc']}"
        tables = ("experiments", "cells", "results", "leases")
        before = [cluster.count(table) for table in tables]
        ended = run_all(list(request_cases(folder, cluster.address, worker, experiment)), 2)
        assert [cluster.count(table) for table in tables] == before, "a refused request left rows"
        ended.append(check(nothing_measured(folder, cluster.address)))
        say(f"{garbage_at_ports(cluster)} services stay up under bytes that are no requests")
        return ended
    finally:
        end(cluster.process)


def check_exit_codes_are_told():
    told = " ".join(run("--help").stdout.split())
    assert "1 it failed, or a service does not answer; 2 what was asked for must be mended" in told, told
    # A gate in a pipeline must not take a cluster that is away for a format over the limit.
    away = run("gate", "exp-1", "--coordinator", "127.0.0.1:1", check=False)
    assert away.returncode == 2 and "127.0.0.1:1" in away.stderr, away


def main():
    check_exit_codes_are_told()
    with workplace() as folder:
        prepare(folder)
        ended = run_all(list(base_cases(folder)) + list(file_cases(folder)), 2)
        ended += with_cluster(folder)
    wrong = [problem for problem, _, _ in ended if problem]
    slowest = max(ended, key=lambda case: case[2])
    say(f"{len(ended)} cases of bad input, {len(wrong)} wrong; "
        f"the slowest took {slowest[2]:.1f} s ({slowest[1]})")
    for problem in wrong:
        say("WRONG", problem)
    assert len(ended) >= 40 and not wrong


if __name__ == "__main__":
    main()
