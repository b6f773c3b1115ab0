#!/usr/bin/env bash
# Runs the GPU tests on a machine that has a GPU but not our libraries.
#
#   run_on_device.sh pack BUILD FOLDER [NAME...]  gathers the built GPU programs (all, or those whose
#                                                 name contains a NAME) with the libraries they need
#   run_on_device.sh test FOLDER [NAME...]        runs the tests, and the invariance test also with
#                                                 kernels that never start early, to the same digests;
#                                                 77 where no GPU is found
#   run_on_device.sh sanitize FOLDER [NAME...]    runs them under compute-sanitizer, a small subset;
#                                                 racecheck: the kernels' tests and engine_race
#   run_on_device.sh bench FOLDER [NAME...]       runs the benchmarks
set -euo pipefail

usage() {
  sed -n '2,/^set/{/^#/p}' "$0" >&2
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

# Kernels that start while others drain are a race that no checker sees: the invariance test, whose
# output with them is in the log, must give the same results without.
compare_early() {
  local log=$1 folder=$2 early late failed=0
  shift 2
  [[ -x $folder/gpu_engine_invariance_test ]] && wanted gpu_engine_invariance_test "$@" || return 0
  early=$(grep '^digest ' "$log") || true
  late=$(each gpu_engine_invariance_test "$folder" -- env PLUMB_NO_EARLY=1 | tee /dev/stderr) ||
    failed=1
  late=$(grep '^digest ' <<<"$late") || true
  if [[ -z $early || $early != "$late" ]]; then
    printf 'with kernels that start early:\n%s\nwithout:\n%s\n' "$early" "$late" >&2
    echo "FAILED: results differ, or there are none" >&2
    return 1
  fi
  echo "kernels that start early: $(wc -l <<<"$early") digests equal to those without"
  return $failed
}

run_tests() {
  local failed=0 log
  log=$(mktemp)
  each 'gpu_*_test' "$@" -- env | tee "$log" || failed=1
  compare_early "$log" "$@" || failed=1
  rm -f "$log"
  return $failed
}

# racecheck's filter leaves out the library's kernels, whose checking takes the time; ours all have
# the namespace in their names. Filtered or not it cannot run the library's bf16 products on Hopper
# ("failed to handle a hardware exception"), so what calls them runs in fp32 alone; our own bf16
# kernels have tests without products. What one tool finds does not keep the next from running.
run_sanitizers() {
  local failed=0 tool only
  for tool in memcheck initcheck; do
    each 'gpu_*_test' "$@" -- compute-sanitizer --tool "$tool" --error-exitcode 1 || failed=1
  done
  only=--kernel-name
  [[ $(compute-sanitizer --help) == *--kernel-name* ]] || only=--kernel-regex
  echo "SKIPPED: racecheck of bf16 products and of the engine in bf16, which the tool cannot run"
  for tests in gpu_engine_race_test 'gpu_[!e]*_test'; do
    GTEST_FILTER=$GTEST_FILTER:LinearTest/1.*:*RaceTest*/bf16 \
      each "$tests" "$@" -- compute-sanitizer --tool racecheck "$only" kns=plumbline \
      --error-exitcode 1 || failed=1
  done
  return $failed
}

needs_gpu() {
  [[ $(nvidia-smi -L 2>/dev/null) == *GPU* ]] && return 0
  echo "SKIPPED: no GPU on this machine"
  exit 77
}

[[ $# -ge 2 ]] || usage
mode=$1
shift
case $mode in
  pack) pack "$@" ;;
  test) needs_gpu && run_tests "$@" ;;
  bench) needs_gpu && each 'gpu_*_bench' "$@" -- env ;;
  sanitize)
    needs_gpu
    # Tests of the comparison itself ("Wrong") launch many kernels and add nothing here; one asks
    # for more memory than there is, which memcheck counts as an error.
    export PLUMB_GPU_SMALL=1 GTEST_FILTER='-*Wrong*:*MemoryIsShort*'
    run_sanitizers "$@"
    ;;
  *) usage ;;
esac
