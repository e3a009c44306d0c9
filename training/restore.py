"""Makes a state folder from an exported model, so that training can continue without a checkpoint.

    python training/restore.py assets/demo-model     # writes frozen.pt and dit.pt

The export does not contain the optimizers' moments. They start from zero, which costs a few hundred
steps. Words that the exported model does not know start at random.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokenizers import Tokenizer
from transformers import UMT5EncoderModel

import sample
import tokenizer
from common import add_state_argument, save_atomically
from vae import VAE_CONFIG, VideoVAE


def restore_vae(folder):
    """Configuration, weights and latent statistics of the autoencoder, in the form of frozen.pt."""
    theirs = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    config = {key: theirs.config[key] for key in VAE_CONFIG}
    ours = VideoVAE(config)
    ours.load_state_dict(theirs.state_dict())
    mean, std = (torch.tensor(theirs.config[f"latents_{name}"]) for name in ("mean", "std"))
    return {"config": config, "ema": ours.state_dict(), "step": 0, "mean": mean, "std": std}


def restore_dit(folder):
    nets = sample.make_networks()
    nets["dit"].load_state_dict(
        WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).state_dict())
    text = UMT5EncoderModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32).state_dict()
    text = {k: v for k, v in text.items() if k != "encoder.embed_tokens.weight"}
    known = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json")).get_vocab()
    words = nets["text"].shared.weight.detach().clone()
    for word, number in tokenizer.build().get_vocab().items():
        if word in known:
            words[number] = text["shared.weight"][known[word]]
    nets["text"].load_state_dict(text | {"shared.weight": words})
    weights = {k: v.clone() for k, v in nets.state_dict().items()}
    return {"nets": nets.state_dict(), "ema": weights, "optimizer": None, "step": 0, "seen": 0, "spent": 0.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    add_state_argument(parser)
    parser.add_argument("model", type=Path)
    args = parser.parse_args()
    for name in ("vae.pt", "frozen.pt", "dit.pt"):
        if (args.state / name).exists():
            parser.error(f"{args.state / name} exists: this would overwrite a training run")
    vae = restore_vae(args.model)
    save_atomically(args.state / "frozen.pt", vae)
    save_atomically(args.state / "dit.pt", restore_dit(args.model))


if __name__ == "__main__":
    main()
