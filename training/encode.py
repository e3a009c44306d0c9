"""Freezes the autoencoder's encoder and turns clips into latents, which train the transformer.

    python training/encode.py --clips 12000 --size 64 64

The first call copies the autoencoder's averaged weights, with the mean and deviation of its
latents, to frozen.pt. Afterwards only the decoder may be trained further. Each further call adds
shards of more clips or other sizes.
"""

import argparse
import time

import numpy as np
import torch

import data
import vae as vae_module
from common import add_state_argument, save_atomically
from vae import VideoVAE

SHARD = 512


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
    z = torch.cat([encode_clips(model, [data.random_clip(rng) for _ in range(8)]) for _ in range(32)])
    mean, std = z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))
    save_atomically(state / "frozen.pt", {"config": saved["config"], "ema": saved["ema"], "step": saved["step"],
                                          "mean": mean, "std": std})


def encode_shard(model, saved, rng, height, width):
    """Normalised latents (SHARD, 16, frames, h, w) in half precision, and triples as numbers."""
    shape = (1, 16, 1, 1, 1)
    mean, std = saved["mean"].view(shape), saved["std"].view(shape)
    triples, latents = [], []
    for _ in range(SHARD // 8):
        clips = [data.random_clip(rng, height, width) for _ in range(8)]
        latents.append(((encode_clips(model, clips) - mean) / std).half().numpy())
        triples += [data.triple_number(c.triple) for c in clips]
    return np.concatenate(latents), np.array(triples)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    parser.add_argument("--clips", type=int, default=12000)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()
    torch.set_num_threads(2)
    vae_module.compile_kernels()
    if not (args.state / "frozen.pt").exists():
        freeze(args.state)
    model, saved = load_vae(args.state)
    height, width = args.size
    folder = args.state / "latents" / f"{height}x{width}"
    folder.mkdir(parents=True, exist_ok=True)
    done, start = len(list(folder.glob("*.npz"))), time.time()
    shards = range(done, done + -(-args.clips // SHARD))
    for i in shards:
        latents, triples = encode_shard(model, saved, np.random.default_rng((height, width, i)), height, width)
        temporary = folder / f"{i:04d}.tmp.npy"
        with open(temporary, "wb") as f:
            np.savez(f, latents=latents, triples=triples)
        temporary.rename(folder / f"{i:04d}.npz")
        eta = (time.time() - start) / (i - done + 1) * (shards.stop - 1 - i) / 60
        print(f"{height}x{width}: shard {i + 1} of {shards.stop}, {eta:.0f} min left", flush=True)


if __name__ == "__main__":
    main()
