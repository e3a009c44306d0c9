//! Tokenizers outside of `tokenizer.json`: SentencePiece models (`spiece.model`, and the tensor
//! `spiece_model` of ComfyUI's text encoders) and the pieces in a GGUF file. Both become the same
//! description that `tokenizer.json` has.
//!
//! The format of SentencePiece: `sentencepiece_model.proto`. The pipeline is that of transformers'
//! conversion of T5 models: the model's own character map, runs of spaces, and a space before the
//! first word.

use crate::weights::MetadataView;
use serde_json::json;

/// A Unigram model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pieces {
    /// Every piece with its score.
    pieces: Vec<(String, f64)>,
    /// Which pieces stand for something else than text: controls and the unknown piece.
    special: Vec<bool>,
    unknown: usize,
    /// The compiled table of replaced characters; empty for none.
    character_map: Vec<u8>,
}

/// Kinds of pieces, numbered alike in both formats.
mod kind {
    pub const UNKNOWN: u64 = 2;
    pub const CONTROL: u64 = 3;
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Four([u8; 4]),
}

/// Calls `visit` for every field of a message, with its number. `None` if the message is damaged.
fn fields<'a>(mut message: &'a [u8], mut visit: impl FnMut(u64, Field<'a>)) -> Option<()> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => {
                message = message.get(8..)?;
                continue;
            }
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            5 => {
                let (bytes, rest) = message.split_first_chunk::<4>()?;
                message = rest;
                Field::Four(*bytes)
            }
            _ => return None,
        };
        visit(tag >> 3, field);
    }
    Some(())
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl Pieces {
    /// Reads a SentencePiece model.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn of_sentencepiece(model: &[u8]) -> Result<Self, String> {
        const UNIGRAM: u64 = 1;
        let damaged = || "the SentencePiece model is damaged".to_owned();
        let (mut listed, mut trainer, mut normalizer) = (Vec::new(), &[][..], &[][..]);
        fields(model, |number, field| match (number, field) {
            (1, Field::Bytes(piece)) => listed.push(piece),
            (2, Field::Bytes(message)) => trainer = message,
            (3, Field::Bytes(message)) => normalizer = message,
            _ => {}
        })
        .ok_or_else(damaged)?;
        let (mut model_type, mut character_map) = (UNIGRAM, Vec::new());
        fields(trainer, |number, field| {
            if let (3, Field::Number(value)) = (number, field) {
                model_type = value;
            }
        })
        .ok_or_else(damaged)?;
        if model_type != UNIGRAM {
            return Err("its model is not Unigram".into());
        }
        fields(normalizer, |number, field| {
            if let (2, Field::Bytes(map)) = (number, field) {
                character_map = map.into();
            }
        })
        .ok_or_else(damaged)?;
        let mut pieces = Vec::with_capacity(listed.len());
        let mut kinds = Vec::with_capacity(listed.len());
        for message in listed {
            let (mut text, mut score, mut kind) = (&[][..], 0.0, 1);
            fields(message, |number, field| match (number, field) {
                (1, Field::Bytes(bytes)) => text = bytes,
                (2, Field::Four(bytes)) => score = f32::from_le_bytes(bytes),
                (3, Field::Number(value)) => kind = value,
                _ => {}
            })
            .ok_or_else(damaged)?;
            pieces.push((String::from_utf8(text.into()).map_err(|_| damaged())?, f64::from(score)));
            kinds.push(kind);
        }
        Self::new(pieces, &kinds, character_map)
    }

    /// Reads the tokenizer in a GGUF file. `None` if it has none.
    pub fn of_gguf(metadata: MetadataView<'_>) -> Option<Result<Self, String>> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let tokens = metadata.texts(&key("tokens"))?;
        let model = metadata.text(&key("model")).unwrap_or("t5");
        if !matches!(model, "t5" | "unigram") {
            return Some(Err(format!("its tokenizer is of the kind {model:.20}, expected t5")));
        }
        let (Some(scores), Some(kinds)) = (metadata.numbers(&key("scores")), metadata.numbers(&key("token_type")))
        else {
            return Some(Err("its tokenizer has no scores or no kinds of pieces".into()));
        };
        if scores.len() != tokens.len() || kinds.len() != tokens.len() {
            return Some(Err("its tokenizer has not as many scores as pieces".into()));
        }
        let pieces = tokens.into_iter().map(str::to_owned).zip(scores).collect();
        let kinds: Vec<u64> = kinds.into_iter().map(|kind| kind as u64).collect();
        let map = metadata.bytes(&key("precompiled_charsmap")).unwrap_or_default();
        Some(Self::new(pieces, &kinds, map.into()))
    }

    fn new(pieces: Vec<(String, f64)>, kinds: &[u64], character_map: Vec<u8>) -> Result<Self, String> {
        let unknown = kinds.iter().position(|kind| *kind == kind::UNKNOWN).ok_or("it has no unknown piece")?;
        if pieces.iter().any(|(_, score)| !score.is_finite()) {
            return Err("a score of its pieces is not a finite number".into());
        }
        let special = kinds.iter().map(|kind| matches!(*kind, kind::UNKNOWN | kind::CONTROL)).collect();
        Ok(Self { pieces, special, unknown, character_map })
    }

    /// The description in the form of `tokenizer.json`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut normalizers = vec![
            json!({"type": "Strip", "strip_left": false, "strip_right": true}),
            json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}),
        ];
        if !self.character_map.is_empty() {
            let map = base64(&self.character_map);
            normalizers.insert(0, json!({"type": "Precompiled", "precompiled_charsmap": map}));
        }
        let added = |(id, (content, _)): (usize, &(String, f64))| {
            self.special[id].then(|| {
                json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true})
            })
        };
        let added: Vec<_> = self.pieces.iter().enumerate().filter_map(added).collect();
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": metaspace,
            "post_processor": null,
            "decoder": metaspace,
            "model": {"type": "Unigram", "unk_id": self.unknown, "vocab": self.pieces, "byte_fallback": false},
        })
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for digit in 0..4 {
            let shown = digit <= group.len();
            text.push(if shown { char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests;
