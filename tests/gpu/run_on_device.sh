#!/usr/bin/env bash
# Runs the GPU tests on a machine that has a GPU but not our libraries.
#
#   run_on_device.sh pack BUILD FOLDER [NAME...]  gathers the built GPU programs (all, or those whose
#                                                 name contains a NAME) with the libraries they need
#   run_on_device.sh test FOLDER [NAME...]        runs the tests; 77 where no GPU is found
#   run_on_device.sh sanitize FOLDER [NAME...]    runs them under compute-sanitizer, a small subset
#   run_on_device.sh bench FOLDER [NAME...]       runs the benchmarks
set -euo pipefail

usage() {
  sed -n '2,9p' "$0" >&2
  exit 64
}

wanted() {
  local program=$1
  shift
  [[ $# -eq 0 ]] && return 0
  for name in "$@"; do [[ $(basename "$program") == *$name* ]] && return 0; done
  return 1
}

pack() {
  local build=$1 folder=$2
  shift 2
  mkdir -p "$folder/lib"
  for program in "$build"/tests/gpu_*_test "$build"/bin/gpu_*_bench; do
    [[ -x $program ]] && wanted "$program" "$@" || continue
    strip -o "$folder/$(basename "$program")" "$program"
    # What every Linux has stays behind, and CUDA's own, which come with the GPU's machine.
    ldd "$program" | awk '$3 ~ /^\// {print $3}' |
      { grep -Ev '/(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt|libcu.*|libnv.*)\.so' ||
        true; } |
      xargs -r cp -L -u -t "$folder/lib"
  done
  cp -u "$build"/tests/libgpu_*.so "$folder/lib" 2>/dev/null || true
}

each() {
  local pattern=$1 folder=$2 failed=0
  shift 2
  local names=()
  while [[ $# -gt 0 && $1 != -- ]]; do names+=("$1") && shift; done
  shift
  for program in "$folder"/$pattern; do
    [[ -x $program ]] && wanted "$program" ${names[@]+"${names[@]}"} || continue
    echo "== $(basename "$program") $*"
    LD_LIBRARY_PATH="$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@" "$program" || failed=1
  done
  return $failed
}

needs_gpu() {
  nvidia-smi -L 2>/dev/null | grep -q GPU && return 0
  echo "SKIPPED: no GPU on this machine"
  exit 77
}

[[ $# -ge 2 ]] || usage
mode=$1
shift
case $mode in
  pack) pack "$@" ;;
  test) needs_gpu && each 'gpu_*_test' "$@" -- env ;;
  bench) needs_gpu && each 'gpu_*_bench' "$@" -- env ;;
  sanitize)
    needs_gpu
    # Tests of the comparison itself ("Wrong") launch many kernels and add nothing here.
    export PLUMB_GPU_SMALL=1 GTEST_FILTER='-*Wrong*'
    for tool in memcheck racecheck initcheck; do
      each 'gpu_*_test' "$@" -- compute-sanitizer --tool "$tool" --error-exitcode 1
    done
    ;;
  *) usage ;;
esac
