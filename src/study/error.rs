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
    /// The caller asked for something that can never work.
    #[error("{0}")]
    Request(String),
    /// A run that shows nothing, or a result that cannot be used.
    #[error("{0}")]
    Failed(String),
    /// The user ended the study.
    #[error("cancelled")]
    Cancelled,
    /// The user ended this item of a queue; the others go on.
    #[error("left out")]
    Skipped,
    /// A job.
    #[error(transparent)]
    Engine(EngineError),
    /// A strategy.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A profile or its measurements.
    #[error(transparent)]
    Profiling(#[from] ProfilingError),
    /// A profile that was found and cannot be used.
    #[error("cannot use {}", path.display())]
    Profile {
        /// The profile's file.
        path: PathBuf,
        /// It cannot be read, or is of another model.
        source: ProfilingError,
    },
    /// A clip, a picture or an output file.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The comparison of two clips.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A file or a folder.
    #[error("{context}")]
    Io {
        /// What could not be done, and where.
        context: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file that is not JSON of the kind that was expected.
    #[error("{} is not of a comparison of this version of the program", path.display())]
    Json {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A result that cannot be written as JSON.
    #[error("the result cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
    /// An error, and where or when it came up.
    #[error("{context}")]
    Within {
        /// Where or when.
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
    /// `what` could not be done with a file or folder: "cannot read".
    pub(super) fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { context: format!("{what} {}", path.display()), source }
    }

    /// The same error with where or when it came up.
    #[must_use]
    pub fn within(self, context: impl Into<String>) -> Self {
        Self::Within { context: context.into(), source: Box::new(self) }
    }

    /// The error itself, without where or when it came up.
    pub fn root(&self) -> &Self {
        match self {
            Self::Within { source, .. } => source.root(),
            other => other,
        }
    }

    /// The error and its causes on one line, each said once.
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

    /// Whether the caller asked for something impossible, as opposed to something that failed.
    pub fn is_wrong_use(&self) -> bool {
        match self.root() {
            Self::Request(_) | Self::Profile { source: ProfilingError::Misfit(_), .. } => true,
            Self::Engine(error) => error.is_wrong_use(),
            Self::Cache(error) => error.is_wrong_use(),
            Self::Media(error) => error.is_wrong_use(),
            _ => false,
        }
    }

    /// Whether the study ended because somebody cancelled it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.root(), Self::Cancelled)
    }
}
