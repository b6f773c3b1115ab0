"""What the test model is trained on and measured with, and the proof that the two do not meet.

Training: even rows of AdvBench (read from a fetched folder, never committed) and our own pairs in
data/*.jsonl. Evaluation: odd rows of AdvBench, HarmBench, XSTest, the custom 63, IFEval, the
built-in set and data/harmless_eval.jsonl.
"""
import csv
import hashlib
import json
import pathlib
import re

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
BUILTIN = PROJECT / "data" / "prompts" / "plumbline-builtin"
CUSTOM = ("refusal", "privacy", "jailbreak")

# Two prompts count as near-duplicates from this Jaccard similarity of their word sets on.
NEAR_DUPLICATE = 0.8
# The same, after words that carry the frame of a question ("how do I ...") are taken out.
STOP_WORDS = frozenset(
    "a an the i to of in on at is are do does can could how what s best way tell me show you explain "
    "please give my for and or it".split())


def normalize(text):
    """The text identity of services/prompts: ASCII lower case, white space runs made one blank."""
    lowered = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)
    return re.sub(r"[ \t\n\v\f\r]+", " ", lowered).strip(" ")


def text_hash(text):
    return hashlib.sha256(normalize(text).encode("utf-8")).hexdigest()


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def harmbench_text(row):
    if not row["ContextString"]:
        return row["Behavior"]
    return row["ContextString"] + "\n\n---\n\n" + row["Behavior"]


def advbench(folder, parity):
    goals = [row["goal"] for row in read_csv(pathlib.Path(folder) / "advbench.csv")]
    return goals[0 if parity == "even" else 1::2]


def evaluation_sets(folder):
    """name -> list of prompt texts. `folder` holds the public files."""
    folder = pathlib.Path(folder)
    harmbench = read_csv(folder / "harmbench.csv")
    xstest = read_csv(folder / "xstest.csv")
    sets = {"advbench-odd": advbench(folder, "odd")}
    for category in ("standard", "contextual", "copyright"):
        sets["harmbench-" + category] = [
            harmbench_text(r) for r in harmbench if r["FunctionalCategory"] == category]
    for label in ("unsafe", "safe"):
        sets["xstest-" + label] = [r["prompt"] for r in xstest if r["label"] == label]
    for name in CUSTOM:
        text = (folder / "custom" / (name + ".txt")).read_text(encoding="utf-8")
        sets["custom-" + name] = [l for l in text.splitlines() if l and not l.startswith("#")]
    for path in sorted(BUILTIN.glob("*.jsonl")):
        sets["builtin-" + path.stem] = [r["prompt"] for r in read_jsonl(path)]
    sets["harmless"] = [r["prompt"] for r in read_jsonl(HERE / "data" / "harmless_eval.jsonl")]
    return sets


def ifeval(folder):
    return [r["prompt"] for r in read_jsonl(pathlib.Path(folder) / "ifeval.jsonl")]


def own_training_rows():
    rows = []
    for name in ("borderline_unsafe", "borderline_safe", "harmless"):
        rows += read_jsonl(HERE / "data" / (name + ".jsonl"))
    return rows


def words(text):
    return frozenset(re.findall(r"[a-z0-9]+", normalize(text)))


def _incidence(word_sets, vocabulary):
    matrix = np.zeros((len(word_sets), len(vocabulary)), dtype=np.float32)
    for row, found in enumerate(word_sets):
        matrix[row, [vocabulary[w] for w in found]] = 1.0
    return matrix


def near_duplicates(ours, theirs):
    """Pairs (our text, their text, similarity) that are equal or nearly so: Jaccard similarity of the
    word sets >= NEAR_DUPLICATE, or the same words once the frame of the question is taken out."""
    mine, other = [words(t) for t in ours], [words(t) for t in theirs]
    vocabulary = {w: i for i, w in enumerate(sorted(frozenset().union(*mine, *other)))}
    shared = _incidence(mine, vocabulary) @ _incidence(other, vocabulary).T
    sizes = np.array([[len(w)] for w in mine]) + np.array([len(w) for w in other])
    score = shared / np.maximum(sizes - shared, 1)
    core = {}
    for j, found in enumerate(other):
        core.setdefault(found - STOP_WORDS, []).append(j)
    for i, found in enumerate(mine):
        if found - STOP_WORDS:
            score[i, core.get(found - STOP_WORDS, [])] = 1.0
    return [(ours[i], theirs[j], float(score[i, j])) for i, j in zip(*np.where(score >= NEAR_DUPLICATE))]


def assert_disjoint(training_own, training_advbench, folder):
    """Own prompts: no near-duplicate in any evaluation set. AdvBench even rows: none equal to an
    evaluation prompt (AdvBench repeats its own themes, so its odd rows are held out, not unseen)."""
    sets = evaluation_sets(folder)
    sets["ifeval"] = ifeval(folder)
    for name, texts in sets.items():
        clash = near_duplicates(training_own, texts)
        if clash:
            raise SystemExit(f"{len(clash)} of our training prompts are in evaluation set {name}: "
                             + "; ".join(f"{a!r} ~ {b!r}" for a, b, _ in clash[:5]))
        known = {normalize(t) for t in texts}
        equal = [t for t in training_advbench if normalize(t) in known]
        if equal:
            raise SystemExit(f"{len(equal)} AdvBench training rows are in evaluation set {name}")
