"""Rank-r LoRA on every linear map of a Llama model: attach, merge, save, load.

File form (models/testbed/adapter.safetensors): fp16 tensors `model.layers.N.<module>.lora_A.weight`
[r, in] and `.lora_B.weight` [out, r]; metadata scale, rank, base, base_sha256. Merged weight:
W + scale * B @ A.
"""
import math

import torch
from safetensors import safe_open
from safetensors.torch import save_file

MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


class LoraLinear(torch.nn.Module):
    def __init__(self, linear, rank, scale, generator):
        super().__init__()
        self.linear = linear
        self.scale = scale
        down = torch.empty(rank, linear.in_features)
        bound = 1.0 / math.sqrt(linear.in_features)
        down.uniform_(-bound, bound, generator=generator)
        self.lora_a = torch.nn.Parameter(down.to(linear.weight.device))
        self.lora_b = torch.nn.Parameter(
            torch.zeros(linear.out_features, rank, device=linear.weight.device))

    def forward(self, x):
        return self.linear(x) + self.scale * ((x @ self.lora_a.T) @ self.lora_b.T)


def _places(model):
    for index, layer in enumerate(model.model.layers):
        for module in MODULES:
            parent, name = module.split(".")
            yield f"model.layers.{index}.{module}", getattr(layer, parent), name


def attach(model, rank, scale, seed):
    """Freezes the model and wraps its linear maps; returns the trainable parameters."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same start on every device
    model.requires_grad_(False)
    for _, parent, name in _places(model):
        setattr(parent, name, LoraLinear(getattr(parent, name), rank, scale, generator))
    return [p for p in model.parameters() if p.requires_grad]


def tensors(model):
    out = {}
    for key, parent, name in _places(model):
        wrapped = getattr(parent, name)
        out[key + ".lora_A.weight"] = wrapped.lora_a.detach().cpu().half().contiguous()
        out[key + ".lora_B.weight"] = wrapped.lora_b.detach().cpu().half().contiguous()
    return out


def save(model, path, metadata):
    save_file(tensors(model), path, metadata=metadata)


def merge_wrapped(model):
    """Replaces each wrapper by its linear map with the fp16 adapter merged in, as a user gets it."""
    with torch.no_grad():
        for _, parent, name in _places(model):
            wrapped = getattr(parent, name)
            delta = wrapped.lora_b.half().float() @ wrapped.lora_a.half().float()
            wrapped.linear.weight += wrapped.scale * delta
            setattr(parent, name, wrapped.linear)


def merge_file(model, path):
    """Merges a saved adapter into an untouched model."""
    with safe_open(path, "pt") as adapter, torch.no_grad():
        scale = float(adapter.metadata()["scale"])
        for key, parent, name in _places(model):
            weight = getattr(parent, name).weight
            down = adapter.get_tensor(key + ".lora_A.weight").float().to(weight.device)
            up = adapter.get_tensor(key + ".lora_B.weight").float().to(weight.device)
            weight += scale * (up @ down)
