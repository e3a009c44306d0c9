"""Generates latents and clips with the training networks by Euler steps and classifier-free
guidance."""

import torch

import tokenizer
from dit import DIT_CONFIG, DiT, TextEncoder

ROWS = 24  # context rows in training: the longest caption and one padding row
SHIFT = 3.0

_tokenizer = tokenizer.build()
_ids = {}


def tokenise(texts):
    """Ids (batch, ROWS) and their counts. Texts are cut to ROWS - 1 tokens."""
    for text in texts:
        if text not in _ids:
            _ids[text] = _tokenizer.encode(text).ids[: ROWS - 1]
    rows = [_ids[text] for text in texts]
    return torch.tensor([r + [0] * (ROWS - len(r)) for r in rows]), torch.tensor([len(r) for r in rows])


def make_networks():
    return torch.nn.ModuleDict({"text": TextEncoder(_tokenizer.get_vocab_size()), "dit": DiT(DIT_CONFIG)})


def velocity(nets, latents, sigma, texts, tap=None):
    """The velocity, and the hidden states (batch, tokens, dim) after the block numbered `tap`."""
    ids, counts = tokenise(texts)
    return nets["dit"](latents, 1000 * sigma, nets["text"](ids, counts), counts, tap)


def load_trained(path):
    """The networks with the averaged weights of a checkpoint of train_dit.py."""
    nets = make_networks()
    nets.load_state_dict(torch.load(path, weights_only=False)["ema"])
    return nets.eval()


def shifted(sigma, shift=SHIFT):
    return shift * sigma / (1 + (shift - 1) * sigma)


@torch.no_grad()
def generate(nets, prompts, frames=5, height=16, width=16, steps=20, guidance=4.0, seed=0):
    """Normalised latents (prompts, 16, frames, height, width). Sizes are those of the latents."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(prompts), 16, frames, height, width, generator=generator)
    sigmas = shifted(torch.linspace(1, 0, steps + 1))
    texts = [*prompts, *[""] * len(prompts)]
    for sigma, following in zip(sigmas, sigmas[1:]):
        v = velocity(nets, torch.cat([x, x]), sigma.expand(len(texts)), texts)[0]
        cond, uncond = v.chunk(2)
        x = x + (following - sigma) * (uncond + guidance * (cond - uncond))
    return x


@torch.no_grad()
def decode(vae, saved, latents):
    """Clips (batch, frames, height, width, 3) in [-1, 1] from normalised latents."""
    shape = (1, 16, 1, 1, 1)
    z = latents * saved["std"].view(shape) + saved["mean"].view(shape)
    video = torch.cat([vae.decode(part) for part in z.split(4)])
    return video.clamp(-1, 1).permute(0, 2, 3, 4, 1).numpy()
