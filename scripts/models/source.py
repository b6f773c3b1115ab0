"""What every kind of source (Hugging Face folder, GGUF file) is turned into before a bundle is made,
and the checks that hold for all of them."""

import operator
from dataclasses import dataclass, field

from errors import ImportRefused

FAMILIES = ("llama", "qwen2")


@dataclass
class Source:
    name: str
    origin: str  # for the manifest; never a path of this machine
    license: str
    config: dict  # Hugging Face config
    tokenizer: dict  # Hugging Face tokenizer.json
    tensors: dict  # Hugging Face name -> tensors.Tensor
    chat_template: str | None
    special_tokens: dict = field(default_factory=dict)  # bos_token, eos_token, ... -> text
    adds_bos: bool = False  # the model's own tokenizer starts every sequence with BOS
    chat: dict | None = None  # of a bundle: its chat format, for the template is gone
    trained_on: list = field(default_factory=list)  # of a bundle: text hashes of its list


def check_config(config):
    """The sizes that tensor shapes follow from. The engine checks the rest when it reads the bundle."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ImportRefused(
            f"config.json: model_type must be one of {', '.join(FAMILIES)}, got {family!r}"
        )
    for key in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if config.get(key):
            raise ImportRefused(
                f"config.json: {key} is {config[key]!r}; only models without it are supported"
            )
    if config.get("hidden_act", "silu") != "silu":
        raise ImportRefused(f"config.json: hidden_act must be 'silu', got {config['hidden_act']!r}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else rope
    if kind not in ("default", "llama3"):
        raise ImportRefused(f"config.json: rope type must be 'default' or 'llama3', got {kind!r}")
    for key in (
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
    ):
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ImportRefused(f"config.json: {key} must be a positive integer, got {value!r}")
    head_dim = config.get("head_dim")
    if head_dim is not None and (not isinstance(head_dim, int) or head_dim < 1):
        raise ImportRefused(f"config.json: head_dim must be a positive integer, got {head_dim!r}")
    heads, kv_heads = (
        config["num_attention_heads"],
        config.get("num_key_value_heads") or config["num_attention_heads"],
    )
    if not isinstance(kv_heads, int) or kv_heads < 1 or heads % kv_heads:
        raise ImportRefused(
            f"config.json: num_key_value_heads must divide num_attention_heads {heads}, got {kv_heads!r}"
        )


def expected_shapes(config):
    """Every tensor that the model must have, in the order in which bundles store them."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    q_rows, kv_rows = heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes[at + "input_layernorm.weight"] = (hidden,)
        for letter, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
            shapes[f"{at}self_attn.{letter}_proj.weight"] = (rows, hidden)
            if config["model_type"] == "qwen2":
                shapes[f"{at}self_attn.{letter}_proj.bias"] = (rows,)
        shapes[at + "self_attn.o_proj.weight"] = (hidden, q_rows)
        shapes[at + "post_attention_layernorm.weight"] = (hidden,)
        shapes[at + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[at + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[at + "mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def check_tensors(source):
    """Returns the tensors in bundle order. Names what is missing, surplus or of another shape."""
    expected = expected_shapes(source.config)
    tensors = {n: t for n, t in source.tensors.items() if not n.endswith("rotary_emb.inv_freq")}
    if source.config.get("tie_word_embeddings", False) and "lm_head.weight" in tensors:
        head, embedding = tensors.pop("lm_head.weight"), tensors.get("model.embed_tokens.weight")
        if (
            embedding is None
            or head.dtype != embedding.dtype
            or head.read().tobytes() != embedding.read().tobytes()
        ):
            raise ImportRefused(
                "config.json: tie_word_embeddings is true, but lm_head.weight differs from the embedding"
            )
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ImportRefused(
            f"{len(missing)} tensors are missing, the first is {missing[0]}; is a shard absent?"
        )
    surplus = sorted(set(tensors) - set(expected))
    if surplus:
        raise ImportRefused(
            f"{len(surplus)} tensors do not belong to a {source.config['model_type']} model, the first is {surplus[0]}"
        )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise ImportRefused(
                f"tensor {name} has shape {list(tensors[name].shape)}, config.json asks for {list(shape)}"
            )
    return {name: tensors[name] for name in expected}


def check_vocabulary(source):
    """The tokenizer may have fewer ids than the embedding has rows (padding), never more."""
    try:
        ids = list(source.tokenizer["model"]["vocab"].values())
        ids += [token["id"] for token in source.tokenizer.get("added_tokens") or []]
        highest = max(map(operator.index, ids))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ImportRefused(f"tokenizer.json: no model.vocab with ids ({error!r})") from error
    if highest >= source.config["vocab_size"]:
        raise ImportRefused(
            f"tokenizer.json has token id {highest}, config.json has vocab_size {source.config['vocab_size']}"
        )
