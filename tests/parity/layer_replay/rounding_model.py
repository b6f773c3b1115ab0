"""How far two correct fp32 evaluations of a transformer block may lie apart.

First-order propagation of independent rounding errors, in float64: every quantity is a pair (value,
variance). A dot product of n terms adds n * u^2 * sum (w x)^2, u = 2^-24: each of n partial sums is
rounded once, and none is taken to be larger than the root of the terms' squares, the size of a random
walk. A linear map carries variances by the squares of its weights. Two sides differ by a variable of
twice the variance; the bound is SIGMAS standard deviations of it.
"""
from __future__ import annotations

import torch

U2 = 2.0 ** -48
SIGMAS = 6


def bound(variance):
    return SIGMAS * (2 * variance).sqrt()


def linear(x, var, module):
    w = module.weight.double()
    squares = (w * w).T
    return x @ w.T, var @ squares + w.shape[1] * U2 * ((x * x) @ squares)


def norm(x, var, module):
    w, n = module.weight.double(), x.shape[1]
    mean = (x * x).mean(1, keepdim=True) + module.variance_epsilon
    y = x * mean.rsqrt() * w
    of_mean = ((x * x) * var).sum(1, keepdim=True) / (n * mean) ** 2
    return y, var * (w * w) / mean + y * y * (of_mean + (n / 4 + 4) * U2)


def rotate(x, var, cos, sin):
    """x: [rows, heads, dim]; cos, sin: [rows, dim]."""
    cos, sin = cos.double()[:, None], sin.double()[:, None]
    half = x.shape[2] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    var_turned = torch.cat([var[..., half:], var[..., :half]], -1)
    y = x * cos + turned * sin
    grown = var * cos ** 2 + var_turned * sin ** 2
    return y, grown + 3 * U2 * ((x * cos) ** 2 + (turned * sin) ** 2)


def attention(q, var, keys, values, first, scaling):
    """q: [rows, heads, dim]; keys, values: [positions, kv heads, dim], the same on both sides."""
    rows, heads, dim = q.shape
    shared = heads // keys.shape[1]
    keys, values = (x.double().repeat_interleave(shared, 1) for x in (keys, values))
    scores = torch.einsum("rhd,phd->hrp", q, keys) * scaling
    var_scores = scaling ** 2 * (torch.einsum("rhd,phd->hrp", var, keys ** 2)
                                 + dim * U2 * torch.einsum("rhd,phd->hrp", q ** 2, keys ** 2))
    var_scores = var_scores + 4 * U2 * scores ** 2
    future = torch.arange(keys.shape[0])[None] > first + torch.arange(rows)[:, None]
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    mean = torch.einsum("hrp,phd->hrd", weights, values)
    relative = var_scores + (weights * var_scores).sum(-1, keepdim=True) + 16 * U2
    # A weight's relative error moves the output by its distance from the mean.
    spread = (values.transpose(0, 1)[:, None] - mean[:, :, None]) ** 2
    var_out = torch.einsum("hrp,hrpd->hrd", weights ** 2 * relative, spread)
    var_out = var_out + keys.shape[0] * U2 * torch.einsum("hrp,phd->hrd", weights ** 2, values ** 2)
    return (x.transpose(0, 1).reshape(rows, heads * dim) for x in (mean, var_out))


def raw(block, hidden, head_dim):
    """Queries, keys and values before rotation: (value, variance) each, [rows, heads, dim]."""
    x, var = norm(hidden.double(), torch.zeros_like(hidden, dtype=torch.float64),
                  block.input_layernorm)
    attn = block.self_attn
    pairs = (linear(x, var, m) for m in (attn.q_proj, attn.k_proj, attn.v_proj))
    return [tuple(t.reshape(len(hidden), -1, head_dim) for t in pair) for pair in pairs]


def output(block, hidden, keys, values, first, cos, sin):
    """(value, variance) of the block's output, keys and values given."""
    (q, var), _, _ = raw(block, hidden, keys.shape[2])
    q, var = rotate(q, var, cos, sin)
    a, var = attention(q, var, keys, values, first, block.self_attn.scaling)
    o, var = linear(a, var, block.self_attn.o_proj)
    h = hidden.double() + o
    var = var + U2 * h * h
    x, var_x = norm(h, var, block.post_attention_layernorm)
    gate, var_gate = linear(x, var_x, block.mlp.gate_proj)
    up, var_up = linear(x, var_x, block.mlp.up_proj)
    sigmoid = gate.sigmoid()
    silu = gate * sigmoid
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    inner = silu * up
    var_inner = (up * slope) ** 2 * var_gate + silu ** 2 * var_up + 16 * U2 * inner ** 2
    down, var_down = linear(inner, var_inner, block.mlp.down_proj)
    y = h + down
    return y, var + var_down + U2 * y * y
