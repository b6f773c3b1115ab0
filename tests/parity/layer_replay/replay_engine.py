"""The engine's replay of single blocks, through engine_dump --replay."""
from __future__ import annotations

import json
import os
import subprocess

import numpy
import torch


def runs_of(prompt, rows):
    """Positions that each run's attention reads: the prompt's, then each generated row's."""
    return list(range(prompt, rows + 1))


class ReplayEngine:
    """Collects requests; run() answers them all at once."""

    def __init__(self, dump, bundle, folder, threads):
        self.command = [dump, "--model", bundle, "--no-digests", "--replay", "--threads", str(threads)]
        self.folder, self.requests, self.files = folder, [], 0

    def _write(self, tensor):
        self.files += 1
        path = os.path.join(self.folder, f"in{self.files}")
        tensor.contiguous().numpy().astype(numpy.float32).tofile(path)
        return path

    def add(self, layer, plan, hidden, prompt, force=None):
        """hidden: [rows, hidden]; force: (keys, values) of every run. Returns a handle."""
        request = {"layer": layer, "kv": plan, "rows": len(hidden), "prompt_rows": prompt,
                   "hidden": self._write(hidden),
                   "out": os.path.join(self.folder, f"out{len(self.requests)}")}
        if force:
            request["force_k"], request["force_v"] = (self._write(torch.cat(t)) for t in force)
        self.requests.append(request)
        return len(self.requests) - 1

    def run(self):
        text = "\n".join(json.dumps(r) for r in self.requests)
        done = subprocess.run(self.command, input=text, text=True, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"engine_dump --replay failed: {done.stderr.strip()}")

    def _read(self, handle, name, width):
        path = f"{self.requests[handle]['out']}.{name}"
        return torch.from_numpy(numpy.fromfile(path, numpy.float32)).reshape(-1, *width)

    def output(self, handle):
        rows = self.requests[handle]["rows"]
        return self._read(handle, "y", ()).reshape(rows, -1)

    def views(self, handle, heads, dim):
        """[(keys, values)] of every run: what attention was about to read."""
        request = self.requests[handle]
        sizes = runs_of(request["prompt_rows"], request["rows"])
        return list(zip(*(torch.split(self._read(handle, n, (heads, dim)), sizes) for n in "kv")))
