#!/usr/bin/env python3
"""Embeds a small Llama-family bundle in the shape of a large model: the same answers at the large model's cost.

Random weights of a large shape never refuse, so a diagnosis of them asks nothing. This puts the weights of a small
model that does into the corner of a large one and fills what multiplies zeros with random values, so that products
move what they would move. What the large model computes is what the small one computes:

  hidden    the first channels; the others stay 0. RMSNorm divides by the larger width, so norm weights are scaled by
            sqrt(small/large) and the epsilon by small/large
  heads     query head r of group g becomes head r of the larger group g; the other heads give 0
  channels  channel c of a head becomes channel c * large/small, which has the same rotary frequency at the same
            theta; queries are scaled by sqrt(large/small) against the smaller softmax scale
  inner     the first neurons; the others have an "up" of 0
  layers    further layers write nothing
  vocab     further ids cannot win: one more hidden channel is constant and enters their logits alone, far below 0

Caches are not embedded exactly: quantizers that scale by a token's or a tensor's extremes see the same extremes and
some zeros more; groups and rotations over a head's channels see other neighbours. So the study's numbers are not the
small model's; its length is a large model's.

  embed_model.py --model .data/models/testbed --shape llama-3.1-8b --out .data/models/testbed-8b
"""

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "models"))

import bundle
from shapes import LLAMA_3_1_8B
from source import Source, expected_shapes
from tensors import Tensor, from_float32, read_safetensors, to_float32

SHAPES = {
    "llama-3.1-8b": LLAMA_3_1_8B,
    # Small enough for a test on a CPU, and still larger in every direction.
    "twice": dict(
        num_hidden_layers=31,
        num_attention_heads=16,
        num_key_value_heads=4,
        head_dim=128,
        hidden_size=768,
        intermediate_size=2048,
        vocab_size=50000,
    ),
}
# The channel that keeps padded ids from winning: its value in the hidden state, its weight in the last norm and in the
# head. The value is too small to move a norm; the product is a logit below -50 at a last norm of up to 100.
PAD_VALUE, PAD_NORM, PAD_HEAD = 2.0**-10, 2.0**14, -(2.0**12)
BLOCK_VALUES = 1 << 25


@dataclass
class Sizes:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    inner: int
    vocab: int

    @staticmethod
    def of(config):
        heads = config["num_attention_heads"]
        return Sizes(
            config["num_hidden_layers"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["hidden_size"],
            config["intermediate_size"],
            config["vocab_size"],
        )


class Refused(Exception):
    pass


def check_fits(small, large):
    for name in ("layers", "kv_heads", "head_dim", "inner", "vocab"):
        if getattr(small, name) > getattr(large, name):
            raise Refused(f"{name}: {getattr(small, name)} do not fit {getattr(large, name)}")
    if small.hidden >= large.hidden:
        raise Refused(f"hidden: {small.hidden} channels and one more do not fit {large.hidden}")
    if large.head_dim % small.head_dim:
        raise Refused(
            f"head_dim: {large.head_dim} must be a multiple of {small.head_dim}, for equal rotary frequencies"
        )
    if small.heads // small.kv_heads > large.heads // large.kv_heads:
        raise Refused(
            f"query heads a key head: {small.heads // small.kv_heads} do not fit {large.heads // large.kv_heads}"
        )


class Embedder:
    """Reads `tensors` of the small model; makes those of the large one, as bfloat16 or float32."""

    def __init__(self, tensors, small, large, tied, dtype, seed=1):
        check_fits(small, large)
        self.tensors, self.small, self.large, self.tied, self.dtype = (
            tensors,
            small,
            large,
            tied,
            dtype,
        )
        self.random = np.random.default_rng(seed)
        block = self.random.standard_normal(BLOCK_VALUES, dtype=np.float32) * np.float32(0.02)
        self.block = from_float32(block, dtype, "random values")
        heads = np.arange(small.heads)
        group, place = np.divmod(heads, small.heads // small.kv_heads)
        self.q_rows = self._channels(group * (large.heads // large.kv_heads) + place)
        self.kv_rows = self._channels(np.arange(small.kv_heads))

    def _channels(self, heads):
        step = self.large.head_dim // self.small.head_dim
        channels = np.arange(self.small.head_dim) * step
        return (heads[:, None] * self.large.head_dim + channels[None, :]).reshape(-1)

    def _filled(self, shape):
        """Random values: slices of one block, each tensor from other places."""
        out = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=self.block.dtype)
        done = 0
        while done < out.size:
            begin = int(self.random.integers(0, BLOCK_VALUES // 2))
            count = min(BLOCK_VALUES - begin, out.size - done)
            out[done : done + count] = self.block[begin : begin + count]
            done += count
        return out.reshape(shape)

    def _small(self, name, scale=1.0):
        tensor = self.tensors[name]
        values = to_float32(tensor.read(), tensor.dtype)
        return from_float32(values * np.float32(scale), self.dtype, name)

    def _value(self, value):
        return from_float32(np.array([value], dtype=np.float32), self.dtype, "constant")[0]

    def make(self, name, shape):
        if name == "model.embed_tokens.weight":
            return self._embedding(shape)
        if name == "lm_head.weight":
            return self._head(shape)
        if name == "model.norm.weight":
            out = self._norm(name, shape)
            out[self.small.hidden] = self._value(PAD_NORM)
            return out
        _, _, layer, kind = name.split(".", 3)
        own = name if int(layer) < self.small.layers else None
        if kind.endswith("layernorm.weight"):
            return self._norm(own, shape)
        part = kind.split(".")[1].removesuffix("_proj")
        return {
            "q": lambda: self._inputs(
                own, shape, self.q_rows, (self.large.head_dim / self.small.head_dim) ** 0.5
            ),
            "k": lambda: self._inputs(own, shape, self.kv_rows),
            "v": lambda: self._inputs(own, shape, self.kv_rows),
            "o": lambda: self._attention_out(own, shape),
            "gate": lambda: self._gate(own, shape),
            "up": lambda: self._inputs(own, shape, np.arange(self.small.inner)),
            "down": lambda: self._down(own, shape),
        }[part]()

    def _norm(self, name, shape):
        """Scale for the larger width; 0 for the constant channel."""
        out = np.full(shape, self._value(1.0))
        scale = (self.small.hidden / self.large.hidden) ** 0.5
        out[: self.small.hidden] = self._small(name, scale) if name else self._value(scale)
        out[self.small.hidden] = 0
        return out

    def _inputs(self, name, shape, rows, scale=1.0):
        """Rows in use take the hidden state as they did; the others give 0: random columns meet zeros."""
        out = self._filled(shape)
        out[:, : self.small.hidden] = 0
        if name:
            out[rows, : self.small.hidden] = self._small(name, scale)
        return out

    def _gate(self, name, shape):
        out = self._filled(shape)
        if name:
            out[: self.small.inner, : self.small.hidden] = self._small(name)
        return out

    def _attention_out(self, name, shape):
        """Zeros elsewhere: a quantizer without an exact zero gives unused channels a value."""
        out = np.zeros(shape, dtype=self.block.dtype)
        if name:
            out[np.ix_(np.arange(self.small.hidden), self.q_rows)] = self._small(name)
        return out

    def _down(self, name, shape):
        out = self._filled(shape)
        out[:, : self.small.inner] = 0
        if name:
            out[: self.small.hidden, : self.small.inner] = self._small(name)
        return out

    def _embedding(self, shape):
        out = np.zeros(shape, dtype=self.block.dtype)
        own = self._small("model.embed_tokens.weight")
        out[: own.shape[0], : own.shape[1]] = own
        out[:, self.small.hidden] = self._value(PAD_VALUE)
        return out

    def _head(self, shape):
        out = self._filled(shape)
        own = self._small("model.embed_tokens.weight" if self.tied else "lm_head.weight")
        out[:, : self.small.hidden] = 0
        out[: own.shape[0], : self.small.hidden] = own
        out[:, self.small.hidden] = self._value(PAD_HEAD)
        out[: own.shape[0], self.small.hidden] = 0
        return out


def embedded_config(config, shape):
    if config["model_type"] != "llama":
        raise Refused(f"model_type must be llama, got {config['model_type']!r}")
    small, large = Sizes.of(config), Sizes.of({**config, **shape})
    out = {**config, **shape, "tie_word_embeddings": False}
    out["rms_norm_eps"] = config["rms_norm_eps"] * small.hidden / large.hidden
    return out, small, large


def read_small(folder):
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    texts = {}
    for name in ("config.json", "tokenizer.json", "chat_format.json"):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            texts[name] = json.load(file)
    tensors = {}
    for name in sorted(manifest["files"]):
        if name.endswith(".safetensors"):
            tensors.update(read_safetensors(os.path.join(folder, name))[0])
    return manifest, texts, tensors


def embed(model, shape_name, out, dtype):
    manifest, texts, tensors = read_small(model)
    config, small, large = embedded_config(texts["config.json"], SHAPES[shape_name])
    tied = texts["config.json"].get("tie_word_embeddings", False)
    embedder = Embedder(tensors, small, large, tied, dtype)
    made = {
        name: Tensor(dtype, shape, lambda name=name, shape=shape: embedder.make(name, shape))
        for name, shape in expected_shapes(config).items()
    }
    source = Source(
        name=f"{manifest['name']}-{shape_name}",
        origin=f"{manifest['source']} embedded in {shape_name}",
        license=manifest["license"],
        config=config,
        tokenizer=texts["tokenizer.json"],
        tensors=made,
        chat_template=None,
    )
    # It answers as the small one does, so what that was trained on is no prompt for it either.
    listed = os.path.join(model, bundle.TRAINED_ON)
    trained_on = bundle.read_trained_on(listed) if os.path.exists(listed) else None
    return bundle.write_bundle(
        out, source, made, texts["chat_format.json"], "keep", force=True, trained_on=trained_on
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="bundle of the small model")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-3.1-8b")
    parser.add_argument("--out", required=True, metavar="DIR", help="the bundle to write")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    args = parser.parse_args()
    started = time.monotonic()
    try:
        manifest = embed(args.model, args.shape, args.out, bundle.DTYPES[args.dtype])
    except (Refused, bundle.ImportRefused) as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    print(
        json.dumps(
            {
                "bundle": args.out,
                "model_digest": manifest["model_digest"],
                "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
