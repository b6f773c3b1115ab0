#!/usr/bin/env python3
"""transformers' generate on the GPU, and the way such studies are usually evaluated: batch 4 with Python hooks that
quantize what k_proj and v_proj return. Random bf16 weights in the shape of Llama-3.1-8B, prompts of 64 tokens, no early
stop. One JSON object a line.

  transformers_gpu.py [--batches 4,64,256] [--new 128] [--layers 32]
"""

import argparse
import json
import sys
import time

from shapes import LLAMA_3_1_8B

PROMPT = 64


def make_model(layers):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **LLAMA_3_1_8B | dict(num_hidden_layers=layers),
        max_position_embeddings=8192,
        rope_theta=500000.0,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model = model.to(torch.bfloat16).to_empty(device="cuda").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0) if parameter.dim() == 1 else parameter.normal_(0, 0.02)
        rotary = model.model.rotary_emb
        inverse = 500000.0 ** (-torch.arange(0, 128, 2, dtype=torch.float32, device="cuda") / 128)
        rotary.inv_freq.copy_(inverse)
        if hasattr(rotary, "original_inv_freq"):
            rotary.original_inv_freq = rotary.inv_freq
    return model


def quantize_per_token(values):
    """int4.asym.token: one scale and integer zero point a token, over all of its channels."""
    wide = values.float()
    low, high = wide.amin(-1, keepdim=True), wide.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp_min(1e-8)
    zero = (-low / scale).round().clamp(0, 15)
    codes = (wide / scale + zero).round().clamp(0, 15)
    return ((codes - zero) * scale).to(values.dtype)


def add_hooks(model):
    return [
        projection.register_forward_hook(lambda _module, _inputs, out: quantize_per_token(out))
        for layer in model.model.layers
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj)
    ]


def tokens_per_second(model, batch, new):
    import torch

    generator = torch.Generator(device="cuda").manual_seed(3)
    ids = torch.randint(0, 128000, (batch, PROMPT), device="cuda", generator=generator)
    settings = dict(attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True)
    with torch.no_grad():
        model.generate(ids, max_new_tokens=4, min_new_tokens=4, **settings)
        torch.cuda.synchronize()
        start = time.perf_counter()
        out = model.generate(ids, max_new_tokens=new, min_new_tokens=new, **settings)
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    made = out.shape[1] - PROMPT
    if made != new:
        raise SystemExit(f"error: {made} tokens were generated instead of {new}")
    return batch * new / seconds, seconds


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", default="4,64,256")
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--layers", type=int, default=32)
    args = parser.parse_args()
    try:
        import torch
        import transformers
    except ImportError as error:
        print(f"SKIPPED  transformers: {error}")
        return 0
    if not torch.cuda.is_available():
        print("SKIPPED  transformers: no GPU")
        return 0
    model = make_model(args.layers)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    for batch in map(int, args.batches.split(",")):
        rate, seconds = tokens_per_second(model, batch, args.new)
        row = {"rival": "generate", "batch": batch, "new": args.new, "tokens_per_s": rate}
        print(json.dumps({**row, "seconds": seconds, **versions}), flush=True)
    hooks = add_hooks(model)
    rate, seconds = tokens_per_second(model, 4, args.new)
    for hook in hooks:
        hook.remove()
    row = {"rival": "hooks", "batch": 4, "new": args.new, "tokens_per_s": rate, "seconds": seconds}
    print(json.dumps({**row, **versions}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
