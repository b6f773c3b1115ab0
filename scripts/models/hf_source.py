"""Reads a Hugging Face folder: config, tokenizer, safetensors (single or sharded), chat template. A bundle is one too,
with what an earlier import made of the rest."""

import json
import os

from earlier_bundle import read_earlier
from errors import ImportRefused
from source import Source
from tensors import read_safetensors


def read_json(path):
    label = os.path.basename(path)

    def refuse_constant(text):
        raise ImportRefused(f"{label}: {text} is not a JSON number")

    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file, parse_constant=refuse_constant)
    except FileNotFoundError as error:
        raise ImportRefused(f"{label} is missing in {os.path.dirname(path)}") from error
    except (ValueError, RecursionError) as error:
        raise ImportRefused(f"{label} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ImportRefused(f"{label} must be a JSON object, got {type(value).__name__}")
    return value


def read_optional(folder, name):
    path = os.path.join(folder, name)
    return read_json(path) if os.path.exists(path) else {}


def read_folder(folder):
    config = read_json(os.path.join(folder, "config.json"))
    tokenizer = read_json(os.path.join(folder, "tokenizer.json"))
    tokenizer_config = read_optional(folder, "tokenizer_config.json")
    _merge_stops(config, read_optional(folder, "generation_config.json"))
    special = _special_tokens(tokenizer_config, read_optional(folder, "special_tokens_map.json"))
    name = os.path.basename(os.path.abspath(folder))
    source = Source(
        name=name,
        origin=f"hf:{name}",
        license=_license(folder),
        config=config,
        tokenizer=tokenizer,
        tensors=_tensors(folder),
        chat_template=_chat_template(folder, tokenizer_config),
        special_tokens=special,
        adds_bos=_adds_bos(tokenizer, tokenizer_config, special.get("bos_token")),
    )
    earlier = read_earlier(folder)
    if earlier:
        _take_over(earlier, source)
    return source


def _take_over(earlier, source):
    source.name, source.origin, source.license = earlier.name, earlier.origin, earlier.license
    source.chat, source.trained_on = earlier.chat, earlier.trained_on
    # A bundle's config names BOS where the tokenizer or the chat format begins with it.
    by_chat = bool(earlier.chat and earlier.chat["bos"])
    source.adds_bos = source.config.get("bos_token_id") is not None and (source.adds_bos or not by_chat)


def _merge_stops(config, generation):
    """Chat models list further end-of-turn ids in generation_config.json alone."""
    stops = []
    for value in (config.get("eos_token_id"), generation.get("eos_token_id")):
        stops += value if isinstance(value, list) else [] if value is None else [value]
    stops = list(dict.fromkeys(stops))
    if stops:
        config["eos_token_id"] = stops[0] if len(stops) == 1 else stops


def _special_tokens(*configs):
    found = {}
    for config in configs:
        for key, value in config.items():
            if key.endswith("_token") and key not in found:
                text = value.get("content") if isinstance(value, dict) else value
                if isinstance(text, str):
                    found[key] = text
    return found


def _adds_bos(tokenizer, tokenizer_config, bos):
    """What the tokenizer itself does with plain text: its post-processor decides, else the old flag."""
    processors = tokenizer.get("post_processor") or {}
    for processor in processors.get("processors") or [processors]:
        for piece in processor.get("single") or []:
            special = piece.get("SpecialToken") if isinstance(piece, dict) else None
            if special and special.get("id") == bos:
                return True
    return bool(tokenizer_config.get("add_bos_token", False)) and bos is not None and not processors


def _license(folder):
    path = os.path.join(folder, "README.md")
    if os.path.exists(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read(20_000).splitlines():
                if line.startswith("license:"):
                    return line.split(":", 1)[1].strip()
    return "unknown"


def _chat_template(folder, tokenizer_config):
    path = os.path.join(folder, "chat_template.jinja")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return file.read()
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = {entry.get("name"): entry.get("template") for entry in template}.get("default")
    return template


def _tensors(folder):
    index_path = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index_path):
        weight_map = read_json(index_path).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ImportRefused("model.safetensors.index.json has no weight_map")
        shards = sorted(set(map(str, weight_map.values())))
    else:
        shards = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    if not shards:
        raise ImportRefused(
            f"no *.safetensors file in {folder} (pickled .bin weights are not read)"
        )
    tensors = {}
    for shard in shards:
        if os.path.basename(shard) != shard:
            raise ImportRefused(
                f"model.safetensors.index.json names the shard {shard!r}, which is not a plain file name"
            )
        path = os.path.join(folder, shard)
        if not os.path.isfile(path):
            raise ImportRefused(f"shard {shard} is missing in {folder}")
        found, _ = read_safetensors(path)
        twice = sorted(set(found) & set(tensors))
        if twice:
            raise ImportRefused(f"tensor {twice[0]} is in two shards, the second is {shard}")
        tensors.update(found)
    return tensors
