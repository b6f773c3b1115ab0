"""Formats and tensors on which the C++ quantizers and the oracle are compared."""

from __future__ import annotations

import dataclasses

import torch

INT_TYPES = ("int2", "int3", "int4", "int5", "int6", "int8")


def grid_formats():
    """Every type x symmetry x granularity."""
    for kind in INT_TYPES:
        for symmetry in ("sym", "asym", "affine"):
            yield f"{kind}.{symmetry}.tensor"
            yield f"{kind}.{symmetry}.token"
            yield f"{kind}.{symmetry}.channel" + (".prompt" if symmetry == "asym" else "")
            yield f"{kind}.{symmetry}.group64"
    yield "fp8_e4m3"
    yield "fp8_e5m2"


def option_formats():
    """Every remaining option, on a symmetry and granularity where it matters."""
    cal = "calibrated(0123456789abcdef)"
    yield from (
        "int4.asym.channel.step",
        "int3.sym.tensor.prompt", "int4.asym.tensor.prompt", "int4.affine.channel.prompt",
        "int4.sym.channel.prompt", f"int4.sym.tensor.{cal}", f"int4.asym.channel.{cal}",
        f"int3.affine.tensor.{cal}.perhead", f"int8.sym.channel.{cal}",
        f"fp8_e4m3.{cal}", f"fp8_e5m2.channel.{cal}", f"fp8_e4m3.{cal}.perhead.s16",
        f"fp8_e4m3.channel.{cal}.native.sb16.torchcast", f"fp8_e5m2.{cal}.torchcast",
        "fp8_e4m3.torchcast", "fp8_e5m2.torchcast", "fp8_e4m3.satur.native", "fp8_e5m2.window64",
        "int4.affine.channel.window128x32.post.perhead.exact",
        "int4.affine.group32.window128.perhead.exact",
        "int2.asym.tensor.window64x16", "int3.sym.token.window32", "int4.sym.channel.window96x48",
        "int5.asym.token.window32x8", "int6.affine.tensor.window16x16.perhead.sink5",
        "int4.asym.token.post.perhead", "int3.sym.tensor.perhead", "int8.affine.tensor.perhead",
        "int3.sym.token.perhead", "int4.asym.group64.perhead", "int3.sym.group48.perhead",
        "int4.affine.group100", "int5.sym.group7",
        "int8.asym.token.native", "int4.asym.token.native", "int3.sym.tensor.native",
        "int4.affine.group32.native", "int4.affine.channel.native", "int8.sym.channel.native",
        "int2.asym.tensor.native.perhead", "int6.sym.group64.native.s16",
        "int4.asym.token.s16", "int4.asym.token.sb16", "int4.affine.group32.s16",
        "int4.affine.group32.sb16", "int3.sym.token.s16", "int3.sym.tensor.sb16",
        "int8.affine.channel.s16", "int8.sym.group64.sb16.native", "int4.affine.token.sb16.native",
        "int4.asym.token.heads(0+2)", "int3.sym.tensor.heads(1)", "int4.affine.group40.heads(0+2)",
        "int3.sym.channel.ch(0+5-9+190)", "int3.sym.tensor.ch(3+70+71+150).perhead",
        "int4.asym.group3.ch(1-10+64-70,190).perhead", "int4.affine.token.ch(0-31).sink3",
        "fp8_e4m3.ch(5+6)", "int4.asym.token.sink4", "int3.sym.tensor.sink6",
        "int4.affine.channel.prompt.sink40", "int4.sym.channel.window32x16.sink4",
        "int4.asym.token.hadamard", "int3.sym.tensor.hadamard", "int2.sym.group32.hadamard.perhead",
        "int4.affine.channel.prompt.hadamard", "int8.asym.token.hadamard.native",
        "int4.asym.token.hadamard.heads(2)", "fp8_e4m3.hadamard",
        "int4.affine.channel.window32x8.hadamard.s16.sink2",
    )


@dataclasses.dataclass
class Case:
    format: str
    x: torch.Tensor  # [tokens, heads, head_dim], float32 or bfloat16
    calls: list  # tokens of the prompt and of each decode call
    calibration: tuple | None = None


def bulk(generator, tokens, heads, head_dim):
    """Activations as models have them: channels of different scale, offsets, a few outliers."""
    shape = (tokens, heads, head_dim)
    x = torch.randn(shape, generator=generator)
    x *= torch.exp(torch.randn((1, heads, head_dim), generator=generator))
    x += torch.randn((1, heads, head_dim), generator=generator)
    outliers = torch.rand((1, heads, head_dim), generator=generator) > 0.97
    return torch.where(outliers, x * 40, x)


def edge_rows(generator, heads, head_dim):
    """Named rows [heads, head_dim] that quantizers get wrong."""
    n = heads * head_dim
    row = lambda: torch.randn(n, generator=generator)
    one = torch.zeros(n)
    one[n // 3] = 1000.0
    rows = {
        "zero": torch.zeros(n), "negative_zero": -torch.zeros(n), "one_outlier": one,
        "outlier_in_noise": row() + one * 10,
        "denormal": row() * 1e-40, "below_1e-10": row() * 1e-12, "near_1e-10": row() * 1e-10,
        "below_floor": row() * 1e-9, "near_floor": row() * 2e-8, "half_underflow": row() * 1e-7,
        "huge": row() * 5e37, "half_overflow": row() * 1e6, "largest": torch.full((n,), 3.4e38),
        "constant": torch.full((n,), 7.25), "constant_negative": torch.full((n,), -3.1),
        "one_sided": 80 + 15 * torch.rand(n, generator=generator),
        "one_sided_negative": -80 - 15 * torch.rand(n, generator=generator),
        "fp8_overflow": row() * 300, "fp8_e5m2_overflow": row() * 40000,
        "fp8_subnormal": row() * 2e-3, "fp8_e5m2_subnormal": row() * 1e-5,
    }
    for bits in (2, 3, 4, 5, 6, 8):
        top = 2 ** (bits - 1) - 1
        ties = torch.randint(-2 * top, 2 * top + 1, (n,), generator=generator) / 2
        ties[0] = top
        rows[f"ties_sym{bits}"] = ties
        top = 2**bits - 1
        ties = torch.randint(0, 2 * top + 1, (n,), generator=generator) / 2
        ties[0], ties[1] = 0, top
        rows[f"ties_unsigned{bits}"] = ties
    for name, value in (("nan", "nan"), ("inf", "inf"), ("negative_inf", "-inf")):
        rows[name] = row()
        rows[name][n // 2] = float(value)
    codes = torch.arange(n) % 256
    grid = codes.to(torch.uint8).view(torch.float8_e4m3fn).float()
    rows["fp8_midpoints"] = torch.where(torch.isfinite(grid), grid * 1.0625, row())
    rows["fp8_grid"] = torch.where(torch.isfinite(grid), grid, row())
    return {k: v.reshape(heads, head_dim) for k, v in rows.items()}


def is_per_token(text):
    return ".token" in text or ".group" in text or text.startswith("fp8")


def decode_steps(text):
    return 170 if "window" in text else 6


def calibration_of(x):
    """Statistics of the first half, as bf16 numbers, so that later values clip."""
    half = x[: max(1, x.shape[0] // 2)].float()
    half = torch.where(torch.isfinite(half), half, torch.zeros(())).reshape(half.shape[0], -1)
    stats = (half.abs().amax(0), half.amin(0), half.amax(0))
    return tuple(s.to(torch.bfloat16).float().clamp(-3e38, 3e38) for s in stats)


def cases_of(text, dtype, seed, bulk_tokens):
    """Bulk, every edge row, odd shapes and token counts for one format."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(3, 64)]
    if not any(word in text for word in ("heads(", "ch(")):
        shapes += [(2, 32), (1, 128)]
        if "hadamard" not in text:
            shapes += [(1, 100), (5, 24)]
    edges = edge_rows(g, 3, 64)
    x = bulk(g, bulk_tokens, 3, 64)
    if is_per_token(text) and "hadamard" not in text:
        where = torch.randperm(bulk_tokens, generator=g)[: 4 * len(edges)]
        x[where] = torch.stack(list(edges.values())).repeat(4, 1, 1)
    steps = decode_steps(text)
    tensors = [(x, [bulk_tokens - steps] + [1] * steps)]
    for row in edges.values():  # as a whole small tensor, and as a decoded token after a sane prompt
        small = row * torch.tensor([1.0, 0.5, -1.0, 0.25, 1.0]).reshape(-1, 1, 1)
        tensors.append((small, [4, 1]))
        tensors.append((torch.cat([bulk(g, 11, 3, 64), row[None]]), [11, 1]))
    for heads, head_dim in shapes:
        if "group100" in text and heads * head_dim < 100:
            continue
        for calls in ([0, 1], [1, 1, 1], [2], [7, 3, 1], [257, 1]):
            tensors.append((bulk(g, sum(calls), heads, head_dim), calls))
    for x, calls in tensors:
        x = x.to(dtype)
        yield Case(text, x, calls, calibration_of(x) if "calibrated" in text else None)
