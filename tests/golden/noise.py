"""Writes noise.json: the normals of torch's CPU generator.

Made with torch 2.15.0 (CPU, x86-64 with AVX2). Run: python tests/golden/noise.py

Of long vectors only the ends are kept: the first 20 values and the last 20, which the tail rule touches.
"""

import json
from pathlib import Path

import torch

ENDS = 20
cases = []
for seed in [0, 42, 2**31, 2**40 + 3, 2**64 - 1]:
    for n in [1, 2, 15, 16, 17, 31, 100, 5120]:
        values = torch.randn(n, generator=torch.Generator("cpu").manual_seed(seed)).tolist()
        values = [float(f"{value:.9g}") for value in values]
        cases.append({"seed": seed, "n": n, "first": values[:ENDS], "last": values[-ENDS:]})
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, separators=(",", ":")).replace('{"seed"', '\n{"seed"') + "\n")
