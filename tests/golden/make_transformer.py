"""Writes the goldens of WanTransformer3DModel: one for each configuration, with several cases."""

import torch
from diffusers import WanTransformer3DModel

from golden import AttentionWatch, DTYPES, Golden, double_precision

BASE = {
    "_class_name": "WanTransformer3DModel", "added_kv_proj_dim": None, "cross_attn_norm": True, "eps": 1e-6,
    "image_dim": None, "patch_size": [1, 2, 2], "pos_embed_seq_len": None, "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 1024, "text_dim": 24, "freq_dim": 256,
}  # fmt: skip

# name: (gain of q and k, configuration, cases as (name, timestep, prompt rows, latent frames,
# height, width))
MODELS = {
    "transformer_3x40": (2.6, {
        "num_attention_heads": 3, "attention_head_dim": 40, "num_layers": 3, "ffn_dim": 300,
        "in_channels": 16, "out_channels": 16,
    }, [("t999", 999.0, 7, 3, 6, 10), ("t0.5", 0.5, 1, 1, 2, 14)]),
    "transformer_2x128": (2.6, {
        "num_attention_heads": 2, "attention_head_dim": 128, "num_layers": 1, "ffn_dim": 520,
        "in_channels": 16, "out_channels": 16,
    }, [("t500", 500.0, 30, 2, 8, 6), ("full_prompt", 37.0, 512, 2, 4, 4)]),
    "transformer_patch1": (2.6, {
        "num_attention_heads": 2, "attention_head_dim": 32, "num_layers": 2, "ffn_dim": 100, "patch_size": [1, 1, 1],
        "in_channels": 5, "out_channels": 7, "cross_attn_norm": False, "freq_dim": 64, "text_dim": 40, "eps": 1e-3,
    }, [("t500", 500.0, 3, 2, 5, 7)]),
    "transformer_6x32": (2.6, {
        "num_attention_heads": 6, "attention_head_dim": 32, "num_layers": 2, "ffn_dim": 768,
        "in_channels": 16, "out_channels": 16, "text_dim": 64,
    }, [("t875", 875.0, 6, 5, 4, 8), ("t1", 1.0, 11, 2, 6, 6)]),
}  # fmt: skip


def rules(qk_gain):
    """Weight rules. `qk_gain` sharpens the attention, because logits have a deviation of about
    qk_gain^2."""
    return [
        (r"norm_[qk]\.weight$", qk_gain, 0.3 * qk_gain),
        (r"norm2\.weight$", 1.0, 0.3),
        (r"scale_shift_table$", 0.0, 0.5),
        (r"bias$", 0.0, 0.1),
        (r"time_proj\.weight$", 1.0),
        (r"weight$", 1.0),
    ]


def run(model, latents, timestep, context):
    """The velocity [C, F, H, W] and the probes.

    The probes are the hidden states [N, dim] after the patch embedding and after each block, the
    time embedding e [dim], and e0 [6, dim]."""
    probes, handles = {}, []
    dtype = model.proj_out.weight.dtype
    padded = torch.zeros(1, 512, context.shape[1], dtype=dtype)
    padded[0, : context.shape[0]] = context

    def embedded(_, __, out):
        probes["e"], probes["e0"] = out[0][0], out[1][0].unflatten(0, (6, -1))

    handles.append(model.condition_embedder.register_forward_hook(embedded))
    handles.append(model.patch_embedding.register_forward_hook(
        lambda _, __, out: probes.__setitem__("patch_embedding", out[0].flatten(1).T)))
    for i, block in enumerate(model.blocks):
        handles.append(block.register_forward_hook(
            lambda _, __, out, i=i: probes.__setitem__(f"block_{i}", out[0])))
    t = torch.tensor([timestep], dtype=torch.float32)
    velocity = model(latents[None].to(dtype), t, padded, return_dict=False)[0][0]
    for handle in handles:
        handle.remove()
    return {"velocity": velocity} | probes


def make(name):
    qk_gain, config, cases = MODELS[name]
    config = BASE | config
    build = lambda: WanTransformer3DModel.from_config(config)
    golden = Golden(name)
    golden.add_part("transformer", config, build(), rules(qk_gain))
    with double_precision():
        exact_model = build()
    model = build()
    for index, (case_name, timestep, rows, frames, height, width) in enumerate(cases):
        case = {"name": case_name, "params": {"timestep": timestep}}
        latents = golden.input(case, "latents", (config["in_channels"], frames, height, width))
        context = golden.input(case, "context", (rows, config["text_dim"]))
        for dtype in DTYPES:
            golden.load("transformer", model, dtype)
            with AttentionWatch() as watch:
                outputs = run(model, latents, timestep, context)
            with double_precision():
                exact = run(golden.load("transformer", exact_model, dtype, torch.float64), latents, timestep, context)
            if dtype == "F32":
                case["attention"] = watch.summary()
            probes = index == 0 and dtype == "F32"
            golden.record(case, dtype, outputs if probes else {"velocity": outputs["velocity"]}, exact)
        golden.cases.append(case)
    golden.write()


if __name__ == "__main__":
    for model_name in MODELS:
        make(model_name)
