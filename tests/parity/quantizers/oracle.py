"""Reference quantizers in torch, written from the method's text and not from the C++ code.

A case is a sequence of calls (the prompt, then decode steps) on one tensor x[token, head, channel].
The oracle answers what is stored after the last call: codes, parameters and dequantized values.
"""

from __future__ import annotations

import dataclasses
import re

import torch

FP8 = {"fp8_e4m3": (torch.float8_e4m3fn, 448.0), "fp8_e5m2": (torch.float8_e5m2, 57344.0)}
HALF_TINY = 2.0**-24  # smallest positive float16


@dataclasses.dataclass
class Format:
    type: str
    symmetry: str = ""
    granularity: str = ""
    group: int = 0
    scope: str = "step"
    window: int = 0
    flush: int = 0
    perhead: bool = False
    native: bool = False
    scale: str = "s32"
    heads: tuple = ()
    channels: tuple = ()
    sink: int = 0
    hadamard: bool = False
    torchcast: bool = False

    @property
    def bits(self) -> int:
        return int(self.type[3:])

    @property
    def is_fp8(self) -> bool:
        return self.type in FP8


def indices(text: str) -> tuple:
    out = []
    for part in re.split(r"[+,]", text):
        first, _, last = part.partition("-")
        out.extend(range(int(first), int(last or first) + 1))
    return tuple(sorted(set(out)))


def parse(text: str) -> Format:
    words = re.findall(r"[^.(]+(?:\([^)]*\))?", text)
    f = Format(type=words[0])
    for word in words[1:]:
        if word in ("sym", "asym", "affine"):
            f.symmetry = word
        elif word in ("tensor", "token", "channel"):
            f.granularity = word
        elif m := re.fullmatch(r"group(\d+)", word):
            f.granularity, f.group = "group", int(m[1])
        elif word in ("step", "prompt") or word.startswith("calibrated"):
            f.scope = word.partition("(")[0]
        elif m := re.fullmatch(r"window(\d+)(?:x(\d+))?", word):
            f.scope, f.window, f.flush = "window", int(m[1]), int(m[2] or 0)
        elif word == "perhead":
            f.perhead = True
        elif word == "native":
            f.native = True
        elif word in ("s32", "s16", "sb16"):
            f.scale = word
        elif m := re.fullmatch(r"heads\((.*)\)", word):
            f.heads = indices(m[1])
        elif m := re.fullmatch(r"ch\((.*)\)", word):
            f.channels = indices(m[1])
        elif m := re.fullmatch(r"sink(\d+)", word):
            f.sink = int(m[1])
        elif word == "hadamard":
            f.hadamard = True
        elif word == "torchcast":
            f.torchcast = True
        elif word not in ("pre", "post", "seen", "exact", "f32", "joint", "satur"):
            raise ValueError(f"unknown option {word}")
    if f.is_fp8 and not f.granularity:
        f.granularity = "tensor"
    return f


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal transform of the last axis by radix-2 butterflies, smallest stride first."""
    d = x.shape[-1]
    lead = x.shape[:-1]
    h = 1
    while h < d:
        pair = x.reshape(*lead, d // (2 * h), 2, h)
        a, b = pair[..., 0, :], pair[..., 1, :]
        x = torch.stack((a + b, a - b), dim=-2).reshape(*lead, d)
        h *= 2
    return (x.float() * torch.tensor(d**-0.5, dtype=torch.float32)).to(x.dtype)


def store_parameter(p: torch.Tensor, kind: str) -> torch.Tensor:
    narrow = {"s16": torch.float16, "sb16": torch.bfloat16}.get(kind)
    return p if narrow is None else p.to(narrow).to(p.dtype)


def store_scale(scale: torch.Tensor, kind: str) -> torch.Tensor:
    stored = store_parameter(scale, kind)
    lost = (stored == 0) & (scale > 0)
    return torch.where(lost, torch.full_like(stored, HALF_TINY), stored)


@dataclasses.dataclass
class Parameters:
    scale: torch.Tensor  # broadcasts over the block
    zero: torch.Tensor | None = None


class Codec:
    """Statistics -> parameters -> codes -> values, for a block whose statistics axes are given.

    `bug` plants one mistake, for the twins that must be noticed.
    """

    def __init__(self, f: Format, bug: str = ""):
        self.f = f
        self.bug = bug

    def parameters(self, lo, hi, absmax) -> Parameters:
        f = self.f
        if f.is_fp8:
            if f.scope != "calibrated":
                return Parameters(torch.ones_like(absmax))
            return Parameters(store_scale(absmax.clamp(min=1e-8) / FP8[f.type][1], f.scale))
        levels = 2**f.bits - 1
        if f.symmetry == "sym":
            qmax = 2 ** (f.bits - 1) - 1
            if self.bug == "qmax_off_by_one":
                qmax += 1
            if f.granularity == "tensor":
                scale = store_scale(absmax / qmax, f.scale)
                return Parameters(torch.where(absmax < 1e-10, torch.zeros_like(scale), scale))
            return Parameters(store_scale(absmax.clamp(min=1e-8) / qmax, f.scale))
        raw = ((hi - lo) / levels).clamp(min=1e-8)
        scale = raw if self.bug == "scale_not_stored" else store_scale(raw, f.scale)
        if f.symmetry == "affine":
            return Parameters(scale, store_parameter(lo, f.scale))
        zero = torch.round(-lo / scale).clamp(0, levels)
        if self.bug == "zero_off_by_one":
            zero = (zero + 1).clamp(0, levels)
        return Parameters(scale, zero)

    def round_trip(self, x: torch.Tensor, p: Parameters):
        if self.f.is_fp8:
            return self._fp8(x, p)
        f = self.f
        levels = 2**f.bits - 1
        rounding = torch.round
        if self.bug == "round_half_up":
            rounding = lambda v: torch.floor(v + 0.5)
        if f.symmetry == "sym":
            q = rounding(x / p.scale).clamp(-(2 ** (f.bits - 1)), 2 ** (f.bits - 1) - 1)
        elif f.symmetry == "asym":
            q = rounding(x / p.scale + p.zero).clamp(0, levels)
        else:
            q = rounding(((x - p.zero) / p.scale).clamp(0, levels))
        unchanged = (
            (p.scale == 0) if f.symmetry == "sym" and f.granularity == "tensor" else None
        )
        lost = torch.isnan(q) | ~torch.isfinite(x)
        code = torch.where(lost, torch.zeros_like(q), q).to(torch.int16)
        q = code.to(x.dtype)
        if f.symmetry == "sym":
            back = q * p.scale
        elif f.symmetry == "asym":
            back = (q - p.zero) * p.scale
        else:
            back = q * p.scale + p.zero
        back = torch.where(lost, torch.full_like(back, float("nan")), back)
        if unchanged is not None:
            back = torch.where(unchanged, x, back)
            code = torch.where(unchanged, torch.zeros_like(code), code)
        return (code & 0xFF).to(torch.uint8), back

    def _fp8(self, x: torch.Tensor, p: Parameters):
        dtype, largest = FP8[self.f.type]
        t = x / p.scale
        if not self.f.torchcast:
            t = torch.where(torch.isfinite(t), t.clamp(-largest, largest), torch.full_like(t, float("nan")))
        if self.bug == "truncate_fp8":
            t = torch.where(torch.isfinite(t), t * 0.97, t)
        code = t.to(dtype)
        return code.view(torch.uint8), code.to(x.dtype) * p.scale


@dataclasses.dataclass
class Stored:
    values: torch.Tensor  # [tokens, heads, head_dim]
    row: torch.Tensor  # [tokens] row of the parameters, -1 = fp
    codes: torch.Tensor  # [tokens, lanes] uint8
    scales: torch.Tensor  # [rows, groups] float32
    zeros: torch.Tensor | None
    quantized: list  # elements held quantized after each call


class Oracle:
    def __init__(self, text: str, heads: int, head_dim: int, calibration=None, bug: str = ""):
        self.f = parse(text)
        self.heads, self.head_dim = heads, head_dim
        self.calibration = calibration  # (absmax, min, max), each [channels]
        self.bug = bug
        self.codec = Codec(self.f, bug)
        f = self.f
        lanes = torch.arange(heads * head_dim)
        if f.heads:
            lanes = torch.cat([lanes[h * head_dim : (h + 1) * head_dim] for h in f.heads])
        if f.channels:
            lanes = torch.tensor(f.channels)
        self.lanes = lanes
        owner = lanes // head_dim
        joint = not f.perhead or f.granularity == "channel"
        self.segments = (
            [torch.arange(len(lanes))]
            if joint
            else [(owner == h).nonzero().flatten() for h in owner.unique()]
        )

    # -- statistics ---------------------------------------------------------------------------

    def _views(self, y: torch.Tensor):
        """Per segment: (index of lanes, block shaped so that `axes` are reduced, axes)."""
        f = self.f
        for lanes in self.segments:
            part = y[:, lanes]
            if f.granularity == "group":
                tail = -part.shape[1] % f.group
                if tail and self.bug != "tail_not_padded":
                    part = torch.nn.functional.pad(part, (0, tail))
                elif tail:
                    part = torch.cat([part, part[:, -1:].expand(-1, tail)], dim=1)
                yield lanes, part.reshape(part.shape[0], -1, f.group), (2,)
            else:
                axes = {"tensor": (0, 1), "token": (1,), "channel": (0,)}[f.granularity]
                yield lanes, part, axes

    def _together(self, y: torch.Tensor, frozen=None):
        """One block sharing statistics over tokens where the granularity does. y: [tokens, lanes].

        Returns codes, values, scales [rows, groups], zeros.
        """
        codes = torch.zeros(y.shape, dtype=torch.uint8)
        values = y.clone()
        scales, zeros = [], []
        for i, (lanes, block, axes) in enumerate(self._views(y)):
            if frozen is not None:
                p = frozen[i]
            else:
                source = block
                if self.bug == "scale_of_first_head":
                    source = block[..., : min(self.head_dim, block.shape[-1])]
                if self.bug == "statistics_of_first_half" and 0 in axes and block.shape[0] > 1:
                    source = block[: block.shape[0] // 2]
                p = self._parameters_of(source, axes)
            code, back = self.codec.round_trip(block, p)
            n = len(lanes)
            codes[:, lanes] = code.reshape(code.shape[0], -1)[:, :n]
            values[:, lanes] = back.reshape(back.shape[0], -1)[:, :n]
            rows = y.shape[0] if self.f.granularity in ("token", "group") else 1
            scales.append(p.scale.reshape(rows, -1))
            if p.zero is not None:
                zeros.append(p.zero.reshape(rows, -1))
        return codes, values, torch.cat(scales, 1), torch.cat(zeros, 1) if zeros else None

    def _parameters_of(self, block, axes) -> Parameters:
        if self.f.is_fp8 or self.f.symmetry == "sym":
            return self.codec.parameters(None, None, block.abs().amax(axes, keepdim=True))
        return self.codec.parameters(
            block.amin(axes, keepdim=True), block.amax(axes, keepdim=True), None
        )

    def _calibrated(self, dtype):
        absmax, lo, hi = (c[self.lanes].to(torch.float32) for c in self.calibration)
        out = []
        for lanes in self.segments:
            if self.f.granularity == "channel":
                stats = lo[lanes][None], hi[lanes][None], absmax[lanes][None]
            else:
                stats = tuple(
                    v.reshape(1, 1) for v in (lo[lanes].min(), hi[lanes].max(), absmax[lanes].max())
                )
            out.append(self.codec.parameters(*(s.to(dtype) for s in stats)))
        return out

    # -- sequences ----------------------------------------------------------------------------

    def _spans(self, calls):
        """Blocks of rows [begin, end) in the order they are stored, with the call that does it."""
        f = self.f
        held = 0
        done = f.sink
        for i, tokens in enumerate(calls):
            held += tokens
            behind = max(0, held - f.sink)
            if f.scope == "window":
                if f.flush:
                    upto = f.sink + behind // f.window * f.window
                else:
                    upto = f.sink + max(0, behind - f.window)
                size = f.flush or 1
                for begin in range(done, upto, size):
                    yield i, begin, begin + size
            else:
                upto = max(done, held)
                whole = i == 0 or f.scope in ("prompt", "calibrated")
                if self.bug == "prompt_per_chunk" and whole and f.scope == "step":
                    for begin in range(done, upto, 16):
                        yield i, begin, min(begin + 16, upto)
                elif whole:
                    if upto > done:
                        yield i, done, upto
                else:
                    for begin in range(done, upto):
                        yield i, begin, begin + 1
            done = max(done, upto)

    def run(self, x: torch.Tensor, calls) -> Stored:
        f = self.f
        tokens = x.shape[0]
        flat = x.reshape(tokens, -1).clone()
        work = flat.dtype if f.native else torch.float32
        y = flat[:, self.lanes].to(work)
        if f.hadamard:
            y = self._rotate(y)
        frozen = self._calibrated(work) if f.scope == "calibrated" else None
        out = Stored(None, torch.full((tokens,), -1, dtype=torch.int32),
                     torch.zeros((tokens, len(self.lanes)), dtype=torch.uint8), None, None,
                     [0] * len(calls))
        scales, zeros, rows = [], [], 0
        spans = list(self._spans(calls))
        if f.granularity in ("token", "group"):
            spans = merge_spans(spans)
        for call, begin, end in spans:
            reported = frozen is not None and rows > 0
            code, value, scale, zero = self._together(y[begin:end], frozen)
            if f.scope == "prompt" and frozen is None:
                frozen = [self._parameters_of(block, axes)
                          for _, block, axes in self._views(y[begin:end])]
            if not reported:
                scales.append(scale)
                zeros.append(zero)
                rows += scale.shape[0]
            n = scale.shape[0]
            out.row[begin:end] = (torch.arange(rows - n, rows, dtype=torch.int32)
                                  if n == end - begin else rows - 1)
            out.codes[begin:end] = code
            if f.hadamard:
                value = self._rotate(value)
            flat[begin:end, self.lanes] = value.to(flat.dtype)
            for later in range(call, len(calls)):
                out.quantized[later] += (end - begin) * len(self.lanes)
        out.values = flat.reshape(x.shape)
        out.scales = torch.cat(scales).float() if scales else torch.zeros((0, 0))
        has_zero = bool(zeros) and zeros[0] is not None
        out.zeros = torch.cat(zeros).float() if has_zero else None
        return out

    def _rotate(self, y: torch.Tensor) -> torch.Tensor:
        return walsh_hadamard(y.reshape(y.shape[0], -1, self.head_dim)).reshape(y.shape)


def merge_spans(spans):
    """Joins adjacent spans of one call: for granularities whose statistics stay within a token."""
    merged = []
    for call, begin, end in spans:
        if merged and merged[-1][0] == call and merged[-1][2] == begin:
            merged[-1] = (call, merged[-1][1], end)
        else:
            merged.append((call, begin, end))
    return merged
