"""Which blocks are replayed under which plans, and what the oracle did there."""
from __future__ import annotations

import dataclasses

import prompts as prompt_sets
import torch
from kv_plan import has_window, parse_plan

LAYERS_A_PLAN = 4


@dataclasses.dataclass
class Case:
    plan: str
    layer: int
    prompt: int
    seen: list
    raw: int = -1  # handles of the engine's replays
    plain: int = -1
    forced: int = -1

    @property
    def calls(self):
        return [len(s.hidden) for s in self.seen]

    def joined(self, name):
        return torch.cat([getattr(s, name) for s in self.seen])


def deal(plans, count, given, full):
    """plan -> layers: those given, else LAYERS_A_PLAN each, dealt in turn so that all have theirs."""
    quantized = {}
    for plan in plans:
        forms = parse_plan(plan, count)
        quantized[plan] = [i for i in given if forms[i].key or forms[i].value]
    wide = [plan for plan in plans if len(quantized[plan]) > LAYERS_A_PLAN]
    if len(given) == count and not full:
        for k, plan in enumerate(wide):
            turn = {(k + j * len(wide)) % count for j in range(LAYERS_A_PLAN)}
            quantized[plan] = [i for i in quantized[plan] if i in turn]
    return quantized


def make_cases(oracle, engine, chat, layers_of, new):
    long_ids = chat.ids(prompt_sets.long_texts(2, 22)[1])
    cases = []
    for plan, chosen in layers_of.items():
        for length in (122, 166) if has_window(plan) else (40,):
            watch = {layer: [] for layer in chosen}
            # A window moves only when enough tokens pass.
            oracle.generate([long_ids[:length]], plan, new + (6 if has_window(plan) else 0),
                            watch=watch)
            for layer in chosen:
                case = Case(plan, layer, length, watch[layer])
                hidden = case.joined("hidden")
                case.raw = engine.add(layer, "*:fp", hidden, length)
                case.plain = engine.add(layer, plan, hidden, length)
                views = ([s.keys for s in case.seen], [s.values for s in case.seen])
                case.forced = engine.add(layer, plan, hidden, length, views)
                cases.append(case)
    return cases
