#!/usr/bin/env bash
# A layer ablation on this engine and with transformers and Python quantize hooks (batch 4), in interleaved
# pairs of one run: speed, memory, and where the time goes against the floor of the matrix products.
# Prints one table; raw numbers go to .data/bench/. docs/benchmarks.md says how to read it.
#
#   scripts/bench_cpu.sh           all layers x 20 prompts x 48 tokens; exit 1 below 5 times transformers' tokens/s
#   scripts/bench_cpu.sh --layers 4 --prompts 4 --tokens 8 --pairs 2       a quick look
#   scripts/bench_cpu.sh --require 3                              another bar, at any size; 0: none
#
# Also: --model BUNDLE, --prompt-files GLOB, --batch N, --bits N, --threads N.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for arg in "$@"; do
  case $arg in -h | --help) usage; exit 0 ;; esac
done

PYTHON=$PLUMB_VENV/bin/python
if ! "$PYTHON" -c 'import torch, transformers, tokenizers' 2>/dev/null; then
  "$PLUMB_ROOT/scripts/setup.sh" --test
fi
for binary in plumb plumb-worker; do
  if [ ! -x "$PLUMB_BUILD/bin/$binary" ]; then "$PLUMB_ROOT/scripts/build.sh"; break; fi
done
MODEL=$PLUMB_DATA/models/testbed
if [[ " $* " != *" --model"* && ! -f $MODEL/manifest.json ]]; then
  "$PLUMB_ROOT/scripts/testbed/make_model.sh"
fi
exec "$PYTHON" "$PLUMB_ROOT/tests/benchmark/bench_cpu.py" --model "$MODEL" --bin "$PLUMB_BUILD/bin" \
  --out "$PLUMB_DATA/bench" --prompt-files "$PLUMB_ROOT/data/prompts/plumbline-builtin/refusal.jsonl" "$@"
