"""Writes the golden of UMT5EncoderModel: sequences within the exact buckets, beyond them, and
beyond max_distance."""

import torch
from transformers import UMT5Config, UMT5EncoderModel

import synth
from golden import AttentionWatch, DTYPES, Golden, double_precision, rel_error

CONFIG = {
    "_class_name": "UMT5EncoderModel", "architectures": ["UMT5EncoderModel"], "model_type": "umt5",
    "vocab_size": 90, "d_model": 24, "num_heads": 3, "d_kv": 16, "d_ff": 40, "num_layers": 2,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-3,
    "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True, "is_encoder_decoder": True,
    "dropout_rate": 0.1, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True,
}  # fmt: skip
LENGTHS = [1, 9, 40, 150]

RULES = [
    (r"layer_norm\.weight$", 1.0, 0.3),
    (r"relative_attention_bias\.weight$", 0.0, 2.0),
    (r"shared\.weight$", 0.0, 1.7),
    (r"SelfAttention\.[qk]\.weight$", 1.3),
    (r"weight$", 1.0),
]


def build(config=CONFIG):
    """The model of a config.json, without its weights."""
    options = {k: v for k, v in config.items() if k not in ("_class_name", "architectures", "is_gated_act")}
    return UMT5EncoderModel(UMT5Config(**options))


def encode(model, ids):
    """Hidden states [n, d_model] of n ids, no padding."""
    return {"hidden": model(torch.tensor([ids])).last_hidden_state[0]}


def check_padding(model, ids, hidden):
    """Checks that running n ids alone equals the pipeline's way: padding to 512 with a mask, then
    keeping n rows."""
    n = len(ids)
    mask = (torch.arange(512) < n).long()[None]
    padded = model(torch.tensor([ids + [0] * (512 - n)]), mask).last_hidden_state[0, :n]
    assert rel_error(padded, hidden) < 3e-6, rel_error(padded, hidden)


def make():
    golden = Golden("text_encoder")
    model, exact_model = build(), build()
    golden.add_part("text_encoder", CONFIG, model, RULES)
    for n in LENGTHS:
        case = {"name": f"n{n}"}
        words = synth.bits(f"text_encoder/{case['name']}/ids", n)
        ids = [int(w % CONFIG["vocab_size"]) for w in words]
        case["params"] = {"ids": ids}
        for dtype in DTYPES:
            golden.load("text_encoder", model, dtype)
            with AttentionWatch() as watch:
                outputs = encode(model, ids)
            check_padding(model, ids, outputs["hidden"])
            with double_precision():
                exact = encode(golden.load("text_encoder", exact_model, dtype, torch.float64), ids)
            if dtype == "F32":
                case["attention"] = watch.summary()
            golden.record(case, dtype, outputs, exact)
        golden.cases.append(case)
    golden.write()


if __name__ == "__main__":
    make()
