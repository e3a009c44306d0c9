"""Writes tests/golden/weights/pieces.model, a small SentencePiece model, pieces.gguf with the same
pieces beside a tensor of each packed format, and pieces.json with the ids of prompts by
SentencePiece itself.

    python tests/golden/pieces.py

Made with sentencepiece 0.2.3 and gguf 0.19.0.
"""

import io
import json
import pathlib
import tempfile

import gguf
import numpy as np
import sentencepiece

ROOT = pathlib.Path(__file__).parents[2]
OUT = pathlib.Path(__file__).parent / "weights"
# A character map in small: full-width forms as NFKC has them, and a letter that becomes two.
RULES = {"，": ",", "！": "!", "Ａ": "A", "ﬁ": "fi", "\u00a0": " "}
PROMPTS = [
    "a cat walking on grass",
    "A  red   car, driving right!",
    " two dogs ",
    "Ａ cat， ﬁne！",
    "a\u00a0boat",
    "猫 on the moon",
    "",
]
MODEL = {"Q4_0": (2, 64), "Q8_0": (3, 32), "Q4_K": (2, 256), "Q6_K": (1, 512), "Q5_1": (2, 32)}


def train():
    prompts = (ROOT / "assets/prompts/eval.txt").read_text().splitlines()
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "rules.tsv"
        lines = ["\t".join(" ".join(f"{ord(c):X}" for c in text) for text in pair) for pair in RULES.items()]
        rules.write_text("\n".join(lines) + "\n")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(prompts), model_writer=model, model_type="unigram", vocab_size=120,
            normalization_rule_tsv=str(rules), pad_id=0, eos_id=1, bos_id=2, unk_id=3, hard_vocab_limit=False,
        )  # fmt: skip
    return model.getvalue()


def write_gguf(processor, proto):
    writer = gguf.GGUFWriter(OUT / "pieces.gguf", "t5encoder")
    ids = range(processor.get_piece_size())
    kind = lambda i: 2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 1
    writer.add_tokenizer_model("t5")
    writer.add_token_list([processor.id_to_piece(i) for i in ids])
    writer.add_token_scores([processor.get_score(i) for i in ids])
    writer.add_token_types([kind(i) for i in ids])
    writer.add_precompiled_charsmap(proto.normalizer_spec.precompiled_charsmap)
    random = np.random.default_rng(3)
    for name, shape in MODEL.items():
        values = random.normal(0, 1, shape).astype(np.float32)
        kind_of = gguf.GGMLQuantizationType[name]
        try:
            packed = gguf.quants.quantize(values, kind_of)
        except NotImplementedError:
            # gguf packs some formats only in C. Zeros stand for them.
            elements, size = gguf.GGML_QUANT_SIZES[kind_of]
            packed = np.zeros((*shape[:-1], shape[-1] // elements * size), np.uint8)
        writer.add_tensor(name, packed, raw_dtype=kind_of)
        writer.add_tensor(f"{name}.values", gguf.quants.dequantize(packed, kind_of).astype(np.float32))
    writer.add_tensor("half", random.normal(0, 1, (2, 3, 1, 2)).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    from sentencepiece import sentencepiece_model_pb2

    model = train()
    (OUT / "pieces.model").write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    write_gguf(processor, proto)
    ids = [{"prompt": prompt, "ids": processor.encode(prompt) + [1]} for prompt in PROMPTS]
    (OUT / "pieces.json").write_text(json.dumps(ids, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
