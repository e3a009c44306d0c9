"""Writes tests/golden/weights/packed.safetensors: blocks of random bytes in every packed format of
GGUF, and their values by the PyPI package gguf.

    python tests/golden/packed.py

Made with gguf 0.19.0, numpy and safetensors of requirements.txt.
"""

import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).parent / "weights" / "packed.safetensors"
NAMES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
# Places of the scales in f16, whose random bytes must be finite.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}  # fmt: skip


def main():
    random = np.random.default_rng(7)
    tensors = {}
    for name in NAMES:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        stored = random.integers(0, 256, (6 if elements == 256 else 24, size), dtype=np.uint8)
        for at in HALVES[name]:
            scales = random.normal(0, 0.1, len(stored)).astype(np.float16)
            stored[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
        values = gguf.quants.dequantize(stored, kind)
        assert values.dtype == np.float32 and np.isfinite(values).all()
        tensors[f"{name}.stored"], tensors[f"{name}.values"] = stored, values.reshape(-1)
    save_file(tensors, OUT)


if __name__ == "__main__":
    main()
