#!/usr/bin/env bash
# Linters: clang-format, clang-tidy on the torch-free sources, buf on the protos, the include directions, tests
# that no CMakeLists.txt registers, and words that do not belong here. Exits 1 when anything is found.
#
#   scripts/lint.sh [--no-tidy]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
TIDY=1
case ${1:-} in -h | --help) usage; exit 0 ;; --no-tidy) TIDY=0 ;; esac
cd "$PLUMB_ROOT"

FAILED=0
check() { # check NAME COMMAND...
  say "lint: $1"
  shift
  "$@" || { FAILED=1; echo "^ found by: $*" >&2; }
}

sources() { git ls-files '*.cc' '*.h' '*.cu' '*.cuh'; }

format() { sources | xargs -r clang-format --dry-run -Werror; }

tidy() {
  command -v clang-tidy >/dev/null || die "no clang-tidy: run scripts/setup.sh --test"
  local commands=$PLUMB_BUILD/compile_commands.json log=$PLUMB_DATA/logs/tidy
  [ -f "$commands" ] || die "no $commands: run scripts/build.sh"
  # Tests are left out: gtest's macros trip several checks; so is CUDA, whose headers this clang does not know.
  # On stderr clang-tidy counts what it suppressed; only a run that fails without a finding needs it.
  git ls-files 'services/*.cc' 'kernels/*.cc' ':!*/cuda/*' |
    xargs -P "$PLUMB_JOBS" -n 6 clang-tidy --quiet -p "$PLUMB_BUILD" 2>"$log.err" | tee "$log.log"
  # `check` calls this where neither -e nor a pipeline's lost status would end it.
  local status=${PIPESTATUS[1]}
  [ "$status" = 0 ] || grep -qE '(warning|error):' "$log.log" || tail -n 20 "$log.err" >&2
  [ "$status" = 0 ] && ! grep -qE '(warning|error):' "$log.log"
}

mkdir -p "$PLUMB_DATA/logs"
check "clang-format" format
check "buf lint" "$PLUMB_VENV/bin/buf" lint proto
check "include directions" "$PLUMB_VENV/bin/python" scripts/checks/include_directions.py
check "unregistered tests" "$PLUMB_VENV/bin/python" scripts/checks/registered_tests.py
[ $TIDY = 1 ] && check "clang-tidy" tidy
[ $FAILED = 0 ] || die "lint found something"
say "lint: clean"
