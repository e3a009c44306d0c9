"""Checks that the training networks are the diffusers / transformers networks."""

import torch

from vae import VAE_CONFIG, VideoVAE


def randomise(model):
    """Weights that let every path show (the training initialisation has zero branches)."""
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


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name, "ok")
