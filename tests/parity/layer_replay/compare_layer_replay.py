"""Layer replay: the oracle's hidden states through single blocks of the engine.

    compare_layer_replay.py --dump build/tests/engine_dump [--model BUNDLE] [--layers 0,14] [--full]

The oracle (transformers, fp32, its own quantized cache) answers a prompt under each plan; the input of a
block, row by row, goes through the engine's same block. Then, element by element:
 - keys and values before quantization, and the block's output once the engine's attention is given the
   oracle's keys and values, lie within the bound of rounding_model.py;
 - codes are equal, except where the oracle's own value lies within 1e-4 of a rounding boundary (in
   codes);
 - of fp8, whose spacing shrinks with the value, below the rounding of the sum that made it, codes are
   those of the engine's own raw values, which the first point holds to the oracle's. Values and keys
   stored after rotation: without exception. Keys stored before it can be seen rotated alone, so that one
   may differ where a boundary is nearer than the rounding of a rotation there and back.
Every layer is replayed, four of them under each plan; --full replays each layer under each plan.
Teeth: planted mistakes on the oracle's side must each break the codes, a single fp8 code its neighbour's
place, a bent weight the outputs.
"""
from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(HERE, "..", "free_running"))
import needs  # noqa: E402,F401
import prompts as prompt_sets  # noqa: E402
import rounding_model  # noqa: E402
import torch  # noqa: E402
from kv_plan import MUTATIONS, PLANS, parse_plan  # noqa: E402
from lattice import Lattice  # noqa: E402
from replay_cases import deal, make_cases  # noqa: E402
from replay_engine import ReplayEngine  # noqa: E402

NEAR_BOUNDARY = 1e-4  # codes
OFF_LATTICE = 0.01  # codes: two sides' scales differ by their own rounding only
TEETH_PLANS = {"zero_off_by_one": "*:int4.asym.token", "v_unquantized": "*:int4.asym.token",
               "post_instead_of_pre": "*:int4.asym.token", "scale_over_one_head": "*:int3.sym.tensor",
               "prompt_per_chunk": "*:int3.sym.tensor"}


@dataclasses.dataclass
class Figures:
    elements: int = 0
    differing: int = 0
    unexcused: int = 0
    off_lattice: float = 0.0
    raw: float = 0.0  # in units of the bound
    output: float = 0.0

    def add(self, other):
        for field in dataclasses.fields(self):
            mine, its = getattr(self, field.name), getattr(other, field.name)
            merged = max(mine, its) if isinstance(mine, float) else mine + its
            setattr(self, field.name, merged)

    @property
    def ok(self):
        return (self.elements > 0 and self.unexcused == 0 and self.off_lattice <= OFF_LATTICE
                and self.raw <= 1 and self.output <= 1)


def swapped(x):
    """Each element's partner in its rotated pair."""
    half = x.shape[-1] // 2
    return torch.cat([x[..., half:], x[..., :half]], -1)


class Rotation:
    def __init__(self, oracle, positions):
        from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
        self.apply = apply_rotary_pos_emb
        self.cos, self.sin = oracle.model.model.rotary_emb(torch.zeros(1),
                                                           torch.arange(positions)[None])

    def __call__(self, x, first=0):
        span = slice(first, first + x.shape[1])
        return self.apply(x, x, self.cos[:, span], self.sin[:, span], unsqueeze_dim=2)[0]

    def back(self, x):
        """[positions, heads, dim] -> before rotation, in float64."""
        x = x.double()[None]
        count = x.shape[1]
        cos, sin = self.cos[:, :count].double(), -self.sin[:, :count].double()
        return self.apply(x, x, cos, sin, unsqueeze_dim=2)[0][0]


class Comparison:
    def __init__(self, oracle, engine, head_dim):
        self.oracle, self.engine, self.dim = oracle, engine, head_dim
        self.heads = oracle.config.num_key_value_heads
        self.rotation = Rotation(oracle, 1024)

    def oracle_views(self, case, mutation):
        """What attention would read with a mistake planted, from the same raw keys and values."""
        from kv_oracle import LayerCache
        form = parse_plan(case.plan, self.oracle.config.num_hidden_layers, mutation)[case.layer]
        cache = LayerCache(form, [0], mutation)
        views = []
        for i, seen in enumerate(case.seen):
            k, v = cache.update(seen.keys_raw[None], seen.values_raw[None], self.rotation, None,
                                None, i == 0)
            views.append((k[0].clone(), v[0].clone()))
        return views

    def codes(self, case, views, bounds, mine=None):
        """Views of both sides, keys and values: codes where quantized, the raw bound elsewhere."""
        figures = Figures()
        form = parse_plan(case.plan, self.oracle.config.num_hidden_layers)[case.layer]
        mine = mine or self.engine.views(case.plain, self.heads, self.dim)
        for side, (tensor, name) in enumerate(((form.key, "keys_raw"), (form.value, "values_raw"))):
            raw = case.joined(name)
            pre = side == 0 and not (tensor and tensor.post)
            if side == 0 and not pre:
                raw = self.rotation(raw[None])[0]
            lattice = Lattice(tensor, raw, case.calls) if tensor else None
            own = self._own(case, tensor, side, pre) if tensor and tensor.quantizer.is_fp8 else None
            for its, ours in zip(mine, views):
                a, b = its[side], ours[side]
                if pre:
                    a, b = self.rotation.back(a), self.rotation.back(b)
                figures.add(self._one_view(tensor, lattice, a.double(), b.double(), raw,
                                           bounds[side], own))
        return figures

    def _own(self, case, tensor, side, pre):
        """(lattice of the engine's own raw values, how far they may lie from those it quantized)."""
        raw = self.engine.views(case.raw, self.heads, self.dim)[-1][side]
        rounding = torch.zeros_like(raw, dtype=torch.float64)
        if pre:
            rounding = rounding_model.bound(self._rotation_variance(raw.double()))
            raw = self.rotation.back(raw).float()
        return Lattice(tensor, raw, case.calls), rounding

    def _one_view(self, tensor, lattice, a, b, raw, bound, own):
        rows = len(a)
        plain = torch.ones_like(a, dtype=torch.bool)
        figures = Figures()
        if tensor:
            held = tensor.exact or tensor.quantizer.scope == "window"
            plain = (b - raw[:rows]).abs() <= 1e-7 * raw[:rows].abs() if held else ~plain
            near = torch.full_like(a, NEAR_BOUNDARY)
            apart = (lattice.coordinate(a, rows) - lattice.coordinate(b, rows)).abs()[~plain]
            figures.elements = apart.numel()
            figures.differing = int((apart > 0.25).sum())
            if own:
                lattice, rounding = own
                near = rounding[:rows] / lattice.step[:rows]
                wanted = lattice.stored.values[:rows]
                apart = (lattice.coordinate(a, rows) - lattice.coordinate(wanted, rows)).abs()[~plain]
            excused = (lattice.boundary_distance[:rows] < near)[~plain]
            figures.unexcused = int(((apart > 0.25) & ~excused).sum())
            same = apart[apart <= 0.25]
            figures.off_lattice = float(same.max()) if same.numel() else 0.0
        if plain.any():
            figures.raw = float(((a - b).abs() / bound[:rows])[plain].max())
        return figures

    def _rotation_variance(self, keys):
        """Of keys that are rotated by tables of angles which round apart."""
        angle = torch.arange(len(keys))[:, None, None] ** 2 * rounding_model.U2 / 3
        return (keys ** 2 + swapped(keys) ** 2) * (3 * rounding_model.U2 + angle)

    def bounds(self, case):
        """Bounds of raw keys and values; keys' as rotated pairs, so that they hold on either side."""
        block = self.oracle.model.model.layers[case.layer]
        _, (_, var_k), (_, var_v) = rounding_model.raw(block, case.joined("hidden"), self.dim)
        var_k = torch.maximum(var_k, swapped(var_k))
        var_k = var_k + self._rotation_variance(case.joined("keys_raw").double())
        return rounding_model.bound(var_k), rounding_model.bound(var_v)

    def outputs(self, case, bent=False):
        block = self.oracle.model.model.layers[case.layer]
        mine = self.engine.output(case.forced)
        worst, first = 0.0, 0
        for seen in case.seen:
            rows = len(seen.hidden)
            span = slice(first, first + rows)
            value, var = rounding_model.output(block, seen.hidden, seen.keys, seen.values, first,
                                               self.rotation.cos[0, span], self.rotation.sin[0, span])
            theirs = value if bent else seen.output.double()
            worst = max(worst, float(((mine[span] - theirs).abs()
                                      / rounding_model.bound(var)).max()))
            first += rows
        return worst

    def compare(self, case):
        bounds = self.bounds(case)
        figures = self.codes(case, [(s.keys, s.values) for s in case.seen], bounds)
        raw_k, raw_v = self.engine.views(case.raw, self.heads, self.dim)[-1]
        for theirs, mine, bound in ((raw_k, self.rotation(case.joined("keys_raw")[None])[0], bounds[0]),
                                    (raw_v, case.joined("values_raw"), bounds[1])):
            figures.raw = max(figures.raw, float(((theirs - mine).abs() / bound).max()))
        figures.output = self.outputs(case)
        return figures


def teeth(comparison, cases):
    ok = True
    for mutation in MUTATIONS:
        plan = TEETH_PLANS[mutation]
        for case in [c for c in cases if c.plan == plan][:1]:
            figures = comparison.codes(case, comparison.oracle_views(case, mutation),
                                       comparison.bounds(case))
            share = figures.unexcused / max(1, figures.elements)
            noticed = figures.unexcused > 0 or figures.raw > 1
            ok &= noticed
            print(f"{'ok  ' if noticed else 'FAIL'} teeth {mutation} ({plan}, layer {case.layer}): "
                  f"{share:.1%} of codes differ without excuse")
    ok &= fp8_teeth(comparison, [c for c in cases if c.plan.startswith("*:fp8")])
    case = next(c for c in cases if c.plan == "*:int4.asym.token")
    weight = comparison.oracle.model.model.layers[case.layer].self_attn.o_proj.weight
    straight = comparison.outputs(case, bent=True)
    with torch.no_grad():
        weight[3] *= 1.001
        worst = comparison.outputs(case, bent=True)
        weight[3] /= 1.001
    noticed = worst > 1 >= straight
    print(f"{'ok  ' if noticed else 'FAIL'} teeth bent weight (one row by a thousandth): "
          f"{worst:.1f} of the bound, straight {straight:.2f}")
    return ok and noticed


def fp8_teeth(comparison, cases):
    """One value of the prompt moved to the next code: it alone must be noticed, once a view."""
    ok = len(cases) > 0
    for case in cases:
        mine = comparison.engine.views(case.plain, comparison.heads, comparison.dim)[:1]
        theirs = [(s.keys, s.values) for s in case.seen[:1]]
        at = (7, 0, int(mine[0][1][7, 0].abs().argmax()))
        mine[0][1][at] *= 1.25
        found = comparison.codes(case, theirs, comparison.bounds(case), mine).unexcused
        ok &= found == 1
        print(f"{'ok  ' if found == 1 else 'FAIL'} teeth one code moved ({case.plan}, layer {case.layer}): "
              f"{found} differ without excuse")
    return ok


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dump", required=True)
    parser.add_argument("--model", default=prompt_sets.default_bundle())
    parser.add_argument("--layers", help="these under each plan, e.g. 0,14 (default: all, dealt out)")
    parser.add_argument("--plans", nargs="*", default=list(PLANS))
    parser.add_argument("--new", type=int, default=5, help="tokens generated after the prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="every layer under each plan")
    return parser.parse_args()


def main():
    args = arguments()
    reason = prompt_sets.why_not(args.model)
    if reason:
        print(f"SKIPPED: {reason}")
        return 77
    from kv_oracle import KvOracle
    torch.set_num_threads(args.threads)
    start = time.time()
    oracle = KvOracle(args.model)
    count = oracle.config.num_hidden_layers
    given = [int(i) for i in args.layers.split(",") if int(i) < count] if args.layers else range(count)
    layers_of = deal(args.plans, count, given, args.full)
    ok = args.plans != list(PLANS) or {i for chosen in layers_of.values() for i in chosen} == set(given)
    if not ok:
        print("FAIL the plans leave layers out")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        engine = ReplayEngine(args.dump, args.model, folder, args.threads)
        cases = make_cases(oracle, engine, prompt_sets.Chat(args.model), layers_of, args.new)
        engine.run()
        comparison = Comparison(oracle, engine, oracle.model.model.layers[0].self_attn.head_dim)
        for plan in args.plans:
            figures = Figures()
            for case in (c for c in cases if c.plan == plan):
                figures.add(comparison.compare(case))
            ok &= figures.ok
            print(f"{'ok  ' if figures.ok else 'FAIL'} {plan}: {figures.elements} codes, "
                  f"{figures.differing} differ, {figures.unexcused} of them without "
                  f"a boundary near; scales within {figures.off_lattice:.1e} codes; "
                  f"raw {figures.raw:.2f} and output {figures.output:.2f} of their bounds",
                  flush=True)
        if set(TEETH_PLANS.values()) <= set(args.plans):
            ok &= teeth(comparison, cases)
    print(f"{len(cases)} blocks, of {len({c.layer for c in cases})} of {count} layers, replayed in "
          f"{time.time() - start:.0f} s")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
