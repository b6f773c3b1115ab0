#!/usr/bin/env bash
# From a bare Debian 12 or Ubuntu 24.04 to a diagnosis of a real model: installs what is missing, builds, makes
# the small test model, runs `plumb diagnose` on loopback and says where the report lies. A second run takes
# what exists.
#
#   scripts/quickstart.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) usage; exit 0 ;; esac

"$PLUMB_ROOT/scripts/setup.sh"
"$PLUMB_ROOT/scripts/build.sh"
"$PLUMB_ROOT/scripts/testbed/make_model.sh"
say "diagnosing the test model under int4.asym.token"
# fp32 gives every x86-64 machine the same answers. 36 tokens hold this model's refusals, which are decided after
# six or seven; longer answers cost minutes here.
"$PLUMB_BUILD/bin/plumb" diagnose --model "$PLUMB_DATA/models/testbed" \
  --max-new-tokens 36 --target int4.asym.token --data "$PLUMB_DATA/quickstart" --name quickstart
say "done. Again, with the results that are there: the same command. Next: README.md, \"Your own model\""
