#!/usr/bin/env python3
"""Do two runs of one study, such as one on a CPU and one on a GPU, come to the same answers and conclusions?

Each side is a folder with report.json (`plumb report ID --canonical --out report.json`) and results.jsonl
(`plumb results ID`). Two engines round differently, so single answers may differ; what must not differ:

  conditions   for each condition that both have, McNemar's exact test on the prompts that both ran: refused on one
               side alone against refused on the other alone; and the same for answers that broke down. No p under
               0.01 after Holm's correction over all of these tests
  prompts      sweeps and baselines ran the same prompts on both sides
  mode         the failure mode is the same, or one side calls it undetermined

  compare_studies.py CPU_FOLDER GPU_FOLDER [--json OUT]       exit 0 equal, 1 different, 2 cannot be compared
"""

import argparse
import json
import os
import sys

from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

ALPHA = 0.01
WHOLE_SET_STAGES = ("baseline", "sweep")
REFUSE = "VERDICT_LABEL_REFUSE"
BROKEN = ("VERDICT_LABEL_DEGENERATE", "VERDICT_LABEL_NONFINITE")
UNDETERMINED = ("FAILURE_MODE_UNDETERMINED", "FAILURE_MODE_UNSPECIFIED")


class CannotCompare(Exception):
    pass


def read_study(folder):
    """(failure mode, {condition: {prompt: (verdict, tokens)}}, {condition: stage})"""
    with open(os.path.join(folder, "report.json"), encoding="utf-8") as file:
        report = json.load(file)
    conditions, stages = {}, {}
    with open(os.path.join(folder, "results.jsonl"), encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            label = row.get("verdict", {}).get("label")
            if label is None:  # scored, not answered
                continue
            prompt = (row.get("prompt_set", ""), row["prompt_id"])
            tokens = row["result"].get("token_ids", [])
            conditions.setdefault(row["condition"], {})[prompt] = (label, tokens)
            stages[row["condition"]] = row["stage"]
    if not conditions:
        raise CannotCompare(f"{folder} holds no judged answers")
    mode = report.get("headline", {}).get("mode", "FAILURE_MODE_UNSPECIFIED")
    return mode, conditions, stages


def exact_p(one, other):
    return float(mcnemar([[0, one], [other, 0]], exact=True).pvalue) if one + other else 1.0


def compare_condition(name, left, right):
    prompts = sorted(left.keys() & right.keys())
    row = {"condition": name, "prompts": len(prompts), "equal_tokens": 0}
    for kind in ("refused", "broken"):
        row[kind] = [0, 0]
        row[f"{kind}_on_one_side"] = [0, 0]
    for prompt in prompts:
        (a, a_tokens), (b, b_tokens) = left[prompt], right[prompt]
        row["equal_tokens"] += a_tokens == b_tokens
        for kind, is_kind in (
            ("refused", lambda v: v == REFUSE),
            ("broken", lambda v: v in BROKEN),
        ):
            has = (is_kind(a), is_kind(b))
            for side in (0, 1):
                row[kind][side] += has[side]
                row[f"{kind}_on_one_side"][side] += has[side] and not has[1 - side]
    for kind in ("refused", "broken"):
        row[f"{kind}_p"] = exact_p(*row[f"{kind}_on_one_side"])
    return row


def compare(left, right):
    """Rows of all common conditions with Holm-adjusted p, and what speaks against equality."""
    (left_mode, left_conditions, stages), (right_mode, right_conditions, _) = left, right
    common = sorted(left_conditions.keys() & right_conditions.keys())
    if not common:
        raise CannotCompare("the studies have no condition in common")
    rows = [compare_condition(c, left_conditions[c], right_conditions[c]) for c in common]
    tests = [(row, kind) for row in rows for kind in ("refused", "broken")]
    adjusted = multipletests([row[f"{kind}_p"] for row, kind in tests], method="holm")[1]
    differences = []
    for (row, kind), p in zip(tests, adjusted):
        row[f"{kind}_holm_p"] = float(p)
        if p < ALPHA:
            one, other = row[f"{kind}_on_one_side"]
            differences.append(
                f"{row['condition']}: {one} prompts {kind} on the left alone, {other} on the right alone (Holm p {p:.2g})"
            )
    for condition in sorted(left_conditions.keys() | right_conditions.keys()):
        stage = stages.get(condition, "")
        whole = condition == "baseline" or stage in WHOLE_SET_STAGES
        if whole and left_conditions.get(condition, {}).keys() != right_conditions.get(condition, {}).keys():
            differences.append(f"{condition}: the sides ran other prompts")
    if left_mode != right_mode and not {left_mode, right_mode} & set(UNDETERMINED):
        differences.append(f"failure mode {left_mode} on the left, {right_mode} on the right")
    return {
        "conditions": rows,
        "only_left": sorted(left_conditions.keys() - right_conditions.keys()),
        "only_right": sorted(right_conditions.keys() - left_conditions.keys()),
        "modes": [left_mode, right_mode],
        "differences": differences,
    }


def show(outcome):
    rows = outcome["conditions"]
    pairs = sum(row["prompts"] for row in rows)
    equal = sum(row["equal_tokens"] for row in rows)
    print(f"{len(rows)} conditions, {pairs} answers on both sides, {equal / max(1, pairs):.1%} with equal tokens")
    print(f"{'condition':40} {'prompts':>7} {'equal':>6} {'refused':>9} {'broken':>9} {'Holm p':>7}")
    by_p = sorted(rows, key=lambda row: min(row["refused_p"], row["broken_p"]))
    first = ("baseline", "int4.asym.token", "target")
    for row in [r for r in rows if r["condition"] in first] + by_p[:10]:
        print(
            f"{row['condition'][:40]:40} {row['prompts']:7} {row['equal_tokens']:6} "
            f"{row['refused'][0]:4}/{row['refused'][1]:<4} {row['broken'][0]:4}/{row['broken'][1]:<4} "
            f"{min(row['refused_holm_p'], row['broken_holm_p']):7.3f}"
        )
    print(f"conditions on one side alone: {len(outcome['only_left'])} left, {len(outcome['only_right'])} right")
    print(f"failure modes: {outcome['modes'][0]} / {outcome['modes'][1]}")
    for difference in outcome["differences"]:
        print(f"DIFFERENT  {difference}")
    if not outcome["differences"]:
        print("EQUAL  as far as these tests see")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("--json", help="write everything here")
    args = parser.parse_args()
    try:
        outcome = compare(read_study(args.left), read_study(args.right))
    except (CannotCompare, OSError, KeyError, ValueError) as error:
        print(f"error: cannot compare: {error}", file=sys.stderr)
        return 2
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(outcome, file, indent=1)
    show(outcome)
    return 1 if outcome["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
