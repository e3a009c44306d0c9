"""Scores generated clips and the autoencoder, with a classifier that is trained on drawn clips.

    # Clips made by the training networks:
    python training/evaluate.py --count 128
    # Clips made by the program:
    python training/evaluate.py --clips out/ --prompts assets/prompts/eval.txt
    # Only the autoencoder:
    python training/evaluate.py --count 48 --autoencoder

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
import sharpness
from common import Progress, add_state_argument, add_threads_argument, save_atomically
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
        self.object, self.background = (nn.Linear(256, len(HEADS[head])) for head in ("object", "background"))
        self.motion = nn.Sequential(nn.Linear(24 * 16 * len(KEY_FRAMES), 128), nn.ReLU(), nn.Linear(128, len(data.MOTIONS)))

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
        clips = [data.make_clip(everything[rng.integers(len(everything))], rng, 64, 64) for _ in range(batch)]
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
    """Temporal standard deviation of the quieter half of the pixels, in 8-bit levels. The object is
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
    median, _, worst = sharpness.summary(videos, triples)
    changes = f"{flicker(videos):.2f} | {area_change(videos, triples):.2f}"
    return f"| {name} | {shares} | {median:.1f} dB | {worst:.1f} dB | {changes} |\n"


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
    nets = sample.load_trained(state / "dit.pt")
    vae, stats = trained_vae(state)
    videos = []
    for i in range(0, len(triples), 16):
        prompts = [data.plain_caption(t) for t in triples[i:i + 16]]
        latents = sample.generate(nets, prompts, height=size // 8, width=size // 8, steps=steps,
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
    add_threads_argument(parser)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--size", type=int, default=data.SIZE)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--clips", type=Path, help="folder of clips to score in place of generating")
    parser.add_argument("--prompts", type=Path, help="their prompts, one a line, in the training captions' plain form")
    parser.add_argument("--autoencoder", action="store_true", help="generate nothing, score the autoencoder")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.enable_grad():
        classifier = load_classifier(args.state)
    vae, _ = trained_vae(args.state)
    videos, triples = clips_to_score(args)
    size = videos.shape[2:4] if videos is not None else (args.size, args.size)
    truth = [data.make_clip(t, np.random.default_rng((12, i)), *size) for i, t in enumerate(triples)]
    decoded = np.concatenate([vae.decode(encode_clips(vae, truth[i:i + 8])).clamp(-1, 1).permute(0, 2, 3, 4, 1).numpy()
                              for i in range(0, len(truth), 8)])
    rows = {"drawn": np.stack([c.video for c in truth]), "drawn, through the autoencoder": decoded}
    if videos is not None:
        rows["generated"] = videos
    figures = write_figures(rows, triples, classifier, vae_quality(vae, 32)[0])
    print(figures)
    kind = "autoencoder" if videos is None else "figures"
    (args.state / f"{kind}-{size[0]}.md").write_text(figures)
    if videos is not None:
        data.contact_sheet(videos[:24], 2).save(args.state / f"generated-{size[0]}.png")


def clips_to_score(args):
    """The clips that were asked for (None for the autoencoder alone) and their triples."""
    if args.clips:
        known = {data.plain_caption((o, b, m)): (o, b, m)
                 for o in data.OBJECTS for b in data.BACKGROUNDS for m in data.MOTIONS}
        triples = [known[line.strip()] for line in args.prompts.read_text().splitlines() if line.strip()]
        return read_clips(args.clips), triples
    triples = held_out_triples(args.count)
    if args.autoencoder:
        return None, triples
    return generated_clips(args.state, triples, args.size, args.steps, args.guidance), triples


def write_figures(rows, triples, classifier, quality):
    """The figures in Markdown. `rows` are clips by the names of the table's rows; the last row's
    confusions are shown."""
    table = ("| clips | object | background | motion | object's sharpness | its worst tenth | flicker | area change |\n"
             "|---|---|---|---|---|---|---|---|\n")
    for name, clips in rows.items():
        accuracy, confusion = score(classifier, clips, triples)
        table += report(name, accuracy, clips, triples)
    height, width = next(iter(rows.values())).shape[2:4]
    return (
        f"Autoencoder: {quality[0]:.1f} dB PSNR on {data.SIZE}x{data.SIZE} clips of held-out triples, "
        f"{quality[1]:.1f} dB within the objects.\n\n"
        f"At {width}x{height}, {len(triples)} prompts of the {data.HELD_OUT} held-out triples, recognised by a "
        f"classifier trained on drawn clips (chance: 10 %, 12 %, 17 %):\n\n{table}\n"
        "Sharpness: PSNR inside the drawing that fits the middle frame best, median and worst tenth of the clips. "
        "Flicker: temporal standard deviation of the background in 8-bit levels. Area change: relative variation of "
        "the object's area over a clip of a walk.\n\n"
        f"Confusion matrices of the last row:\n\n```\n{confusion_tables(confusion)}\n```\n"
    )


if __name__ == "__main__":
    main()
