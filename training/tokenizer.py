"""The demo model's tokenizer: a small Unigram model in the layout of UMT5's tokenizer.json.

Every word that the captions can contain is one token. Other words consist of short pieces and
single characters, so every text has ids.
"""

import json
import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

import data

SPECIAL = ("<pad>", "</s>", "<s>", "<unk>")  # ids 0, 1, 2, 3 as in UMT5
PIECES = ("s", "es", "ed", "ing", "ly", "er", "est", "un", "re", "ful", "ness", "tion", "able", "y")
COLOURS = "red orange yellow green blue purple pink brown black white grey gray golden dark bright"
OTHER_WORDS = "the and of with two three small big little large slowly quickly fast over under near into is are one"


def caption_words():
    """All words that the captions can contain, sorted, each also with a capital for the start of a
    sentence."""
    text = " a an video of moving " + COLOURS + " " + OTHER_WORDS
    for verb, synonyms in data.OBJECTS.values():
        text += f" {verb} " + " ".join(synonyms)
    for place in data.BACKGROUNDS.values():
        text += " " + " ".join(place)
    for words, _ in data.MOTIONS.values():
        text += " " + " ".join(words)
    words = set(text.split())
    return sorted(words | {w.capitalize() for w in words})


def build():
    """The tokenizer as a `tokenizers.Tokenizer`. Scores are log probabilities, and longer pieces
    win."""
    vocab = [(token, 0.0) for token in SPECIAL]
    vocab += [("▁" + word, -4.0) for word in caption_words()]
    vocab += [(piece, -7.0) for piece in PIECES if len(piece) > 1]
    vocab += [("▁", -6.0)]
    letters = string.ascii_letters + string.digits + string.punctuation + "äöüßéèàçñ"
    vocab += [(c, -9.0) for c in letters]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                             special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def save(folder):
    """Writes the files that transformers' T5TokenizerFast expects."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    build().save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512, "extra_ids": 0, "pad_token": "<pad>",
              "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    specials = {k: config[k] for k in ("pad_token", "eos_token", "bos_token", "unk_token")}
    (folder / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")
