r"""Compares diffusers' WanPipeline with ditscope on the same model and latents. Run by hand.

    ditscope generate "a cat walking on grass" --latents noise.safetensors -o frames/
    python tests/golden/demo_pipeline.py --latents noise.safetensors --frames frames/ \
        --prompt "a cat walking on grass"

Prints the PSNR of every frame and of the clip, and exits with 1 if the clip's PSNR is below
--min-psnr. Size and number of frames follow from the latents. --reference DIR keeps diffusers'
frames as PNGs.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch
from diffusers import WanPipeline
from PIL import Image
from safetensors.torch import load_file


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", default="assets/demo-model", help="model folder in diffusers' layout")
    parser.add_argument("--latents", required=True, help="safetensors, key `latents`, [1,C,F,H,W] or [C,F,H,W], f32")
    parser.add_argument("--frames", required=True, type=pathlib.Path, help="folder of 0000.png, ... by ditscope")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--min-psnr", type=float, default=45.0)
    parser.add_argument("--reference", type=pathlib.Path, help="write diffusers' frames here")
    return parser.parse_args()


def reference_frames(args):
    """Frames of WanPipeline, run in f32 on the CPU, as u8 [F, H, W, 3]."""
    pipe = WanPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    latents = load_file(args.latents)["latents"].float()
    latents = latents[None] if latents.dim() == 4 else latents
    _, _, frames, height, width = latents.shape
    result = pipe(
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        num_inference_steps=args.steps,
        guidance_scale=args.guidance_scale,
        latents=latents,
        height=height * pipe.vae_scale_factor_spatial,
        width=width * pipe.vae_scale_factor_spatial,
        num_frames=(frames - 1) * pipe.vae_scale_factor_temporal + 1,
        output_type="np",
    )
    return (result.frames[0] * 255).round().astype(np.uint8)


def png_frames(folder):
    """The PNGs of `folder` in the order of their names, as u8 [F, H, W, 3]."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))])


def psnr(a, b):
    """Peak signal-to-noise ratio in dB of u8 images. Infinite for equal images."""
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    return np.inf if mse == 0 else 10 * np.log10(255**2 / mse)


def main():
    args = arguments()
    ours, reference = png_frames(args.frames), reference_frames(args)
    if args.reference:
        args.reference.mkdir(parents=True, exist_ok=True)
        for i, frame in enumerate(reference):
            Image.fromarray(frame).save(args.reference / f"{i:04}.png")
    if ours.shape != reference.shape:
        sys.exit(f"ditscope wrote {ours.shape}, diffusers {reference.shape} (frames, height, width, RGB)")
    for i, (a, b) in enumerate(zip(ours, reference)):
        print(f"frame {i:3}: {psnr(a, b):6.2f} dB, largest difference {np.abs(a.astype(int) - b).max()}")
    total = psnr(ours, reference)
    print(f"clip: {total:.2f} dB, asked for {args.min_psnr} dB")
    sys.exit(int(total < args.min_psnr))


if __name__ == "__main__":
    main()
