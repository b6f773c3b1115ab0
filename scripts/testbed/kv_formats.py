"""KV quantization of the method by hooks on k_proj and v_proj (pre-RoPE, scope step, heads joint).

Only for the model card's figures; the engine's quantizers are services/quant.
"""
import re

import torch


def parse(text):
    match = re.fullmatch(r"int(\d)\.(sym|asym)\.(tensor|token|group(\d+))", text)
    if not match:
        raise ValueError(f"kv format {text!r}: expected int<bits>.sym|asym.tensor|token|group<G>")
    return int(match[1]), match[2], match[3], int(match[4] or 0)


def _asym(x, low, high, bits):
    scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-8)
    zero = torch.round(-low / scale).clamp(0, 2 ** bits - 1)
    codes = torch.round(x / scale + zero).clamp(0, 2 ** bits - 1)
    return (codes - zero) * scale


def _sym(x, absmax, bits, per_tensor):
    scale = absmax.clamp(min=1e-8) / (2 ** (bits - 1) - 1)
    codes = torch.round(x / scale).clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    return torch.where(absmax < 1e-10, x, codes * scale) if per_tensor else codes * scale


class KvFormat:
    """One format on the given layers (all when None). `valid` [batch, tokens] marks real tokens."""

    def __init__(self, text, layers=None):
        self.bits, self.symmetry, self.granularity, self.group = parse(text)
        self.layers, self.valid, self.handles = layers, None, []

    def __call__(self, module, inputs, x):
        if self.granularity == "tensor":
            return self._apply(x, (1, 2), x.masked_fill(~self.valid[..., None], float("nan")))
        if self.group:
            batch, tokens, channels = x.shape
            pad = -channels % self.group
            grouped = torch.nn.functional.pad(x, (0, pad)).view(batch, tokens, -1, self.group)
            return self._apply(grouped, (3,), grouped).view(batch, tokens, -1)[..., :channels]
        return self._apply(x, (2,), x)

    def _apply(self, x, dims, seen):
        low = torch.nan_to_num(seen, nan=float("inf")).amin(dims, keepdim=True)
        high = torch.nan_to_num(seen, nan=float("-inf")).amax(dims, keepdim=True)
        if self.symmetry == "asym":
            return _asym(x, low, high, self.bits)
        return _sym(x, torch.maximum(low.abs(), high.abs()), self.bits,
                    self.granularity == "tensor")

    def install(self, model):
        for index, layer in enumerate(model.model.layers):
            if self.layers is None or index in self.layers:
                for linear in (layer.self_attn.k_proj, layer.self_attn.v_proj):
                    self.handles.append(linear.register_forward_hook(self))
        return self

    def remove(self):
        for handle in self.handles:
            handle.remove()
        self.handles = []
