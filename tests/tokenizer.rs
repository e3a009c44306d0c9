//! Compares prompt cleaning and tokenising with diffusers, ftfy and transformers (goldens of
//! `tests/golden/tokenizer.py`).
//!
//! The tests catch these mutations: one unescape instead of two, no NFC, entities undone in spite
//! of `<`, the padding of the file's own settings, one token too many, no cleaning.

use std::io::Write;
use std::path::{Path, PathBuf};

use ditscope::model::wan::prompt_clean;
use ditscope::model::wan::tokenizer::{Error, MAX_PROMPT_CHARS, MAX_SEQUENCE_LENGTH, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    prompt: String,
    clean: String,
    ids: Vec<u32>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(golden("prompts.json")).unwrap()).unwrap()
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&golden("tokenizer/tokenizer.json")).unwrap()
}

/// Prompts that ftfy cleans differently. The first four are mojibake that the program keeps:
/// MacRoman without a clear sign of it, two texts that lost a no-break space, and one that lost a
/// byte. The last has a product sign that ftfy takes for mojibake.
const DIFFERENT: [&str; 5] = ["sch√∂n √©", "voilÃ le travail", "Ã perturber la rÃ©flexion", "â€œ like this â€�", "×²"];

#[test]
fn prompts_are_cleaned_as_diffusers_cleans_them() {
    let cases = cases();
    assert!(cases.len() >= 200);
    let mut different = Vec::new();
    for case in &cases {
        let clean = prompt_clean(&case.prompt);
        if clean != case.clean {
            println!("{:?}\n  ours   {:?}\n  theirs {:?}", case.prompt, clean, case.clean);
            different.push(case.prompt.as_str());
        }
    }
    assert_eq!(different, DIFFERENT);
}

#[test]
fn ids_equal_transformers() {
    let tokenizer = tokenizer();
    for case in cases().iter().filter(|case| !DIFFERENT.contains(&case.prompt.as_str())) {
        assert_eq!(tokenizer.encode(&case.prompt, MAX_SEQUENCE_LENGTH).unwrap(), case.ids, "{:?}", case.prompt);
    }
}

#[test]
fn truncation_keeps_the_end_of_sequence_last() {
    let tokenizer = tokenizer();
    let whole = tokenizer.encode("a cat walking on grass", MAX_SEQUENCE_LENGTH).unwrap();
    for length in 1..=whole.len() + 3 {
        let ids = tokenizer.encode("a cat walking on grass", length).unwrap();
        assert_eq!(ids.len(), length.min(whole.len()));
        assert_eq!((ids.split_last()), Some((&1, &whole[..ids.len() - 1])));
    }
    assert_eq!(tokenizer.encode("", MAX_SEQUENCE_LENGTH).unwrap(), [1]);
    assert_eq!(tokenizer.encode(" \n\u{3000}\0", 1).unwrap(), [1]);
    assert!(matches!(tokenizer.encode("a", 0), Err(Error::NoRoom)));
}

#[test]
fn long_prompts_are_truncated_and_absurd_ones_refused() {
    let tokenizer = tokenizer();
    for piece in ["a cat ", "猫", "é", "Ã©", "&amp;", "🐱", "x", "\n", "é\n"] {
        let most: String = piece.chars().cycle().take(MAX_PROMPT_CHARS).collect();
        assert!(tokenizer.encode(&most, MAX_SEQUENCE_LENGTH).unwrap().len() <= MAX_SEQUENCE_LENGTH);
        let result = tokenizer.encode(&(most + "a"), MAX_SEQUENCE_LENGTH);
        assert!(matches!(result, Err(Error::PromptTooLong(chars)) if chars == MAX_PROMPT_CHARS + 1));
    }
}

/// Loads `json` as a tokenizer and uses it if it loads. Neither may panic or hang.
fn load_and_use(json: &[u8]) -> Result<Vec<u32>, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json).unwrap();
    Tokenizer::load(file.path())?.encode("a cat，été e\u{301} 猫 🐱 ﬁ", MAX_SEQUENCE_LENGTH)
}

#[test]
fn a_missing_tokenizer_is_an_error() {
    assert!(matches!(Tokenizer::load(Path::new("no/such/tokenizer.json")), Err(Error::Read { .. })));
    assert!(matches!(Tokenizer::load(&golden("tokenizer")), Err(Error::Read { .. })));
}

#[test]
fn a_damaged_tokenizer_is_an_error_or_usable() {
    let json = std::fs::read(golden("tokenizer/tokenizer.json")).unwrap();
    assert!(load_and_use(&json).is_ok());
    for length in (0..json.len()).step_by(97) {
        assert!(matches!(load_and_use(&json[..length]), Err(Error::Invalid { .. })));
    }
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..400 {
        let mut damaged = json.clone();
        for _ in 0..1 + next(3) {
            let at = next(damaged.len());
            damaged[at] = b"0123456789-e\"[]{},:AZaz/+=\xff"[next(27)];
        }
        let _ = load_and_use(&damaged);
    }
}

#[test]
fn a_hostile_tokenizer_is_an_error_or_usable() {
    let json = std::fs::read_to_string(golden("tokenizer/tokenizer.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&json).unwrap();
    let hostile = [
        ("/model/vocab", serde_json::json!([])),
        ("/model/vocab", serde_json::json!([["a", 0.0]])),
        ("/model/vocab", serde_json::json!([["", 1e308], ["</s>", -1e308], ["", 0.0], ["▁", 1e308]])),
        ("/model/unk_id", serde_json::json!(1_000_000)),
        ("/model/unk_id", serde_json::json!(null)),
        ("/model/type", serde_json::json!("WordLevel")),
        ("/normalizer/normalizers/0/precompiled_charsmap", serde_json::json!("")),
        ("/normalizer/normalizers/0/precompiled_charsmap", serde_json::json!("AAAA")),
        ("/normalizer/normalizers/0/precompiled_charsmap", serde_json::json!("/////////////////////w==")),
        ("/normalizer/normalizers/0/precompiled_charsmap", serde_json::json!("BAAAAP////8AAAA=")),
        ("/normalizer/normalizers/1/pattern/Regex", serde_json::json!("(a*)*\\1b")),
        ("/normalizer/normalizers/1/pattern/Regex", serde_json::json!("(")),
        ("/pre_tokenizer/replacement", serde_json::json!("")),
        ("/post_processor/single", serde_json::json!([])),
        ("/added_tokens/1/id", serde_json::json!(4_000_000_000_u32)),
        ("/added_tokens/1/content", serde_json::json!("")),
    ];
    for (place, value) in hostile {
        let mut json = golden.clone();
        *json.pointer_mut(place).unwrap() = value.clone();
        let result = load_and_use(json.to_string().as_bytes());
        println!("{place} {value}: {result:?}"); // shown when a later case fails
    }
    for json in [String::new(), "[".repeat(100_000), "null".to_owned(), "{}".to_owned()] {
        assert!(matches!(load_and_use(json.as_bytes()), Err(Error::Invalid { .. })));
    }
    assert!(matches!(
        load_and_use(br#"{"model":{"type":"WordLevel","vocab":{"</s>":0},"unk_token":"</s>"}}"#),
        Err(Error::Invalid { .. })
    ));
}
