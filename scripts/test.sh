#!/usr/bin/env bash
# Installs what is missing, builds and runs every test: linters, unit, kernel, contract, end to end, parity with
# outside oracles, then AddressSanitizer, ThreadSanitizer and the fuzz targets in builds of their own. What cannot
# run says so.
#
#   scripts/test.sh                    all of it: what CI runs
#   scripts/test.sh --no-sanitizers    without clang-tidy, sanitizers and fuzz targets
#   scripts/test.sh --quick            build and tests alone: no linters, no parity, no end to end either
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

MODE=all
for arg in "$@"; do
  case $arg in
    --quick) MODE=quick ;;
    --no-sanitizers) MODE=plain ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument '$arg' (see --help)" ;;
  esac
done

"$PLUMB_ROOT/scripts/setup.sh" --test
"$PLUMB_ROOT/scripts/build.sh" --tests -DPLUMB_WITH_TORCH=ON
"$PLUMB_ROOT/scripts/testbed/make_model.sh"
case $MODE in
  plain) "$PLUMB_ROOT/scripts/lint.sh" --no-tidy ;;
  all) "$PLUMB_ROOT/scripts/lint.sh" ;;
esac
say "running the tests"
EXCLUDED=()
if [ $MODE = quick ]; then EXCLUDED=(-LE 'parity|e2e|benchmark'); fi
ctest --test-dir "$PLUMB_BUILD" --output-on-failure --no-tests=error "${EXCLUDED[@]}"
if [ $MODE = all ]; then "$PLUMB_ROOT/scripts/sanitize.sh"; fi
say "all tests passed"
