"""Reads a GGUF file of the llama or qwen2 architecture back into Hugging Face form."""

import hashlib
import os
import re

import numpy as np

import gguf_tokenizer
from errors import ImportRefused
from gguf_check import check_gguf
from source import Source
from tensors import Tensor

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def read_gguf(path):
    import gguf

    check_gguf(path, {kind.value: sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items()})
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # the reader raises whatever numpy does on damaged bytes
        raise ImportRefused(
            f"{os.path.basename(path)} cannot be read as GGUF, it may be damaged: {error}"
        ) from error
    architecture = fields.get("general.architecture")
    if architecture not in ("llama", "qwen2"):
        raise ImportRefused(
            f"general.architecture must be 'llama' or 'qwen2', got {architecture!r}"
        )
    config = _config(fields, architecture)
    tensors, factors = _tensors(reader, gguf, config)
    if "model.embed_tokens.weight" in tensors:  # it may have more rows than there are tokens
        config["vocab_size"] = tensors["model.embed_tokens.weight"].shape[0]
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    if factors is not None:
        config["rope_scaling"] = llama3_scaling(factors, config)
    tokenizer = gguf_tokenizer.build(fields)
    return Source(
        name=str(fields.get("general.name") or os.path.splitext(os.path.basename(path))[0]),
        origin=f"gguf:{os.path.basename(path)} sha256:{_sha256(path)}",
        license=str(fields.get("general.license") or "unknown"),
        config=config,
        tokenizer=tokenizer,
        tensors=tensors,
        chat_template=fields.get("tokenizer.chat_template"),
        special_tokens=gguf_tokenizer.special_tokens(fields),
        adds_bos=gguf_tokenizer.adds_bos(fields),
    )


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(fields, architecture):
    def get(key, default=None):
        value = fields.get(f"{architecture}.{key}", default)
        if value is None:
            raise ImportRefused(f"the GGUF lacks {architecture}.{key}")
        return value

    def integer(key, default=None):
        value = get(key, default)
        if not isinstance(value, int) or value < 1:
            raise ImportRefused(f"{architecture}.{key} must be a positive integer, got {value!r}")
        return value

    if fields.get(f"{architecture}.rope.scaling.type", "none") != "none":
        raise ImportRefused(
            f"{architecture}.rope.scaling.type {fields[f'{architecture}.rope.scaling.type']!r} is not supported"
        )
    heads, hidden = integer("attention.head_count"), integer("embedding_length")
    head_dim = integer("attention.key_length", hidden // heads)
    if integer("rope.dimension_count", head_dim) != head_dim:
        raise ImportRefused(
            f"{architecture}.rope.dimension_count must be the head size {head_dim}, got {get('rope.dimension_count')}"
        )
    config = {
        "architectures": ["LlamaForCausalLM" if architecture == "llama" else "Qwen2ForCausalLM"],
        "model_type": architecture,
        "hidden_act": "silu",
        "num_hidden_layers": integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_size": hidden,
        "intermediate_size": integer("feed_forward_length"),
        "vocab_size": len(fields.get("tokenizer.ggml.tokens") or []),
        "max_position_embeddings": integer("context_length"),
        "rope_theta": shortest_float32(get("rope.freq_base", 10000.0)),
        "rms_norm_eps": shortest_float32(get("attention.layer_norm_rms_epsilon")),
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
    }
    stops = [
        config["eos_token_id"],
        fields.get("tokenizer.ggml.eot_token_id"),
        fields.get("tokenizer.ggml.eom_token_id"),
    ]
    stops = [stop for stop in dict.fromkeys(stops) if stop is not None]
    if not stops:
        raise ImportRefused("the GGUF lacks tokenizer.ggml.eos_token_id")
    config["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    return config


def shortest_float32(value):
    """GGUF stores float32: 9.999999747378752e-06 was 1e-05."""
    return float(str(np.float32(value)))


def hugging_face_name(name):
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if match and match[2] in LAYER_NAMES:
        return f"model.layers.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"
    raise ImportRefused(f"tensor {name} belongs to no part of a llama or qwen2 model")


def unpermute(weight, heads):
    """llama.cpp interleaves the two rotary halves of each head's q and k rows; Hugging Face keeps them apart."""
    rows = weight.shape[0] // heads
    return (
        weight.reshape(heads, rows // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def _tensors(reader, gguf, config):
    tensors, factors = {}, None
    for entry in reader.tensors:
        if entry.name == "rope_freqs.weight":
            factors = np.array(entry.data, dtype=np.float64).reshape(-1)
            continue
        name = hugging_face_name(entry.name)
        heads = None
        if config["model_type"] == "llama" and ".self_attn.q_proj." in name:
            heads = config["num_attention_heads"]
        elif config["model_type"] == "llama" and ".self_attn.k_proj." in name:
            heads = config["num_key_value_heads"]
        shape = tuple(int(n) for n in reversed(entry.shape.tolist()))
        tensors[name] = Tensor("F32", shape, _reader(gguf, entry, name, shape, heads))
    return tensors, factors


def _reader(gguf, entry, name, shape, heads):
    def read():
        try:
            array = gguf.dequantize(entry.data, entry.tensor_type).astype(np.float32).reshape(shape)
        except (ValueError, NotImplementedError) as error:
            raise ImportRefused(
                f"tensor {name} of type {entry.tensor_type.name} cannot be dequantized: {error}"
            ) from error
        return unpermute(array, heads) if heads else array

    return read


def llama3_scaling(factors, config):
    """rope_freqs holds, per frequency, what Llama-3's scaling divides it by. Only Meta's published
    parameters give such a vector; any other is refused."""
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    dim = config["head_dim"]
    wavelength = 2 * np.pi * config["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    smooth = np.clip((8192 / wavelength - 1.0) / (4.0 - 1.0), 0, 1)
    expected = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    if factors.shape != expected.shape or not np.allclose(factors, expected, rtol=1e-4):
        raise ImportRefused(
            "rope_freqs.weight does not follow from Llama-3 scaling over 8192 positions; not supported"
        )
    return scaling
