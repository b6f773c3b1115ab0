#!/usr/bin/env bash
# Configures and builds. Extra arguments go to CMake's configure step.
#
#   scripts/build.sh                     the binaries, into build/ (PLUMB_BUILD names another folder)
#   scripts/build.sh --tests             with the tests
#   scripts/build.sh --tests -DPLUMB_SANITIZE=address
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

TESTS=OFF
CMAKE_ARGS=()
for arg in "$@"; do
  case $arg in
    --tests) TESTS=ON ;;
    -h | --help) usage; exit 0 ;;
    *) CMAKE_ARGS+=("$arg") ;;
  esac
done

say "building into $PLUMB_BUILD with $PLUMB_JOBS jobs"
quietly "$PLUMB_BUILD/configure.log" cmake -S "$PLUMB_ROOT" -B "$PLUMB_BUILD" -G Ninja \
  -DPLUMB_BUILD_TESTS=$TESTS "${CMAKE_ARGS[@]}"
# Ninja's own line shows how far it is; on a terminal it is redrawn in place.
ninja -C "$PLUMB_BUILD" -j "$PLUMB_JOBS"
say "built"
