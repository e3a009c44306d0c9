"""Scores generated clips and the autoencoder, with a classifier that is trained on drawn clips.

    # Clips made by the training networks:
    python training/evaluate.py --count 128
    # Clips made by the program:
    python training/evaluate.py --clips out/ --prompts assets/prompts/eval.txt

A folder of clips has one animated image (GIF, PNG or WebP) for each prompt. Sorted by name, the
images are in the order of the prompts. The script writes figures-SIZE.md (for the model card) and
generated-SIZE.png to the state folder.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image, ImageSequence

import data
import sample
from common import Progress, add_state_argument, save_atomically
from encode import encode_clips
from export import trained_vae
from train_vae import evaluate as vae_quality

KEY_FRAMES = (0, 4, 8, 12, 16)
HEADS = {"object": data.OBJECT_NAMES, "background": data.BACKGROUND_NAMES, "motion": data.MOTION_NAMES}


class Classifier(nn.Module):
    """Convolutions on five frames. Object and background come from pooled features, motion from
    their layout."""

    def __init__(self):
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers = []
        for cin, cout in zip(widths, widths[1:]):
            layers += [nn.Conv2d(cin, cout, 3, 2, 1), nn.BatchNorm2d(cout), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.squeeze = nn.Conv2d(128, 24, 1)
        self.object, self.background = nn.Linear(256, 16), nn.Linear(256, 8)
        self.motion = nn.Sequential(nn.Linear(24 * 16 * len(KEY_FRAMES), 128), nn.ReLU(), nn.Linear(128, 6))

    def forward(self, video):
        """Logits by head for frames (batch, 5, 3, 64, 64)."""
        b, n = video.shape[:2]
        f = self.features(video.flatten(0, 1))
        pooled = f.flatten(2).unflatten(0, (b, n))
        pooled = torch.cat([pooled.mean((1, 3)), pooled.amax((1, 3))], 1)
        layout = self.squeeze(f).reshape(b, -1)
        return {"object": self.object(pooled), "background": self.background(pooled), "motion": self.motion(layout)}


def key_frames(videos):
    """The classifier's input: five frames of 64x64 from clips (batch, frames, height, width, 3)."""
    x = torch.from_numpy(np.ascontiguousarray(videos[:, list(KEY_FRAMES)])).float()
    b, n = x.shape[:2]
    x = F.interpolate(x.flatten(0, 1).permute(0, 3, 1, 2), (64, 64), mode="area")
    return x.unflatten(0, (b, n))


def soften(x):
    """Blurs and adds noise of random strength, so that the classifier learns soft pictures."""
    b, n = x.shape[:2]
    flat = x.flatten(0, 1)
    blurred = F.interpolate(F.avg_pool2d(flat, 2), scale_factor=2.0, mode="bilinear")
    blurred = F.avg_pool2d(blurred, 3, 1, 1).unflatten(0, (b, n))
    amount = torch.rand(b, 1, 1, 1, 1)
    return x + amount * (blurred - x) + 0.1 * torch.rand(b, 1, 1, 1, 1) * torch.randn_like(x)


def labels(triples):
    columns = zip(*triples)
    return {head: torch.tensor([names.index(v) for v in column]) for (head, names), column in zip(HEADS.items(), columns)}


def train_classifier(path, steps=700, batch=32):
    torch.manual_seed(0)
    model, rng = Classifier(), np.random.default_rng(11)
    everything = [(o, b, m) for o in data.OBJECTS for b in data.BACKGROUNDS for m in data.MOTIONS]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    progress = Progress(0)
    for step in range(steps):
        clips = [data.make_clip(everything[rng.integers(len(everything))], rng) for _ in range(batch)]
        logits = model(soften(key_frames(np.stack([c.video for c in clips]))))
        truth = labels([c.triple for c in clips])
        loss = sum(F.cross_entropy(logits[h], truth[h]) for h in HEADS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.log(step, loss=loss.item())
    save_atomically(path, model.state_dict())
    return model.eval()


def load_classifier(state):
    path = state / "classifier.pt"
    if not path.exists():
        return train_classifier(path)
    model = Classifier()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.no_grad()
def score(classifier, videos, triples):
    """The recognised share of clips by head, and confusion matrices (rows: prompt, columns:
    recognised)."""
    logits = classifier(key_frames(videos))
    truth = labels(triples)
    accuracy, confusion = {}, {}
    for head, names in HEADS.items():
        seen = logits[head].argmax(1)
        accuracy[head] = (seen == truth[head]).float().mean().item()
        matrix = np.zeros((len(names), len(names)), int)
        np.add.at(matrix, (truth[head].numpy(), seen.numpy()), 1)
        confusion[head] = matrix
    return accuracy, confusion


def flicker(videos):
    """Temporal standard deviation of the quieter half of the pixels, in 8-bit levels. The sprite is
    in the other half."""
    spread = videos.std(1).mean(-1).reshape(len(videos), -1) * 127.5
    return float(np.sort(spread, 1)[:, : spread.shape[1] // 2].mean())


def area_change(videos, triples):
    """Variation (std / mean) over a clip of the area that differs from the background, for walks
    only."""
    walks = np.stack([v for v, t in zip(videos, triples) if t[2] in ("left", "right", "up", "down")])
    background = np.median(walks, 1, keepdims=True)
    area = (np.abs(walks - background).max(-1) > 0.3).mean((2, 3))
    return float((area.std(1) / (area.mean(1) + 1e-3)).mean())


def report(name, accuracy, videos, triples):
    shares = " | ".join(f"{accuracy[h]:.0%}" for h in HEADS)
    return f"| {name} | {shares} | {flicker(videos):.2f} | {area_change(videos, triples):.2f} |\n"


def held_out_triples(count):
    held = sorted(data.held_out())
    order = np.random.default_rng(8).permutation(len(held))
    return [held[order[i % len(held)]] for i in range(count)]


def read_clips(folder):
    """Reads animated images as (clips, frames, height, width, 3) in [-1, 1]."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".gif", ".png", ".webp"))
    read = lambda p: [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(Image.open(p))]  # noqa: E731
    return np.stack([np.stack(read(p)) for p in files]).astype(np.float32) / 127.5 - 1


def generated_clips(state, triples, size, steps, guidance):
    """Clips of the triples, made by the averaged training networks."""
    nets = sample.make_networks()
    nets.load_state_dict(torch.load(state / "dit.pt", weights_only=False)["ema"])
    vae, stats = trained_vae(state)
    videos = []
    for i in range(0, len(triples), 16):
        prompts = [data.plain_caption(t) for t in triples[i:i + 16]]
        latents = sample.generate(nets.eval(), prompts, height=size // 8, width=size // 8, steps=steps,
                                  guidance=guidance, seed=i)
        videos.append(sample.decode(vae, stats, latents))
        print(f"generated {min(i + 16, len(triples))} of {len(triples)}", flush=True)
    return np.concatenate(videos)


def confusion_tables(confusion):
    lines = []
    for head, matrix in confusion.items():
        names = HEADS[head]
        lines.append(f"{head}: rows asked for, columns seen\n" + " " * 12 + " ".join(f"{n[:6]:>6}" for n in names))
        lines += [f"{n:>12}" + " ".join(f"{v:6d}" for v in row) for n, row in zip(names, matrix)]
        lines.append("")
    return "\n".join(lines).rstrip()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--clips", type=Path, help="folder of clips to score in place of generating")
    parser.add_argument("--prompts", type=Path, help="their prompts, one a line, in the training captions' plain form")
    args = parser.parse_args()
    torch.set_num_threads(2)
    with torch.enable_grad():
        classifier = load_classifier(args.state)
    vae, stats = trained_vae(args.state)
    if args.clips:
        known = {data.plain_caption((o, b, m)): (o, b, m)
                 for o in data.OBJECTS for b in data.BACKGROUNDS for m in data.MOTIONS}
        triples = [known[line.strip()] for line in args.prompts.read_text().splitlines() if line.strip()]
        videos = read_clips(args.clips)
    else:
        triples = held_out_triples(args.count)
        videos = generated_clips(args.state, triples, args.size, args.steps, args.guidance)
    rng = np.random.default_rng(12)
    height, width = videos.shape[2:4]
    truth = [data.make_clip(t, rng, height, width) for t in triples]
    true_videos = np.stack([c.video for c in truth])
    decoded = np.concatenate([vae.decode(encode_clips(vae, truth[i:i + 8])).clamp(-1, 1).permute(0, 2, 3, 4, 1).numpy()
                              for i in range(0, len(truth), 8)])
    quality = vae_quality(vae, 32)[0]
    table = "| clips | object | background | motion | flicker | area change |\n|---|---|---|---|---|---|\n"
    for name, clips in (("drawn", true_videos), ("drawn, through the autoencoder", decoded)):
        table += report(name, score(classifier, clips, triples)[0], clips, triples)
    accuracy, confusion = score(classifier, videos, triples)
    table += report("generated", accuracy, videos, triples)
    figures = (
        f"Autoencoder: {quality:.1f} dB PSNR on 64x64 clips of held-out triples.\n\n"
        f"At {width}x{height}, {len(triples)} prompts of held-out triples, recognised by a classifier trained on drawn clips (chance: 6 %, "
        f"12 %, 17 %):\n\n{table}\nFlicker: temporal standard deviation of the background in 8-bit levels. Area change: "
        "relative variation of the sprite's area over a clip of a walk.\n\n"
        f"Confusion matrices of the generated clips:\n\n```\n{confusion_tables(confusion)}\n```\n"
    )
    print(figures)
    (args.state / f"figures-{height}.md").write_text(figures)
    data.contact_sheet(videos[:24]).save(args.state / f"generated-{height}.png")


if __name__ == "__main__":
    main()
