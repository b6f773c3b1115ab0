"""Compares the C++ quantizers with the oracle, bit for bit: codes, parameters and values.

    compare_quantizers.py QUANTIZE_DUMP [--bulk-tokens N] [--format TEXT ...]

Each format is compared on at least a million elements. Ends with the twins: oracles with one planted
mistake each, all of which must be noticed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy
import torch

import cases
from oracle import Oracle, Stored

ELEMENTS_A_FORMAT = 1_000_000
# (planted mistake, formats on which it must show)
TWINS = (
    ("zero_off_by_one", ("int4.asym.token", "int8.asym.tensor")),
    ("scale_of_first_head", ("int4.asym.token", "int3.sym.tensor")),
    ("round_half_up", ("int3.sym.token", "int4.affine.group64")),
    ("qmax_off_by_one", ("int3.sym.tensor", "int8.sym.group64")),
    ("scale_not_stored", ("int4.asym.token.s16", "int4.affine.group32.sb16")),
    ("tail_not_padded", ("int4.affine.group100", "int4.asym.group7")),
    ("statistics_of_first_half", ("int4.affine.channel", "int4.sym.channel.prompt")),
    ("prompt_per_chunk", ("int3.sym.tensor", "int4.affine.channel")),
    ("truncate_fp8", ("fp8_e4m3", "fp8_e5m2")),
)


def write_cases(path, batch):
    with open(path, "wb") as out:
        for c in batch:
            dtype = "bf16" if c.x.dtype == torch.bfloat16 else "f32"
            calls = " ".join(map(str, c.calls))
            out.write(f"{c.format} {dtype} {c.x.shape[1]} {c.x.shape[2]} "
                      f"{int(c.calibration is not None)} {calls}\n".encode())
            for statistic in c.calibration or ():
                out.write(statistic.numpy().tobytes())
            out.write(raw_bytes(c.x))


def raw_bytes(x):
    kind = torch.int16 if x.dtype == torch.bfloat16 else torch.int32
    return x.contiguous().view(kind).numpy().tobytes()


def read_results(path, batch):
    with open(path, "rb") as source:
        for c in batch:
            lanes, groups, rows, has_zero, *quantized = map(int, source.readline().split())
            tokens = c.x.shape[0]

            def take(kind, *shape):
                count = int(numpy.prod(shape))
                data = source.read(count * numpy.dtype(kind).itemsize)
                return torch.from_numpy(numpy.frombuffer(data, kind).reshape(shape).copy())

            kind = "<i2" if c.x.dtype == torch.bfloat16 else "<i4"
            values = take(kind, *c.x.shape).view(c.x.dtype)
            row = take("<i4", tokens)
            codes = take("u1", tokens, lanes)
            scales = take("<f4", rows, groups)
            zeros = take("<f4", rows, groups) if has_zero else None
            yield Stored(values, row, codes, scales, zeros, quantized)
        assert not source.read(1), "bytes left over in the results"


def same_bits(a, b):
    """Elementwise; NaNs are equal whatever their bits."""
    kind = torch.int16 if a.dtype == torch.bfloat16 else torch.int32
    return (a.view(kind) == b.view(kind)) | (torch.isnan(a) & torch.isnan(b))


def same_codes(text, a, b):
    equal = a == b
    if text.startswith("fp8"):  # NaN has several codes
        low_a, low_b = a & 0x7F, b & 0x7F
        edge = 0x7F if "e4m3" in text else 0x7D
        equal |= (low_a >= edge) & (low_b >= edge)
    return equal


def difference(case, got: Stored, want: Stored) -> str:
    """Empty if equal, else the first thing that differs."""
    if got.quantized != want.quantized:
        return f"elements held quantized after each call: {got.quantized} and {want.quantized}"
    if not torch.equal(got.row, want.row):
        at = int((got.row != want.row).nonzero()[0])
        return f"token {at} has parameter row {int(got.row[at])} and {int(want.row[at])}"
    pairs = [("scale", got.scales, want.scales, None), ("value", got.values, want.values, None)]
    if (got.zeros is None) != (want.zeros is None) and want.scales.numel():
        return "zeros on one side only"
    if want.zeros is not None:
        # A zero point of -0 and +0 are one number.
        pairs.append(("zero", got.zeros + 0.0, want.zeros + 0.0, None))
    for name, a, b, _ in pairs:
        if a.numel() == 0 and b.numel() == 0:
            continue
        if a.shape != b.shape:
            return f"{name}s of shape {tuple(a.shape)} and {tuple(b.shape)}"
        equal = same_bits(a, b)
        if not bool(equal.all()):
            at = tuple((~equal).nonzero()[0].tolist())
            return (f"{int((~equal).sum())} {name}s differ, first at {at}: "
                    f"{a[at].item()!r} and {b[at].item()!r}"
                    + (f" from {case.x[at].item()!r}" if name == "value" else ""))
    if want.scales.numel():
        held = want.row >= 0
        equal = same_codes(case.format, got.codes[held], want.codes[held])
        if not bool(equal.all()):
            at = tuple((~equal).nonzero()[0].tolist())
            return f"{int((~equal).sum())} codes differ, first at {at}"
    return ""


def oracle_of(case, bug=""):
    return Oracle(case.format, case.x.shape[1], case.x.shape[2], case.calibration, bug).run(
        case.x, case.calls)


def run_dump(dump, batch, folder):
    paths = [os.path.join(folder, name) for name in ("cases.bin", "results.bin")]
    write_cases(paths[0], batch)
    subprocess.run([dump, *paths], check=True, timeout=120)
    return list(read_results(paths[1], batch))


def compare_format(dump, text, seed, bulk_tokens, folder):
    """(elements compared, list of differences)"""
    elements, differences = 0, []
    for dtype in (torch.float32, torch.bfloat16):
        batch = list(cases.cases_of(text, dtype, seed, bulk_tokens))
        for case, got in zip(batch, run_dump(dump, batch, folder)):
            elements += case.x.numel()
            if problem := difference(case, got, oracle_of(case)):
                differences.append(f"{text} {dtype} {tuple(case.x.shape)} calls "
                                   f"{case.calls[:6]}: {problem}")
    return elements, differences


def check_twins(dump, folder):
    """Each planted mistake must differ from the C++ on each of its formats, in both dtypes."""
    missed = []
    for bug, formats in TWINS:
        for text in formats:
            for dtype in (torch.float32, torch.bfloat16):
                batch = list(cases.cases_of(text, dtype, 4711, 256))
                results = run_dump(dump, batch, folder)
                noticed = sum(bool(difference(c, got, oracle_of(c, bug)))
                              for c, got in zip(batch, results))
                if noticed == 0:
                    missed.append(f"{bug} on {text} {dtype}")
    return missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dump")
    parser.add_argument("--bulk-tokens", type=int, default=5500)
    parser.add_argument("--format", action="append")
    args = parser.parse_args()
    torch.set_num_threads(1)
    formats = args.format or [*cases.grid_formats(), *cases.option_formats()]
    started = time.monotonic()
    elements, differences, short = 0, [], 0
    with tempfile.TemporaryDirectory(dir=ramdisk()) as folder:
        for seed, text in enumerate(formats):
            count, found = compare_format(args.dump, text, seed, args.bulk_tokens, folder)
            elements += count
            differences += found
            if count < ELEMENTS_A_FORMAT:
                short += 1
                print(f"TOO FEW {text}: {count} elements, {ELEMENTS_A_FORMAT} are wanted; raise "
                      "--bulk-tokens", flush=True)
            if found:
                print(f"DIFFERENT {found[0]} (+ {len(found) - 1} more)", flush=True)
        missed = [] if args.format else check_twins(args.dump, folder)
    for twin in missed:
        print(f"NOT NOTICED {twin}")
    print(f"{len(formats)} formats, {elements / 1e6:.1f} M elements (fp32 and bf16): "
          f"{len(differences)} differences; {len(TWINS)} planted mistakes, {len(missed)} unnoticed; "
          f"{time.monotonic() - started:.0f} s")
    return 1 if differences or missed or short else 0


def ramdisk():
    return "/dev/shm" if pathlib.Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
