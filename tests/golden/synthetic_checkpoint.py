"""A full-size model of random weights, to load-test the program without a download.

    python tests/golden/synthetic_checkpoint.py --config 1.3b --out DIR [--dtype bf16] [--seed 0]

Writes the diffusers layout of Wan2.1-T2V: the transformer at full width and depth in two shards, and beside it a tiny text
encoder and VAE (the transformer's text_dim follows the text encoder; nothing else differs from the real configuration).
Weights are written tensor by tensor, so that memory stays at one tensor. The files are 2.8 GB (1.3b, bf16): keep DIR outside
the repository. Linear weights are normal with deviation 1 / sqrt(inputs), norms are 1, biases and tables small, so that
activations stay of order one. Put a tokenizer.json into DIR/tokenizer to make the model whole.
"""

import argparse
import json
import math
import pathlib
import struct

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

TEXT_DIM = 64
TRANSFORMERS = {
    "1.3b": dict(num_attention_heads=12, ffn_dim=8960, num_layers=30),
    "14b": dict(num_attention_heads=40, ffn_dim=13824, num_layers=40),
    "tiny": dict(num_attention_heads=1, ffn_dim=256, num_layers=2),
}
DTYPES = {"f32": ("F32", torch.float32), "f16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16)}


def random_tensor(name, shape, generator):
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape)
    if name.endswith("bias") or "scale_shift_table" in name:
        return 0.02 * torch.randn(shape, generator=generator)
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def write_shard(path, shapes, dtype, generator):
    """Writes one safetensors file, a tensor at a time."""
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


def write_transformer(out, config, dtype, generator):
    with torch.device("meta"):
        model = WanTransformer3DModel(**TRANSFORMERS[config], text_dim=TEXT_DIM)
    model.save_config(out)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
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
    print(f"transformer: {len(shapes)} tensors, {total:,} parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=TRANSFORMERS, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out, kind = arguments.out, DTYPES[arguments.dtype][1]
    (out / "transformer").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    write_transformer(out / "transformer", arguments.config, arguments.dtype, generator)
    text_config = UMT5Config(vocab_size=384, d_model=TEXT_DIM, d_kv=16, num_heads=4, d_ff=128, num_layers=2)
    UMT5EncoderModel(text_config).to(kind).save_pretrained(out / "text_encoder")
    AutoencoderKLWan(base_dim=8).to(kind).save_pretrained(out / "vae")
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
