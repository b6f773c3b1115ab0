#!/usr/bin/env python3
"""Fails when a *_test.cc or *_fuzz.cc under tests/ is named in no CMakeLists.txt: it would never run."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    lists = {path: path.read_text() for path in ROOT.glob("tests/**/CMakeLists.txt")}
    missing = []
    for source in sorted(ROOT.glob("tests/**/*_test.cc")):
        texts = [text for path, text in lists.items() if path.parent in [source.parent, *source.parents]]
        if not any(source.name in text or "*_test.cc" in text for text in texts):
            missing.append(source.relative_to(ROOT).as_posix())
    fuzz = lists.get(ROOT / "tests/fuzz/CMakeLists.txt", "")
    for source in sorted(ROOT.glob("tests/fuzz/*_fuzz.cc")):
        if source.name not in fuzz and "_fuzz.cc" not in fuzz:
            missing.append(source.relative_to(ROOT).as_posix())
    for name in missing:
        print(f"{name}: registered in no CMakeLists.txt")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
