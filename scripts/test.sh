#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests: linters, unit, kernel, contract, end to end, parity with
# outside oracles. What cannot run says so.
#
#   scripts/test.sh              what CI runs
#   scripts/test.sh --quick      build and tests alone: no linters, no parity, no end to end
#   scripts/test.sh --all        also clang-tidy, sanitizers and fuzz targets, each with a build of its own
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODE=default
for arg in "$@"; do
  case $arg in
    --quick) MODE=quick ;;
    --all) MODE=all ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument '$arg' (see --help)" ;;
  esac
done

"$PLUMB_ROOT/scripts/setup.sh" --test
"$PLUMB_ROOT/scripts/build.sh" --tests -DPLUMB_WITH_TORCH=ON
"$PLUMB_ROOT/scripts/testbed/make_model.sh"
case $MODE in
  default) "$PLUMB_ROOT/scripts/lint.sh" --no-tidy ;;
  all)
    "$PLUMB_ROOT/scripts/lint.sh"
    "$PLUMB_ROOT/scripts/sanitize.sh"
    ;;
esac
say "running the tests"
EXCLUDED=()
if [ $MODE = quick ]; then EXCLUDED=(-LE 'parity|e2e|benchmark'); fi
ctest --test-dir "$PLUMB_BUILD" --output-on-failure --no-tests=error "${EXCLUDED[@]}"
say "all tests passed"
