//! The room's error.

use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be used. The message names the file or tensor and says what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A pipe, a device, or something else that cannot be mapped.
    #[error("{} is neither a file nor a folder", path.display())]
    NotAFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// The file has neither the first bytes nor the name of a file that this room reads.
    #[error("{} is no checkpoint: expected a safetensors file or its index, a torch archive (.pth, .pt) or a GGUF file", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A folder without weights.
    #[error("no weights in {}: expected a .safetensors, .gguf or .pth file", folder.display())]
    NoCheckpoint {
        /// The folder.
        folder: PathBuf,
    },
    /// A folder with several checkpoints, and no rule to choose.
    #[error("several checkpoints in {}: {candidates}; name the one to use", folder.display())]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// The files' names, joined by commas.
        candidates: String,
    },
    /// The file contradicts itself or its format.
    #[error("{} is damaged or incomplete: {problem}; download it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file that was opened cannot be read to its end any more.
    #[error("{} has changed while it was read, or its drive is gone; wait until it is complete, then run again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file is well formed, but uses something that is not supported.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported, and what to try.
        what: String,
    },
    /// A pickle asks for something other than tensors. The request was not carried out.
    #[error("{} is refused: its pickle asks for {what}, which is not needed to store tensors", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the pickle asks for.
        what: String,
    },
    /// JSON that cannot be parsed.
    #[error("{} is not valid JSON of the expected form", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// serde's reason, with line and column.
        source: serde_json::Error,
    },
    /// A shard does not exist that an index names, or that another shard belongs to.
    #[error("{} needs the shard {shard}, which is not beside it; download it too", index.display())]
    MissingShard {
        /// The index file, or the other shard.
        index: PathBuf,
        /// The shard's name.
        shard: String,
    },
    /// Two tensors have one name.
    #[error("the tensor {name} is stored twice, in {} and {}", first.display(), second.display())]
    Duplicate {
        /// The tensor.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other file, or the same.
        second: PathBuf,
    },
    /// The checkpoint lacks a tensor that the model needs.
    #[error("the tensor {name} is missing from {}", path.display())]
    MissingTensor {
        /// The tensor's diffusers name.
        name: String,
        /// The checkpoint's first file.
        path: PathBuf,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("the tensor {name} has shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// The tensor's diffusers name.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// The tensor's values are not floating point numbers that this room decodes.
    #[error(
        "the tensor {name} is stored as {dtype}; expected F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I8 with scales, or a GGUF type"
    )]
    NotDecodable {
        /// The tensor.
        name: String,
        /// Its dtype, as the file calls it.
        dtype: String,
    },
    /// Rows outside a tensor.
    #[error("the tensor {name} has no rows {start}..{end}: its shape is {shape:?}")]
    Rows {
        /// The tensor.
        name: String,
        /// First requested row.
        start: usize,
        /// One past the last requested row.
        end: usize,
        /// The tensor's shape.
        shape: Vec<usize>,
    },
}

impl WeightsError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(super) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.into(), problem: problem.into() }
    }

    pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.into(), what: what.into() }
    }

    pub(super) fn refused(path: &Path, what: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), what: what.into() }
    }
}

/// A name from a file, made safe for a terminal: control characters are escaped, long names cut.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 120;
    let mut text: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}
