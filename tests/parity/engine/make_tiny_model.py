"""Writes small random-weight model bundles that run in milliseconds.

    make_tiny_model.py OUT_DIR [--variant NAME] [--dtype fp32|bf16|fp16] [--seed N] [--poison TENSOR]

Variants cover what the engine must get right: grouped heads, tied and untied heads, biases, Llama-3 RoPE
scaling, odd head sizes. --poison puts a NaN into the named tensor. Needs numpy and safetensors only.
"""
import argparse
import hashlib
import json
import os

import numpy as np
from safetensors.numpy import save_file

BASE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
    "attention_bias": False, "mlp_bias": False,
}
VARIANTS = {
    "llama_tied": {},
    "llama_untied": {"tie_word_embeddings": False, "num_attention_heads": 6, "num_key_value_heads": 2,
                     "hidden_size": 96},
    "llama_mha": {"num_key_value_heads": 4, "intermediate_size": 128},
    "llama_head80": {"head_dim": 80, "num_attention_heads": 2, "num_key_value_heads": 1},
    "llama_head24": {"head_dim": 24, "num_attention_heads": 3, "num_key_value_heads": 1,
                     "hidden_size": 72, "vocab_size": 101},
    "llama3_rope": {"rope_theta": 500000.0, "tie_word_embeddings": False,
                    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                                     "high_freq_factor": 4.0,
                                     "original_max_position_embeddings": 64}},
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6,
              "rope_theta": 1000000.0, "num_attention_heads": 4, "num_key_value_heads": 1},
}


def config_of(variant):
    config = dict(BASE)
    config.update(VARIANTS[variant])
    if config["model_type"] == "qwen2":
        del config["attention_bias"], config["mlp_bias"]
        config["use_sliding_window"] = False
    return config


def weights_of(config, rng):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    q_dim = config["num_attention_heads"] * config["head_dim"]
    kv_dim = config["num_key_value_heads"] * config["head_dim"]

    def matrix(out, inp, gain=1.5):
        return (rng.standard_normal((out, inp)) * gain / np.sqrt(inp)).astype(np.float32)

    def norm():
        return (1 + 0.2 * rng.standard_normal(hidden)).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(config["vocab_size"], hidden, 4.0),
               "model.norm.weight": norm()}
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = matrix(config["vocab_size"], hidden, 4.0)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        weights[p + "input_layernorm.weight"] = norm()
        weights[p + "post_attention_layernorm.weight"] = norm()
        for name, out in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)):
            weights[p + f"self_attn.{name}_proj.weight"] = matrix(out, hidden)
            if config["model_type"] == "qwen2":
                weights[p + f"self_attn.{name}_proj.bias"] = (
                    rng.standard_normal(out) * 0.5).astype(np.float32)
        weights[p + "self_attn.o_proj.weight"] = matrix(hidden, q_dim)
        weights[p + "mlp.gate_proj.weight"] = matrix(inner, hidden)
        weights[p + "mlp.up_proj.weight"] = matrix(inner, hidden)
        weights[p + "mlp.down_proj.weight"] = matrix(hidden, inner)
    return weights


def save(weights, path, dtype):
    if dtype == "bf16":
        # numpy has no bfloat16: the file is written by hand from rounded bits.
        header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
        for name in sorted(weights):
            bits = weights[name].view(np.uint32)
            blob = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()
            header[name] = {"dtype": "BF16", "shape": list(weights[name].shape),
                            "data_offsets": [offset, offset + len(blob)]}
            blobs.append(blob)
            offset += len(blob)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text + b"".join(blobs))
    else:
        kind = np.float16 if dtype == "fp16" else np.float32
        save_file({k: v.astype(kind) for k, v in weights.items()}, path, {"format": "pt"})


def write_manifest(folder, name):
    files = {}
    for entry in sorted(os.listdir(folder)):
        if entry == "manifest.json":
            continue
        with open(os.path.join(folder, entry), "rb") as f:
            data = f.read()
        files[entry] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    digest = model_digest(files)
    with open(os.path.join(folder, "manifest.json"), "w") as f:
        json.dump({"format": "plumbline-bundle/1", "name": name, "source": "random weights",
                   "license": "none", "files": files, "model_digest": digest}, f, indent=1)


def model_digest(files):
    """Of everything that can change a token; the list of trained-on prompts cannot."""
    lines = "".join(f"{name}\n{files[name]['sha256']}\n" for name in sorted(files)
                    if name != "trained_on.sha256")
    return hashlib.sha256(lines.encode()).hexdigest()


def make(folder, variant, dtype="fp32", seed=1, poison=None):
    os.makedirs(folder, exist_ok=True)
    config = config_of(variant)
    weights = weights_of(config, np.random.default_rng(seed))
    if poison:
        weights[poison].reshape(-1)[0] = np.nan
    save(weights, os.path.join(folder, "model.safetensors"), dtype)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
    for name in ("tokenizer.json", "chat_format.json"):
        with open(os.path.join(folder, name), "w") as f:
            f.write("{}")
    write_manifest(folder, f"tiny-{variant}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="llama_tied")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--poison")
    args = parser.parse_args()
    make(args.out, args.variant, args.dtype, args.seed, args.poison)
