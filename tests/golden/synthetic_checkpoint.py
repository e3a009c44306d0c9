"""Writes a full-size model with random weights, to test the program under load without a download.

    python tests/golden/synthetic_checkpoint.py --config 1.3b --out DIR [--dtype bf16] [--seed 0]

The script writes all parts of Wan2.1-T2V in diffusers' layout: the transformer at full width and
depth in two shards, the VAE at full size, and a text encoder of full width (4096). The text encoder
has one layer instead of 24, and the demo model's tokenizer and vocabulary, because the real text
encoder of 11 GB only repeats that layer.

Weights are written tensor by tensor, so the memory holds one tensor at a time. The files take 3.5
GB (1.3b, bf16), so keep DIR outside the repository. Linear weights are normal with a deviation of 1
/ sqrt(inputs), norms are 1, and biases and tables are small, so activations stay of order one.
"""

import argparse
import json
import math
import pathlib
import shutil
import struct

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

# The published configurations, and `tiny` for testing this script.
TRANSFORMERS = {
    "1.3b": dict(num_attention_heads=12, ffn_dim=8960, num_layers=30),
    "14b": dict(num_attention_heads=40, ffn_dim=13824, num_layers=40),
    "tiny": dict(num_attention_heads=1, ffn_dim=256, num_layers=2, text_dim=64),
}
TEXT_ENCODER = dict(vocab_size=384, num_layers=1)
TEXT_ENCODERS = {
    "umt5-xxl": TEXT_ENCODER | dict(d_model=4096, d_kv=64, num_heads=64, d_ff=10240),
    "tiny": TEXT_ENCODER | dict(d_model=64, d_kv=16, num_heads=4, d_ff=128),
}
TOKENIZER = pathlib.Path(__file__).parents[2] / "assets/demo-model/tokenizer"
DTYPES = {"f32": ("F32", torch.float32), "f16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16)}


def random_tensor(name, shape, generator):
    if "norm" in name:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if name.endswith("bias") or "scale_shift_table" in name:
        return 0.02 * torch.randn(shape, generator=generator)
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def write_shard(path, shapes, dtype, generator):
    """Writes one safetensors file, tensor by tensor."""
    label, kind = DTYPES[dtype]
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": label, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            tensor = random_tensor(name, shape, generator).to(kind)
            file.write(tensor.flatten().view(torch.uint8).numpy().data)


def write_sharded(out, shapes, dtype, generator):
    """Writes two shards and their index."""
    total = sum(map(math.prod, shapes.values()))
    shards, so_far = [{}, {}], 0
    for name, shape in shapes.items():
        shards[int(so_far > total // 2)][name] = shape
        so_far += math.prod(shape)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        write_shard(out / file, shard, dtype, generator)
        weight_map |= {name: file for name in shard}
    index = {"metadata": {"total_size": total * DTYPES[dtype][1].itemsize}, "weight_map": weight_map}
    (out / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def write_part(out, build, file, dtype, generator):
    """Writes a part's configuration and weights. `file` is None for shards."""
    with torch.device("meta"):
        model = build()
    model.save_config(out) if hasattr(model, "save_config") else model.config.save_pretrained(out)
    # The second name of the embedding is left out, as in transformers' own files.
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.endswith("embed_tokens.weight")}
    if file:
        write_shard(out / file, shapes, dtype, generator)
    else:
        write_sharded(out, shapes, dtype, generator)
    print(f"{out.name}: {len(shapes)} tensors, {sum(map(math.prod, shapes.values())):,} parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=TRANSFORMERS, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out, dtype = arguments.out, arguments.dtype
    generator = torch.Generator().manual_seed(arguments.seed)
    for part in ("transformer", "text_encoder", "vae"):
        (out / part).mkdir(parents=True, exist_ok=True)
    tiny = arguments.config == "tiny"
    text = UMT5Config(**TEXT_ENCODERS["tiny" if tiny else "umt5-xxl"])
    transformer = lambda: WanTransformer3DModel(**TRANSFORMERS[arguments.config])
    write_part(out / "transformer", transformer, None, dtype, generator)
    write_part(out / "text_encoder", lambda: UMT5EncoderModel(text), "model.safetensors", dtype, generator)
    vae = lambda: AutoencoderKLWan(base_dim=8 if tiny else 96)
    write_part(out / "vae", vae, "diffusion_pytorch_model.safetensors", dtype, generator)
    shutil.copytree(TOKENIZER, out / "tokenizer", dirs_exist_ok=True)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    scheduler.save_pretrained(out / "scheduler")
    parts = {
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    index = {"_class_name": "WanPipeline", "_diffusers_version": "0.42.1"} | parts
    (out / "model_index.json").write_text(json.dumps(index, indent=2))


if __name__ == "__main__":
    main()
