"""Writes the goldens of the room `weights` and of the configurations, which the Rust tests read.

    python tests/golden/weights.py

Made with torch 2.15.0, diffusers 0.42.1, transformers 5.23.0. Files in tests/golden/weights/:

state_dict.pth      a state dict by torch.save: every dtype, a view with an offset (under 20 kB)
transformer.txt     original name, diffusers name and shape of every tensor
text_encoder.txt    the same
vae.txt             the same
vae_other.txt       a second configuration; both names are those of diffusers

diffusers' own converters give the diffusers names. The script checks that they are exactly the
names of the real classes.
"""

import collections
import pathlib

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
from transformers import UMT5Config, UMT5EncoderModel

OUT = pathlib.Path(__file__).parent / "weights"


def state_dict():
    base = torch.arange(6.0)
    tensors = collections.OrderedDict(
        f32=base.reshape(2, 3),
        view=base[3:],
        f16=torch.arange(4.0).half(),
        bf16=torch.arange(4.0).bfloat16().reshape(2, 1, 2),
        f64=torch.tensor(7.0, dtype=torch.float64),
        empty=torch.zeros(0, 3),
        column=torch.arange(3.0).reshape(1, 3).T,
        bytes=torch.tensor([1, 2], dtype=torch.uint8),
    )
    tensors._metadata = {"": {"version": 1}}  # what Module.state_dict() adds
    torch.save(tensors, OUT / "state_dict.pth")


def write(name, originals, convert, model):
    """Converts each original name separately and compares the results with the model's own
    names."""
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    pairs = [(original, convert(original)) for original in originals]
    assert sorted(new for _, new in pairs) == sorted(shapes), set(shapes) ^ {new for _, new in pairs}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = [f"{old} {new} {'x'.join(map(str, shapes[new]))}" for old, new in pairs]
    (OUT / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print(name, len(lines), "tensors", parameters, "parameters")


def with_converter(converter):
    return lambda name: next(iter(converter({name: torch.zeros(2)})))


def linear(*names):
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def transformer():
    names = linear("patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2")
    names += linear("time_projection.1", "head.head") + ["head.modulation"]
    for block in range(2):
        at = f"blocks.{block}."
        names += [at + "modulation"] + linear(at + "norm3", at + "ffn.0", at + "ffn.2")
        for attention in ("self_attn.", "cross_attn."):
            names += linear(*(at + attention + x for x in "qkvo"))
            names += [at + attention + "norm_q.weight", at + attention + "norm_k.weight"]
    with torch.device("meta"):
        model = WanTransformer3DModel(
            patch_size=(1, 2, 3), num_attention_heads=3, attention_head_dim=10, in_channels=5, out_channels=7, text_dim=11,
            freq_dim=12, ffn_dim=13, num_layers=2,
        )
    write("transformer", names, with_converter(convert_wan_transformer_to_diffusers), model)


def text_encoder():
    # diffusers has no converter for the text encoder. The pairs are names of Wan2.1's t5.py and of
    # transformers.
    pairs = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
    inner = {"norm1": "0.layer_norm", "norm2": "1.layer_norm", "ffn.gate.0": "1.DenseReluDense.wi_0"}
    inner |= {"ffn.fc1": "1.DenseReluDense.wi_1", "ffn.fc2": "1.DenseReluDense.wo"}
    inner |= {f"attn.{x}": f"0.SelfAttention.{x}" for x in "qkvo"}
    inner["pos_embedding.embedding"] = "0.SelfAttention.relative_attention_bias"
    for block in range(2):
        for old, new in inner.items():
            pairs[f"blocks.{block}.{old}.weight"] = f"encoder.block.{block}.layer.{new}.weight"
    config = UMT5Config(
        vocab_size=17, d_model=10, d_kv=4, num_heads=3, d_ff=14, num_layers=2, relative_attention_num_buckets=8
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    model.encoder.embed_tokens = torch.nn.Module()  # tied to `shared`: one tensor in a file
    write("text_encoder", pairs, pairs.__getitem__, model)


def vae():
    resnet = ["residual.0.gamma"] + linear("residual.2") + ["residual.3.gamma"] + linear("residual.6")
    names = linear("conv1", "conv2")
    for side in ("encoder.", "decoder."):
        names += linear(side + "conv1", side + "head.2") + [side + "head.0.gamma", side + "middle.1.norm.gamma"]
        names += linear(side + "middle.1.to_qkv", side + "middle.1.proj")
        names += [f"{side}middle.{layer}.{name}" for layer in (0, 2) for name in resnet]
    for layer in (0, 1, 3, 4, 6, 7, 9, 10):
        names += [f"encoder.downsamples.{layer}.{name}" for name in resnet]
    for layer in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14):
        names += [f"decoder.upsamples.{layer}.{name}" for name in resnet]
    names += linear("encoder.downsamples.3.shortcut", "encoder.downsamples.6.shortcut", "decoder.upsamples.4.shortcut")
    names += linear(*(f"encoder.downsamples.{layer}.resample.1" for layer in (2, 5, 8)))
    names += linear(*(f"decoder.upsamples.{layer}.resample.1" for layer in (3, 7, 11)))
    names += linear("encoder.downsamples.5.time_conv", "encoder.downsamples.8.time_conv")
    names += linear("decoder.upsamples.3.time_conv", "decoder.upsamples.7.time_conv")
    with torch.device("meta"):
        model = AutoencoderKLWan()
    write("vae", names, with_converter(convert_wan_vae_to_diffusers), model)
    # This configuration tests shapes only, because no original checkpoints of it exist.
    with torch.device("meta"):
        other = AutoencoderKLWan(
            base_dim=6, decoder_base_dim=10, z_dim=2, dim_mult=[1, 3, 2], num_res_blocks=1, temperal_downsample=[True, False],
            latents_mean=[0.0, 1.0], latents_std=[1.0, 2.0], in_channels=4, out_channels=5,
        )
    write("vae_other", other.state_dict(), lambda name: name, other)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    state_dict()
    transformer()
    text_encoder()
    vae()
