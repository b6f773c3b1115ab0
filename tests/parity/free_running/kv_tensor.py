"""Keys or values of a left-padded batch in one layer, held as a format holds them.

The codes' arithmetic is tests/parity/quantizers' (written from the method's text, apart from the
engine); which elements share statistics, and when, is decided here, each sequence by itself: padding
and other sequences take no part.
"""
from __future__ import annotations

import torch
from kv_plan import quantizers

CHUNK_OF_MUTATION = 16  # rows that share statistics under "prompt_per_chunk"


class KvTensor:
    """values[batch, position, head, channel]; sequence b's token i is at position pads[b] + i."""

    def __init__(self, form, pads: list[int], mutation: str = ""):
        self.f = form.quantizer if form else None
        self.exact = bool(form) and form.exact
        self.pads, self.mutation = pads, mutation
        self.values = None
        self.frozen = None
        if self.f:
            bug = mutation if mutation == "zero_off_by_one" else ""
            self.codec = quantizers.Codec(self.f, bug)

    # -- blocks -------------------------------------------------------------------------------

    def _blocks(self, x):
        """[batch, tokens, segments, lanes] or, for groups, [..., groups, group]."""
        batch, tokens, heads, dim = x.shape
        if not self.f.perhead or self.f.granularity == "channel":
            x = x.reshape(batch, tokens, 1, heads * dim)
        if self.f.granularity == "group":
            tail = -x.shape[3] % self.f.group
            x = torch.nn.functional.pad(x, (0, tail))
            x = x.reshape(*x.shape[:3], -1, self.f.group)
        return x

    def _axes(self):
        return {"tensor": (1, 3), "token": (3,), "channel": (1,), "group": (4,)}[self.f.granularity]

    def _parameters(self, block, axes, real):
        source = block
        if self.mutation == "scale_over_one_head" and self.f.granularity in ("token", "tensor"):
            source = block[:, :, :1, :self.head_dim]
        where = lambda other: source  # noqa: E731
        if real is not None and 1 in axes:
            mask = real.reshape(*real.shape, *[1] * (source.dim() - 2))
            where = lambda other: torch.where(mask, source, torch.full_like(source, other))  # noqa: E731
        inf = float("inf")
        low, high = where(inf).amin(axes, keepdim=True), where(-inf).amax(axes, keepdim=True)
        return self.codec.parameters(low, high, torch.maximum(low.abs(), high.abs()))

    def _round_trip(self, x, real=None, frozen=None):
        """Values of one block that shares statistics; also the parameters it used."""
        block = self._blocks(x)
        used = frozen or self._parameters(block, self._axes(), real)
        back = self.codec.round_trip(block, used)[1]
        if self.f.granularity == "group":
            lanes = back.flatten(3)
            width = x.shape[3] if self.f.perhead else x.shape[2] * x.shape[3]
            back = lanes[..., :width]
        return back.reshape(x.shape), used

    # -- tokens -------------------------------------------------------------------------------

    def prompt(self, x):
        """Takes the prompts; returns what their own attention reads."""
        batch, tokens = x.shape[:2]
        self.values, self.head_dim = x.clone(), x.shape[3]
        if not self.f:
            return self.values
        position = torch.arange(tokens)
        real = position[None] >= torch.tensor(self.pads)[:, None]
        if self.f.scope == "window":
            for row in range(batch):
                self._slide(row, 0, tokens - self.pads[row])
        elif self.mutation == "prompt_per_chunk" and self.f.granularity in ("tensor", "channel"):
            self._prompt_in_chunks(x)
        else:
            self.values, used = self._round_trip(x, real)
            if self.f.scope == "prompt":
                self.frozen = used
        return x if self.exact else self.values

    def _prompt_in_chunks(self, x):
        frozen = []
        for row, pad in enumerate(self.pads):
            for begin in range(pad, x.shape[1], CHUNK_OF_MUTATION):
                span = (slice(row, row + 1), slice(begin, begin + CHUNK_OF_MUTATION))
                self.values[span], used = self._round_trip(x[span])
            frozen.append(used)
        if self.f.scope == "prompt":
            join = lambda parts: None if parts[0] is None else torch.cat(parts)  # noqa: E731
            self.frozen = quantizers.Parameters(join([p.scale for p in frozen]),
                                                join([p.zero for p in frozen]))

    def append(self, x):
        """Takes the next token of every sequence; True when older tokens changed."""
        if not self.f:
            self.values = torch.cat([self.values, x], 1)
            return False
        if self.f.scope != "window":
            stored, _ = self._round_trip(x, frozen=self.frozen)
            self.values = torch.cat([self.values, stored], 1)
            return False
        self.values = torch.cat([self.values, x], 1)
        changed = False
        for row, pad in enumerate(self.pads):
            held = self.values.shape[1] - pad
            changed |= self._slide(row, held - 1, held)
        return changed

    def _slide(self, row, before, held):
        """Quantizes what leaves the window of one sequence when it grows from `before` to `held`."""
        f, pad = self.f, self.pads[row]
        if f.flush:
            begin, end, size = before // f.window * f.window, held // f.window * f.window, f.flush
        else:
            begin, end, size = max(0, before - f.window), max(0, held - f.window), 1
        if f.granularity in ("token", "group"):
            size = max(1, end - begin)
        for first in range(begin, end, size):
            span = (slice(row, row + 1), slice(pad + first, pad + first + size))
            self.values[span] = self._round_trip(self.values[span])[0]
        return end > begin
