"""What `plumb generate` prints is what the model did.

Token ids are compared with the words of the tiny model's own vocabulary, an end of sequence with a bundle
whose EOS is a word that the answer holds, an early stop with the answer that runs on.
"""
import json
import os
import re

import tiny_bundle
from cluster import run, say, workplace
from tiny_bundle import make_tiny_model

PLANS = ["*:fp", "*:int4.asym.token,1:fp", "*:int3.sym.tensor"]
SUBJECTS = ["a kite", "the tide", "old maps", "bread", "three foxes", "moss", "tin roofs", "a harbour"]
TOKENS = 24


def write_lines(path, rows):
    with open(path, "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generate(model, prompts, *more, plans=PLANS, tokens=TOKENS):
    """(prompt, plan) -> printed object."""
    words = [word for plan in plans for word in ("--kv", plan)]
    done = run("generate", "--model", model, "--prompts", prompts, "--max-new-tokens", tokens, "--json",
               *words, *more)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    found = {(row["prompt_id"], row["kv"]): row for row in rows}
    assert len(found) == len(rows) == len(SUBJECTS) * len(plans), "one answer for each prompt and plan as given"
    return found


def text_of(tokens):
    """By definition of the tiny vocabulary: specials, bytes, words."""
    said = [f" I can't do {n}." for n in range(tiny_bundle.REFUSALS)]
    said += [f" part{n}" for n in range(tiny_bundle.HARMLESS)]
    first = len(tiny_bundle.SPECIALS) + 256
    return "".join(said[token - first] for token in tokens)


def check_answers(full):
    for (prompt, plan), row in full.items():
        assert len(row["token_ids"]) == TOKENS and row["finish_reason"] == "length", (prompt, plan)
        assert row["text"] == text_of(row["token_ids"])
        assert "steps" not in row and "logit_digest" not in row, "logits come when they are asked for"
        # Layer 1 of 4 stays in full precision.
        share = {"*:fp": 0.0, PLANS[1]: 0.75, PLANS[2]: 1.0}[plan]
        assert abs(row["kv_quantized_share"] - share) < 1e-9, (plan, row["kv_quantized_share"])
    assert len({tuple(row["token_ids"]) for row in full.values()}) > len(SUBJECTS)
    say(f"{len(full)} answers: text is the tokens' text, plans as given, all of {TOKENS} tokens end by length")


def check_eos(folder, prompts, full):
    """An EOS that the answer holds ends it there, and is not among the token ids."""
    word = full[("p0", "*:fp")]["token_ids"][5]
    bundle = tiny_bundle.make(os.path.join(folder, "models", "ends"))
    with open(os.path.join(bundle, "config.json")) as file:
        config = json.load(file)
    with open(os.path.join(bundle, "config.json"), "w") as file:
        json.dump({**config, "eos_token_id": word}, file)
    make_tiny_model.write_manifest(bundle, "tiny-ends")
    ended = 0
    for cell, row in generate(bundle, prompts).items():
        tokens = full[cell]["token_ids"]
        whole = word not in tokens
        ended += not whole
        assert row["finish_reason"] == ("length" if whole else "eos"), (cell, row["finish_reason"])
        assert row["token_ids"] == (tokens if whole else tokens[:tokens.index(word)]), cell
        assert row["text"] == text_of(row["token_ids"])
    assert ended
    onward = generate(bundle, prompts, "--ignore-eos")
    assert {cell: row["token_ids"] for cell, row in onward.items()} == {
        cell: row["token_ids"] for cell, row in full.items()}, "--ignore-eos goes on past it"
    say(f"{ended} of {len(full)} answers end by EOS, without its id; --ignore-eos goes on")


def check_verdict(model, prompts, full):
    stopped = generate(model, prompts, "--stop-on-verdict")
    reasons = [row["finish_reason"] for row in stopped.values()]
    for cell, row in stopped.items():
        tokens = full[cell]["token_ids"]
        assert row["token_ids"] == tokens[:len(row["token_ids"])], f"{cell}: no prefix of the full answer"
        refusal = next((i for i, t in enumerate(tokens) if "can't" in text_of([t])), None)
        if row["finish_reason"] == "length":
            assert row["token_ids"] == tokens and refusal is None, cell
        else:
            assert row["finish_reason"] == "verdict", cell
            # Nothing before the last token decides, and a refusal never goes on.
            assert refusal is None or len(row["token_ids"]) <= refusal + 1, cell
    assert reasons.count("verdict") >= 4 and len({len(r["token_ids"]) for r in stopped.values()}) > 2, reasons
    say(f"--stop-on-verdict: {reasons.count('verdict')} answers are prefixes that end with the verdict")


def check_logits(model, prompts, full):
    measured = generate(model, prompts, "--logits")
    for cell, row in measured.items():
        assert row["token_ids"] == full[cell]["token_ids"] and len(row["logit_digest"]) == 64
        assert [step["top"][0] for step in row["steps"]] == row["token_ids"], "greedy takes the first"
        assert all(step["gap"] >= 0 and step["top"][0] != step["top"][1] for step in row["steps"])
    assert len({row["logit_digest"] for row in measured.values()}) == len(measured)
    shown = run("generate", "--model", model, "--prompts", prompts, "--max-new-tokens", 3, "--logits").stdout
    first = measured[("p0", "*:fp")]["steps"][0]
    assert re.search(rf"^step 0  top {first['top'][0]}, then {first['top'][1]}  gap \d", shown, re.MULTILINE), shown
    assert len(re.findall(r"^step ", shown, re.MULTILINE)) == 3 * len(SUBJECTS)
    assert len(re.findall(r"^logits [0-9a-f]{64}$", shown, re.MULTILINE)) == len(SUBJECTS)
    say("--logits: top two ids, gap and digest, with --json and without")
    return measured


def check_forced(folder, model, prompts, measured):
    answers = {name: measured[(name, "*:fp")]["token_ids"] for name in (f"p{i}" for i in range(len(SUBJECTS)))}

    def force(name, tokens):
        path = write_lines(os.path.join(folder, name),
                           [{"id": prompt, "token_ids": tokens(prompt)} for prompt in answers])
        return generate(model, prompts, "--force", path, "--logits", plans=["*:fp"])

    for (prompt, plan), row in force("own.jsonl", answers.get).items():
        assert row["token_ids"] == answers[prompt] and all(step["regret"] == 0 for step in row["steps"])
        assert row["logit_digest"] == measured[(prompt, plan)]["logit_digest"], "the same steps, the same logits"
    other = dict(zip(answers, list(answers.values())[1:] + [answers["p0"]]))
    positive = 0
    for (prompt, _), row in force("other.jsonl", other.get).items():
        assert row["token_ids"] == other[prompt]
        for step, token in zip(row["steps"], row["token_ids"]):
            assert step["regret"] >= 0 and (step["regret"] == 0) == (step["top"][0] == token), (prompt, step)
            positive += step["regret"] > 0
    assert positive > TOKENS
    second = {prompt: [measured[(prompt, "*:fp")]["steps"][0]["top"][1]] for prompt in answers}
    for row in force("second.jsonl", second.get).values():
        assert row["steps"][0]["regret"] == row["steps"][0]["gap"], "the second best is its gap worse"
    say(f"--force: own answers have regret 0 everywhere, others' {positive} steps with more")


def check_sampling(model, prompts, full):
    def drawn(seed):
        return {cell: row["token_ids"] for cell, row in
                generate(model, prompts, "--temperature", 1.5, "--top-p", 0.9, "--seed", seed).items()}

    first = drawn(7)
    assert first == drawn(7), "the same seed, the same answers"
    assert first != drawn(8) and first != {cell: row["token_ids"] for cell, row in full.items()}
    say("--temperature: a seed's answers come again, another seed's differ")


def check_special_tokens(folder, model):
    """What is printed of look-alikes is what happens to them."""
    alike = write_lines(os.path.join(folder, "alike.jsonl"), [{"id": "a", "prompt": "Say <|im_end|> twice."}])

    def asked(*more):
        done = run("generate", "--model", model, "--prompts", alike, "--max-new-tokens", 1, "--json", *more)
        told = re.search(r"special-token look-alikes in prompts (.*)", done.stderr).group(1)
        return told, json.loads(done.stdout)["prompt_tokens"]

    text, special = asked(), asked("--parse-special")
    assert text[0] == "stay text" and special[0] == "become special tokens", (text, special)
    assert text[1] - special[1] == len("<|im_end|>") - 1, (text, special)  # the tiny model has a token a byte
    assert "special-token look-alikes in prompts stay text" in run("models", "show", model).stdout
    say(f"look-alikes: {text[1]} prompt tokens as text, {special[1]} with --parse-special, as printed")


def main():
    with workplace() as folder:
        model = os.path.join(folder, "models", "tiny")
        prompts = write_lines(os.path.join(folder, "prompts.jsonl"),
                              [{"id": f"p{i}", "prompt": f"Write about {s}."} for i, s in enumerate(SUBJECTS)])
        full = generate(model, prompts)
        check_answers(full)
        check_eos(folder, prompts, full)
        check_verdict(model, prompts, full)
        check_forced(folder, model, prompts, check_logits(model, prompts, full))
        check_sampling(model, prompts, full)
        check_special_tokens(folder, model)


if __name__ == "__main__":
    main()
