"""Synthetic weights. Python and Rust (tests/common/synth.rs) compute the same numbers, so no
weights are stored.

Value i of a tensor called `key` comes from a counter-based generator: splitmix64's output function
applied to FNV-1a64(key) + (i + 1) * golden ratio. Its top 24 bits give u = k / 2^23 - 1 in [-1, 1),
which is exact in f32. The value is offset + scale * u, computed with one f32 product and one f32
sum.

This module chooses `offset` and `scale` by rules on the tensor's name and shape. The golden's JSON
file stores them, so the Rust side needs no rules.
"""

import math
import re

import numpy as np
import torch

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)
TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def fnv1a64(text):
    """The 64-bit FNV-1a hash (Fowler, Noll, Vo) of the UTF-8 bytes of `text`."""
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def bits(key, count):
    """`count` u64 words of the generator for `key`, mixed by splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(key)) + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_RATIO
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fill(key, recipe):
    """The f32 tensor of a recipe {shape, offset, scale}."""
    count = math.prod(recipe["shape"])
    u = (bits(key, count) >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    values = np.float32(recipe["offset"]) + np.float32(recipe["scale"]) * u
    return torch.from_numpy(values.reshape(recipe["shape"]))


def f32(value):
    """`value` rounded to f32, so that the JSON file has exactly the number that is used."""
    return float(np.float32(value))


def input_recipe(shape, scale=math.sqrt(3)):
    """A recipe for an input. The default scale gives the variance 1 of noise, latents and
    embeddings."""
    return {"shape": list(shape), "offset": 0.0, "scale": f32(scale)}


def weight_recipe(name, shape, rules):
    """Offset and scale of one weight. The first rule that matches the name decides.

    `rules` are (pattern, offset, scale) for plain tensors and (pattern, gain) for products. For a
    product, scale = gain * sqrt(3 / fan_in) gives the output a variance of gain^2."""
    for pattern, *rule in rules:
        if re.search(pattern, name):
            if len(rule) == 2:
                offset, scale = rule
            else:
                offset, scale = 0.0, rule[0] * math.sqrt(3 / math.prod(shape[1:]))
            return {"name": name, "shape": list(shape), "offset": f32(offset), "scale": f32(scale)}
    raise KeyError(f"no rule for {name}")


def checksum(tensors):
    """Sum of bits_i * (2i + 1) mod 2^64 over all elements in order. Changing or moving an element
    changes the sum."""
    total, start = np.uint64(0), 0
    with np.errstate(over="ignore"):
        for t in tensors:
            words = {4: np.uint32, 2: np.uint16}[t.element_size()]
            raw = t.contiguous().flatten().view(torch.uint8).numpy().view(words).astype(np.uint64)
            odd = np.arange(start, start + raw.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
            total += (raw * odd).sum(dtype=np.uint64)
            start += raw.size
    return f"{int(total):016x}"
