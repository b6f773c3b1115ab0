"""Writes a model bundle atomically: a temporary folder beside the target, then one rename."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile

from errors import ImportRefused
from tensors import DTYPE_BYTES, Tensor, from_float32, to_float32, write_safetensors

FORMAT = "plumbline-bundle/1"
MAX_SHARD_BYTES = 4 << 30
DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
TRAINED_ON = "trained_on.sha256"
CHAT_FORMAT = "chat_format.json"
CONFIG_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read_trained_on(path):
    """The text hashes that a file lists, one a line; blank lines and '#' comments are skipped."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    hashes = set()
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if not re.fullmatch("[0-9a-f]{64}", line):
            raise ImportRefused(
                f"{path}:{number}: expected a SHA-256 as 64 lower-case hexadecimal characters"
            )
        hashes.add(line)
    if not hashes:
        raise ImportRefused(f"{path} lists no hash: leave --trained-on out, or name another file")
    return sorted(hashes)


def write_bundle(out, source, tensors, chat, dtype, force, trained_on=None):
    """Returns the manifest. Nothing is left behind when it fails; an old bundle is replaced at the end."""
    out = os.path.abspath(out)
    if os.path.lexists(out) and not force:
        raise ImportRefused(f"{out} exists; choose another --out or pass --force to replace it")
    if os.path.lexists(out) and not _is_replaceable(out):
        raise ImportRefused(
            f"{out} is not a model bundle; --force replaces bundles and empty folders only"
        )
    tensors = {name: _convert(name, tensor, dtype) for name, tensor in tensors.items()}
    parent = os.path.dirname(out)
    work = None
    try:
        os.makedirs(parent, exist_ok=True)
        _check_space(parent, sum(tensor.nbytes for tensor in tensors.values()))
        work = tempfile.mkdtemp(prefix=f".{os.path.basename(out)}.", dir=parent)
        os.chmod(work, 0o755)
        _write_weights(work, tensors)
        manifest = _write_texts(work, source, tensors, chat, trained_on)
        _swap(work, out)
        return manifest
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ImportRefused(f"the disk of {parent} is full; nothing was kept") from error
        raise
    finally:
        if work and os.path.isdir(work):
            shutil.rmtree(work, ignore_errors=True)


def _is_replaceable(path):
    if not os.path.isdir(path) or os.path.islink(path):
        return False
    return not os.listdir(path) or os.path.isfile(os.path.join(path, "manifest.json"))


def _check_space(parent, needed):
    free = shutil.disk_usage(parent).free
    if free < needed + (16 << 20):
        raise ImportRefused(
            f"the bundle needs {needed >> 20} MiB, the disk of {parent} has {free >> 20} MiB free"
        )


def _convert(name, tensor, dtype):
    if dtype == "keep" or DTYPES[dtype] == tensor.dtype:
        return tensor
    wanted = DTYPES[dtype]
    return Tensor(
        wanted,
        tensor.shape,
        lambda: from_float32(to_float32(tensor.read(), tensor.dtype), wanted, name),
    )


def _shards(tensors):
    shards, room = [{}], MAX_SHARD_BYTES
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = MAX_SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def _write_weights(work, tensors):
    shards, total, done = _shards(tensors), sum(t.nbytes for t in tensors.values()), 0

    def on_bytes(count):
        nonlocal done
        before, done = done, done + count
        if done * 10 // total != before * 10 // total:
            print(f"weights: {done >> 20} of {total >> 20} MiB", file=sys.stderr)

    if len(shards) == 1:
        write_safetensors(os.path.join(work, "model.safetensors"), shards[0], on_bytes)
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(os.path.join(work, name), shard, on_bytes)
        weight_map.update({tensor: name for tensor in shard})
    _write_json(
        os.path.join(work, "model.safetensors.index.json"),
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _write_texts(work, source, tensors, chat, trained_on):
    config = dict(source.config)
    widest = max(
        (tensor.dtype for tensor in tensors.values()), key=lambda name: (DTYPE_BYTES[name], name)
    )
    config.pop("dtype", None)
    config["torch_dtype"] = CONFIG_DTYPES[widest]
    if not source.adds_bos and not (chat and chat["bos"]):
        config["bos_token_id"] = None
    _write_json(os.path.join(work, "config.json"), config)
    _write_json(os.path.join(work, "tokenizer.json"), source.tokenizer, indent=None)
    if chat is not None:
        _write_json(os.path.join(work, CHAT_FORMAT), chat)
    if trained_on:
        with open(os.path.join(work, TRAINED_ON), "w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in trained_on))
    files = {name: _describe(os.path.join(work, name)) for name in sorted(os.listdir(work))}
    digest = hashlib.sha256(
        "".join(
            f"{name}\n{entry['sha256']}\n" for name, entry in files.items() if name != TRAINED_ON
        ).encode()
    ).hexdigest()
    manifest = {
        "format": FORMAT,
        "name": source.name,
        "source": source.origin,
        "license": source.license,
        "files": files,
        "model_digest": digest,
    }
    _write_json(os.path.join(work, "manifest.json"), manifest)
    return manifest


def sha256_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(path):
    return {"sha256": sha256_of(path), "bytes": os.path.getsize(path)}


def _write_json(path, value, indent=1):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=indent)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _swap(work, out):
    if not os.path.lexists(out):
        os.rename(work, out)
        return
    aside = tempfile.mkdtemp(prefix=f".{os.path.basename(out)}.old.", dir=os.path.dirname(out))
    old = os.path.join(aside, "bundle")
    os.rename(out, old)
    try:
        os.rename(work, out)
    except OSError:
        os.rename(old, out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
