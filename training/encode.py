"""Freezes the autoencoder's encoder and turns clips into latents, which train the transformer.

    python training/encode.py --clips 6144 --size 128 128

The first call copies the autoencoder's averaged weights, with the mean and deviation of its
latents, to frozen.pt, and writes validation.npz with clips of held-out triples. Afterwards only the
decoder may be trained further. Each further call makes shards until there are as many clips of the
size as it says, and can be stopped at any time.
"""

import argparse
import time

import numpy as np
import torch

import data
import vae as vae_module
from common import add_state_argument, add_threads_argument, save_atomically
from vae import VideoVAE

SHARD = 128
VALIDATION = 48  # clips
MASK_PIXELS = 4  # a latent's mask has 4x4 values


def load_vae(state, name="frozen.pt"):
    """The autoencoder that was saved under a name, and the whole saved dictionary."""
    saved = torch.load(state / name, weights_only=False)
    model = VideoVAE(saved["config"])
    model.load_state_dict(saved["ema"])
    return model.eval(), saved


@torch.no_grad()
def encode_clips(model, clips):
    video = torch.from_numpy(np.stack([c.video for c in clips])).permute(0, 4, 1, 2, 3)
    return model.encode(video.contiguous(memory_format=torch.channels_last_3d))


def freeze(state):
    """Writes frozen.pt: encoder, decoder, and the statistics of each latent channel."""
    model, saved = load_vae(state, "vae.pt")
    rng = np.random.default_rng(99)
    z = torch.cat([encode_clips(model, [data.random_clip(rng) for _ in range(8)]) for _ in range(8)])
    mean, std = z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))
    save_atomically(state / "frozen.pt", {"config": saved["config"], "ema": saved["ema"], "step": saved["step"],
                                          "mean": mean, "std": std})


def coarse_mask(mask):
    """The mask of a clip as 4x4 values for each latent, averaged over its pixels and frames:
    uint8 (latent frames, 4 h, 4 w)."""
    frames, height, width = mask.shape
    small = mask.reshape(frames, height // 2, 2, width // 2, 2).mean((2, 4))
    groups = [small[:1].mean(0), *(small[t:t + 4].mean(0) for t in range(1, frames, 4))]
    return (np.stack(groups) * 255).round().astype(np.uint8)


def encode_set(model, saved, triples, rng, height, width):
    """What a shard holds of clips of the triples: `latents`, normalised, (clips, 16, frames, h, w) in
    half precision, `masks` (see coarse_mask), and `triples` as numbers."""
    shape = (1, 16, 1, 1, 1)
    mean, std = saved["mean"].view(shape), saved["std"].view(shape)
    latents, masks = [], []
    for i in range(0, len(triples), 8):
        clips = [data.make_clip(t, rng, height, width) for t in triples[i:i + 8]]
        latents.append(((encode_clips(model, clips) - mean) / std).half().numpy())
        masks += [coarse_mask(c.mask) for c in clips]
    numbers = np.array([data.triple_number(t) for t in triples])
    return {"latents": np.concatenate(latents), "masks": np.stack(masks), "triples": numbers}


def save_set(path, arrays):
    """Saves a shard so that a reader never sees a part of it."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as f:
        np.savez(f, **arrays)
    temporary.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    add_threads_argument(parser)
    parser.add_argument("--clips", type=int, default=6144)
    parser.add_argument("--size", type=int, nargs=2, default=(data.SIZE, data.SIZE), metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    vae_module.compile_kernels()
    if not (args.state / "frozen.pt").exists():
        freeze(args.state)
    model, saved = load_vae(args.state)
    held, rng = sorted(data.held_out()), np.random.default_rng(77)
    if not (args.state / "validation.npz").exists():
        triples = [held[rng.integers(len(held))] for _ in range(VALIDATION)]
        save_set(args.state / "validation.npz", encode_set(model, saved, triples, rng, data.SIZE, data.SIZE))
    height, width = args.size
    folder = args.state / "latents" / f"{height}x{width}"
    folder.mkdir(parents=True, exist_ok=True)
    every, start, made = data.training_triples(), time.time(), 0
    wanted = [i for i in range(-(-args.clips // SHARD)) if not (folder / f"{i:04d}.npz").exists()]
    for i in wanted:
        rng = np.random.default_rng((height, width, i))
        triples = [every[rng.integers(len(every))] for _ in range(SHARD)]
        save_set(folder / f"{i:04d}.npz", encode_set(model, saved, triples, rng, height, width))
        made += 1
        eta = (time.time() - start) / made * (len(wanted) - made) / 60
        print(f"{height}x{width}: shard {i}, {made} of {len(wanted)}, {eta:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
