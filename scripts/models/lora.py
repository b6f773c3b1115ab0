"""Merges a low-rank adapter: W + scale * B @ A, in an order of operations that no BLAS decides, so
that every machine gets the same bits."""

import json
import os
import re

import numpy as np

from errors import ImportRefused
from hf_source import read_json
from tensors import Tensor, read_safetensors, to_float32


def merge(tensors, adapter):
    """Returns {name: Tensor} where each adapted weight is float32 and merged when read."""
    path, scale = _open(adapter)
    factors, metadata = read_safetensors(path)
    if scale is None:
        scale = _number(metadata.get("scale"), f"{os.path.basename(path)} metadata 'scale'")
    pairs = _pairs(factors)
    merged = dict(tensors)
    for name, (a, b) in sorted(pairs.items()):
        base = tensors.get(name)
        if base is None:
            raise ImportRefused(f"the adapter changes {name}, which the model lacks")
        if (
            len(a.shape) != 2
            or len(b.shape) != 2
            or a.shape[0] != b.shape[1]
            or (b.shape[0], a.shape[1]) != tuple(base.shape)
        ):
            raise ImportRefused(
                f"adapter of {name}: A {list(a.shape)} and B {list(b.shape)} do not fit {list(base.shape)}"
            )
        merged[name] = Tensor("F32", base.shape, _reader(base, a, b, scale))
    return merged, len(pairs)


def _open(adapter):
    if not os.path.isdir(adapter):
        if not os.path.isfile(adapter):
            raise ImportRefused(f"no adapter at {adapter}")
        return adapter, None
    config = read_json(os.path.join(adapter, "adapter_config.json"))
    for key in ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save"):
        if config.get(key):
            raise ImportRefused(
                f"adapter_config.json: {key} is {config[key]!r}, which is not supported"
            )
    if config.get("bias", "none") != "none":
        raise ImportRefused(f"adapter_config.json: bias must be 'none', got {config['bias']!r}")
    rank, alpha = _number(config.get("r"), "adapter_config.json r"), _number(
        config.get("lora_alpha"), "lora_alpha"
    )
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    path = os.path.join(adapter, "adapter_model.safetensors")
    if not os.path.isfile(path):
        raise ImportRefused(f"adapter_model.safetensors is missing in {adapter}")
    return path, scale


def _number(value, what):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number) or number == 0:
        raise ImportRefused(f"{what} must be a finite number other than 0, got {json.dumps(value)}")
    return number


def _pairs(factors):
    found = {}
    for key, tensor in factors.items():
        match = re.fullmatch(
            r"(?:base_model\.model\.)?(model\..+)\.lora_([AB])(?:\.default)?\.weight", key
        )
        if not match:
            raise ImportRefused(f"the adapter holds {key}, which is no lora_A or lora_B weight")
        found.setdefault(match[1] + ".weight", {})[match[2]] = tensor
    for name, halves in found.items():
        if len(halves) != 2:
            raise ImportRefused(
                f"the adapter has lora_{next(iter(halves))} but not its other half for {name}"
            )
    if not found:
        raise ImportRefused("the adapter is empty")
    return {name: (halves["A"], halves["B"]) for name, halves in found.items()}


def _reader(base, a, b, scale):
    def read():
        total = to_float32(base.read(), base.dtype).astype(np.float64)
        down = to_float32(a.read(), a.dtype).astype(np.float64)
        up = to_float32(b.read(), b.dtype).astype(np.float64) * scale
        for rank in range(down.shape[0]):
            total += up[:, rank : rank + 1] * down[rank : rank + 1, :]
        return total.astype(np.float32)

    return read
