"""Trains the transformer and its text encoder on the latents that encode.py made.

    python training/train_dit.py --minutes 240       # continues from a saved state

The method is flow matching: x = (1 - sigma) data + sigma noise, and the network predicts noise -
data. New latents and other sizes are used as soon as they appear.
"""

import argparse
import time

import numpy as np
import torch

import data
import sample
from common import HAS_BF16, Progress, add_state_argument, save_atomically
from encode import load_vae
from optim import Ema, MixedOptimizer

CAPTION_DROPOUT = 0.1


class LatentSet:
    """All shards of latents by size. Sizes other than 64x64 are chosen in proportion to their
    shards."""

    def __init__(self, folder, rng, other_sizes):
        self.folder, self.rng, self.other_sizes = folder, rng, other_sizes
        self.sizes, self.loaded, self.count = {}, set(), 0

    def rescan(self):
        for path in sorted(self.folder.glob("*/*.npz")):
            if path not in self.loaded:
                self.loaded.add(path)
                with np.load(path) as shard:
                    self.sizes.setdefault(path.parent.name, []).append((shard["latents"], shard["triples"]))
                    self.count += len(shard["triples"])

    def batch(self, count):
        """A batch of latents of one size, with captions. Larger clips have smaller batches."""
        others = [s for s in self.sizes if s != "64x64"]
        share = np.array([len(self.sizes[s]) for s in others], float)
        pick = self.rng.choice(others, p=share / share.sum()) if others and self.rng.random() < self.other_sizes else "64x64"
        shards = self.sizes[pick]
        cells = np.prod(shards[0][0].shape[3:]) / 64
        chosen = [(self.rng.integers(len(shards)), self.rng.integers(len(shards[0][1])))
                  for _ in range(max(1, round(count / cells)))]
        x = torch.from_numpy(np.stack([shards[s][0][i] for s, i in chosen])).float()
        captions = [data.caption(data.triple_from_number(shards[s][1][i]), self.rng) for s, i in chosen]
        return x, ["" if self.rng.random() < CAPTION_DROPOUT else c for c in captions]


def flow_loss(nets, x, captions):
    """Mean squared error of the velocity at random times. Middle times are more frequent, and all
    times are shifted towards noise."""
    sigma = sample.shifted(torch.sigmoid(torch.randn(len(x))))
    s = sigma.view(-1, 1, 1, 1, 1)
    noise = torch.randn_like(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
        v = sample.velocity(nets, (1 - s) * x + s * noise, sigma, captions)
    return (v.float() - (noise - x)).square().mean()


def is_matrix(name, p):
    """Whether Muon trains the tensor. Muon trains the matrices inside the blocks, AdamW trains
    embeddings, norms, input and output layers."""
    inside = ".blocks." in name or ".block." in name or "embedder" in name
    return inside and p.dim() == 2 and "bias" not in name and "time_embedder.linear_1" not in name


def learning_rate(progress, step):
    """The factor of the learning rate: a short warm-up, constant, then linear to zero over the last
    third."""
    return min(1, (step + 1) / 40, 3 * (1 - progress) + 0.01)


def sheet_triples(count=16):
    """The held-out triples of the sample sheets, which are always the same."""
    held = sorted(data.held_out())
    return [held[i] for i in np.random.default_rng(5).choice(len(held), count, replace=False)]


def write_sheet(nets, state, path):
    nets.eval()
    vae, saved = load_vae(state)
    latents = sample.generate(nets, [data.plain_caption(t) for t in sheet_triples()])
    data.contact_sheet(sample.decode(vae, saved, latents)).save(path)
    nets.train()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--other-sizes", type=float, default=0.0, help="share of batches that are not 64x64")
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--sheet-minutes", type=float, default=10)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    path = args.state / "dit.pt"
    nets = sample.make_networks()
    optimizer = MixedOptimizer(nets, is_matrix, args.muon_lr, args.adam_lr, weight_decay=0.01)
    ema = Ema(nets, 0.998)
    step, seen, spent = 0, 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=False)
        nets.load_state_dict(saved["nets"])
        if saved["optimizer"]:  # a state that restore.py made from an export has none
            optimizer.load_state_dict(saved["optimizer"])
        ema.weights, ema.steps, step = saved["ema"], saved["step"], saved["step"]
        seen, spent = saved["seen"], saved["spent"]
        torch.manual_seed(step)
    for block in nets["dit"].blocks:
        block.compile()
    parameters = {k: sum(p.numel() for p in v.parameters()) / 1e6 for k, v in nets.items()}
    print(f"M parameters {parameters}, from step {step}", flush=True)
    latents = LatentSet(args.state / "latents", np.random.default_rng(step), args.other_sizes)
    latents.rescan()
    progress = Progress(args.minutes * 60, spent)
    last_save = last_sheet = time.time()
    while not progress.finished():
        x, captions = latents.batch(args.batch)
        loss = flow_loss(nets, x, captions)
        loss.backward()
        optimizer.step(learning_rate(progress.fraction(), step))
        ema.update(nets)
        step, seen = step + 1, seen + len(x)
        progress.log(step, loss=loss.item(), kclips=seen / 1000)
        if time.time() - last_save > 150 or progress.finished():
            last_save = time.time()
            latents.rescan()
            save_atomically(path, {"nets": nets.state_dict(), "ema": ema.weights, "optimizer": optimizer.state_dict(),
                                   "step": step, "seen": seen, "spent": progress.spent(), "loss": loss.item()})
        if time.time() - last_sheet > 60 * args.sheet_minutes or progress.finished():
            last_sheet = time.time()
            averaged = sample.make_networks()
            averaged.load_state_dict(ema.weights)
            write_sheet(averaged, args.state, args.state / f"sheet-{step:06d}.png")


if __name__ == "__main__":
    main()
