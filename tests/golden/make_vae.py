"""Writes the goldens of AutoencoderKLWan: decoding (first, second and later chunks), tiled
decoding, encoding."""

import torch
from diffusers import AutoencoderKLWan

from golden import AttentionWatch, DTYPES, Golden, double_precision

BASE = {
    "_class_name": "AutoencoderKLWan", "attn_scales": [], "dropout": 0.0, "in_channels": 3, "out_channels": 3,
    "is_residual": False, "patch_size": None, "scale_factor_spatial": 8, "scale_factor_temporal": 4,
}  # fmt: skip
WAN_MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]  # fmt: skip
WAN_STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
           3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]  # fmt: skip

# A decode case is (name, latent frames, height, width, tiling), where tiling is (min height, min
# width, stride height, stride width). Decoding is causal: the first 1, 2 and 3 latent frames of
# `five` give the first 1, 5 and 9 frames of its output.
#
# An encode case is (name, frames, height, width). Encoding is causal too: the first 1 and 5 frames
# of `nine` give the first 1 and 2 latent frames.
MODELS = {
    "vae_wan": ({
        "base_dim": 8, "decoder_base_dim": None, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
        "temperal_downsample": [False, True, True], "latents_mean": WAN_MEAN, "latents_std": WAN_STD,
    }, [("five", 5, 2, 3, None), ("tiled", 2, 3, 5, (16, 24, 8, 16))], [("nine", 9, 24, 40)]),
    "vae_odd": ({
        "base_dim": 6, "decoder_base_dim": 10, "z_dim": 5, "dim_mult": [1, 2, 3, 4], "num_res_blocks": 1,
        "temperal_downsample": [True, False, True],
        "latents_mean": [0.3, -0.2, 0.1, 0.0, -1.1], "latents_std": [1.5, 0.7, 2.0, 1.0, 0.4],
    }, [("three", 3, 3, 1, None)], [("five", 5, 8, 24)]),
}  # fmt: skip

RULES = [
    (r"gamma$", 1.0, 0.3),
    (r"bias$", 0.0, 0.1),
    (r"to_qkv\.weight$", 2.2),
    (r"decoder\.conv_out\.weight$", 0.25),
    (r"weight$", 1.2),
]


def statistics(model, dtype):
    """latents_mean and latents_std as [1, z, 1, 1, 1]."""
    column = lambda v: torch.tensor(v, dtype=dtype).view(1, -1, 1, 1, 1)
    return column(model.config.latents_mean), column(model.config.latents_std)


def decode(model, latents, tiling):
    """Decodes normalised latents [z, f, h, w] like WanPipeline. Returns frames [3, F, H, W] in [-1,
    1]."""
    model.use_tiling = False
    if tiling:
        model.enable_tiling(*tiling)
    dtype = model.post_quant_conv.weight.dtype
    mean, std = statistics(model, dtype)
    return {"frames": model.decode(latents[None].to(dtype) / (1.0 / std) + mean, return_dict=False)[0][0]}


def encode(model, frames):
    """Normalised latents [z, f, h, w] of frames [3, F, H, W], from the mean of the posterior."""
    model.use_tiling = False
    dtype = model.post_quant_conv.weight.dtype
    mean, std = statistics(model, dtype)
    mode = model.encode(frames[None].to(dtype), return_dict=False)[0].mode()
    return {"latents": ((mode - mean) / std)[0]}


def make_case(golden, models, case, function, dtypes):
    """Runs `function(model)` in f32 and in f64 for every weight type and records it."""
    model, exact_model = models
    for dtype in dtypes:
        golden.load("vae", model, dtype)
        with AttentionWatch() as watch:
            outputs = function(model)
        with double_precision():
            exact = function(golden.load("vae", exact_model, dtype, torch.float64))
        if dtype == "F32":
            case["attention"] = watch.summary()
            if "frames" in outputs:
                case["clamped"] = round((outputs["frames"].abs() == 1).double().mean().item(), 4)
                assert case["clamped"] < 0.02
        golden.record(case, dtype, outputs, exact)
    golden.cases.append(case)


def make(name):
    config, decodes, encodes = MODELS[name]
    config = BASE | config
    build = lambda: AutoencoderKLWan.from_config(config)
    golden = Golden(name)
    golden.add_part("vae", config, build(), RULES)
    with double_precision():
        models = build(), build()
    for case_name, frames, height, width, tiling in decodes:
        case = {"name": f"decode_{case_name}", "params": {"tiling": tiling}}
        latents = golden.input(case, "latents", (config["z_dim"], frames, height, width))
        # Only untiled cases have outputs for 16-bit weights, to keep the files small.
        make_case(golden, models, case, lambda m: decode(m, latents, tiling), ["F32"] if tiling else DTYPES)
    for case_name, frames, height, width in encodes:
        case = {"name": f"encode_{case_name}", "params": {}}
        clip = golden.input(case, "frames", (3, frames, height, width), scale=1.0)
        make_case(golden, models, case, lambda m: encode(m, clip), DTYPES)
    golden.write()


if __name__ == "__main__":
    torch.set_num_threads(2)
    for model_name in MODELS:
        make(model_name)
