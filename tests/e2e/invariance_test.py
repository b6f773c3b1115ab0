"""A cell's result is its own: not its batch's, its order's, its worker's or its early stop's.

The same cells run alone, together, in other orders, under other batch sizes and thread counts: token
ids and the digest of every logit must be equal. A study on one worker and on two, with many cells
audited, must give one canonical report. Verdicts must not depend on the early stop.
"""
import hashlib
import json
import os
import random
import time

from cluster import Cluster, Study, end, run, say, workplace

PLANS = ["*:fp", "*:int4.asym.token", "*:int3.sym.tensor", "*:fp,1:int3.sym.group64",
         "*:int8.sym.channel.prompt",
         # KIVI with windows short enough to matter here.
         "*:int4.affine.channel.window32x8.post.perhead.exact"
         "|int4.affine.group32.window32.perhead.exact"]
TOKENS = 12
SUBJECTS = ["a kite", "the tide", "old maps", "a long letter about the harbour at night",
            "bread", "three foxes", "rain on tin roofs and what it sounds like from inside", "moss"]


def write_prompts(path, prompts):
    with open(path, "w") as out:
        for name, text in prompts:
            out.write(json.dumps({"id": name, "prompt": text}) + "\n")
    return path


def generate(model, prompts, plans, *more):
    """(prompt, plan) -> (token ids, digest of all logits)."""
    words = [word for plan in plans for word in ("--kv", plan)]
    done = run("generate", "--model", model, "--prompts", prompts, "--max-new-tokens", TOKENS,
               "--ignore-eos", "--logits", "--json", *words, *more)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["prompt_id"], row["kv"]): (row["token_ids"], row["logit_digest"]) for row in rows}


def check_batches(folder):
    model = os.path.join(folder, "models", "tiny")
    prompts = [(f"p{i}", f"Write about {s} in {i + 1} lines.") for i, s in enumerate(SUBJECTS)]
    listed = write_prompts(os.path.join(folder, "all.jsonl"), prompts)
    together = generate(model, listed, PLANS)
    assert len(together) == len(prompts) * len(PLANS)
    assert len({digest for _, digest in together.values()}) == len(together), "digests say nothing"

    for number, (name, text) in enumerate(prompts):
        plan = PLANS[number % len(PLANS)]
        alone = write_prompts(os.path.join(folder, "one.jsonl"), [(name, text)])
        got = generate(model, alone, [plan])
        assert got == {(name, plan): together[name, plan]}, f"{name} under {plan} alone"
    say(f"batches: {len(prompts)} cells alone equal the same cells among {len(together)}")

    shuffled = random.Random(1).sample(prompts, len(prompts))
    other = write_prompts(os.path.join(folder, "other.jsonl"), shuffled)
    for more in ([], ["--max-running", "1"], ["--max-running", "3"], ["--max-running", "7"],
                 ["--threads", "1"], ["--threads", "3"]):
        assert generate(model, other, PLANS[::-1], *more) == together, f"reordered with {more}"
    say("batches: other order, 1 / 3 / 7 running at once, 1 / 3 threads: all tokens and logits equal")
    check_two_workers(folder, prompts, together)


def check_two_workers(folder, prompts, together):
    """The same cells divided between two workers, and a third of them each alone on a worker that has
    run others: every token and every bit of every logit as in the undivided run."""
    cluster = Cluster(os.path.join(folder, "divided"), os.path.join(folder, "models"), 2,
                      ["workers.0.threads=1", "workers.1.max_running=5"])
    try:
        addresses = [f"127.0.0.1:{cluster.ports(f'worker-{n}')['grpc']}" for n in (0, 1)]
        divided = {}
        for half, address in enumerate(addresses):
            listed = write_prompts(os.path.join(folder, f"half-{half}.jsonl"), prompts[half::2])
            got = generate("tiny-chat", listed, PLANS, "--worker", address)
            assert len(got) == len(prompts) // 2 * len(PLANS)
            divided.update(got)
        assert divided == together, "divided between two workers"
        alone = 0
        for number, (name, text) in enumerate(prompts):
            # Two cells of each prompt; the two workers take turns, so that none repeats its own.
            for plan in (PLANS[(number + 1) % len(PLANS)], PLANS[(number + 3) % len(PLANS)]):
                one = write_prompts(os.path.join(folder, "one.jsonl"), [(name, text)])
                got = generate("tiny-chat", one, [plan], "--worker", addresses[(number + 1) % 2])
                assert got == {(name, plan): together[name, plan]}, f"{name} under {plan} alone"
                alone += 1
    finally:
        end(cluster.process)
    say(f"workers: {len(divided)} cells divided between two, {alone} of them each alone on the other: "
        "tokens and digests of all logits equal")


def sweep_on(folder, name, workers, settings):
    cluster = Cluster(os.path.join(folder, name), os.path.join(folder, "models"), workers, settings)
    try:
        study = Study("sweep", "--coordinator", cluster.address, "--model", "tiny-chat", "--kv",
                      "*:int4.asym.token", "--kv", "*:int3.sym.tensor", "--max-new-tokens", "8",
                      "--max-prompts", "200", "--out", os.path.join(folder, name + "-report"))
        study.finish(180)
        digests = dict(cluster.query("SELECT cell_key, digest FROM results"))
        shares = dict(cluster.query("SELECT worker_id, COUNT(*) FROM results GROUP BY 1"))
        audits = dict(cluster.query("SELECT state, COUNT(*) FROM audits GROUP BY 1"))
        violations = cluster.count("violations")
        return cluster.canonical(study.id()), digests, shares, audits, violations
    finally:
        end(cluster.process)


def check_workers(folder):
    one = sweep_on(folder, "one-worker", 1, ["workers.0.threads=2"])
    two = sweep_on(folder, "two-workers", 2,
                   ["coordinator.audit_fraction=0.25", "coordinator.cells_per_lease=16",
                    "workers.0.threads=1", "workers.1.threads=1", "workers.1.max_running=5"])
    canonical = [hashlib.sha256(side[0]).hexdigest()[:16] for side in (one, two)]
    say(f"workers: cells of one worker {one[2]}, of two {two[2]}; audits equal {two[3].get(2, 0)}, "
        f"different {two[3].get(3, 0)}; canonical {canonical}")
    assert len(two[2]) == 2, "one of the two workers had nothing to do"
    assert two[3].get(2, 0) > 20 and two[3].get(3, 0) == 0 and two[4] == 0
    assert one[1] == two[1] and len(one[1]) > 300
    assert one[0] == two[0]
    for condition in json.loads(one[0])["sweep"]:
        prompts, divergence = int(condition["first_token_kl_prompts"]), condition["first_token_kl"]
        say(f"workers: first tokens under {condition['plan']}: {divergence:.3g} nats on {prompts} prompts")
        assert prompts == int(condition["cells"]) and divergence > 0


def verdicts(folder, name, *more):
    data = os.path.join(folder, name)
    started = time.monotonic()
    done = run("sweep", "--model", os.path.join(folder, "models", "tiny"), "--data", data, "--kv",
               "*:int4.asym.token", "--max-new-tokens", "24", *more, timeout=240)
    seconds = time.monotonic() - started
    experiment = next(w for w in done.stderr.split() if w.startswith("exp-"))
    listed = run("results", experiment, "--data", data).stdout.splitlines()
    rows = [json.loads(line) for line in listed]
    cells = {(r["condition"], r["prompt_id"]):
             (r["verdict"]["label"], r["result"]["finish_reason"], len(r["result"]["token_ids"]),
              r["result"]["first_tokens"])
             for r in rows}
    assert len(cells) == len(rows)
    return cells, seconds


def check_early_stop(folder):
    early, early_seconds = verdicts(folder, "early")
    full, full_seconds = verdicts(folder, "full", "--full-answers")
    stopped = sum(c[1] == "FINISH_REASON_VERDICT" for c in early.values())
    say(f"early stop: {len(early)} cells, {stopped} stopped early; tokens "
        f"{sum(c[2] for c in early.values())} against {sum(c[2] for c in full.values())}, "
        f"{early_seconds:.1f} s against {full_seconds:.1f} s")
    assert len(early) >= 500 and stopped >= 100
    assert not any(c[1] == "FINISH_REASON_VERDICT" for c in full.values())
    assert {k: v[0] for k, v in early.items()} == {k: v[0] for k, v in full.items()}
    assert {k: v[3] for k, v in early.items()} == {k: v[3] for k, v in full.items()}
    assert all(len(c[3]) == 32 for c in full.values())
    labels = {c[0] for c in full.values()}
    assert len(labels) >= 2, f"every verdict is {labels}: that tests nothing"
    say(f"early stop: equal verdicts, of the kinds {sorted(labels)}")


def main():
    with workplace() as folder:
        check_batches(folder)
        check_workers(folder)
        check_early_stop(folder)


if __name__ == "__main__":
    main()
