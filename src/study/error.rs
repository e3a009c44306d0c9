//! Why a study has no result.

use std::path::{Path, PathBuf};

use crate::caching::CacheError;
use crate::engine::EngineError;
use crate::media::MediaError;
use crate::metrics::MetricsError;
use crate::profiling::ProfilingError;

/// Errors of room `study`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The caller asked for something impossible.
    #[error("{0}")]
    Request(String),
    /// A run has no result, or its result cannot be used.
    #[error("{0}")]
    Failed(String),
    /// The study was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// This item of a queue was cancelled. The other items continue.
    #[error("left out")]
    Skipped,
    /// A job failed.
    #[error(transparent)]
    Engine(EngineError),
    /// A strategy is invalid.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A profile cannot be made.
    #[error(transparent)]
    Profiling(#[from] ProfilingError),
    /// An existing profile cannot be used.
    #[error("cannot use {}", path.display())]
    Profile {
        /// The profile's file.
        path: PathBuf,
        /// The reason: the profile cannot be read, or belongs to another model.
        source: ProfilingError,
    },
    /// A clip, a picture or an output file cannot be read or written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// Two clips cannot be compared.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A file or a folder cannot be read or written.
    #[error("{context}")]
    Io {
        /// The failed action and the path.
        context: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not JSON of the expected form.
    #[error("{} is not of a comparison of this version of the program", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// serde's reason, with line and column.
        source: serde_json::Error,
    },
    /// A result cannot be written as JSON.
    #[error("the result cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
    /// An error with its context.
    #[error("{context}")]
    Within {
        /// The context: where or when the error occurred.
        context: String,
        /// The error.
        source: Box<Self>,
    },
}

impl From<EngineError> for StudyError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Cancelled => Self::Cancelled,
            other => Self::Engine(other),
        }
    }
}

impl StudyError {
    /// An error of the system. `what` names the failed action, for example "cannot read".
    pub(super) fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { context: format!("{what} {}", path.display()), source }
    }

    /// The same error with its context: where or when it occurred.
    #[must_use]
    pub fn within(self, context: impl Into<String>) -> Self {
        Self::Within { context: context.into(), source: Box::new(self) }
    }

    /// The error without its contexts.
    pub fn root(&self) -> &Self {
        match self {
            Self::Within { source, .. } => source.root(),
            other => other,
        }
    }

    /// The error and its causes on one line, each once.
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let told = cause.to_string();
            if !text.contains(&told) {
                text = format!("{text}: {told}");
            }
            next = cause.source();
        }
        text
    }

    /// Whether the caller asked for something impossible. All other errors are failures of a
    /// possible request.
    pub fn is_wrong_use(&self) -> bool {
        match self.root() {
            Self::Request(_) | Self::Profile { source: ProfilingError::Misfit(_), .. } => true,
            Self::Engine(error) => error.is_wrong_use(),
            Self::Cache(error) => error.is_wrong_use(),
            Self::Media(error) => error.is_wrong_use(),
            _ => false,
        }
    }

    /// Whether the study ended because it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.root(), Self::Cancelled)
    }
}
