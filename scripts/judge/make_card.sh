#!/usr/bin/env bash
# Measures the built keyword judge on data/judge/labels.jsonl, prints kappa and the confusion table, and
# renews data/judge/card.json and data/judge/confusion.json. Build again afterwards: the card is built in.
#
#   scripts/judge/make_card.sh [--print]     --print writes nothing
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
WRITE=--write
case ${1:-} in -h | --help) usage; exit 0 ;; --print) WRITE= ;; esac
cd "$PLUMB_ROOT"
[ -f "$PLUMB_BUILD/build.ninja" ] || die "no build in $PLUMB_BUILD: run scripts/build.sh"
cmake --build "$PLUMB_BUILD" --target plumb-judge-card >&2
"$PLUMB_BUILD/tests/plumb-judge-card" $WRITE
