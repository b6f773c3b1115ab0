"""Damaged copies of the tiny model, each under the name of what is wrong with it."""
import json
import os
import shutil
import struct
import sys

import tiny_bundle

sys.path.insert(0, os.path.dirname(tiny_bundle.make_tiny_model.__file__))
from make_tiny_model import write_manifest  # noqa: E402


def edit_json(file, change):
    def damage(folder):
        path = os.path.join(folder, file)
        with open(path) as source:
            content = json.load(source)
        content = change(content) or content
        with open(path, "w") as out:
            json.dump(content, out)
    return damage


def write(file, content):
    def damage(folder):
        with open(os.path.join(folder, file), "wb") as out:
            out.write(content)
    return damage


def edit_header(change):
    """Rewrites the safetensors header and leaves the data."""
    def damage(folder):
        path = os.path.join(folder, "model.safetensors")
        with open(path, "rb") as source:
            data = source.read()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + length])
        change(header)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text + data[8 + length:])
    return damage


def cut_weights(folder):
    path = os.path.join(folder, "model.safetensors")
    os.truncate(path, os.path.getsize(path) - 1000)


def flip_weight_bit(folder):
    with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


def setter(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value
    return change


def overlap(header):
    header["model.norm.weight"]["data_offsets"][0] -= 4


def add_merge(content):
    content["model"]["merges"] = ["a nosuchtoken"]


def drop_joint(content):
    content["joints"] = content["joints"][:2]


CONFIG, TOKENIZER, CHAT = "config.json", "tokenizer.json", "chat_format.json"
NORM = "model.norm.weight"

# name -> (damage, the manifest is made anew, words the message must hold)
BUNDLES = {
    "no-manifest": (lambda f: os.remove(f + "/manifest.json"), False, ["manifest"]),
    "manifest-no-json": (write("manifest.json", b"{nope"), False, ["manifest"]),
    "manifest-format": (edit_json("manifest.json", setter("format", value="bundle/99")), False,
                        ["bundle/99"]),
    "manifest-climbs": (edit_json("manifest.json", setter(
        "files", "../secret", value={"sha256": "0" * 64, "bytes": 1})), False, ["../secret"]),
    "manifest-digest": (edit_json("manifest.json", setter("model_digest", value="ab" * 32)), False,
                        ["abab"]),
    "file-missing": (lambda f: os.remove(f"{f}/{TOKENIZER}"), False, [TOKENIZER]),
    "file-short": (cut_weights, False, ["model.safetensors"]),
    "file-flipped": (flip_weight_bit, False, ["model.safetensors"]),
    "file-unlisted": (write("extra.bin", b"x"), False, ["extra.bin"]),
    "config-no-json": (write(CONFIG, b"[1,"), True, [CONFIG]),
    "config-type": (edit_json(CONFIG, setter("hidden_size", value="wide")), True, ["hidden_size"]),
    "config-family": (edit_json(CONFIG, setter("model_type", value="gpt2")), True, ["gpt2"]),
    "config-heads": (edit_json(CONFIG, setter("num_key_value_heads", value=5)), True, ["5"]),
    "config-layers": (edit_json(CONFIG, setter("num_hidden_layers", value=0)), True,
                      ["num_hidden_layers"]),
    "config-huge": (edit_json(CONFIG, setter("hidden_size", value=1 << 40)), True, ["hidden_size"]),
    "config-rope": (edit_json(CONFIG, setter("rope_scaling", value={"rope_type": "yarn"})), True,
                    ["yarn"]),
    "config-act": (edit_json(CONFIG, setter("hidden_act", value="relu")), True, ["relu"]),
    "tensor-missing": (edit_header(lambda h: h.update({"other": h.pop(NORM)})), True, [NORM]),
    "tensor-shape": (edit_header(setter(NORM, "shape", value=[12, 8])), True, [NORM]),
    "tensor-type": (edit_header(setter(NORM, "dtype", value="I64")), True, [NORM]),
    "tensor-overlap": (edit_header(overlap), True, [NORM]),
    "weights-no-header": (write("model.safetensors", b"\xff" * 64), True, ["model.safetensors"]),
    "weights-empty": (write("model.safetensors", b""), True, ["model.safetensors"]),
    "tokenizer-no-json": (write(TOKENIZER, b"\x00\x01"), True, [TOKENIZER]),
    "tokenizer-empty": (write(TOKENIZER, b"{}"), True, [TOKENIZER]),
    "tokenizer-kind": (edit_json(TOKENIZER, setter("model", "type", value="WordPiece")), True,
                       ["WordPiece"]),
    "tokenizer-merge": (edit_json(TOKENIZER, add_merge), True, ["nosuchtoken"]),
    "tokenizer-cut": (edit_json(TOKENIZER, setter("pre_tokenizer", value={"type": "Bert"})), True,
                      ["Bert"]),
    "tokenizer-ids": (edit_json(TOKENIZER, setter("model", "vocab", "a", value=999999)), True,
                      ["999999"]),
    "chat-no-json": (write(CHAT, b"hello"), True, [CHAT]),
    "chat-format": (edit_json(CHAT, setter("format", value="chat/77")), True, ["chat/77"]),
    "chat-absent": (lambda f: os.remove(f"{f}/{CHAT}"), True, ["--raw"]),
    "chat-joints": (edit_json(CHAT, drop_joint), True, ["user"]),
}


def make_all(folder, good):
    for name, (damage, anew, _) in BUNDLES.items():
        copy = os.path.join(folder, name)
        shutil.copytree(good, copy)
        damage(copy)
        if anew:
            write_manifest(copy, name)
