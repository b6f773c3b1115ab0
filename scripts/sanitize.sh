#!/usr/bin/env bash
# AddressSanitizer over everything but torch, the programs under bad input and interrupts too; ThreadSanitizer over
# the host code below the RPC layer (store, leases, planner, scheduler); and every libFuzzer target for
# PLUMB_FUZZ_SECONDS (30). Each has its own build folder.
#
#   scripts/sanitize.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) usage; exit 0 ;; esac

FUZZ_SECONDS=${PLUMB_FUZZ_SECONDS:-30}
PROGRAM_PATIENCE=4  # times as long as an uninstrumented program may take

sanitized() { # sanitized NAME SANITIZER -L|-R REGEX TARGET...
  local name=$1 sanitizer=$2 by=$3 regex=$4
  shift 4
  say "$name: building"
  local build=$PLUMB_BUILD-$name
  quietly "$build/configure.log" cmake -S "$PLUMB_ROOT" -B "$build" -G Ninja -DPLUMB_SANITIZE="$sanitizer" \
    -DPLUMB_WITH_TORCH=OFF -DPLUMB_WITH_CUDA=OFF -DPLUMB_BUILD_TESTS=ON \
    -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1"
  quietly "$build/build.log" ninja -C "$build" -j "$PLUMB_JOBS" "$@"
  say "$name: running"
  ctest --test-dir "$build" "$by" "$regex" --output-on-failure --no-tests=error
}

# A service's report does not reach the test that started it, so any process's report counts.
asan_programs() {
  local build=$PLUMB_BUILD-asan reports=$PLUMB_BUILD-asan/reports
  rm -rf "$reports"
  mkdir -p "$reports"
  say "asan: the programs themselves"
  ASAN_OPTIONS=log_path=$reports/asan PLUMB_E2E_PATIENCE=$PROGRAM_PATIENCE \
    ctest --test-dir "$build" -R '^e2e_(bad_input|interrupt)$' --output-on-failure --no-tests=error
  if [ -n "$(ls "$reports")" ]; then
    tail -n 60 "$reports"/* >&2
    die "AddressSanitizer found something in a program; whole reports are in $reports"
  fi
}

fuzz() {
  command -v clang++ >/dev/null || die "no clang++, which the fuzz targets need: run scripts/setup.sh --test"
  local build=$PLUMB_BUILD-fuzz
  say "fuzz: building"
  quietly "$build/configure.log" cmake -S "$PLUMB_ROOT" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++ \
    -DPLUMB_BUILD_FUZZERS=ON -DPLUMB_FUZZ_SECONDS="$FUZZ_SECONDS" -DPLUMB_WITH_TORCH=OFF -DPLUMB_WITH_CUDA=OFF \
    -DPLUMB_BUILD_TESTS=ON
  quietly "$build/build.log" ninja -C "$build" -j "$PLUMB_JOBS" fuzzers
  say "fuzz: each target for $FUZZ_SECONDS s"
  ctest --test-dir "$build" -L fuzz --output-on-failure --no-tests=error
}

sanitized asan address -L 'unit|kernels|contract|host' all
asan_programs
# Below gRPC only: its own threads are not instrumented, so every call through it looks like a race.
HOST_TESTS=(coordinator_core_test store_contract_test sqlite_store_test cells_test engine_batch_test planner_test)
sanitized tsan thread -R "^($(IFS='|'; echo "${HOST_TESTS[*]}"))\$" "${HOST_TESTS[@]}"
fuzz
say "sanitizers and fuzz targets: clean"
