"""Shows how much plausible mistakes change the goldens. Run by hand.

Each mutation changes the reference model. The table has the relative error that the mutation causes
in every case. `!` marks an error within the limit of 2e-5, which the case does not catch."""

import functools
import re
import sys
from unittest import mock

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.autoencoders import autoencoder_kl_wan as vae_module
from safetensors.torch import load_file
from torch.nn import functional as F

import make_text_encoder
import make_transformer
import make_vae
import synth
from golden import DATA, LIMIT, Golden, rel_error


def hook(modules, change):
    """Replaces the output of each module by change(output, input)."""
    for module in modules:
        module.register_forward_hook(lambda _, args, out: change(out, *args))


def named(model, pattern):
    return [m for n, m in model.named_modules() if re.search(pattern, n)]


def swap_rows(tensor, order):
    tensor.data = tensor.data[:, order].clone()


# Mutations of the transformer. Each function changes a model whose weights are loaded.


def rope_from_one_table(model):
    """Cuts one frequency table of the whole head in three, instead of one table per axis."""
    dim, rope = model.config.attention_head_dim, model.rope
    angles = torch.outer(torch.arange(rope.max_seq_len).double(), 10000 ** (-torch.arange(0, dim, 2).double() / dim))
    angles = angles.repeat_interleave(2, 1)
    rope.freqs_cos, rope.freqs_sin = angles.cos().float(), angles.sin().float()


def rope_half_split(model):
    """Rotates pairs (i, i + half) instead of (2i, 2i + 1)."""
    dim = model.config.attention_head_dim
    order = torch.arange(dim).view(2, -1).T.flatten()
    hook(named(model, r"attn1\.norm_[qk]$"), lambda out, _: out.unflatten(-1, (-1, dim))[..., order].flatten(-2))


def rope_swaps_h_and_w(model):
    t, h = model.rope.t_dim, model.rope.h_dim
    original = model.rope.forward

    def forward(x):
        f, rows, columns = (n // p for n, p in zip(x.shape[2:], model.config.patch_size))
        transposed = original(x.transpose(3, 4))
        back = lambda v: v.view(f, columns, rows, -1).permute(0, 2, 1, 3).reshape(1, -1, 1, v.shape[-1])
        order = [*range(t), *range(t, t + 2 * h)]
        return tuple(back(v)[..., order] for v in transposed)

    model.rope.forward = forward


def norm_per_head(model):
    dim = model.config.attention_head_dim

    def change(module, x):
        return F.rms_norm(x.unflatten(-1, (-1, dim)), (dim,), eps=1e-6).flatten(-2) * module.weight

    for module in named(model, r"attn[12]\.norm_[qk]$"):
        module.forward = functools.partial(change, module)


def heads_interleaved(model):
    """Makes the head the fastest index of q, k and v."""
    heads = model.config.num_attention_heads
    hook(named(model, r"attn1\.(norm_[qk]|to_v)$"), lambda out, _: out.unflatten(-1, (-1, heads)).mT.flatten(-2))


def gelu_erf(model):
    for module in named(model, r"ffn\.net\.0$"):
        module.approximate = "none"


def cut_padding(model):
    """Keeps only the prompt's own rows as keys."""
    hook(named(model, r"condition_embedder$"), lambda out, _, text, *__: (*out[:2], out[2][:, : valid(text)], None))


def padding_is_zero(model):
    """Uses zero keys instead of the embedding of zero rows."""

    def change(out, _, text, *__):
        out[2][:, valid(text) :] = 0
        return out

    hook(named(model, r"condition_embedder$"), change)


def padding_counts_once(model):
    """Leaves out the ln(512 - n) of the collapsed key."""
    hook(named(model, r"condition_embedder$"), lambda out, _, text, *__: (*out[:2], out[2][:, : valid(text) + 1], None))


def padding_of_511(model):
    """Uses ln(511 - n), which is one off."""
    hook(named(model, r"condition_embedder$"), lambda out, *_: (*out[:2], out[2][:, :511], None))


def valid(text):
    return int(text[0].abs().sum(-1).gt(0).sum())


def gates_swapped(model):
    order = [0, 1, 5, 3, 4, 2]
    hook([model.condition_embedder.time_proj], lambda out, _: out.unflatten(-1, (6, -1))[:, order].flatten(1))
    for block in model.blocks:
        swap_rows(block.scale_shift_table, order)


def time_without_silu(model):
    model.condition_embedder.act_fn = torch.nn.Identity()


def sin_before_cos(model):
    model.condition_embedder.timesteps_proj.flip_sin_to_cos = False


def frequencies_over_half_minus_one(model):
    model.condition_embedder.timesteps_proj.downscale_freq_shift = 1


def head_scale_before_shift(model):
    swap_rows(model.scale_shift_table, [1, 0])


def output_patch_channel_slowest(model):
    outputs = model.config.out_channels
    hook([model.proj_out], lambda out, _: out.unflatten(-1, (outputs, -1)).mT.flatten(-2))


def no_norm_before_cross_attention(model):
    for block in model.blocks:
        block.norm2 = torch.nn.Identity()


def eps_fixed_at_1e6(model):
    for module in named(model, r"norm(\d|_out|_[qk])$"):
        module.eps = 1e-6


TRANSFORMER = [
    rope_from_one_table, rope_half_split, rope_swaps_h_and_w, norm_per_head, heads_interleaved, gelu_erf, cut_padding,
    padding_is_zero, padding_counts_once, padding_of_511, gates_swapped, time_without_silu, sin_before_cos,
    frequencies_over_half_minus_one, head_scale_before_shift, output_patch_channel_slowest,
    no_norm_before_cross_attention, eps_fixed_at_1e6,
]  # fmt: skip

# Mutations of the text encoder.


def logits_scaled(model):
    for module in named(model, r"SelfAttention$"):
        module.scaling = module.key_value_proj_dim**-0.5


def bias_of_layer_0_everywhere(model):
    first, *others = named(model, r"SelfAttention$")
    for module in others:
        module.relative_attention_bias = first.relative_attention_bias


def bias_transposed(model):
    for module in named(model, r"SelfAttention$"):
        module.compute_bias = functools.partial(lambda f, *a, **k: f(*a, **k).mT, module.compute_bias)


def max_distance_64(model):
    for module in named(model, r"SelfAttention$"):
        module.relative_attention_max_distance = 64


def t5_gelu_erf(model):
    for module in named(model, r"DenseReluDense$"):
        module.act = torch.nn.GELU()


def gate_and_up_swapped(model):
    for module in named(model, r"DenseReluDense$"):
        module.wi_0, module.wi_1 = module.wi_1, module.wi_0


def t5_eps_fixed_at_1e6(model):
    for module in named(model, r"layer_norm$"):
        module.variance_epsilon = 1e-6


def norm_subtracts_mean(model):
    for module in named(model, r"layer_norm$"):
        module.forward = functools.partial(lambda m, x: F.layer_norm(x, x.shape[-1:], m.weight, eps=1e-6), module)


TEXT_ENCODER = [
    logits_scaled, bias_of_layer_0_everywhere, bias_transposed, max_distance_64, t5_gelu_erf, gate_and_up_swapped,
    t5_eps_fixed_at_1e6, norm_subtracts_mean,
]  # fmt: skip

# Mutations of the VAE.


def resample_with(model, change):
    for module in named(model, r"(upsamplers\.0|down_blocks\.\d+)$"):
        if getattr(module, "mode", None) in ("upsample3d", "downsample3d"):
            module.forward = functools.partial(change, module, module.forward)


def time_conv_sees_first_frame(model):
    """Lets the second chunk see the first chunk's frame when upsampling in time."""

    def change(module, original, x, feat_cache, feat_idx):
        slot = feat_idx[0]
        if module.mode == "upsample3d" and feat_cache[slot] is None:
            out = original(x, feat_cache, feat_idx)
            feat_cache[slot] = torch.cat([torch.zeros_like(x), x], 2)
            return out
        return original(x, feat_cache, feat_idx)

    resample_with(model, change)


def doubled_frames_swapped(model):
    hook(named(model, r"upsamplers\.0\.time_conv$"), lambda out, *_: torch.cat(out.chunk(2, 1)[::-1], 1))


def cache_of_one_frame(model):
    """Makes the convolutions keep one frame of history instead of two."""

    def change(module, original, x, cache_x=None):
        if cache_x is not None and module._padding[4] > 0 and cache_x.shape[2] == 2:
            cache_x = torch.cat([torch.zeros_like(cache_x[:, :, :1]), cache_x[:, :, 1:]], 2)
        return original(x, cache_x)

    for module in model.modules():
        if isinstance(module, vae_module.WanCausalConv3d):
            module.forward = functools.partial(change, module, module.forward)


def downsampling_pads_left_and_top(model):
    for module in model.modules():
        if isinstance(module, torch.nn.ZeroPad2d):
            module.padding = (1, 0, 1, 0)


def norm_with_mean_square_eps(model):
    for module in model.modules():
        if isinstance(module, vae_module.WanRMS_norm):
            module.forward = functools.partial(
                lambda m, x: x * torch.rsqrt(x.pow(2).mean(1, True) + 1e-3) * m.gamma, module)


def channels_norm_without_sqrt(model):
    for module in named(model, r"norm_out$"):
        module.scale = 1.0


def latents_not_denormalised(model):
    size = model.config.z_dim
    model.register_to_config(latents_mean=[0.0] * size, latents_std=[1.0] * size)


VAE = [
    time_conv_sees_first_frame, doubled_frames_swapped, cache_of_one_frame, downsampling_pads_left_and_top,
    norm_with_mean_square_eps, channels_norm_without_sqrt, latents_not_denormalised,
]  # fmt: skip


def transformer_cases(name):
    gain, config, cases = make_transformer.MODELS[name]
    golden = fresh(name, "transformer", WanTransformer3DModel.from_config(make_transformer.BASE | config),
                   make_transformer.rules(gain))

    def output(model, case):
        inputs = [golden.input({"name": case[0]}, n, s) for n, s in (
            ("latents", (config["in_channels"], *case[3:])),
            ("context", (case[2], (make_transformer.BASE | config)["text_dim"])))]
        return make_transformer.run(model, inputs[0], case[1], inputs[1])["velocity"]

    build = lambda: WanTransformer3DModel.from_config(make_transformer.BASE | config)
    return golden, "transformer", build, {c[0]: ("velocity", functools.partial(output, case=c)) for c in cases}


def text_encoder_cases(name):
    golden = fresh(name, "text_encoder", make_text_encoder.build(), make_text_encoder.RULES)
    ids = lambda n: [int(w % make_text_encoder.CONFIG["vocab_size"]) for w in synth.bits(f"{name}/n{n}/ids", n)]
    outputs = {f"n{n}": ("hidden", lambda m, n=n: make_text_encoder.encode(m, ids(n))["hidden"])
               for n in make_text_encoder.LENGTHS}
    return golden, "text_encoder", make_text_encoder.build, outputs


def vae_cases(name):
    config, decodes, encodes = make_vae.MODELS[name]
    build = lambda: AutoencoderKLWan.from_config(make_vae.BASE | config)
    golden = fresh(name, "vae", build(), make_vae.RULES)
    outputs = {}
    for case, *shape, tiling in decodes:
        latents = golden.input({"name": f"decode_{case}"}, "latents", (config["z_dim"], *shape))
        outputs[f"decode_{case}"] = ("frames", lambda m, x=latents, t=tiling: make_vae.decode(m, x, t)["frames"])
    for case, *shape in encodes:
        clip = golden.input({"name": f"encode_{case}"}, "frames", (3, *shape), scale=1.0)
        outputs[f"encode_{case}"] = ("latents", lambda m, x=clip: make_vae.encode(m, x)["latents"])
    return golden, "vae", build, outputs


def fresh(name, folder, model, rules):
    golden = Golden(name)
    with mock.patch.object(synth, "checksum", lambda _: None):
        golden.add_part(folder, {}, model, rules)
    return golden


def table(name, cases, mutations):
    golden, folder, build, outputs = cases(name)
    stored = load_file(DATA / f"{name}.safetensors")
    print(f"\n{name}: {', '.join(outputs)}")
    for mutation in [None, *mutations]:
        model = golden.load(folder, build(), "F32")
        errors = []
        if mutation:
            mutation(model)
        for case, (output, run) in outputs.items():
            errors.append(rel_error(run(model), stored[f"{case}/F32/{output}"]))
        marks = [f"{e:.1e}" + ("!" if e <= LIMIT else " ") for e in errors]
        print(f"  {mutation.__name__ if mutation else 'unchanged':40} {'  '.join(marks)}")


if __name__ == "__main__":
    wanted = sys.argv[1:]
    for prefix, cases, mutations in (
        ("transformer", transformer_cases, TRANSFORMER),
        ("text_encoder", text_encoder_cases, TEXT_ENCODER),
        ("vae", vae_cases, VAE),
    ):
        for path in sorted(DATA.glob(f"{prefix}*.json")):
            if not wanted or path.stem in wanted:
                table(path.stem, cases, mutations)
