"""Checks that the training networks equal the networks of diffusers and transformers."""

import numpy as np
import torch

import data
import tokenizer
from dit import DIT_CONFIG, TEXT_CONFIG, TEXT_ROWS, DiT, TextEncoder
from vae import VAE_CONFIG, VideoVAE


def randomise(model):
    """Random weights with which every path has an effect. The training initialisation has zero
    branches."""
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5 if p.dim() < 2 or p[0].numel() < 2 else p[0].numel() ** -0.5)


@torch.no_grad()
def test_vae():
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    ours, theirs = VideoVAE(), AutoencoderKLWan(**VAE_CONFIG)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    video = torch.rand(1, 3, 17, 32, 48) * 2 - 1
    z = ours.encode(video)
    torch.testing.assert_close(z, theirs.encode(video).latent_dist.mode(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.decode(z).clamp(-1, 1), theirs.decode(z).sample, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_text_encoder():
    from transformers import UMT5Config, UMT5EncoderModel

    vocab = tokenizer.build().get_vocab_size()
    ours, theirs = TextEncoder(vocab), UMT5EncoderModel(UMT5Config(vocab_size=vocab, **TEXT_CONFIG)).eval()
    randomise(ours)
    theirs.load_state_dict(ours.state_dict() | {"encoder.embed_tokens.weight": ours.shared.weight})
    ids, counts = torch.randint(3, vocab, (2, 30)), torch.tensor([30, 11])
    expected = theirs(ids[1:, :11]).last_hidden_state
    torch.testing.assert_close(ours(ids, counts)[1:, :11], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours(ids, counts)[:1], theirs(ids[:1]).last_hidden_state, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_transformer():
    from diffusers import WanTransformer3DModel

    ours, theirs = DiT(), WanTransformer3DModel(**DIT_CONFIG).eval()
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    x, t, counts = torch.randn(2, 16, 3, 4, 6), torch.tensor([999.0, 123.0]), torch.tensor([5, 9])
    text = torch.randn(2, TEXT_ROWS, DIT_CONFIG["text_dim"])
    text[0, 5:], text[1, 9:] = 0, 0
    expected = theirs(x, t, text).sample
    torch.testing.assert_close(ours(x, t, text[:, :12], counts), expected, atol=1e-4, rtol=1e-4)


def test_tokenizer():
    tok = tokenizer.build()
    rng = np.random.default_rng(0)
    texts = [data.random_clip(rng, 16, 16).caption for _ in range(500)]
    assert all(3 not in tok.encode(t).ids for t in texts), "a caption has unknown pieces"
    assert max(len(tok.encode(t).ids) for t in texts) < 24
    assert tok.encode("").ids == [1]
    assert tok.encode("a  cat").tokens == ["▁a", "▁cat", "</s>"]


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name, "ok")
