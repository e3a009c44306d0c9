//! Why a strategy cannot be used.

use crate::gpu::GpuError;

/// Errors of room `caching`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Settings that cannot work.
    #[error("{0}")]
    Settings(String),
    /// A method that has to be calibrated for the model first.
    #[error(
        "{0} has no calibration for this model: make one with `ditscope profile --model FOLDER -o profile.json` and name it with --profile profile.json"
    )]
    Uncalibrated(&'static str),
    /// A list of blocks that does not parse.
    #[error("the block list \"{list}\": {reason}; write numbers and ranges such as 0-5,9,12")]
    BlockList {
        /// The list, shortened.
        list: String,
        /// What is wrong.
        reason: String,
    },
    /// A plan wants something that was never stored.
    #[error("the plan reuses {0} before anything was stored for it")]
    NothingStored(String),
    /// The parts of the program do not agree: a bug.
    #[error("{0}")]
    Unexpected(&'static str),
    /// A strategy's file that cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is no strategy.
    #[error("{path} holds no strategy: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The GPU.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl CacheError {
    /// Whether the caller asked for something impossible, as opposed to something that failed.
    pub fn is_wrong_use(&self) -> bool {
        matches!(
            self,
            Self::Settings(_)
                | Self::Uncalibrated(_)
                | Self::NothingStored(_)
                | Self::BlockList { .. }
                | Self::File { .. }
        )
    }
}
