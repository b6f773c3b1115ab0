"""Tiny models on disk, as Hugging Face folders and GGUF files."""

import json
import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts" / "models"))

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "vocab_size": 264,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "bos_token_id": 260,
    "eos_token_id": 261,
    "tie_word_embeddings": False,
}
TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|stop|>\n{% endfor %}<|start|>assistant\n"
SPECIALS = ["<|start|>", "<|stop|>"]


def byte_characters():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    characters = {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(rest)}
    return [characters[b] for b in range(256)]


def vocabulary():
    return byte_characters() + ["he", "ll", "\u0120t", "in"] + SPECIALS


def tokenizer():
    added = [
        {
            "id": 260 + n,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for n, text in enumerate(SPECIALS)
    ]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "post_processor": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "vocab": {token: n for n, token in enumerate(vocabulary()[:260])},
            "merges": ["h e", "l l", "\u0120 t", "i n"],
        },
    }


def weights(config, dtype=np.float32):
    from source import expected_shapes

    rng = np.random.default_rng(5)
    return {
        name: rng.standard_normal(shape).astype(dtype)
        for name, shape in expected_shapes(config).items()
    }


def write_folder(folder, config=None, tensors=None, shards=1, template=TEMPLATE):
    """Returns the tensors that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**CONFIG, **(config or {})}
    tensors = weights(config) if tensors is None else tensors
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    chat = {
        "chat_template": template,
        "bos_token": "<|start|>",
        "eos_token": {"content": "<|stop|>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(chat))
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return tensors
    weight_map = {}
    for n in range(shards):
        shard = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[n::shards]}, folder / shard)
        weight_map |= {name: shard for name in names[n::shards]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors


GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    fixed = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[part]}.{kind}"


def interleave(weight, heads):
    """The row order that llama.cpp's converter gives q and k of the llama architecture."""
    rows = weight.shape[0] // heads
    return (
        weight.reshape(heads, 2, rows // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_gguf(path, config=None, tensors=None, pre="smollm", architecture=None, extra=None):
    import gguf

    config = {**CONFIG, **(config or {})}
    architecture = architecture or config["model_type"]
    tensors = weights(config) if tensors is None else tensors
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(128)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary())
    writer.add_token_types([1] * 260 + [3] * len(SPECIALS))
    writer.add_token_merges(["h e", "l l", "\u0120 t", "i n"])
    writer.add_bos_token_id(260)
    writer.add_eos_token_id(261)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in tensors.items():
        heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
        letter = name.split("self_attn.")[1][0] if "self_attn." in name else ""
        permuted = config["model_type"] == "llama" and letter in heads
        writer.add_tensor(
            gguf_name(name), interleave(tensor, heads[letter]) if permuted else tensor
        )
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
