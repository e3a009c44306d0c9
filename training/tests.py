"""Checks that the training networks equal the networks of diffusers and transformers, that the data
are as described, and that the measures measure.

    python training/tests.py            # all
    python training/tests.py data       # those with "data" in their name
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import data
import encode
import evaluate
import sample
import sharpness
import sprites
import tokenizer
import train_dit
import train_vae
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
    torch.testing.assert_close(ours(x, t, text[:, :12], counts)[0], expected, atol=1e-4, rtol=1e-4)


def test_tokenizer():
    tok = tokenizer.build()
    rng = np.random.default_rng(0)
    texts = [data.random_clip(rng, 16, 16).caption for _ in range(500)]
    assert all(3 not in tok.encode(t).ids for t in texts), "a caption has unknown pieces"
    assert max(len(tok.encode(t).ids) for t in texts) < 24
    assert tok.encode("").ids == [1]
    assert tok.encode("a  cat").tokens == ["▁a", "▁cat", "</s>"]


def test_data_vocabulary():
    held, seen = data.held_out(), set(data.training_triples())
    assert len(held) == 76 and len(seen) == 480 - 76 and not held & seen
    assert not any(t[:2] == ("cat", "grass") for t in held)
    for pair in ((0, 1), (0, 2), (1, 2)):  # each pair of words occurs in training
        assert {tuple(t[i] for i in pair) for t in held} <= {tuple(t[i] for i in pair) for t in seen}
    for triple in held | seen:
        assert data.triple_from_number(data.triple_number(triple)) == triple


def test_data_grid():
    """Every latent frame shows the object in the middle of the grid, wholly inside of the frame."""
    rng = np.random.default_rng(0)
    for size in ((128, 128), (64, 64), (128, 192)):
        unit = min(size)
        for triple in data.training_triples()[::5]:
            poses = data._path(triple[0], triple[2], *size, rng)
            for middle, length in ((poses.x, size[1]), (poses.y, size[0])):
                assert np.all(middle[::4] % (unit / 8) == 0), (triple, middle)
                assert middle.min() >= unit / 4 and middle.max() <= length - unit / 4
            assert poses.size.max() <= unit / 2 + 1e-9
            middle_sizes = data.sizes_of(triple[2], unit)
            assert np.isclose(poses.size[sharpness.MIDDLE], middle_sizes).any(), (triple, poses.size)


def test_data_clip():
    a, b = (data.make_clip(("cat", "grass", "left"), np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(a.video, b.video) and a.caption == b.caption
    assert a.video.shape == (17, 128, 128, 3) and np.abs(a.video).max() <= 1
    other = data.make_clip(("car", "grass", "left"), np.random.default_rng(5))
    still = (a.mask == 0).all(0) & (other.mask == 0).all(0)
    assert np.abs(a.video - other.video)[:, still].max() == 0  # the object is all that differs


def test_sprites():
    for name in data.OBJECTS:
        for size, angle in ((64, 0.0), (40.5, np.pi / 2)):
            alpha = sprites.draw(name, False, size, angle, 64, 64, 128, 128)[..., 3]
            rows, columns = np.flatnonzero((alpha > 0.5).any(1)), np.flatnonzero((alpha > 0.5).any(0))
            longer = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
            assert abs(longer - size) <= 1.5, (name, longer, size)
            assert 0 <= alpha.min() and alpha.max() <= 1
        drawn = sprites.draw(name, True, 64, 0.3, 20, 100.5, 128, 96)
        np.testing.assert_allclose(sprites.place(name, True, 64, 0.3, 20, 100.5, 128, 96), drawn, atol=1e-3)
        assert (drawn[..., :3] <= drawn[..., 3:] + 1e-6).all(), "colours are premultiplied"


def test_sharpness():
    """A drawn clip fits, a blurred one less, another object not at all."""
    rng = np.random.default_rng(1)
    for triple in (("cat", "snow", "right"), ("rocket", "sea", "down"), ("fish", "night", "grow")):
        clip = data.make_clip(triple, rng)
        frames = torch.from_numpy(clip.video).permute(0, 3, 1, 2)
        blurred = torch.nn.functional.avg_pool2d(frames, 5, 1, 2).permute(0, 2, 3, 1).numpy()
        sharp, soft = sharpness.sharpness(clip.video, triple), sharpness.sharpness(blurred, triple)
        other = sharpness.sharpness(clip.video, ("balloon", *triple[1:]))
        assert sharp > 21 and soft < sharp - 6 and other < 12, (triple, sharp, soft, other)


def test_vae_pool_and_losses():
    pool = train_vae.ClipPool(np.random.default_rng(0))
    pool.fresh = 0
    pool.clips = [pool._make() for _ in range(3)]
    video, mask = pool.batch(2, 17, 64)
    assert video.shape == (2, 3, 17, 64, 64) and mask.shape == (2, 1, 17, 64, 64)
    assert train_vae.reconstruction_loss(video, video, mask, 4.0) < 0.1
    assert train_vae.psnr(video + 0.2, video + 0.0, mask[:, 0]) > 19.9
    edge = train_vae.edges(video, mask)
    assert edge.shape == mask.shape and edge.max() <= 1 and edge.max() > 0.5
    ramp = torch.arange(10.0).view(1, 1, 1, 1, 10).expand(1, 1, 1, 3, 10)
    moved = train_vae.shifted_latents(ramp, 0, 2)  # two of eight pixels: a quarter of a cell
    torch.testing.assert_close(moved[..., 1:], ramp[..., 1:] - 0.25)


def test_coarse_mask_and_labels():
    mask = np.zeros((17, 64, 64), np.float32)
    mask[:, 16:32, 32:48] = 1  # one token
    mask[1:3, :8, :8] = 1  # one latent, half of the frames of latent frame 1
    small = encode.coarse_mask(mask)
    assert small.shape == (5, 32, 32) and small[1, 0, 0] == 128 and small[2, 0, 0] == 0
    masks = torch.from_numpy(small)[None].float() / 255
    target = train_dit.label_targets(masks, [("cat", "snow", "left")])
    assert target.shape == (1, 5 * 16, train_dit.TOKEN_MASK + len(data.OBJECTS))
    target = target.view(5, 4, 4, -1)
    assert target[3, 1, 2].mean(-1) * target.shape[-1] == train_dit.TOKEN_MASK + 1
    assert target[3].sum() == train_dit.TOKEN_MASK + 1
    cells = target[1, 0, 0, :train_dit.TOKEN_MASK].view(8, 8)
    assert (cells[:4, :4] > 0.5).all() and cells[4:].sum() == 0


def test_noise_levels():
    sigma = train_dit.random_sigmas(4096)
    assert 0 < sigma.min() and sigma.max() < 1 and abs(sigma.median() - 0.75) < 0.01


def test_latent_set():
    with tempfile.TemporaryDirectory() as folder:
        for size, count in (("128x128", 4), ("64x64", 16)):
            side = int(size.split("x")[0]) // 8
            arrays = {"latents": np.zeros((4, 16, 5, side, side), np.float16), "triples": np.arange(4),
                      "masks": np.zeros((4, 5, 4 * side, 4 * side), np.uint8)}
            (Path(folder) / size).mkdir()
            encode.save_set(Path(folder) / size / "0000.npz", arrays)
            latents = train_dit.LatentSet(Path(folder), np.random.default_rng(0), other_sizes=1.0)
            latents.rescan()
            x, masks, triples = latents.batch(4)
            assert x.shape == (count, 16, 5, side, side) and len(triples) == len(masks) == count


@torch.no_grad()
def test_evaluation():
    triples = evaluate.held_out_triples(128)
    assert len(set(triples)) == data.HELD_OUT
    assert all(len(sample._tokenizer.encode(data.plain_caption(t)).ids) < sample.ROWS for t in triples)
    classifier = evaluate.Classifier().eval()
    videos = np.stack([data.make_clip(t, np.random.default_rng(0), 64, 64).video for t in triples[:2]])
    accuracy, confusion = evaluate.score(classifier, videos, triples[:2])
    assert accuracy.keys() == confusion.keys() == evaluate.HEADS.keys()


if __name__ == "__main__":
    torch.set_num_threads(2)
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, test in list(globals().items()):
        if name.startswith("test_") and wanted in name:
            test()
            print(name, "ok", flush=True)
