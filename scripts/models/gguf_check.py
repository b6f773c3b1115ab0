"""Walks a GGUF file's header before anything reads it, so that a damaged one is refused with the place
and the reason. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md"""

import mmap
import os
import struct

from errors import ImportRefused

VERSIONS = (2, 3)
FIXED_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, UINT32 = 8, 9, 4
MAX_DIMENSIONS = 4
LEAST_PAIR, LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8  # bytes


class _Cursor:
    def __init__(self, data, label):
        self.data, self.label, self.at = data, label, 0

    def refuse(self, text):
        raise ImportRefused(f"{self.label}: {text}")

    def need(self, count, what):
        """Moves over `count` bytes and returns where they begin."""
        begin, end = self.at, self.at + count
        if end > len(self.data):
            self.refuse(
                f"truncated: {what} ends at byte {end}, the file has {len(self.data)}; download it again"
            )
        self.at = end
        return begin

    def number(self, code, what):
        begin = self.need(struct.calcsize(code), what)
        return struct.unpack_from("<" + code, self.data, begin)[0]

    def text(self, what):
        length = self.number("Q", what)
        if length > len(self.data):
            self.refuse(
                f"damaged at byte {self.at}: {what} would be {length} bytes long, the file has {len(self.data)}"
            )
        begin = self.need(length, what)
        try:
            return self.data[begin : begin + length].decode()
        except UnicodeDecodeError:
            self.refuse(f"damaged at byte {begin}: {what} is not UTF-8")

    def value(self, kind, what):
        """Moves over a value; returns it where it is a uint32."""
        if kind == STRING:
            self.text(what)
        elif kind == ARRAY:
            self.array(what)
        elif kind == UINT32:
            return self.number("I", what)
        elif kind in FIXED_BYTES:
            self.need(FIXED_BYTES[kind], what)
        else:
            self.refuse(f"damaged at byte {self.at}: {what} has the unknown type {kind}")
        return None

    def array(self, what):
        kind, count = self.number("I", what), self.number("Q", what)
        if kind in FIXED_BYTES:
            self.need(count * FIXED_BYTES[kind], what)
        elif kind == STRING:
            self.fits(count, 8, what)
            for i in range(count):
                self.text(f"{what}[{i}]")
        else:
            self.refuse(f"damaged at byte {self.at}: {what} is an array of type {kind}")

    def fits(self, count, least, what):
        if count * least > len(self.data) - self.at:
            self.refuse(
                f"truncated or damaged: {what} needs at least {count * least} bytes from byte {self.at},"
                f" the file has {len(self.data)}"
            )


def check_gguf(path, block_sizes):
    """block_sizes: {tensor type: (elements a block, bytes a block)}. Raises ImportRefused."""
    label, size = os.path.basename(path), os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic != b"GGUF":
            begins = f"begins with {magic!r}, not b'GGUF'" if magic else "is empty"
            raise ImportRefused(f"{label} is no GGUF file: it {begins}")
        if size < 24:
            raise ImportRefused(f"{label}: truncated: {size} bytes, a GGUF header has 24")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _walk(_Cursor(data, label), block_sizes)


def _walk(cursor, block_sizes):
    cursor.at = 4
    version = cursor.number("I", "the version")
    if version not in VERSIONS:
        big_endian = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        cursor.refuse(
            "big-endian GGUF is not supported"
            if big_endian
            else f"GGUF version {version} is not supported, 2 and 3 are"
        )
    tensors, pairs = cursor.number("Q", "the header"), cursor.number("Q", "the header")
    cursor.fits(pairs, LEAST_PAIR, f"metadata of {pairs} entries")
    alignment = 32
    for i in range(pairs):
        key = cursor.text(f"the name of metadata entry {i}")
        value = cursor.value(cursor.number("I", key), key)
        if key == "general.alignment":
            alignment = value
    if not alignment or alignment & (alignment - 1):
        cursor.refuse(f"general.alignment must be a power of two, got {alignment}")
    cursor.fits(tensors, LEAST_TENSOR, f"the list of {tensors} tensors")
    entries = [_tensor(cursor, i, block_sizes) for i in range(tensors)]
    begin = (cursor.at + alignment - 1) // alignment * alignment
    for name, offset, nbytes in entries:
        cursor.at = begin + offset
        cursor.need(nbytes, f"tensor {name}")


def _tensor(cursor, i, block_sizes):
    name = cursor.text(f"the name of tensor {i}")
    what = f"tensor {name}"
    dimensions = cursor.number("I", what)
    if dimensions > MAX_DIMENSIONS:
        cursor.refuse(f"damaged at byte {cursor.at}: {what} has {dimensions} dimensions")
    shape = [cursor.number("Q", what) for _ in range(dimensions)]
    kind, offset = cursor.number("I", what), cursor.number("Q", what)
    if kind not in block_sizes:
        cursor.refuse(f"{what} has the unknown type {kind}")
    count = 1
    for n in shape:
        count *= n
    per_block, block_bytes = block_sizes[kind]
    if count == 0 or shape[0] % per_block:
        cursor.refuse(
            f"damaged: {what} of shape {shape} is not made of blocks of {per_block} elements"
        )
    return name, offset, count // per_block * block_bytes
