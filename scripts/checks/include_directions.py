#!/usr/bin/env python3
"""Checks every #include "..." of the project against the allowed directions between folders.

A folder may include itself and the folders listed for it. A new edge is a decision: it belongs in this table,
with a look at ARCHITECTURE.md, and not in a file by chance."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

PURE = {"common"}
ALLOWED = {
    "kernels": set(),
    "common": set(),
    "quant": {"kernels", "common"},
    "stats": {"common"},
    "prompts": {"common"},
    "engine": {"kernels", "common", "quant", "stats"},
    "cells": {"common", "quant", "proto"},
    "rpc": {"common", "proto"},
    "store": {"common", "cells", "proto"},
    "report": {"common", "proto"},
    "judge": {"common", "rpc", "proto"},
    "capture": {"common", "rpc", "kernels", "proto"},
    "quantsim": {"common", "rpc", "capture", "quant", "kernels", "proto"},
    "pcr": {"common", "rpc", "stats", "quant", "proto"},
    "coordinator": {"common", "rpc", "cells", "quant", "stats", "pcr", "prompts", "store", "report", "judge", "proto"},
    "worker": {"common", "rpc", "quant", "engine", "judge", "proto"},
    "cli": {"common", "rpc", "prompts", "engine", "judge", "proto"},
}
# Files that may see torch; protobuf and gRPC may be seen by none of them (torch ships its own protobuf headers).
TORCH_FOLDER = "tests/kernels/torch/"
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]')


def owner(path):
    parts = pathlib.PurePosixPath(path).parts
    if parts[0] == "services":
        return parts[1]
    if parts[0] == "kernels":
        return "kernels"
    if parts[0] == "plumbline":
        return "proto"
    return None


def problems():
    for source in sorted([*ROOT.glob("services/**/*.cc"), *ROOT.glob("services/**/*.h"), *ROOT.glob("kernels/**/*")]):
        if source.suffix not in {".cc", ".h", ".cu", ".cuh"}:
            continue
        relative = source.relative_to(ROOT).as_posix()
        folder = owner(relative)
        if folder not in ALLOWED:
            yield f"{relative}: folder '{folder}' has no line in {pathlib.Path(__file__).name}"
            continue
        for number, line in enumerate(source.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            included = match.group(1)
            target = owner(included)
            if target and target != folder and target not in ALLOWED[folder]:
                yield f"{relative}:{number}: {folder} may not include {target} ({included})"
            is_torch = included.startswith(("ATen/", "torch/", "c10/"))
            if is_torch and not relative.startswith(TORCH_FOLDER):
                yield f"{relative}:{number}: torch header outside {TORCH_FOLDER} ({included})"
            if folder == "engine" and included.startswith(("google/protobuf", "grpc")):
                yield f"{relative}:{number}: protobuf or gRPC header in the engine ({included})"


def main():
    found = list(problems())
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
