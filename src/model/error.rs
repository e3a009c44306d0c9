//! The room's error.

use crate::gpu::GpuError;
use crate::weights::WeightsError;
use std::path::{Path, PathBuf};

/// Why a model cannot be loaded or run: what happened, where, and what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The GPU refused or failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A configuration that cannot be parsed.
    #[error("{} is not a valid configuration", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// serde's reason, with line and column.
        source: serde_json::Error,
    },
    /// A configuration that makes no sense, or describes another kind of model.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The configuration file, or the checkpoint from whose shapes it was inferred.
        path: PathBuf,
        /// What is wrong, and what was expected.
        problem: String,
    },
    /// The folder is another kind of model, or none.
    #[error("{}: {problem}", path.display())]
    NotAModel {
        /// What was given.
        path: PathBuf,
        /// Why it is not a model that this program runs.
        problem: String,
    },
    /// A part is not in the folder.
    #[error("{} has no {what}", folder.display())]
    MissingPart {
        /// The model's folder.
        folder: PathBuf,
        /// The part, and the names under which it was looked for.
        what: String,
    },
    /// The model cannot make what is asked for. The text says what it can make.
    #[error("{0}")]
    Request(String),
    /// The tokenizer cannot be read, or fails.
    #[error(transparent)]
    Tokenizer(Box<dyn std::error::Error + Send + Sync>),
    /// The checkpoint's tensors are not those of its configuration.
    #[error("{} does not match its configuration: {problem}", path.display())]
    Tensors {
        /// The checkpoint.
        path: PathBuf,
        /// The tensors that are missing or have other shapes.
        problem: String,
    },
}

impl ModelError {
    pub(super) fn config(path: &Path, problem: impl Into<String>) -> Self {
        Self::Config { path: path.into(), problem: problem.into() }
    }
}
