#!/usr/bin/env bash
# The GPU benchmark: one table, raw numbers as JSON. Decode against its floor, transformers in the same run, a layer
# ablation, a sweep, the attention kernel, low occupancy, other shapes, what stopping at a verdict costs, and a whole
# diagnosis through the services on a model that refuses in the shape of an 8B one. What cannot run is printed with its
# reason. docs/gpu.md reads it.
#
#   scripts/bench_gpu.sh                              everything, some ten minutes on one H100
#   scripts/bench_gpu.sh --only decode,rivals         some parts
#   scripts/bench_gpu.sh --bin FOLDER                 programs packed elsewhere (tests/gpu/run_on_device.sh)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
for arg in "$@"; do
  case $arg in -h | --help) usage; exit 0 ;; esac
done

if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
  echo "SKIPPED: no GPU on this machine"
  exit 77
fi
PYTHON=$PLUMB_VENV/bin/python
[ -x "$PYTHON" ] || PYTHON=python3
ARGS=(--out "$PLUMB_DATA/bench-gpu")
if [[ " $* " != *" --bin"* ]]; then
  if [ ! -x "$PLUMB_BUILD/bin/gpu_engine_bench" ]; then
    "$PLUMB_ROOT/scripts/build.sh" --tests -DPLUMB_WITH_CUDA=ON
  fi
  ARGS+=(--bin "$PLUMB_BUILD/bin")
fi
MODEL=$PLUMB_DATA/models/testbed
if [[ " $* " != *" --model"* && -f $MODEL/manifest.json ]]; then ARGS+=(--model "$MODEL"); fi
exec "$PYTHON" "$PLUMB_ROOT/scripts/bench/bench_gpu.py" "${ARGS[@]}" "$@"
