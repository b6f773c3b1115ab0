"""Safetensors files as raw bytes, and conversions between F32, F16 and BF16. numpy alone."""

import json
import os
import struct
from dataclasses import dataclass
from typing import Callable

import numpy as np

from errors import ImportRefused

DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MAX_HEADER_BYTES = 100_000_000


@dataclass
class Tensor:
    """A tensor that is read when asked for. `read` returns the array in its storage form: float32,
    float16, or uint16 holding bfloat16 bits."""

    dtype: str
    shape: tuple
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self):
        return DTYPE_BYTES[self.dtype] * int(np.prod(self.shape, dtype=np.int64))


def storage_type(dtype):
    return {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}[dtype]


def to_float32(array, dtype):
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def from_float32(array, dtype, name):
    """Rounds to nearest even. A finite value that would become infinite is refused."""
    if dtype == "F32":
        return np.ascontiguousarray(array, dtype=np.float32)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            out = array.astype(np.float16)
        lost = np.isinf(out) & np.isfinite(array)
        if lost.any():
            raise ImportRefused(
                f"tensor {name}: value {float(array[lost].flat[0])} does not fit f16; use --dtype bf16 or f32"
            )
        return out
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded)


def read_safetensors(path):
    """Returns ({name: Tensor}, metadata) after checking the header against the file's size."""
    label = os.path.basename(path)
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ImportRefused(f"{label}: {size} bytes is too short for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES:
            raise ImportRefused(
                f"{label}: header length {length} is over {MAX_HEADER_BYTES}: not a safetensors file?"
            )
        raw = file.read(length)
    if len(raw) < length:
        raise ImportRefused(
            f"{label} is truncated: the header ends at byte {8 + length}, the file has {size}"
        )
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise ImportRefused(f"{label}: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ImportRefused(
            f"{label}: the header must be a JSON object, got {type(header).__name__}"
        )
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise ImportRefused(f"{label}: __metadata__ must be a JSON object")
    return {
        name: _entry(path, label, name, entry, 8 + length, size) for name, entry in header.items()
    }, metadata


def _entry(path, label, name, entry, data_begin, size):
    try:
        dtype, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        sound = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise ImportRefused(f"{label}: tensor {name} has a malformed entry {str(entry)[:120]}")
    if dtype not in DTYPE_BYTES:
        raise ImportRefused(
            f"{label}: tensor {name} has dtype {dtype}; supported are F32, F16 and BF16"
        )
    count = 1
    for n in shape:
        count *= n
    if end - begin != count * DTYPE_BYTES[dtype]:
        raise ImportRefused(
            f"{label}: tensor {name} spans {end - begin} bytes, but {dtype} {list(shape)} has {count * DTYPE_BYTES[dtype]}"
        )
    if data_begin + end > size:
        raise ImportRefused(
            f"{label} is truncated: tensor {name} ends at byte {data_begin + end}, the file has {size}; download it again"
        )

    def read():
        return np.fromfile(
            path, dtype=storage_type(dtype), count=count, offset=data_begin + begin
        ).reshape(shape)

    return Tensor(dtype, shape, read)


def write_safetensors(path, tensors, on_bytes=lambda count: None):
    """Streams {name: Tensor} in the dict's order; a tensor is in memory only while it is written."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            array = tensor.read()
            if array.shape != tuple(tensor.shape) or array.dtype != storage_type(tensor.dtype):
                raise ImportRefused(
                    f"tensor {name}: read {array.dtype} {array.shape}, expected {tensor.dtype} {tensor.shape}"
                )
            file.write(np.ascontiguousarray(array).data)
            on_bytes(tensor.nbytes)
        file.flush()
        os.fsync(file.fileno())
