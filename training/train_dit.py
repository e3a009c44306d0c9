"""Trains the transformer and its text encoder on the latents that encode.py made.

    python training/train_dit.py --minutes 240       # continues from a saved state

The method is flow matching: x = (1 - sigma) data + sigma noise, and the network predicts noise -
data. A linear head on a middle block predicts where the object is and what it is. The head speeds up
the training and is thrown away. New latents and other sizes are used as soon as they appear.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import data
import sample
from common import HAS_BF16, Progress, add_state_argument, add_threads_argument, save_atomically
from encode import MASK_PIXELS, load_vae
from optim import Ema, MixedOptimizer

CAPTION_DROPOUT = 0.1
MAIN_SIZE = f"{data.SIZE}x{data.SIZE}"
VALIDATION_SIGMAS = (0.95, 0.85, 0.7, 0.5, 0.25)
TOKEN_MASK = (2 * MASK_PIXELS) ** 2  # values of the mask in a token of 2x2 latents


class LatentSet:
    """All shards of latents by size. Sizes other than the main one are chosen in proportion to their
    shards."""

    def __init__(self, folder, rng, other_sizes):
        self.folder, self.rng, self.other_sizes = folder, rng, other_sizes
        self.sizes, self.loaded, self.count = {}, set(), 0

    def rescan(self):
        for path in sorted(self.folder.glob("*/*.npz")):
            if path not in self.loaded:
                self.loaded.add(path)
                with np.load(path) as shard:
                    arrays = {name: shard[name] for name in ("latents", "masks", "triples")}
                self.sizes.setdefault(path.parent.name, []).append(arrays)
                self.count += len(arrays["triples"])

    def batch(self, count):
        """Latents of one size, their masks and triples. A batch has `count` clips of the main size,
        and as many latents of another size as these have."""
        others = [s for s in self.sizes if s != MAIN_SIZE]
        share = np.array([len(self.sizes[s]) for s in others], float)
        other = others and (MAIN_SIZE not in self.sizes or self.rng.random() < self.other_sizes)
        shards = self.sizes[self.rng.choice(others, p=share / share.sum()) if other else MAIN_SIZE]
        cells = np.prod(shards[0]["latents"].shape[3:]) / (data.SIZE / 8) ** 2
        chosen = [(self.rng.integers(len(shards)), self.rng.integers(len(shards[0]["triples"])))
                  for _ in range(max(1, round(count / cells)))]
        x, masks = (np.stack([shards[s][name][i] for s, i in chosen]) for name in ("latents", "masks"))
        triples = [data.triple_from_number(shards[s]["triples"][i]) for s, i in chosen]
        return torch.from_numpy(x).float(), torch.from_numpy(masks).float() / 255, triples

    def captions(self, triples):
        """New captions, some of them empty."""
        captions = [data.caption(t, self.rng) for t in triples]
        return ["" if self.rng.random() < CAPTION_DROPOUT else c for c in captions]


class LabelHead(nn.Module):
    """Predicts the mask and the object of each token from the hidden states of a block."""

    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, TOKEN_MASK + len(data.OBJECTS))

    def forward(self, hidden):
        return self.out(self.norm(hidden))


def label_targets(masks, triples):
    """What LabelHead should predict (batch, tokens, TOKEN_MASK + objects), in [0, 1]: the mask, and
    the share of the token that the object covers in the object's place."""
    side = 2 * MASK_PIXELS
    fine = masks.unflatten(3, (-1, side)).unflatten(2, (-1, side)).transpose(3, 4).flatten(4).flatten(1, 3)
    which = F.one_hot(torch.tensor([data.OBJECT_NAMES.index(t[0]) for t in triples]), len(data.OBJECTS))
    return torch.cat([fine, fine.mean(-1, keepdim=True) * which[:, None]], -1)


def flow_loss(nets, x, captions, sigma, noise, tap=None):
    """Squared error of the velocity (batch, 16, frames, h, w), and the hidden states after the block
    numbered `tap`."""
    s = sigma.view(-1, 1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BF16):
        v, hidden = sample.velocity(nets, (1 - s) * x + s * noise, sigma, captions, tap)
    return (v.float() - (noise - x)).square(), hidden


def random_sigmas(count):
    """Noise levels of a batch. Middle levels are more frequent, and all are shifted towards noise.
    The batch covers the levels evenly, so that its loss varies less."""
    places = (torch.randperm(count) + torch.rand(count)) / count
    return sample.shifted(torch.sigmoid(torch.special.ndtri(places.clamp(1e-4, 1 - 1e-4))))


def training_loss(nets, latents, args):
    """The flow loss of a batch, the loss of the labels, and the number of clips."""
    x, masks, triples = latents.batch(args.batch)
    tap = args.label_block if args.label_weight else None
    error, hidden = flow_loss(nets, x, latents.captions(triples), random_sigmas(len(x)), torch.randn_like(x), tap)
    if tap is None:
        return error.mean(), torch.zeros(()), len(x)
    labels = F.binary_cross_entropy_with_logits(nets["labels"](hidden.float()), label_targets(masks, triples))
    return error.mean(), labels, len(x)


@torch.no_grad()
def validate(nets, state):
    """Errors of clips of held-out triples at fixed noise, by noise level, and their mean on objects.
    Comparable between runs on the same autoencoder."""
    with np.load(state / "validation.npz") as shard:
        x = torch.from_numpy(shard["latents"]).float()
        cover = torch.from_numpy(shard["masks"]).float() / 255
        triples = [data.triple_from_number(n) for n in shard["triples"]]
    cover = F.avg_pool2d(cover, MASK_PIXELS)[:, None]
    generator = torch.Generator().manual_seed(1)
    levels, objects = [], []
    for level in VALIDATION_SIGMAS:
        noise = torch.randn(x.shape, generator=generator)
        error = torch.cat([
            flow_loss(nets, x[i:i + 8], [data.plain_caption(t) for t in triples[i:i + 8]],
                      torch.full((len(x[i:i + 8]),), level), noise[i:i + 8])[0] for i in range(0, len(x), 8)])
        levels.append(error.mean().item())
        objects.append(((error * cover).sum() / cover.sum() / error.shape[1]).item())
    return levels, objects


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


def report(weights, state, step):
    """Prints the errors of the averaged weights on held-out triples and writes a sheet of clips."""
    nets = sample.make_networks()
    nets.load_state_dict(weights)
    nets.eval()
    levels, objects = validate(nets, state)
    shown = "  ".join(f"{s}: {a:.4f} ({o:.4f})" for s, a, o in zip(VALIDATION_SIGMAS, levels, objects))
    means = f"{np.mean(levels):.4f}, on objects {np.mean(objects):.4f}"
    print(f"held-out clips: {means}; by noise level {shown}", flush=True)
    vae, saved = load_vae(state)
    cells = data.SIZE // 8
    latents = sample.generate(nets, [data.plain_caption(t) for t in sheet_triples()], height=cells, width=cells)
    data.contact_sheet(sample.decode(vae, saved, latents), 2).save(state / f"sheet-{step:06d}.png")


def add_arguments(parser):
    add_state_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--start", type=Path, help="weights that a new run starts from: a dit.pt")
    parser.add_argument("--batch", type=int, default=8, help=f"clips of {data.SIZE} pixels a step")
    parser.add_argument("--other-sizes", type=float, default=0.1, help=f"share of batches that are not {MAIN_SIZE}")
    parser.add_argument("--muon-lr", type=float, default=0.015)
    parser.add_argument("--adam-lr", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.9995,
                        help="decay of the averaged weights; at most a tenth of the steps count")
    parser.add_argument("--label-weight", type=float, default=0.5, help="weight of the labels' loss, 0 for none")
    parser.add_argument("--label-block", type=int, default=5, help="the block whose output predicts the labels")
    parser.add_argument("--report-minutes", type=float, default=30, help="processor time between reports")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    path = args.state / "dit.pt"
    nets = sample.make_networks()
    nets["labels"] = LabelHead(nets["dit"].dim)
    served = [name for name in nets.state_dict() if not name.startswith("labels.")]
    optimizer = MixedOptimizer(nets, is_matrix, args.muon_lr, args.adam_lr, weight_decay=0.01)
    ema = Ema(nets, args.ema)
    step, seen, spent = 0, 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=False)
        nets.load_state_dict(saved["nets"], strict=False)  # a restored export has no head
        if saved["optimizer"]:  # a state that restore.py made from an export has none
            optimizer.load_state_dict(saved["optimizer"])
        ema.weights.update(saved["ema"])
        ema.steps, step, seen, spent = saved["step"], saved["step"], saved["seen"], saved["spent"]
        torch.manual_seed(step)
    elif args.start:
        nets.load_state_dict(torch.load(args.start, weights_only=False)["ema"], strict=False)
    for block in nets["dit"].blocks:
        block.compile()
    parameters = {k: sum(p.numel() for p in v.parameters()) / 1e6 for k, v in nets.items()}
    print(f"M parameters {parameters}, from step {step}", flush=True)
    latents = LatentSet(args.state / "latents", np.random.default_rng(step), args.other_sizes)
    latents.rescan()
    progress = Progress(args.minutes * 60, spent)
    last_save, last_report = time.time(), progress.spent()
    while not progress.finished():
        loss, labels, count = training_loss(nets, latents, args)
        (loss + args.label_weight * labels).backward()
        optimizer.step(learning_rate(progress.fraction(), step))
        ema.update(nets)
        step, seen = step + 1, seen + count
        progress.log(step, loss=loss.item(), labels=labels.item(), kclips=seen / 1000)
        if time.time() - last_save > 150 or progress.finished():
            last_save = time.time()
            latents.rescan()
            save_atomically(path, {"nets": nets.state_dict(), "optimizer": optimizer.state_dict(),
                                   "ema": {name: ema.weights[name] for name in served}, "step": step, "seen": seen, "spent": progress.spent()})
        if progress.spent() - last_report > 60 * args.report_minutes or progress.finished():
            report({name: ema.weights[name] for name in served}, args.state, step)
            last_report = progress.spent()


if __name__ == "__main__":
    main()
