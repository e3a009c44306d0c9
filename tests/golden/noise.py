"""Writes noise.json: the normal numbers of torch's CPU generator.

Made with torch 2.15.0 (CPU, x86-64 with AVX2). Run: python tests/golden/noise.py

Long vectors are stored with their first 20 and last 20 values. The special rule for the last block
affects the latter.
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
