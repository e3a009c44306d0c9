"""Mean of the weights of two checkpoints, one of which went on from the other (Wortsman et al., arXiv 2109.01903).

    python training/blend.py before.pt after.pt --share 0.5 --out blended.pt     # take it for dit.pt to evaluate and export it

What a run learned anew is kept for the most part, and so is what it forgot.
"""

import argparse
from pathlib import Path

import torch

from common import save_atomically


def blend(before, after, share):
    """`share` of the averaged weights of `after`, the rest of those of `before`."""
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
