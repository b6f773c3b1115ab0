# Shared by the scripts: where the project is, how to say what is done. Sourced, not run.
# Every script works from any current folder.
PLUMB_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PLUMB_BUILD=${PLUMB_BUILD:-$PLUMB_ROOT/build}
PLUMB_VENV=${PLUMB_VENV:-$PLUMB_ROOT/.venv}
PLUMB_DATA=${PLUMB_DATA:-$PLUMB_ROOT/.data}
PLUMB_JOBS=${PLUMB_JOBS:-$(nproc)}
PLUMB_STARTED=$(date +%s)

say() { printf '\n== [%3ds] %s\n' "$(($(date +%s) - PLUMB_STARTED))" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Shows the first comment block of the calling script.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# Runs a noisy command with its output in a log; on failure shows the log's end and its name.
quietly() { # quietly LOG COMMAND...
  local log=$1
  shift
  mkdir -p "$(dirname "$log")"
  if ! "$@" >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    die "'$*' failed; the whole output is in $log"
  fi
}
