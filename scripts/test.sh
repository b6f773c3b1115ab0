#!/usr/bin/env bash
# Installs what is missing, builds and runs every test: unit, kernel, contract, integration, end to end, parity
# with outside oracles, fuzz targets, sanitizers, linters. What cannot run says so.
#
#   scripts/test.sh              all of it
#   scripts/test.sh --quick      build and tests alone: no sanitizers, fuzzing or linters
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

QUICK=0
for arg in "$@"; do
  case $arg in
    --quick) QUICK=1 ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument '$arg' (see --help)" ;;
  esac
done

"$PLUMB_ROOT/scripts/setup.sh" --test
"$PLUMB_ROOT/scripts/build.sh" --tests -DPLUMB_WITH_TORCH=ON
"$PLUMB_ROOT/scripts/testbed/make_model.sh"
if [ $QUICK = 0 ]; then "$PLUMB_ROOT/scripts/lint.sh"; fi
if [ $QUICK = 0 ]; then "$PLUMB_ROOT/scripts/sanitize.sh"; fi
say "running the tests"
ctest --test-dir "$PLUMB_BUILD" --output-on-failure --no-tests=error
say "all tests passed"
