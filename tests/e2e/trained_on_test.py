"""What a model was trained on takes no part in its studies, without anyone saying so.

Bundles of the tiny model carry a list of text hashes, as `plumb models import --trained-on` makes them: of
prompts written here, and the test model's own against the published prompts it was trained on.
"""
import csv
import hashlib
import json
import os
import re
import shutil

import tiny_bundle
from cluster import ROOT, Cluster, end, report_of, run, say, study, workplace
from tiny_bundle import make_tiny_model

BENCHMARKS = os.path.join(os.path.dirname(ROOT), "shared", "benchmarks")
TRAINED_ON = os.path.join(ROOT, "models", "testbed", "trained_on.sha256")


def provenance(cluster, experiment, folder):
    out = os.path.join(folder, "csv-" + experiment)
    run("report", experiment, "--format", "csv", "--out", out + "/", "--coordinator", cluster.address)
    with open(os.path.join(out, "provenance.csv"), newline="") as file:
        return dict(row[:2] for row in csv.reader(file))


def text_hash(text):
    """By definition (services/prompts/prompt_set.h)."""
    lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    return hashlib.sha256(re.sub(r"[ \t\n\v\f\r]+", " ", lowered).strip(" ").encode()).hexdigest()


def bundle_trained_on(folder, name, hashes):
    """The tiny model with a list: the same weights, the same digest."""
    bundle = shutil.copytree(os.path.join(folder, "models", "tiny"), os.path.join(folder, name))
    return add_list(bundle, "tiny-chat", hashes)


def add_list(bundle, model, hashes):
    with open(os.path.join(bundle, "trained_on.sha256"), "w") as file:
        file.write("".join(f"{line}\n" for line in sorted(hashes)))
    make_tiny_model.write_manifest(bundle, model)
    return bundle


def prompts_used(cluster, experiment):
    rows = run("results", experiment, "--coordinator", cluster.address).stdout.splitlines()
    return {json.loads(line)["prompt_id"] for line in rows}


def check_trained_on(cluster, folder):
    texts = {f"t{i}": f"Tell me  of Kite {i}." for i in range(20)}
    prompts = os.path.join(folder, "kites.jsonl")
    with open(prompts, "w") as file:
        file.write("".join(json.dumps({"id": i, "prompt": t}) + "\n" for i, t in texts.items()))
    seen = {f"t{i}" for i in range(0, 20, 3)}
    # Case and blanks do not make another prompt; strangers in the list do no harm.
    bundle = bundle_trained_on(folder, "trained", [text_hash(texts[i].upper()) for i in seen] + ["0" * 64])
    assert "trained_on.sha256" in run("models", "show", bundle, "--verify").stdout
    words = ["custom", "--kv", "*:fp", "--prompts", prompts]
    experiment, done = study(cluster, *words, model=bundle)
    assert f"{len(seen)} of 20 prompts are left out" in done.stderr, done.stderr
    assert prompts_used(cluster, experiment) == set(texts) - seen
    report = report_of(cluster, experiment)
    assert [int(s["excluded"]) for s in report["provenance"]["prompt_sets"]] == [len(seen)]
    says = "prompts that the model was trained on"
    told = provenance(cluster, experiment, folder)
    assert told[says] == f"{len(seen)} left out; the list names {len(seen) + 1} texts", told
    assert told["special tokens in prompts"] == "stay text"

    whole, done = study(cluster, *words, "--include-trained-on", "--parse-special", model=bundle)
    assert f"{len(seen)} of 20 prompts take part although" in done.stderr, done.stderr
    assert prompts_used(cluster, whole) == set(texts)
    told = provenance(cluster, whole, folder)
    assert told[says] == "take part, as was asked for", told
    assert told["special tokens in prompts"] == "become special tokens"

    with open(os.path.join(bundle, "trained_on.sha256"), "r+") as file:
        file.write("1")
    spoilt = run("custom", "--coordinator", cluster.address, "--model", bundle, *words[1:], check=False)
    assert spoilt.returncode == 1 and "SHA-256" in spoilt.stderr, spoilt.stderr
    say(f"trained on: {len(seen)} of 20 prompts left out, all of them with --include-trained-on")


def check_by_name(cluster, listed):
    """A coordinator has no bundle: it wants the list, or a word that none is wanted."""
    words = ["custom", "--coordinator", cluster.address, "--model", "tiny-listed", "--kv", "*:fp", "--max-prompts", 9,
             "--max-new-tokens", 2, "--out", f"{cluster.data}/by-name"]
    refused = run(*words, check=False)
    assert refused.returncode == 2 and "--exclude" in refused.stderr and "tiny-listed" in refused.stderr, refused.stderr
    assert cluster.count("experiments") == 0
    for more in (["--exclude", os.path.join(listed, "trained_on.sha256")], ["--include-trained-on"]):
        run(*words, *more)
    words[words.index("tiny-listed")] = listed
    assert "0 of" in run(*words).stderr
    say("trained on: by name alone a coordinator refuses a model that has a list")


def check_test_model_list(cluster, folder):
    """The test model's own list against the published prompts, half of which it was trained on."""
    source = os.path.join(BENCHMARKS, "advbench.csv")
    if not os.path.exists(source):
        say(f"SKIPPED: no {source}, which the test model was trained on: scripts/prompts/fetch_public.py")
        return
    with open(TRAINED_ON) as file:
        listed = {line.strip() for line in file if not line.startswith("#")}
    bundle = bundle_trained_on(folder, "as-testbed", listed)
    with open(source, newline="") as file:
        goals = [row["goal"] for row in csv.DictReader(file)]
    kept = [goal for goal in goals if text_hash(goal) not in listed]
    assert 250 <= len(kept) <= 270, len(kept)
    experiment, done = study(cluster, "custom", "--kv", "*:fp", "--prompts", source, model=bundle)
    assert f"{len(goals) - len(kept)} of {len(goals)} prompts are left out" in done.stderr, done.stderr
    rows = run("results", experiment, "--show-texts", "--coordinator", cluster.address).stdout.splitlines()
    # By prompt, for each has a cell as baseline and one as condition.
    asked = {row["prompt_id"]: row["spec"]["turns"][-1]["text"] for row in map(json.loads, rows)}
    assert sorted(asked.values()) == sorted(kept)
    assert not {text_hash(text) for text in asked.values()} & listed
    say(f"trained on: {len(kept)} of {len(goals)} AdvBench prompts are in the test model's study, none of its list")


def main():
    with workplace() as folder:
        listed = tiny_bundle.make(os.path.join(folder, "models", "listed"), seed=6)
        add_list(listed, "tiny-listed", ["0" * 64])
        cluster = Cluster(os.path.join(folder, "data"), os.path.join(folder, "models"))
        try:
            check_by_name(cluster, listed)
            check_trained_on(cluster, folder)
            check_test_model_list(cluster, folder)
        finally:
            end(cluster.process)


if __name__ == "__main__":
    main()
