"""Trains the video autoencoder.

    python training/train_vae.py --minutes 60        # continues from a saved state

Training starts with crops of 9 frames and 32 pixels around the sprite. Whole clips follow, which
have the later chunks, the borders and the full range of the attention. A new run starts from
frozen.pt if that file exists.
"""

import argparse
import time

import numpy as np
import torch

import data
import vae as vae_module
from common import Progress, add_state_argument, save_atomically
from optim import Ema, MixedOptimizer
from vae import VideoVAE

POOL = 384  # clips kept for cropping
SIZES = ((64, 64), (64, 64), (64, 64), (64, 96), (128, 128))


class ClipPool:
    """A ring of recent clips from which crops are taken. Several crops per clip save the time of
    drawing clips."""

    def __init__(self, rng, fresh_per_batch=2):
        self.rng, self.fresh, self.clips = rng, fresh_per_batch, []

    def _make(self):
        size = SIZES[self.rng.integers(len(SIZES))]
        clip = data.random_clip(self.rng, *size)
        return ((clip.video + 1) * 127.5).round().astype(np.uint8), (clip.mask * 255).astype(np.uint8)

    def batch(self, count, frames, size):
        """Crops near the sprite: video (count, 3, frames, size, size) and mask (count, 1, ...)."""
        for _ in range(self.fresh if self.clips else 64):
            self.clips.append(self._make())
        del self.clips[:-POOL]
        videos, masks = zip(*(self._crop(frames, size) for _ in range(count)))
        video = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return video.contiguous(memory_format=torch.channels_last_3d), torch.from_numpy(np.stack(masks))[:, None] / 255

    def _crop(self, frames, size):
        large_enough = [c for c in self.clips if min(c[1].shape[1:]) >= size]
        video, mask = large_enough[self.rng.integers(len(large_enough))]
        count, height, width = mask.shape
        t = self.rng.integers(count - frames + 1)
        where = np.argwhere(mask[t + frames // 2] > 128)
        y, x = where[self.rng.integers(len(where))] if len(where) else (height // 2, width // 2)
        top = int(np.clip(y - self.rng.integers(size), 0, height - size))
        left = int(np.clip(x - self.rng.integers(size), 0, width - size))
        window = np.s_[t:t + frames, top:top + size, left:left + size]
        return video[window], mask[window]


def add_latent_noise(z, most):
    """Adds noise in proportion to each channel's deviation, so that small errors of latents do
    little harm.

    The amount differs from clip to clip, from 0 to `most`, so that clean latents stay sharp."""
    spread = z.detach().std(dim=(0, 2, 3, 4), keepdim=True)
    amount = most * torch.rand(len(z), 1, 1, 1, 1)
    return z + amount * spread * torch.randn_like(z)


def reconstruction_loss(output, video, mask):
    """Charbonnier loss and squared error, with three times the weight on the sprite, and a loss on
    the change from frame to frame against flicker."""
    error = (output - video).square()
    weight = 1 + 2 * mask
    change = (output - video).diff(dim=2).square()
    return ((error + 1e-4).sqrt() * weight).mean() + 2 * (error * weight).mean() + (change + 1e-5).sqrt().mean()


def psnr(output, video):
    """PSNR of pixels in [0, 1], averaged over the clips."""
    mse = ((output.clamp(-1, 1) - video) / 2).square().mean(dim=(1, 2, 3, 4))
    return (-10 * mse.log10()).mean().item()


@torch.no_grad()
def evaluate(model, count=12, size=(64, 64)):
    """PSNR on whole clips of held-out triples, and the clips before and after the autoencoder."""
    rng = np.random.default_rng(7)
    triples = sorted(data.held_out())
    clips = [data.make_clip(triples[rng.integers(len(triples))], rng, *size) for _ in range(count)]
    video = torch.from_numpy(np.stack([c.video for c in clips])).permute(0, 4, 1, 2, 3)
    output = torch.cat([model.decode(model.encode(v)) for v in video.split(4)])
    return psnr(output, video), video, output


def is_matrix(name, p):
    """Whether Muon trains the tensor. The first and last layer train better with AdamW."""
    return p.dim() >= 2 and p.shape[0] > 4 and "conv_in" not in name and "norm" not in name and p[0].numel() > 1


def learning_rate(progress):
    """The factor of the learning rate: a warm-up over 2 %, constant, then linear to zero over the
    second half."""
    return min(1, progress / 0.02 + 0.05, 2 * (1 - progress) + 0.002)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    parser.add_argument("--name", default="vae")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--whole-from", type=float, default=0.3, help="share of the time after which clips are whole")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=6, help="crops a step")
    parser.add_argument("--noise", type=float, default=0.15, help="most noise on the latents, in their spreads")
    parser.add_argument("--decoder-only", action="store_true", help="keep the encoder of frozen.pt")
    parser.add_argument("--dims", type=int, nargs=5, help="base_dim and dim_mult, for experiments")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    if args.dims:
        vae_module.VAE_CONFIG.update(base_dim=args.dims[0], dim_mult=args.dims[1:])
    vae_module.compile_kernels()
    path = args.state / f"{args.name}.pt"
    model = VideoVAE()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    if args.decoder_only:
        model.encoder.requires_grad_(False)
        model.quant_conv.requires_grad_(False)
    optimizer = MixedOptimizer(model, is_matrix, args.muon_lr, args.adam_lr)
    saved = torch.load(path, weights_only=False) if path.exists() else None
    step, spent = 0, 0.0
    if saved and saved.get("decoder_only", False) == args.decoder_only:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step, spent = saved["step"], saved["spent"]
    elif (args.state / "frozen.pt").exists():
        model.load_state_dict(torch.load(args.state / "frozen.pt", weights_only=False)["ema"])
    ema = Ema(model, 0.99)
    if step:
        ema.weights, ema.steps = saved["ema"], step
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, from step {step}", flush=True)
    pool = ClipPool(np.random.default_rng(1000 + step))
    progress = Progress(args.minutes * 60, spent)
    last_save = time.time()
    while not progress.finished():
        if progress.fraction() < args.whole_from:
            video, mask = pool.batch(args.batch, 9, 32)
        elif step % 6:
            video, mask = pool.batch(2, 17, 64)
        else:
            # The attention in the middle must learn larger pictures too. Two clips, because a
            # single clip is ten times slower in PyTorch.
            video, mask = pool.batch(2, 9, 128)
        output = model.decode(add_latent_noise(model.encode(video), args.noise))
        loss = reconstruction_loss(output, video, mask)
        loss.backward()
        optimizer.step(learning_rate(progress.fraction()))
        ema.update(model)
        step += 1
        progress.log(step, loss=loss.item(), psnr=psnr(output.detach(), video))
        if time.time() - last_save > 180 or progress.finished():
            last_save = time.time()
            save_atomically(path, {"model": model.state_dict(), "ema": ema.weights, "optimizer": optimizer.state_dict(),
                                   "step": step, "spent": progress.spent(), "decoder_only": args.decoder_only,
                                   "config": dict(vae_module.VAE_CONFIG)})
            current = {k: v.clone() for k, v in model.state_dict().items()}
            model.load_state_dict(ema.weights)
            quality, truth, output = evaluate(model)
            model.load_state_dict(current)
            print(f"held-out clips: {quality:.2f} dB", flush=True)
            pairs = torch.stack([truth, output], 1).flatten(0, 1).permute(0, 2, 3, 4, 1).numpy()
            data.contact_sheet(pairs).save(path.with_suffix(".png"))


if __name__ == "__main__":
    main()
