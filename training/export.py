"""Writes the trained model in diffusers' folder layout, in half precision.

    python training/export.py --out assets/demo-model

Then the script checks the model with diffusers' own pipeline. It works at any stage of the
training; missing parts are written untrained.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

import data
import sample
import tokenizer
from common import add_state_argument
from dit import DIT_CONFIG, TEXT_CONFIG
from encode import encode_clips
from vae import VAE_CONFIG, VideoVAE

CARD = Path(__file__).with_name("model_card.md")
# The program's settings if the user gives none.
DEFAULTS = {"width": data.SIZE, "height": data.SIZE, "num_frames": 17, "num_inference_steps": 30, "guidance_scale": 4.0, "fps": 8}
MODEL_INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.35.0",
    "boundary_ratio": None,
    "expand_timesteps": False,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def load(state, name):
    path = state / name
    return torch.load(path, weights_only=False) if path.exists() else None


def trained_vae(state):
    """The autoencoder, with the latest decoder that fits the frozen encoder, and the statistics of
    its latents."""
    latest, frozen = load(state, "vae.pt"), load(state, "frozen.pt")
    saved = latest or {"config": VAE_CONFIG, "ema": VideoVAE().state_dict()}
    if frozen and not torch.equal(frozen["ema"]["encoder.conv_in.weight"], saved["ema"]["encoder.conv_in.weight"]):
        saved = frozen
    vae = VideoVAE(saved["config"])
    vae.load_state_dict(saved["ema"])
    mean, std = (frozen["mean"], frozen["std"]) if frozen else measure_latents(vae)
    return vae.eval(), {"config": saved["config"], "mean": mean, "std": std}


@torch.no_grad()
def measure_latents(vae):
    rng = np.random.default_rng(99)
    z = torch.cat([encode_clips(vae, [data.random_clip(rng) for _ in range(8)]) for _ in range(4)])
    return z.mean((0, 2, 3, 4)), z.std((0, 2, 3, 4))


def fit_preview(vae, stats, clips=48):
    """A linear map from normalised latents to the colours of their cells, fitted by least
    squares."""
    rng = np.random.default_rng(3)
    rows, colours = [], []
    for _ in range(clips // 8):
        batch = [data.random_clip(rng) for _ in range(8)]
        z = (encode_clips(vae, batch) - stats["mean"].view(1, -1, 1, 1, 1)) / stats["std"].view(1, -1, 1, 1, 1)
        frames = np.stack([c.video[::4] for c in batch])  # frames 0, 4, 8, ...: one for each latent frame
        b, t, h, w, _ = frames.shape
        colours.append(frames.reshape(b, t, h // 8, 8, w // 8, 8, 3).mean((3, 5)).reshape(-1, 3))
        rows.append(z.permute(0, 2, 3, 4, 1).reshape(-1, z.shape[1]).numpy())
    x = np.concatenate(rows)
    solution = np.linalg.lstsq(np.c_[x, np.ones(len(x))], np.concatenate(colours), rcond=None)[0]
    return {"factors": solution[:-1].round(5).tolist(), "bias": solution[-1].round(5).tolist()}


def build_components(state):
    """The trained weights in the classes of diffusers and transformers."""
    vae, stats = trained_vae(state)
    config = stats["config"] | {"latents_mean": stats["mean"].tolist(), "latents_std": stats["std"].tolist()}
    their_vae = AutoencoderKLWan(**config)
    their_vae.load_state_dict(vae.state_dict())
    trained = state / "dit.pt"
    nets = sample.load_trained(trained) if trained.exists() else sample.make_networks()
    transformer = WanTransformer3DModel(**DIT_CONFIG)
    transformer.load_state_dict(nets["dit"].state_dict())
    vocab = nets["text"].shared.num_embeddings
    text_config = UMT5Config(vocab_size=vocab, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, **TEXT_CONFIG)
    text_encoder = UMT5EncoderModel(text_config)
    text_encoder.load_state_dict(nets["text"].state_dict() | {"encoder.embed_tokens.weight": nets["text"].shared.weight})
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=sample.SHIFT,
                                        num_train_timesteps=1000, solver_order=2, solver_type="bh2")
    parts = {"vae": their_vae, "transformer": transformer, "text_encoder": text_encoder, "scheduler": scheduler}
    return parts, fit_preview(vae, stats)


def write_card(folder, state):
    """Writes the model card with the figures that evaluate.py left in the state folder."""
    figures = sorted(state.glob("figures-*.md"), key=lambda path: int(path.stem.split("-")[1]))
    measured = "\n".join(path.read_text() for path in figures) or "Not measured yet: an early version.\n"
    fields = {
        "{objects}": ", ".join(data.OBJECTS),
        "{backgrounds}": ", ".join(data.BACKGROUNDS),
        "{motions}": ", ".join(data.MOTIONS),
        "{held_out}": str(data.HELD_OUT),
        "{triples}": str(len(data.OBJECTS) * len(data.BACKGROUNDS) * len(data.MOTIONS)),
        "{figures}": measured,
    }
    text = CARD.read_text()
    for field, value in fields.items():
        text = text.replace(field, value)
    folder.joinpath("README.md").write_text(text)


def export(state, out):
    """Writes a new folder and then renames it to `out`, so that a reader never sees a partial
    model."""
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    parts, preview = build_components(state)
    for name, part in parts.items():
        (part if name == "scheduler" else part.half()).save_pretrained(fresh / name)
    tokenizer.save(fresh / "tokenizer")
    fresh.joinpath("model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    fresh.joinpath("preview.json").write_text(json.dumps(preview, indent=1) + "\n")
    fresh.joinpath("ditscope.json").write_text(json.dumps(DEFAULTS) + "\n")
    write_card(fresh, state)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def check(out, sheet):
    """Loads the folder with diffusers' own pipeline on the CPU and generates clips with it."""
    pipe = WanPipeline.from_pretrained(out, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a cat walking on grass", "a rocket flying up at night"]
    expected = [sample.tokenise([p])[0][0, : sample.tokenise([p])[1]].tolist() for p in prompts]
    assert [pipe.tokenizer(p).input_ids for p in prompts] == expected, "the tokenizer gives other ids in transformers"
    start = time.time()
    clips = pipe(prompts, height=data.SIZE, width=data.SIZE, num_frames=data.FRAMES, num_inference_steps=20, guidance_scale=4.0,
                 generator=torch.Generator().manual_seed(0), output_type="np").frames
    data.contact_sheet(list(np.asarray(clips) * 2 - 1), 2).save(sheet)
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
    print(f"{size / 1e6:.1f} MB; diffusers made {len(prompts)} clips in {time.time() - start:.0f} s: {sheet}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    parser.add_argument("--out", type=Path, default=Path("assets/demo-model"))
    parser.add_argument("--no-check", action="store_true", help="do not generate with diffusers afterwards")
    args = parser.parse_args()
    torch.set_num_threads(2)
    export(args.state, args.out)
    if not args.no_check:
        check(args.out, args.state / "check.png")


if __name__ == "__main__":
    main()
