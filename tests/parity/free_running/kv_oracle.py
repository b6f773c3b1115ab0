"""transformers' Llama (eager attention, fp32) with a quantized cache, greedy and in left-padded batches.

Weights, norms, linear maps, rotation and attention are transformers' modules and functions. Ours: the
loop over layers, and an attention forward that puts a KvTensor between projection and attention.
"""
from __future__ import annotations

import dataclasses

import torch
from kv_plan import parse_plan
from kv_tensor import KvTensor
from transformers import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, eager_attention_forward


@dataclasses.dataclass
class Seen:
    """What a layer did in one run (the prompt, or one token); for the layer replay."""
    hidden: torch.Tensor  # [rows, hidden], the block's input
    keys_raw: torch.Tensor  # [rows, heads, dim], before rotation
    values_raw: torch.Tensor
    keys: torch.Tensor  # [positions, heads, dim], what attention read
    values: torch.Tensor
    output: torch.Tensor = None  # [rows, hidden]


class LayerCache:
    def __init__(self, form, pads, mutation):
        self.post = form.key is not None and form.key.post
        self.keys, self.values = (KvTensor(f, pads, mutation) for f in (form.key, form.value))
        self.rotated = None  # keys as attention reads them

    def update(self, keys, values, rotate, cos, sin, prompt):
        """Raw keys and values of new rows -> what attention reads. rotate(x, first position)."""
        first = 0 if prompt else self.rotated.shape[1]
        if self.post:
            keys = rotate(keys, first)
        if prompt:
            read_keys, read_values = self.keys.prompt(keys), self.values.prompt(values)
            self.rotated = self.keys.values if self.post else rotate(self.keys.values, 0)
            return (read_keys if self.post else rotate(read_keys, 0)), read_values
        rewritten = self.keys.append(keys)
        self.values.append(values)
        if self.post:
            self.rotated = self.keys.values
        elif rewritten:
            self.rotated = rotate(self.keys.values, 0)
        else:
            self.rotated = torch.cat([self.rotated, rotate(self.keys.values[:, first:], first)], 1)
        return self.rotated, self.values.values


class KvOracle:
    def __init__(self, bundle):
        self.model = AutoModelForCausalLM.from_pretrained(
            bundle, dtype=torch.float32, attn_implementation="eager").eval()
        self.config = self.model.config
        self.halved = False
        for module in self.model.modules():
            if isinstance(module, torch.nn.Linear):
                module.forward = self._linear_of(module)

    def _linear_of(self, module):
        half = module.in_features // 2
        left, right = module.weight[:, :half], module.weight[:, half:]
        linear = torch.nn.functional.linear

        def forward(x):
            if not self.halved:
                return linear(x, module.weight, module.bias)
            return linear(x[..., :half], left, module.bias) + linear(x[..., half:], right)
        return forward

    @torch.no_grad()
    def generate(self, prompts, plan, new, stop=(), mutation="", forced=None, watch=None):
        """Greedy ids of each prompt, the stop token included. watch: layer -> list of Seen (batch of 1)."""
        width = max(len(p) for p in prompts)
        pads = [width - len(p) for p in prompts]
        run = _Run(self, parse_plan(plan, self.config.num_hidden_layers, mutation), pads, mutation,
                   width + new, watch)
        ids = torch.tensor([[0] * pad + list(p) for pad, p in zip(pads, prompts)])
        answers, done = [[] for _ in prompts], [False] * len(prompts)
        for step in range(new):
            chosen = run.forward(ids).argmax(-1).tolist()
            if forced is not None:
                chosen = [answer[step] for answer in forced]
            for i, token in enumerate(chosen):
                if not done[i]:
                    answers[i].append(token)
                    done[i] = token in stop
            if all(done):
                break
            ids = torch.tensor(chosen)[:, None]
        return answers


class _Run:
    """One batch on its way."""

    def __init__(self, oracle, plan, pads, mutation, capacity, watch):
        self.model, self.pads, self.watch = oracle.model.model, pads, watch
        self.head = oracle.model.lm_head
        self.dim = getattr(oracle.config, "head_dim", None) or (
            oracle.config.hidden_size // oracle.config.num_attention_heads)
        self.caches = [LayerCache(form, pads, mutation) for form in plan]
        self.held = 0
        starts = torch.tensor(pads)[:, None]
        self.positions = (torch.arange(capacity)[None] - starts).clamp(min=0)
        self.real = torch.arange(capacity)[None] >= starts
        self.cos, self.sin = self.model.rotary_emb(torch.zeros(1), self.positions)

    def _rotate(self, x, first):
        span = slice(first, first + x.shape[1])
        return apply_rotary_pos_emb(x, x, self.cos[:, span], self.sin[:, span], unsqueeze_dim=2)[0]

    def _mask(self, rows):
        held = self.held + rows
        causal = torch.arange(held)[None] <= torch.arange(self.held, held)[:, None]
        allowed = causal[None] & self.real[:, None, :held]
        floor = torch.finfo(torch.float32).min
        return torch.where(allowed, 0.0, floor)[:, None]

    def _attention(self, layer, module, hidden, mask):
        shape = (*hidden.shape[:2], -1, self.dim)
        q, k, v = (f(hidden).view(shape) for f in (module.q_proj, module.k_proj, module.v_proj))
        q = self._rotate(q, self.held)
        keys, values = self.caches[layer].update(k, v, self._rotate, self.cos, self.sin,
                                                 self.held == 0)
        if self.watch is not None and layer in self.watch:
            seen = self.watch[layer][-1]
            seen.keys_raw, seen.values_raw = k[0].clone(), v[0].clone()
            seen.keys, seen.values = keys[0].clone(), values[0].clone()
        out, _ = eager_attention_forward(module, q.transpose(1, 2), keys.transpose(1, 2),
                                         values.transpose(1, 2), mask, scaling=module.scaling)
        return module.o_proj(out.reshape(*hidden.shape[:2], -1))

    def forward(self, ids):
        """Logits of the last row of every sequence."""
        hidden = self.model.embed_tokens(ids)
        mask = self._mask(ids.shape[1])
        for layer, block in enumerate(self.model.layers):
            watched = self.watch is not None and layer in self.watch
            if watched:
                self.watch[layer].append(Seen(hidden[0].clone(), None, None, None, None))
            attended = self._attention(layer, block.self_attn, block.input_layernorm(hidden), mask)
            hidden = hidden + attended
            hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
            if watched:
                self.watch[layer][-1].output = hidden[0].clone()
        self.held += ids.shape[1]
        return self.head(self.model.norm(hidden[:, -1]))
