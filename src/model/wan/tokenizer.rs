//! Turns a prompt into token ids.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::ModelWrapper;

use super::names::TOKENIZER_TENSOR;
use super::pieces::Pieces;
use super::prompt_clean;
use crate::weights::{Checkpoint, Container};

/// Largest number of tokens of a prompt in Wan2.1, including the end-of-sequence token.
pub const MAX_SEQUENCE_LENGTH: usize = 512;

/// Length of the longest prompt that is accepted, in characters. 512 tokens have far fewer
/// characters in any language. The limit bounds the time for cleaning and tokenising.
pub const MAX_PROMPT_CHARS: usize = 20_000;

/// The largest `tokenizer.json` that is read, in bytes. UMT5's file has 17 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

const EOS: &str = "</s>";

/// Why a prompt cannot be turned into ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the tokenizer {path}: is the model folder complete?")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not a tokenizer that this program can use.
    #[error("{path} is not a usable tokenizer: {why}; fetch the model's tokenizer/tokenizer.json again")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The tokenizer is of another model than the text encoder.
    #[error(
        "{path} has {pieces} pieces, but the text encoder knows {known}: the tokenizer is of another model; take the text encoder's own"
    )]
    Misfit {
        /// The file.
        path: PathBuf,
        /// Number of pieces of the tokenizer.
        pieces: usize,
        /// Rows of the text encoder's embedding.
        known: usize,
    },
    /// The prompt is longer than [`MAX_PROMPT_CHARS`].
    #[error(
        "too long: {0} characters, at most {MAX_PROMPT_CHARS} are allowed (the model reads the first 512 tokens only); shorten it"
    )]
    PromptTooLong(usize),
    /// The tokenizer refused the text.
    #[error("cannot tokenise the prompt: {0}")]
    Encode(String),
    /// There is no room for the end-of-sequence token.
    #[error("max_sequence_length is 0: choose 1 or more (Wan2.1 uses {MAX_SEQUENCE_LENGTH})")]
    NoRoom,
}

/// Where a tokenizer comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenizerSource {
    /// Hugging Face's `tokenizer.json`.
    Json(PathBuf),
    /// A SentencePiece model, such as `spiece.model`.
    Pieces(PathBuf),
    /// The file of the text encoder carries it: as the tensor `spiece_model`, or in the metadata of
    /// a GGUF file.
    Inside(PathBuf),
}

impl TokenizerSource {
    /// The kind of a file by its first bytes.
    pub fn of_file(path: &Path) -> Self {
        match Container::of_file(path) {
            Container::Json => Self::Json(path.into()),
            _ => Self::Pieces(path.into()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Json(path) | Self::Pieces(path) | Self::Inside(path) => path,
        }
    }
}

/// UMT5's tokenizer, a SentencePiece Unigram model.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    eos: u32,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Read`] if the file is unreadable. [`Error::Invalid`] if it is not a Unigram
    /// tokenizer or lacks `</s>`.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = read(path)?;
        Self::parse(&bytes).map_err(|why| Error::Invalid { path: path.to_owned(), why })
    }

    /// Reads a tokenizer that is a file of its own.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn open(source: &TokenizerSource) -> Result<Self, Error> {
        let path = source.path();
        if let TokenizerSource::Json(path) = source {
            return Self::load(path);
        }
        let bytes = read(path)?;
        Pieces::of_sentencepiece(&bytes)
            .and_then(|pieces| Self::of_pieces(&pieces))
            .map_err(|why| Error::Invalid { path: path.to_owned(), why })
    }

    /// Reads the tokenizer that the file of a text encoder carries.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn inside(path: &Path, encoder: &Checkpoint) -> Result<Self, Error> {
        let pieces = match (encoder.get(TOKENIZER_TENSOR), encoder.metadata().and_then(Pieces::of_gguf)) {
            (Some(tensor), _) => Pieces::of_sentencepiece(tensor.bytes),
            (None, Some(pieces)) => pieces,
            (None, None) => Err("it carries no tokenizer".into()),
        };
        pieces.and_then(|pieces| Self::of_pieces(&pieces)).map_err(|why| Error::Invalid {
            path: path.to_owned(),
            why: format!("the tokenizer in it cannot be used: {why}"),
        })
    }

    fn of_pieces(pieces: &Pieces) -> Result<Self, String> {
        Self::parse(&serde_json::to_vec(&pieces.to_json()).map_err(|error| error.to_string())?)
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Refuses a tokenizer of another model. A text encoder may have some rows more than its
    /// tokenizer has pieces: UMT5's has 256,384 for 256,300. mT5's tokenizer has 250,100 pieces.
    ///
    /// # Errors
    /// [`Error::Misfit`].
    pub fn check_fits(&self, path: &Path, known: usize) -> Result<(), Error> {
        let pieces = self.pieces();
        let spare = (known / 64).max(127.min(known / 4));
        if pieces <= known && pieces >= known - spare {
            return Ok(());
        }
        Err(Error::Misfit { path: path.to_owned(), pieces, known })
    }

    fn parse(json: &[u8]) -> Result<Self, String> {
        check_character_maps(json)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(json))?;
        if !matches!(inner.get_model(), ModelWrapper::Unigram(_)) {
            return Err("its model is not Unigram".to_owned());
        }
        // The file may set a length. Here the length depends on the request.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        let eos = inner.token_to_id(EOS).ok_or_else(|| format!("it has no {EOS}"))?;
        Ok(Self { inner, eos })
    }

    /// The ids of `prompt`, which is first cleaned by [`prompt_clean`]. There are at most
    /// `max_sequence_length` ids ([`MAX_SEQUENCE_LENGTH`] in Wan2.1), without padding. The
    /// end-of-sequence token is always last, and an empty prompt consists of this token alone.
    ///
    /// The ids equal those of transformers for the same `tokenizer.json` (`PreTrainedTokenizerFast`
    /// with `truncation=True`) where its attention mask is 1. transformers 5's own `T5Tokenizer`
    /// differs: it uses the id 2 for the unknown token, which has the id 3 in UMT5.
    ///
    /// # Errors
    /// [`Error::NoRoom`]; [`Error::PromptTooLong`]; [`Error::Encode`].
    pub fn encode(&self, prompt: &str, max_sequence_length: usize) -> Result<Vec<u32>, Error> {
        let room = max_sequence_length.checked_sub(1).ok_or(Error::NoRoom)?;
        let tokens = self.all(prompt)?.into_iter().take(room);
        Ok(tokens.chain([self.eos]).collect())
    }

    /// Number of ids of `prompt` without a limit, the end-of-sequence token included.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`]; [`Error::Encode`].
    pub fn length(&self, prompt: &str) -> Result<usize, Error> {
        Ok(self.all(prompt)?.len() + 1)
    }

    /// The ids of the whole prompt, without the end-of-sequence token.
    fn all(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        let chars = prompt.chars().count();
        if chars > MAX_PROMPT_CHARS {
            return Err(Error::PromptTooLong(chars));
        }
        let clean = prompt_clean(prompt);
        let encoding = guarded(|| self.inner.encode_fast(clean.as_str(), false)).map_err(Error::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The bytes of a tokenizer's file.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read_error)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(Error::Invalid {
            path: path.to_owned(),
            why: format!("it has {bytes} bytes, more than any tokenizer"),
        });
    }
    std::fs::read(path).map_err(read_error)
}

/// Runs `work` and turns a panic into an error. The tokenizers crate panics on a damaged character
/// map, both when it reads the map and when it looks up characters.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its character map or model is damaged".to_owned()),
    }
}

/// Refuses character maps that claim to be longer than they are, because the tokenizers crate
/// allocates the claimed length.
fn check_character_maps(json: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Head {
        normalizer: Option<Value>,
    }
    let head: Head = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    head.normalizer.as_ref().map_or(Ok(()), check_character_maps_in)
}

fn check_character_maps_in(normalizer: &Value) -> Result<(), String> {
    for (key, value) in normalizer.as_object().into_iter().flatten() {
        match value {
            Value::Array(normalizers) => normalizers.iter().try_for_each(check_character_maps_in)?,
            Value::String(map) if key == "precompiled_charsmap" && claimed_bytes(map) > map.len() => {
                return Err("its character map is shorter than it claims".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

/// The length of the table that a base64 character map claims in its first four bytes,
/// little-endian.
fn claimed_bytes(base64: &str) -> usize {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte: u8| ALPHABET.iter().position(|&letter| letter == byte).unwrap_or(0) as u64;
    let bits = base64.bytes().take(6).fold(0, |bits, byte| bits << 6 | digit(byte));
    // Six digits have 36 bits, and the first 32 bits are the four bytes.
    ((bits >> 4) as u32).swap_bytes() as usize
}
