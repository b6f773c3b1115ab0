"""Imported first: ends a script with the skip code where the oracle's libraries are absent."""
import importlib.util
import sys

MISSING = [name for name in ("tokenizers", "torch", "transformers")
           if importlib.util.find_spec(name) is None]
if MISSING:
    print(f"SKIPPED: no {', '.join(MISSING)} in {sys.executable}; run scripts/setup.sh")
    sys.exit(77)
