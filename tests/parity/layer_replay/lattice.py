"""Codes read off dequantized values: where each stored value lies on its format's lattice.

Scales and zero points are those that tests/parity/quantizers' oracle forms on the oracle's own keys and
values; values of the other side are placed on the same lattice. A coordinate is the code, counted from
the zero point for asym; for fp8 it is the value in units of the spacing there.
"""
from __future__ import annotations

import torch
from kv_plan import quantizers

MANTISSA = {"fp8_e4m3": (3, -6), "fp8_e5m2": (2, -14)}  # bits, smallest normal exponent


def fp8_spacing(values, kind):
    bits, lowest = MANTISSA[kind]
    exponent = torch.floor(torch.log2(values.abs().clamp(min=2.0 ** lowest))).clamp(min=lowest)
    return 2.0 ** (exponent - bits)


class Lattice:
    def __init__(self, form, raw, calls):
        """raw: [tokens, heads, dim], what the quantizer took in; calls: tokens of each call."""
        self.f = form.quantizer
        tokens, heads, dim = raw.shape
        self.stored = quantizers.Oracle(form.text, heads, dim).run(raw, calls)
        self.raw = raw.double()
        self.quantized = (self.stored.row >= 0)[:, None, None].expand(raw.shape)
        if self.f.is_fp8:
            self.step = fp8_spacing(self.stored.values.double(), self.f.type)
            self.offset = torch.zeros_like(self.step)
            self.boundary_distance = self._fp8_distance()
            return
        column = self._column(heads, dim).expand(tokens, -1)
        row = self.stored.row.clamp(min=0)[:, None].long().expand(-1, heads * dim)
        pick = lambda table: table.double()[row, column].reshape(raw.shape)  # noqa: E731
        self.step = pick(self.stored.scales)
        zero = pick(self.stored.zeros) if self.stored.zeros is not None else torch.zeros_like(self.step)
        affine = self.f.symmetry == "affine"
        self.offset = zero if affine else torch.zeros_like(zero)
        at = (self.raw - self.offset) / self.step + (0 if affine else zero)
        self.boundary_distance = (at - torch.floor(at) - 0.5).abs()
        if self.f.symmetry == "asym":
            self._exempt_zero_points(row * self.stored.scales.shape[1] + column)

    def _column(self, heads, dim):
        """[1, lanes]: which of a row's parameters holds a lane."""
        lane = torch.arange(heads * dim)
        f = self.f
        if f.granularity == "channel":
            column = lane
        elif f.granularity == "group":
            per_head = -(-dim // f.group)
            joint = lane // f.group
            column = lane // dim * per_head + lane % dim // f.group if f.perhead else joint
        else:
            column = lane // dim if f.perhead else torch.zeros_like(lane)
        return column[None]

    def _exempt_zero_points(self, group):
        """A zero point near its own boundary may differ; so may what is clamped with it."""
        flat = self.raw.reshape(group.shape)
        low = torch.full((int(group.max()) + 1,), float("inf"), dtype=torch.float64)
        low = low.scatter_reduce(0, group.flatten(), flat.flatten(), "amin")
        at = -low[group].reshape(self.raw.shape) / self.step
        distance = (at - torch.floor(at) - 0.5).abs()
        self.boundary_distance = torch.minimum(self.boundary_distance, distance)

    def _fp8_distance(self):
        value = self.stored.values.double()
        away = self.raw - value
        inward = away * value < 0
        power_of_two = torch.log2(value.abs()) == torch.floor(torch.log2(value.abs()))
        lowest = 2.0 ** MANTISSA[self.f.type][1]
        halved = inward & power_of_two & (value.abs() > lowest)
        step = torch.where(halved, self.step / 2, self.step)
        return 0.5 - away.abs() / step

    def coordinate(self, values, rows):
        return (values.double() - self.offset[:rows]) / self.step[:rows]
