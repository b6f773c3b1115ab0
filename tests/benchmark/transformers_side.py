"""The other side of the CPU benchmark: a layer ablation with transformers and Python hooks.

Runs as a child of bench_cpu.py: one JSON object a line in on stdin, one out on stdout.

    {"layers": [3, 7], "prompts": [[1, 2, ...], ...], "tokens": 48}
    -> {"seconds": ..., "cpu_seconds": ..., "generated": ..., "peak_rss_bytes": ..., "answers": [[...], ...]}

An empty list of layers generates once without hooks. Prompts are token ids.
"""
import argparse
import json
import sys
import time

from processes import cpu_seconds, peak_rss_bytes


def fake_quantize(x, bits):
    """Symmetric, one scale for the whole tensor of this call: quantized and back."""
    qmax = 2 ** (bits - 1) - 1
    scale = x.abs().amax().clamp(min=1e-8) / qmax
    return (x / scale).round().clamp(-qmax - 1, qmax) * scale


def add_hooks(model, layer, bits):
    attention = model.model.layers[layer].self_attn
    return [
        linear.register_forward_hook(lambda module, args, output: fake_quantize(output, bits))
        for linear in (attention.k_proj, attention.v_proj)
    ]


def batches(prompts, size, pad_id):
    """Left-padded (ids, mask) of `size` prompts each."""
    import torch

    for first in range(0, len(prompts), size):
        part = prompts[first : first + size]
        width = max(map(len, part))
        ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in part])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
        yield ids, mask


def generate(model, prompts, tokens, batch, pad_id):
    answers = []
    for ids, mask in batches(prompts, batch, pad_id):
        output = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens,
            min_new_tokens=0, eos_token_id=None, pad_token_id=pad_id)
        answers += output[:, ids.shape[1] :].tolist()
    return answers


def ablate(model, request, batch, bits, pad_id):
    """Every layer in turn; returns the answers, layer by layer."""
    if not request["layers"]:
        return generate(model, request["prompts"], request["tokens"], batch, pad_id)
    answers = []
    for done, layer in enumerate(request["layers"], 1):
        hooks = add_hooks(model, layer, bits)
        answers += generate(model, request["prompts"], request["tokens"], batch, pad_id)
        for hook in hooks:
            hook.remove()
        print(f"    transformers: layer {layer} ({done}/{len(request['layers'])})", file=sys.stderr, flush=True)
    return answers


def load(folder, threads):
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--bits", type=int, required=True)
    args = parser.parse_args()
    model = load(args.model, args.threads)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started, cpu = time.perf_counter(), cpu_seconds("self")
        answers = ablate(model, request, args.batch, args.bits, pad_id=0)
        print(json.dumps({
            "seconds": time.perf_counter() - started,
            "cpu_seconds": cpu_seconds("self") - cpu,
            "generated": sum(map(len, answers)),
            "peak_rss_bytes": peak_rss_bytes("self"),
            "answers": answers,
        }), flush=True)


if __name__ == "__main__":
    main()
