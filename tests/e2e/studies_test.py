"""The commands round a study, each once to its end: what they print and how they exit.

One small study is judged at three limits, its plans are exported to every engine (transformers' text is run
by transformers), another is cancelled and resumed.
"""
import os
import re
import subprocess
import sys

from cluster import ROOT, Cluster, await_true, end, report_of, run, say, study, workplace

# Condition -> plan: one that each engine can express, and the one to be judged.
TARGET = "int4.asym.token"
ENGINE_PLANS = {"vllm": "fp8_e4m3.post", "llamacpp": "int8.sym.group32.post.s16",
                "transformers": "int4.affine.group32.post.exact.sb16"}
Z = 1.959963984540054  # of 95%


def wilson(flips, prompts):
    rate = flips / prompts
    centre, scale = rate + Z * Z / (2 * prompts), 1 + Z * Z / prompts
    half = Z * (rate * (1 - rate) / prompts + Z * Z / (4 * prompts * prompts)) ** 0.5
    return (centre - half) / scale, (centre + half) / scale


def gate(cluster, experiment, *words):
    return run("gate", experiment, "--coordinator", cluster.address, *words, check=False)


def check_gate(cluster, experiment):
    """Three limits on one study."""
    target = report_of(cluster, experiment)["target"]
    flips, prompts = int(target["flips"]), int(target["baseline_refusals"])
    low, high = wilson(flips, prompts)
    assert 5 < flips < prompts, (flips, prompts)
    for limit, code in ((high + 1e-6, 0), (high - 1e-6, 3), (low + 1e-6, 3), (low - 1e-6, 1)):
        done = gate(cluster, experiment, "--max-flip-rate", limit)
        assert done.returncode == code, (limit, done.returncode, done.stdout)
        assert f"{flips} of {prompts} refusals flip" in done.stdout
        if code != 3:
            assert "would decide it" not in done.stdout, done.stdout
            continue
        # It is said once.
        (more,) = map(int, re.findall(r"(?i)about (\d+) more refused prompts?", done.stdout))
        rate, total = flips / prompts, prompts + more
        decided = [wilson(rate * n, n) for n in (total, total - 1)]
        side = [not low <= limit <= high if rate != limit else False for low, high in decided]
        assert side[0] and (not side[1] or more == 1), (limit, more)
    assert gate(cluster, experiment, "--max-flip-rate", high + 1e-6, "--condition", "nosuch").returncode == 2
    say(f"gate: {flips} of {prompts} flip; exit 0 at {high + 1e-6:.4f}, 1 at {low - 1e-6:.4f}, 3 between")


def check_cannot_say(cluster):
    """A study of plain counts has no target."""
    experiment, _ = study(cluster, "custom", "--kv", "*:int8.asym.token", "--max-prompts", 12)
    done = gate(cluster, experiment, "--max-flip-rate", 0.05)
    assert done.returncode == 2 and "--condition" in done.stderr and not done.stdout, done
    assert '"int8.asym.token"' in done.stderr, done.stderr
    say(f"gate: exit 2 where nothing can be said: {done.stderr.strip()}")


# Runs the exported text as it stands, with the names that it expects from a program that serves.
TRANSFORMERS = """
import sys, torch
from transformers import LlamaConfig
class Model:
    config = LlamaConfig(hidden_size=96, intermediate_size=112, num_hidden_layers=4, num_attention_heads=6,
                         num_key_value_heads=2, head_dim=32, vocab_size=300)
    def generate(self, past_key_values):
        self.cache = past_key_values
model, inputs = Model(), {}
exec(sys.stdin.read())
layers = model.cache.layers
keys = torch.randn(1, 2, 9, 32, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
held = layers[0]._quantize(keys, layers[0].axis_key)
# Groups of 32 neighbouring channels of one token, with a scale and a minimum each.
print(type(model.cache).__name__, len(layers), layers[0].nbits, layers[0].q_group_size,
      layers[0].residual_length, held.qtype.bits, held._scale.numel())
"""


def check_export(cluster, experiment):
    def export(engine, plan):
        done = run("export", experiment, "--engine", engine, "--plan", plan, "--coordinator", cluster.address)
        assert f"plan: *:{plan}" in done.stderr, done.stderr
        return done.stdout.strip()

    settings = {engine: export(engine, plan) for engine, plan in ENGINE_PLANS.items()}
    assert settings["vllm"] == "--kv-cache-dtype fp8_e4m3", settings
    assert settings["llamacpp"] == ("LLAMA_ATTN_ROT_DISABLE=1 llama-server --cache-type-k q8_0 "
                                    "--cache-type-v q8_0 --flash-attn on"), settings
    refused = run("export", experiment, "--engine", "vllm", "--plan", TARGET, "--coordinator",
                  cluster.address, check=False)
    assert refused.returncode != 0 and "integer format" in refused.stderr, refused.stderr
    say("export: vllm and llamacpp as flags, what an engine cannot do is refused")
    fed = subprocess.run([sys.executable, "-c", TRANSFORMERS], input=settings["transformers"], text=True,
                         capture_output=True, timeout=300, check=False)
    if re.search(r"No module named '(torch|transformers|optimum)|install optimum-quanto", fed.stderr):
        say("SKIPPED: no transformers with optimum-quanto in .venv, which would run its export; "
            "run scripts/setup.sh --test")
        return
    assert fed.returncode == 0, fed.stderr
    assert fed.stdout.split() == ["QuantizedCache", "4", "4", "32", "1", "4", str(2 * 9)], fed.stdout
    say(f"export: transformers makes the cache: {fed.stdout.strip()}")


def check_mitigate(cluster, folder):
    """The better plan is recommended where the limit allows it, and is the one to be exported."""
    good, weak = "*:int8.asym.token", f"*:{TARGET},1:fp"
    text = os.path.join(folder, "utility.txt")
    with open(os.path.join(ROOT, "data", "text", "utility.txt")) as whole, open(text, "w") as some:
        some.write(whole.read(4000))  # the tiny model has a token a character
    experiment, _ = study(cluster, "mitigate", "--kv", good, "--kv", weak, "--target", TARGET, "--flip-limit", 0.3,
                          "--utility-text", text)
    report = report_of(cluster, experiment)
    plans = {plan["plan"]: plan for plan in report["plans"]}
    assert set(plans) == {good, weak} and all(int(plan["validation"]["cells"]) > 0 for plan in plans.values())
    flips = {plan: int(result["validation"]["flips"]) for plan, result in plans.items()}
    assert flips[good] < flips[weak], flips
    tested = plans[good]["test"]
    assert int(tested["cells"]) > 0 and int(tested["flips"]) < int(report["target"]["flips"]), tested
    assert report["headline"]["recommended_plan"] == good, report["headline"]
    name = plans[good]["name"]
    said = gate(cluster, experiment, "--condition", name).stdout
    assert tested["prompts"].startswith("split test"), tested
    assert said.startswith(f"{name} ({good}) on {tested['prompts']}: {tested['flips']} of "), said
    done = run("export", experiment, "--engine", "llamacpp", "--coordinator", cluster.address, check=False)
    assert done.returncode != 0 and "keys int8.asym.token is none of its cache types" in done.stderr, done
    say(f"mitigate: of 2 plans with these flips on validation {good} is recommended: {flips}")


def check_canary(cluster):
    words = ["canary", "--kv", f"*:{TARGET}", "--max-prompts", 150]
    experiment, done = study(cluster, *words)
    report = report_of(cluster, experiment)
    assert report["target"]["plan"] == f"*:{TARGET}" and int(report["target"]["cells"]) == 150
    assert report["headline"]["sentence"] in " ".join(done.stdout.split()), done.stdout
    again, repeated = study(cluster, *words)
    assert again == experiment and "(finished before)" in repeated.stderr, "the same command is the same study"
    assert gate(cluster, experiment, "--max-flip-rate", 0.99).returncode == 0
    say(f"canary: {report['headline']['sentence']}")


def check_resume(cluster):
    detached = run("custom", "--coordinator", cluster.address, "--model", "tiny-chat", "--kv",
                   "*:int2.asym.token", "--full-answers", "--max-new-tokens", 64, "--detach").stdout.strip()

    def finished():
        return cluster.query("SELECT COUNT(*) FROM experiment_cells JOIN results USING (cell_key) "
                             f"WHERE experiment_id = '{detached}'")[0][0]

    await_true(finished, 60, "the first results")
    assert "cancelled" in run("cancel", detached, "--coordinator", cluster.address).stdout
    before = finished()
    out = os.path.join(cluster.data, "resumed")
    run("resume", detached, "--coordinator", cluster.address, "--out", out)
    listed = run("list", "--coordinator", cluster.address).stdout
    assert re.search(detached + r" +custom +succeeded", listed), listed
    results = run("results", detached, "--coordinator", cluster.address).stdout.splitlines()
    assert len(results) > before > 0 and os.path.exists(os.path.join(out, "report.html")), os.listdir(out)
    refused = run("resume", detached, "--coordinator", cluster.address, check=False)
    assert refused.returncode != 0 and "succeeded" in refused.stderr, refused.stderr
    say(f"resume: cancelled at {before} of {len(results)} cells, then ran to the end")


def main():
    with workplace() as folder:
        cluster = Cluster(os.path.join(folder, "data"), os.path.join(folder, "models"))
        try:
            plans = [word for plan in (TARGET, *ENGINE_PLANS.values()) for word in ("--kv", f"*:{plan}")]
            experiment, _ = study(cluster, "sweep", *plans, "--target", TARGET, "--max-prompts", 250)
            check_gate(cluster, experiment)
            check_cannot_say(cluster)
            check_export(cluster, experiment)
            check_mitigate(cluster, folder)
            check_canary(cluster)
            check_resume(cluster)
        finally:
            end(cluster.process)


if __name__ == "__main__":
    main()
