"""Writes tokenizer/tokenizer.json (a small tokenizer like UMT5's) and prompts.json (prompts,
cleaned prompts, ids).

Made with transformers 5.23.0, tokenizers 0.23.3, sentencepiece 0.2.3, ftfy 6.3.1, regex, diffusers
0.42.1 (Python 3.11). Run: python tests/golden/tokenizer.py

Like UMT5's tokenizer it has the ids <pad> 0, </s> 1, <s> 2, <unk> 3, a precompiled character map, a
rule that joins runs of spaces, Metaspace with a prefix space, a Unigram model and the template "$A
</s>". The character map is small (full-width forms and some compositions) to keep the file small.
The file sets truncation and padding on purpose, because the reader must switch both off.
"""

import json
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import sentencepiece
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
MAX_LENGTH = 512
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，"
    "画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
ENGLISH = [
    "a cat walking on grass",
    "Two anthropomorphic cats in comfy boxing gear and bright gloves fight intensely on a spotlighted stage.",
    "A red panda drinks tea in a bamboo forest, soft morning light, 35mm film, shallow depth of field.",
    "Drone shot of waves crashing against the rugged cliffs of a coast at sunset; the camera slowly moves forward.",
    "A robot paints a portrait of a woman, oil on canvas, close-up, detailed brush strokes.",
    "An old sailor with a grey beard looks at the sea while it is raining (cinematic, 4K, HDR).",
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, worst quality, low quality",
    "The dog jumps over the fence, then runs through the snow; slow motion, 120 fps.",
]
OTHERS = [
    "一只猫在草地上行走", NEGATIVE, "两只拟人化的猫穿着舒适的拳击装备在聚光灯下的舞台上激烈地战斗。",
    "草の上を歩く猫、柔らかい朝の光", "夕日の海辺でギターを弾く少年。", "ｶﾀｶﾅ ﾃｽﾄ ＡＢＣ１２３", "잔디 위를 걷는 고양이", "비 오는 거리의 우산들",
    "кошка идёт по траве", "Старый моряк смотрит на море, дождь.", "γάτα που περπατά στο γρασίδι", "قطة تمشي على العشب", "חתול הולך על הדשא",
    "घास पर चलती हुई बिल्ली", "แมวเดินบนหญ้า", "con mèo đi trên cỏ", "un chat marche sur l’herbe, été à la plage, forêt brumeuse",
    "Ein Kätzchen läuft über grünes Gras, Straße im Nebel", "el niño pequeño corrió detrás del pingüino", "um coração de gelo derretendo ao pôr do sol",
    "mały kot idzie po łące o świcie, źdźbło trawy", "yağmurlu bir gün, İstanbul sokakları", "příliš žluťoučký kůň úpěl ďábelské ódy",
]
EMOJI = ["a 🐱 on 🌱", "👨‍👩‍👧‍👦 at the beach 🏖️", "flag 🏴󠁧󠁢󠁷󠁬󠁳󠁿 and 🇩🇪", "thumbs 👍🏽 up", "❤️ + ☕ = 😀😀😀", "(ノ°□°)ノ︵ ┻━┻", "¯\\_(ツ)_/¯", "✨ magic ✨"]
NFD = [unicodedata.normalize("NFD", text) for text in ["été à la plage", "Ångström café naïve", "con mèo đi trên cỏ", "잔디 위를", "が ぎ ぐ パ", "ñandú"]]
SPACES = ["", " ", "\n\n\t ", "  a   cat  ", "a\tcat\r\non\n\ngrass", "a\u00a0cat", "全角　空白", "a\u2003b\u2009c\u200bd", "line\u2028sep\u2029end", "a\x0bb\x0cc", "\ufeffbom at start", "trailing \n"]
CONTROL = ["a\x00b\x01c", "bell\x07 and\x7f del", "\x1b[31mred\x1b[0m text", "esc \x1b[1;32mgreen", "soft\u00adhyphen", "zero\u200dwidth\u200cjoiners", "ltr\u200e rtl\u200f marks",
           "c1 \x80 \x93quoted\x94 \x85", "object \ufffc here \ufffd", "\u206a\u206fdeprecated", "private \ue000 use", "non\ufdd0char"]
QUOTES = ["“curly” ‘quotes’", "it’s the cat’s „low“ quote", "«guillemets» ‹single›", "5′ 10″ tall", "`back` ´acute´", "ʼn ﬁne ﬂuﬀy oﬃce ﬅ ﬆ ﬃ ﬄ", "Ĳsselmeer ĳs ǅ ǈ ǌ Ǳ ŉ", "dash – and — … dots"]
WIDTH = ["ＬＯＵＤ　ＮＯＩＳＥＳ", "Ｕﾀｰﾝ", "ﾊﾟﾋﾟﾌﾟ ｶﾞｷﾞ", "￥１００ ￡ ￠ ￦", "（全角）！？：；", "ﾡﾢￂ"]
ENTITIES = ["cats &amp; dogs", "&lt;tag&gt;", "a &amp;amp; b", "&amp;amp;amp;lt;", "it&rsquo;s &ldquo;fine&rdquo;", "it&#8217;s &#x2019;", "P&EACUTE;REZ &NTILDE; &nTILDE;", "BUNDESSTRA&SZLIG;E",
            "this&not that", "&copy 2024 &reg", "&notit; &notin;", "&bogus; &;&#;&#x;", "&#0; &#128; &#150; &#x9f; &#xD800; &#x110000; &#99999999999;", "&#65&#66; &#x41", "&#59; &#38;lt;", "<b>&rsquo;</b>",
            "a < b &amp;&amp; c &gt; d", "&AMP; &AMP &LT;", "&Jscr;ohn &HilbertSpace;", "&checkmark;&hellip;&nbsp;x", "&nGg; &fjlig; &NotEqualTilde;", "&CounterClockwiseContourIntegral;", "&ampamp; &ampersand",
            "&lt;&rsquo;\n&rsquo;", "&#1;&#11;&#x1f;gone", "&frac12 cup &FRAC12;", "AT&T R&D Q&A", "x&y;z", "&&amp;", "&ThickSpace;|&Tab;|&NewLine;|"]


def garble(text, codec, times=1):
    for _ in range(times):
        text = text.encode("utf-8").decode(codec)
    return text


MOJIBAKE = (
    [garble(text, "sloppy-windows-1252") for text in ["schön", "l’humanité", "naïve café – “quoted”", "猫が歩く", "кошка идёт", "😀 happy", "zażółć gęślą jaźń", "été", "✔ No problems", "50 °C, 10 £", "été à la plage", "cœur", "año"]]
    + [garble(text, "sloppy-windows-1252", 2) for text in ["The Mona Lisa doesn’t have eyebrows.", "schön", "l’été"]]
    + [garble(text, "latin-1") for text in ["sóló", "日本語", "naïve – yes", "ünï"]]
    + [garble(text, "sloppy-windows-1251") for text in ["Привет мир", "it’s", "schön"]]
    + [garble("příliš žluťoučký", "sloppy-windows-1250"), garble("γάτα που", "sloppy-windows-1253"), garble("it’s fine", "macroman"), garble("schön é", "macroman"), garble("it’s", "cp437")]
    + ["voilÃ le travail", "Ã perturber la rÃ©flexion", "l’humanitÃ©", "â€œ like this â€�", "façade Ã©tÃ©", "日本 cafÃ©", "Â© 2020", "100Â°", "(à¸‡'âŒ£')à¸‡", "ã\x83\x84", "itâ\x80\x99s"]
)
NOT_MOJIBAKE = ["IL Y MARQUÉ…", "“the café”…", "NÃO", "MAÇÃ”", "São Paulo – Ñandú", "ÃO", "Â", "Ä…", "100 €", "£5 ± 2 µm", "змії та мрії", "ΑΒΓ αβγ", "«à la carte»", "Œuvre d’art", "naïve façade", "×²", "Ôèì", "Ça… “É”",
                "a à€ b", "ÆON – ØRE", "Ünïcödé Ïs Fün", "½ ¼ ¾ ² ³ ª º", "√π≈1.77", "│box│┌─┐"]
MISC = ["<extra_id_0> and </s> and <pad>", "▁under▁score", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "Qzxjvk 7#@! ~^|", "𝓯𝓪𝓷𝓬𝔂 𝕥𝕖𝕩𝕥", "Ａ\u0301 e\u0301\u0323", "ﷺ", "１２３，４５６", "JPEG压缩残留，3D渲染", "tab\\n literal", "NASA’s 1st 3-D film @ 24fps", "http://example.com/?a=1&b=2&amp;c=3", "é́ q̣̇", "Å K Ω", "㍿ ㋿ ㌔ Ⅷ ①", "ｈａｌｆ　＆ａｍｐ；", "İstanbul DIŞ", "ǆ ŀ ŉ ſ ẞ", "Å̧", "ＡＴ＆ＴＲ&＃39;", "“nested ‘quotes’ here”"]
LONG = ["a cat walking on grass, " * 120, NEGATIVE * 5, "猫" * 600, "x" * 600, "word " * 511, "word " * 512, "été " * 520, "🐱" * 550]
PROMPTS = ENGLISH + OTHERS + EMOJI + NFD + SPACES + CONTROL + QUOTES + WIDTH + ENTITIES + MOJIBAKE + NOT_MOJIBAKE + MISC + LONG

# The character map: the part of nmt_nfkc for characters that occur in this file.
MAPPED = [chr(c) for c in range(0xFF01, 0xFF5F)] + list("éèàâêîôûçñöüäåïíóúěščřžýůďťąęłśźżćń…ﬁﬂ２²½㎏") + ["\u3000", "\u00a0", "\u2003", "\t", "\n"]


def character_map():
    pairs = {}
    for char in MAPPED:
        target = unicodedata.normalize("NFKC", char)
        pairs[char] = " " if target.isspace() else target
        if len(unicodedata.normalize("NFD", char)) > 1:
            pairs[unicodedata.normalize("NFD", char)] = target
    code = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{code(k)}\t{code(v)}\n" for k, v in pairs.items() if k != v)


def train(folder):
    (folder / "map.tsv").write_text(character_map(), encoding="utf-8")
    (folder / "corpus.txt").write_text("\n".join((ENGLISH + OTHERS + QUOTES) * 3), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"), model_prefix=str(folder / "spm"), model_type="unigram", vocab_size=700, character_coverage=0.995,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, normalization_rule_tsv=str(folder / "map.tsv"), hard_vocab_limit=False, num_threads=1, minloglevel=2,
    )
    model = (folder / "spm.model").read_bytes()
    charsmap = protobuf_field(protobuf_field(model, 3), 2)  # ModelProto.normalizer_spec.precompiled_charsmap
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = [(processor.id_to_piece(i), round(processor.get_score(i), 5)) for i in range(processor.get_piece_size())]
    return vocab, charsmap


def protobuf_field(data, wanted):
    """The bytes of the first field with this number in a protobuf message."""

    def varint(at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value, at

    at = 0
    while at < len(data):
        key, at = varint(at)
        size, at = {0: lambda: (0, varint(at)[1]), 1: lambda: (8, at), 2: lambda: varint(at), 5: lambda: (4, at)}[key & 7]()
        if key >> 3 == wanted:
            return data[at : at + size]
        at += size
    raise KeyError(wanted)


def build(vocab, charsmap):
    vocab += [(f"<extra_id_{i}>", 0.0) for i in range(9, -1, -1)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single=["$A", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in ["<pad>", "</s>", "<s>", "<unk>"]])
    tokenizer.add_special_tokens([AddedToken(f"<extra_id_{i}>", normalized=False) for i in range(10)])
    return tokenizer


with TemporaryDirectory() as folder:
    tokenizer = build(*train(Path(folder)))
reference = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
cases = []
for prompt in PROMPTS:
    clean = prompt_clean(prompt)
    encoded = reference(clean, padding="max_length", max_length=MAX_LENGTH, truncation=True, add_special_tokens=True)
    ids = [i for i, mask in zip(encoded["input_ids"], encoded["attention_mask"]) if mask]
    cases.append({"prompt": prompt, "clean": clean, "ids": ids})

tokenizer.enable_truncation(300)
tokenizer.enable_padding(length=300, pad_id=0, pad_token="<pad>")
(HERE / "tokenizer").mkdir(exist_ok=True)
tokenizer.save(str(HERE / "tokenizer" / "tokenizer.json"), pretty=False)
(HERE / "prompts.json").write_text(
    json.dumps(cases, ensure_ascii=False, separators=(",", ":")).replace('{"prompt"', '\n{"prompt"') + "\n", encoding="utf-8"
)
print(len(cases), "prompts")
