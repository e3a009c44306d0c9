"""Averages the weights of two checkpoints, where one run continued the other (Wortsman et al.,
arXiv 2109.01903).

    python training/blend.py before.pt after.pt --share 0.5 --out blended.pt

To evaluate and export the result, use it as dit.pt. The average keeps most of the second run's
progress, and most of what the second run forgot.
"""

import argparse
from pathlib import Path

import torch

from common import save_atomically


def blend(before, after, share):
    """The mean of the averaged weights of both, with weight `share` for `after`."""
    mix = lambda a, b: torch.lerp(a, b, share) if b.is_floating_point() else b  # noqa: E731
    return {name: mix(before["ema"][name], weights) for name, weights in after["ema"].items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second one's weights")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} exists")
    before, after = (torch.load(path, weights_only=False) for path in (args.before, args.after))
    weights = blend(before, after, args.share)
    fresh = {"optimizer": None, "spent": 0.0, "step": 0, "seen": after["seen"]}
    save_atomically(args.out, {"nets": weights, "ema": {k: v.clone() for k, v in weights.items()}} | fresh)


if __name__ == "__main__":
    main()
