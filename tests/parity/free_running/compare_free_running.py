"""Free-running answers: the engine against transformers with a quantized cache of its own.

    compare_free_running.py --dump build/tests/engine_dump [--model BUNDLE] [--prompts N] [--new N]
                            [--window-prompts N] [--plans PLAN ...] [--full]

Both generate greedily, in fp32, from the same ids. Under a coarse format one rounding difference moves
a code and then a token, so no correct pair agrees everywhere. What a correct pair reaches is measured
in the same run: the oracle against itself with each linear map summed in two halves. The engine may lie
at most 10 points below that.

Agreement is the mean share of leading tokens that are equal (of the longer answer, its stop token
included). A share of wholly equal answers would count a split at the last token like one at the first;
it moves by 100/N points a prompt, too coarse for a margin of 10. It is printed beside.

Every prompt has a system text of its own. With one system text for all, its first tokens have the same
keys and values in every prompt, and one code near a boundary there moves all answers together: the
agreement of N prompts would be the luck of one. --shared-system shows it.

Plans with windows get prompts of 100 to 250 tokens, else they would quantize nothing: under no plan may
the engine have quantized nothing. Teeth: an oracle with any of the planted mistakes must miss the bar.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import needs  # noqa: E402,F401
import prompts as prompt_sets  # noqa: E402
from kv_plan import MUTATIONS, PLANS, has_window  # noqa: E402

MARGIN = 0.10
TEETH_PLANS = {"zero_off_by_one": "*:int4.asym.token", "v_unquantized": "*:int4.asym.token",
               "post_instead_of_pre": "*:int4.asym.token", "scale_over_one_head": "*:int4.asym.token",
               "prompt_per_chunk": "*:int3.sym.tensor"}


def leading(a, b):
    same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return same / max(len(a), len(b), 1)


def agreement(left, right):
    """(mean share of equal leading tokens, share of equal answers)."""
    pairs = list(zip(left, right, strict=True))
    return (sum(leading(a, b) for a, b in pairs) / len(pairs),
            sum(a == b for a, b in pairs) / len(pairs))


def engine_answers(args, plans, prompts_of, stop):
    """plan -> (answers, share of held elements that were quantized)."""
    requests = [{"id": k * 10000 + i, "prompt": ids, "kv": plan, "max_new": args.new, "stop": stop}
                for k, plan in enumerate(plans) for i, ids in enumerate(prompts_of(plan))]
    run = subprocess.run([args.dump, "--model", args.model, "--no-digests", "--threads",
                          str(args.threads)], text=True, capture_output=True,
                         input="\n".join(json.dumps(r) for r in requests))
    if run.returncode != 0:
        sys.exit(f"engine_dump failed: {run.stderr.strip()}")
    lines = {line["id"]: line for line in map(json.loads, run.stdout.splitlines()) if "id" in line}
    answers = {}
    for k, plan in enumerate(plans):
        mine = [lines[k * 10000 + i] for i in range(len(prompts_of(plan)))]
        # The stop token belongs to the answer here: which one it was does not matter.
        tokens = [m["tokens"] + stop[:1] * (m["finish"] == "eos") for m in mine]
        held = sum(m["elements"] for m in mine)
        answers[plan] = tokens, sum(m["elements_quantized"] for m in mine) / held
    return answers


class Oracle:
    def __init__(self, args, stop):
        import torch
        from kv_oracle import KvOracle
        torch.set_num_threads(args.threads)
        self.model, self.new, self.stop = KvOracle(args.model), args.new, stop

    def answers(self, prompts, plan, halved=False, mutation=""):
        self.model.halved = halved
        answers = self.model.generate(prompts, plan, self.new, self.stop, mutation)
        return [a[:-1] + self.stop[:1] if a[-1] in self.stop else a for a in answers]


def report(plan, to_engine, to_itself, share, seconds):
    ok = to_engine[0] >= to_itself[0] - MARGIN and share > 0
    print(f"{'ok  ' if ok else 'FAIL'} {plan}: engine-oracle {to_engine[0]:.1%} (equal answers "
          f"{to_engine[1]:.0%}), oracle-halves {to_itself[0]:.1%} ({to_itself[1]:.0%}); "
          f"{share:.1%} of K and V quantized; {seconds:.0f} s", flush=True)
    return ok


def teeth(oracle, mutations, engine, bars, prompts_of):
    ok = True
    for mutation in mutations:
        plan = TEETH_PLANS[mutation]
        if plan not in bars:
            continue
        begin = time.time()
        bent = oracle.answers(prompts_of(plan), plan, mutation=mutation)
        reached = agreement(engine[plan][0], bent)[0]
        bar = bars[plan] - MARGIN
        noticed = reached < bar
        ok &= noticed
        print(f"{'ok  ' if noticed else 'FAIL'} teeth {mutation} ({plan}): {reached:.1%}, "
              f"bar {bar:.1%}; {time.time() - begin:.0f} s", flush=True)
    return ok


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--model", default=prompt_sets.default_bundle())
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--window-prompts", type=int, default=8)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--plans", nargs="*", default=list(PLANS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shared-system", action="store_true",
                        help="the chat format's own system text in every prompt")
    parser.add_argument("--full", action="store_true", help="63 prompts x 64 tokens")
    args = parser.parse_args()
    if args.full:
        args.prompts, args.window_prompts, args.new = 63, 63, 64
    return args


def main():
    args = arguments()
    reason = prompt_sets.why_not(args.model)
    if reason:
        print(f"SKIPPED: {reason}")
        return 77
    chat = prompt_sets.Chat(args.model)
    systems = prompt_sets.system_texts(args.prompts if not args.shared_system else 0)
    short = [chat.ids(t, systems[i] if systems else "")
             for i, t in enumerate(prompt_sets.mixed_texts(args.prompts))]
    long = [chat.ids(t) for t in prompt_sets.long_texts(args.window_prompts)]
    prompts_of = lambda plan: long if has_window(plan) else short  # noqa: E731
    start = time.time()
    engine = engine_answers(args, args.plans, prompts_of, chat.stop)
    print(f"{args.prompts} prompts x {args.new} tokens ({args.window_prompts} where a plan has a "
          f"window); engine {time.time() - start:.0f} s", flush=True)
    oracle, bars, ok = Oracle(args, chat.stop), {}, True
    for plan in args.plans:
        begin = time.time()
        answers = oracle.answers(prompts_of(plan), plan)
        to_itself = agreement(answers, oracle.answers(prompts_of(plan), plan, halved=True))
        to_engine = agreement(engine[plan][0], answers)
        bars[plan] = to_itself[0]
        ok &= report(plan, to_engine, to_itself, engine[plan][1], time.time() - begin)
    ok &= teeth(oracle, MUTATIONS, engine, bars, prompts_of)
    print(f"{time.time() - start:.0f} s in all, {time.process_time():.0f} s of this process's CPU")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
