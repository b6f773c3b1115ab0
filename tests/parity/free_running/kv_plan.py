"""Plans as text -> what each layer does, for the part of the grammar that the oracle model covers."""
from __future__ import annotations

import dataclasses
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "quantizers"))
import oracle as quantizers  # noqa: E402

# Planted mistakes: what the comparisons must notice. None is a mistake of the engine's.
MUTATIONS = ("zero_off_by_one", "v_unquantized", "post_instead_of_pre", "scale_over_one_head",
             "prompt_per_chunk")
NOT_COVERED = ("heads", "channels", "sink", "hadamard", "native")


@dataclasses.dataclass
class TensorFormat:
    quantizer: quantizers.Format
    text: str
    post: bool  # keys: quantized after rotation
    exact: bool  # the prompt's own attention reads unquantized values


@dataclasses.dataclass
class LayerFormat:
    key: TensorFormat | None = None  # None = fp
    value: TensorFormat | None = None


def tensor_format(text: str) -> TensorFormat | None:
    if text == "fp":
        return None
    f = quantizers.parse(text)
    words = text.split(".")
    covered = not any(getattr(f, name) for name in NOT_COVERED) and f.scope != "calibrated"
    if not covered or f.scale != "s32":
        raise ValueError(f"format {text!r}: the oracle model does not cover it (quantizer_parity does)")
    return TensorFormat(f, text, post="post" in words, exact="exact" in words)


def layer_indices(text: str, layers: int) -> list[int]:
    return list(range(layers)) if text == "*" else list(quantizers.indices(text))


def parse_plan(text: str, layers: int, mutation: str = "") -> list[LayerFormat]:
    plan = [None] * layers
    for rule in text.split(","):
        where, _, formats = rule.partition(":")
        key, _, value = formats.partition("|")
        for layer in layer_indices(where, layers):
            plan[layer] = LayerFormat(tensor_format(key), tensor_format(value or key))
            if mutation == "v_unquantized":
                plan[layer].value = None
            if mutation == "post_instead_of_pre" and plan[layer].key:
                plan[layer].key.post = True
    if None in plan:
        raise ValueError(f"plan {text!r}: layer {plan.index(None)} of {layers} has no rule")
    return plan


KIVI4 = ("*:int4.affine.channel.window128x32.post.perhead.exact"
         "|int4.affine.group32.window128.perhead.exact")
PLANS = ("*:int8.asym.token", "*:int4.asym.token", "*:int3.sym.tensor", "*:fp,19:int3.sym.tensor",
         "*:int3.sym.group64", "*:int4.sym.channel.prompt", "*:int4.asym.token|fp",
         "*:fp|int4.asym.token", "*:int4.asym.token.post.perhead", "*:fp8_e4m3", "*:fp8_e5m2", KIVI4)


def has_window(plan: str) -> bool:
    return ".window" in plan
