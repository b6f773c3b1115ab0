"""Rebuilds tokenizer.json from GGUF metadata. The pre-tokenizer rule is chosen by its GGUF name; a
name without a rule here is refused, for a wrong rule changes ids without any error."""

import collections

from errors import ImportRefused

CONTROL, USER_DEFINED = 3, 4
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(use_regex):
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(pattern):
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, byte_level(False)]}


_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level(True)],
}
# name -> (normalizer, pre-tokenizer, ignore_merges)
PRE_RULES = {
    "smollm": (None, _DIGITS, False),
    "starcoder": (None, _DIGITS, False),
    "gpt-2": (None, byte_level(True), False),
    "llama-bpe": (None, _split(LLAMA3_PATTERN), True),
    "llama3": (None, _split(LLAMA3_PATTERN), True),
    "llama-v3": (None, _split(LLAMA3_PATTERN), True),
    "qwen2": ({"type": "NFC"}, _split(QWEN2_PATTERN), False),
    "deepseek-r1-qwen": ({"type": "NFC"}, _split(QWEN2_PATTERN), False),
}


def build(fields):
    kind = fields.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise ImportRefused(f"tokenizer.ggml.model must be 'gpt2' (byte-level BPE), got {kind!r}")
    pre = fields.get("tokenizer.ggml.pre")
    if pre not in PRE_RULES:
        raise ImportRefused(
            f"tokenizer.ggml.pre must be one of {', '.join(PRE_RULES)}, got {pre!r}; import the Hugging Face folder instead"
        )
    if fields.get("tokenizer.ggml.add_space_prefix"):
        raise ImportRefused(
            "tokenizer.ggml.add_space_prefix is true, which no supported pre-tokenizer does"
        )
    tokens, types, merges = (
        fields.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges")
    )
    if not tokens or not merges:
        raise ImportRefused("the GGUF lacks tokenizer.ggml.tokens or tokenizer.ggml.merges")
    if len(set(tokens)) != len(tokens):
        twice = collections.Counter(tokens).most_common(1)[0][0]
        raise ImportRefused(f"tokenizer.ggml.tokens has {twice!r} twice")
    types = types or [1] * len(tokens)
    if len(types) != len(tokens):
        raise ImportRefused(f"tokenizer.ggml has {len(tokens)} tokens but {len(types)} token types")
    normalizer, pre_tokenizer, ignore_merges = PRE_RULES[pre]
    added = [
        _added(i, tokens[i], types[i])
        for i in range(len(tokens))
        if types[i] in (CONTROL, USER_DEFINED)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _added(token_id, content, kind):
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": kind == CONTROL,
    }


def special_tokens(fields):
    tokens, found = fields["tokenizer.ggml.tokens"], {}
    for name, key in (
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("unk_token", "unknown"),
        ("pad_token", "padding"),
    ):
        token_id = fields.get(f"tokenizer.ggml.{key}_token_id")
        if token_id is not None:
            if not 0 <= token_id < len(tokens):
                raise ImportRefused(
                    f"tokenizer.ggml.{key}_token_id {token_id} is outside the {len(tokens)} tokens"
                )
            found[name] = tokens[token_id]
    return found


def adds_bos(fields):
    # llama.cpp's default: Llama-3's rule adds BOS, the other byte-level ones do not.
    default = fields.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3", "llama-v3")
    return bool(fields.get("tokenizer.ggml.add_bos_token", default))
