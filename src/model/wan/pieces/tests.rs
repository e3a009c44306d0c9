use super::*;
use crate::model::wan::tokenizer::{Tokenizer, TokenizerSource};
use crate::weights::Checkpoint;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights").join(name)
}

#[derive(serde::Deserialize)]
struct Case {
    prompt: String,
    ids: Vec<u32>,
}

/// The ids are those of SentencePiece (tests/golden/pieces.py), from its own model and from a GGUF
/// file: with a character map, runs of spaces, unknown characters and nothing at all.
#[test]
fn ids_are_those_of_sentencepiece() {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(golden("pieces.json")).unwrap()).unwrap();
    let source = TokenizerSource::of_file(&golden("pieces.model"));
    assert!(matches!(source, TokenizerSource::Pieces(_)));
    let gguf = golden("pieces.gguf");
    let inside = Tokenizer::inside(&gguf, &Checkpoint::open(&gguf).unwrap()).unwrap();
    for tokenizer in [Tokenizer::open(&source).unwrap(), inside] {
        for case in &cases {
            assert_eq!(tokenizer.encode(&case.prompt, 512).unwrap(), case.ids, "{:?}", case.prompt);
            assert_eq!(tokenizer.length(&case.prompt).unwrap(), case.ids.len());
        }
        let pieces = tokenizer.pieces();
        let fits = |known| tokenizer.check_fits(Path::new("t"), known);
        assert!(fits(pieces).is_ok() && fits(pieces + 5).is_ok());
        let smaller = fits(pieces - 1).unwrap_err().to_string();
        assert!(smaller.contains("another model") && fits(2 * pieces).is_err(), "{smaller}");
    }
}

/// Both readers give the same description.
#[test]
fn both_formats_hold_the_same() {
    let model = std::fs::read(golden("pieces.model")).unwrap();
    let checkpoint = Checkpoint::open(golden("pieces.gguf")).unwrap();
    let of_gguf = Pieces::of_gguf(checkpoint.metadata().unwrap()).unwrap().unwrap();
    assert_eq!(Pieces::of_sentencepiece(&model).unwrap(), of_gguf);
    assert!(!of_gguf.character_map.is_empty());
}

/// Tensors that the gguf package wrote have its values, bit for bit.
#[test]
fn tensors_of_the_gguf_package() {
    let checkpoint = Checkpoint::open(golden("pieces.gguf")).unwrap();
    let bits = |name: &str| -> Vec<u32> {
        checkpoint.get(name).unwrap().to_f32().unwrap().into_iter().map(f32::to_bits).collect()
    };
    for (name, shape) in
        [("Q4_0", [2, 64]), ("Q8_0", [3, 32]), ("Q4_K", [2, 256]), ("Q6_K", [1, 512]), ("Q5_1", [2, 32])]
    {
        assert_eq!(checkpoint.get(name).unwrap().shape, shape);
        assert_eq!(bits(name), bits(&format!("{name}.values")), "{name}");
    }
    let rows = checkpoint.get("Q8_0").unwrap().rows_to_f32(1..3).unwrap();
    assert_eq!(rows, checkpoint.get("Q8_0.values").unwrap().rows_to_f32(1..3).unwrap());
    assert_eq!(checkpoint.get("half").unwrap().shape, [2, 3, 1, 2]);
}

#[test]
fn base64_of_every_remainder() {
    for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xfe\xfd", "//79")]
    {
        assert_eq!(base64(bytes), text);
    }
}

#[test]
fn every_truncation_is_harmless() {
    let model = std::fs::read(golden("pieces.model")).unwrap();
    for cut in 0..model.len().min(2000) {
        // A cut between two messages is a shorter model.
        _ = Pieces::of_sentencepiece(&model[..cut]);
    }
    assert!(Pieces::of_sentencepiece(&model[..100]).is_err());
    for damaged in [&b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"[..], b"\xff", b"\x0f", b"\x0a\x05abc"] {
        assert!(Pieces::of_sentencepiece(damaged).is_err(), "{damaged:?}");
    }
}

proptest::proptest! {
    #[test]
    fn damaged_models_never_panic(at in 0..4000usize, value: u8) {
        let mut model = std::fs::read(golden("pieces.model")).unwrap();
        let at = at % model.len();
        model[at] = value;
        if let Ok(pieces) = Pieces::of_sentencepiece(&model) {
            _ = pieces.to_json();
        }
    }
}
