"""Trains the video autoencoder.

    python training/train_vae.py --minutes 60        # continues from a saved state

Most batches are windows of 64 pixels around the object, on the grid of the data. Every sixth batch
has whole frames, which have the borders and the full range of the attention. A new run can
start from other weights of the same layout (`--start`).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import data
import vae as vae_module
from common import Progress, add_state_argument, add_threads_argument, save_atomically
from optim import Ema, MixedOptimizer
from vae import VideoVAE

POOL = 192  # clips kept for cropping
SIZES = ((128, 128),) * 5 + ((64, 64), (128, 192))
WINDOW = 64
CELL = 8  # pixels of a latent in height and width


class ClipPool:
    """A ring of recent clips from which crops are taken. Several crops per clip save the time of
    drawing clips."""

    def __init__(self, rng, fresh_per_batch=1):
        self.rng, self.fresh, self.clips = rng, fresh_per_batch, []

    def _make(self):
        size = SIZES[self.rng.integers(len(SIZES))]
        clip = data.random_clip(self.rng, *size)
        return ((clip.video + 1) * 127.5).round().astype(np.uint8), (clip.mask * 255).astype(np.uint8)

    def batch(self, count, frames, size):
        """Crops near the object: video (count, 3, frames, size, size) and mask (count, 1, ...)."""
        for _ in range(self.fresh if self.clips else 32):
            self.clips.append(self._make())
        del self.clips[:-POOL]
        videos, masks = zip(*(self._crop(frames, size) for _ in range(count)))
        video = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return video.contiguous(memory_format=torch.channels_last_3d), torch.from_numpy(np.stack(masks))[:, None] / 255

    def _crop(self, frames, size):
        """A window around a random place of the object. Its corner and its first frame lie on the
        latents' grid, so that objects keep their phase."""
        large_enough = [c for c in self.clips if min(c[1].shape[1:]) >= size]
        video, mask = large_enough[self.rng.integers(len(large_enough))]
        count, height, width = mask.shape
        t = 4 * self.rng.integers((count - frames) // 4 + 1)
        where = np.argwhere(mask[t + frames // 2] > 128)
        y, x = where[self.rng.integers(len(where))] if len(where) else (height // 2, width // 2)
        top, left = (CELL * int(np.clip((at - self.rng.integers(size)) / CELL, 0, (length - size) // CELL))
                     for at, length in ((y, height), (x, width)))
        window = np.s_[t:t + frames, top:top + size, left:left + size]
        return video[window], mask[window]


def add_latent_noise(z, most):
    """Adds noise in proportion to each channel's deviation, so that small errors of latents do
    little harm.

    The amount differs from clip to clip, from 0 to `most`, so that clean latents stay sharp."""
    spread = z.detach().std(dim=(0, 2, 3, 4), keepdim=True)
    amount = most * torch.rand(len(z), 1, 1, 1, 1)
    return z + amount * spread * torch.randn_like(z)


def edges(video, mask):
    """How much each pixel of the object and its rim differs from its neighbours, in [0, 1]."""
    dx = F.pad(video.diff(dim=-1).abs().amax(1, keepdim=True), (0, 1))
    dy = F.pad(video.diff(dim=-2).abs().amax(1, keepdim=True), (0, 0, 0, 1))
    rim = F.max_pool3d(mask, (1, 5, 5), 1, (0, 2, 2))
    return F.max_pool3d(torch.maximum(dx, dy), (1, 3, 3), 1, (0, 1, 1)).clamp(0, 1) * rim


def reconstruction_loss(output, video, mask, edge=0.0):
    """Charbonnier loss and squared error, with three times the weight on the object and `edge` more
    on its edges, and a loss on the change from frame to frame against flicker."""
    error = (output - video).square()
    weight = 1 + 2 * mask
    if edge:
        weight = weight + edge * edges(video, mask)
    change = (output - video).diff(dim=2).square()
    return ((error + 1e-4).sqrt() * weight).mean() + 2 * (error * weight).mean() + (change + 1e-5).sqrt().mean()


def shifted_latents(z, down, right):
    """Latents moved by less than a cell, between neighbours in proportion, as a still picture's
    pixels would be. The first row and column are not valid."""
    for axis, pixels in ((-2, down), (-1, right)):
        z = torch.lerp(z, z.roll(1, axis), pixels / CELL)
    return z


def shift_loss(model, z, video, mask, rng, edge):
    """The loss of the moved latents against the moved clip (an equivariance loss). Without the
    borders, which the move brings from outside."""
    down, right = (int(v) for v in rng.integers(0, CELL, 2))
    inside = np.s_[..., 2 * CELL:-CELL, 2 * CELL:-CELL]
    target, cover = (v.roll((down, right), (-2, -1))[inside] for v in (video, mask))
    return reconstruction_loss(model.decode(shifted_latents(z, down, right))[inside], target, cover, edge)


def psnr(output, video, mask=None):
    """PSNR of pixels in [0, 1], averaged over the clips; with a mask, of the pixels inside."""
    error = ((output.clamp(-1, 1) - video) / 2).square().mean(1)
    inside = torch.ones_like(error) if mask is None else (mask > 0.5).float()
    mse = (error * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3)).clamp(min=1)
    return (-10 * mse.log10()).mean().item()


@torch.no_grad()
def evaluate(model, count=12, size=(data.SIZE, data.SIZE)):
    """PSNR on whole clips of held-out triples and within their objects, and the clips before and
    after the autoencoder."""
    rng = np.random.default_rng(7)
    triples = sorted(data.held_out())
    clips = [data.make_clip(triples[rng.integers(len(triples))], rng, *size) for _ in range(count)]
    video = torch.from_numpy(np.stack([c.video for c in clips])).permute(0, 4, 1, 2, 3)
    mask = torch.from_numpy(np.stack([c.mask for c in clips]))
    output = torch.cat([model.decode(model.encode(v)) for v in video.split(4)])
    return (psnr(output, video), psnr(output, video, mask)), video, output


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
    add_threads_argument(parser)
    parser.add_argument("--name", default="vae")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=2, help="windows a step")
    parser.add_argument("--noise", type=float, default=0.15, help="most noise on the latents, in their spreads")
    parser.add_argument("--edge", type=float, default=0.0, help="additional weight of the object's edges")
    parser.add_argument("--shift", type=float, default=0.0, help="share of steps with the equivariance loss")
    parser.add_argument("--report-minutes", type=float, default=5, help="processor time between evaluations")
    parser.add_argument("--start", type=Path, help="weights that a new run starts from: a frozen.pt or vae.pt")
    parser.add_argument("--decoder-only", action="store_true", help="keep the encoder, and start from frozen.pt")
    parser.add_argument("--dims", type=int, nargs=5, help="base_dim and dim_mult, for experiments")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
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
    elif args.start or args.decoder_only:
        start = args.start or args.state / "frozen.pt"
        model.load_state_dict(torch.load(start, weights_only=False)["ema"])
    ema = Ema(model, 0.99)
    if step:
        ema.weights, ema.steps = saved["ema"], step
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, from step {step}", flush=True)
    rng = np.random.default_rng(1000 + step)
    pool = ClipPool(rng)
    progress = Progress(args.minutes * 60, spent)
    last_save, last_report, quality = time.time(), progress.spent(), (0.0, 0.0)
    while not progress.finished():
        if step % 6:
            video, mask = pool.batch(args.batch, 17, WINDOW)
        else:
            # The attention in the middle must learn larger pictures too. Two clips, because a
            # single clip is ten times slower in PyTorch.
            video, mask = pool.batch(2, 9, data.SIZE)
        z = add_latent_noise(model.encode(video), args.noise)
        if rng.random() < args.shift:
            loss = shift_loss(model, z, video, mask, rng, args.edge)
        else:
            output = model.decode(z)
            loss = reconstruction_loss(output, video, mask, args.edge)
            quality = psnr(output.detach(), video), psnr(output.detach(), video, mask[:, 0])
        loss.backward()
        optimizer.step(learning_rate(progress.fraction()))
        ema.update(model)
        step += 1
        progress.log(step, loss=loss.item(), psnr=quality[0], object=quality[1])
        if time.time() - last_save > 120 or progress.finished():
            last_save = time.time()
            save_atomically(path, {"model": model.state_dict(), "ema": ema.weights, "optimizer": optimizer.state_dict(),
                                   "step": step, "spent": progress.spent(), "decoder_only": args.decoder_only,
                                   "config": dict(vae_module.VAE_CONFIG)})
        if progress.spent() - last_report > 60 * args.report_minutes or progress.finished():
            report(model, ema, path.with_suffix(".png"))
            last_report = progress.spent()


def report(model, ema, sheet):
    """Prints the quality of the averaged weights on held-out clips and writes a sheet: a clip, then
    the same through the autoencoder."""
    current = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(ema.weights)
    quality, truth, output = evaluate(model)
    model.load_state_dict(current)
    print(f"held-out clips: {quality[0]:.2f} dB, objects {quality[1]:.2f} dB", flush=True)
    pairs = torch.stack([truth, output], 1).flatten(0, 1).permute(0, 2, 3, 4, 1).numpy()
    data.contact_sheet(pairs).save(sheet)


if __name__ == "__main__":
    main()
