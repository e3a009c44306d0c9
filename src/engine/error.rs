//! Why a job ended without a clip.

use crate::caching::CacheError;
use crate::gpu::GpuError;
use crate::model::ModelError;
use crate::sampling;

use super::NotFinite;

/// Errors of room `engine`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The request is impossible for this model.
    #[error("{0}")]
    Request(String),
    /// The model cannot be used.
    #[error(transparent)]
    Model(ModelError),
    /// The settings of the sampler are invalid.
    #[error(transparent)]
    Sampling(#[from] sampling::Error),
    /// The caching strategy is invalid.
    #[error(transparent)]
    Cache(CacheError),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(GpuError),
    /// Values became NaN or infinite.
    #[error("{0}")]
    NotFinite(Box<NotFinite>),
    /// Masks or scores cannot be made.
    #[error(transparent)]
    Profiling(#[from] crate::profiling::ProfilingError),
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// No thread could be started.
    #[error("the engine's thread could not be started")]
    Thread(#[source] std::io::Error),
    /// The thread has ended.
    #[error("the engine has stopped; start it again")]
    Stopped,
}

impl From<NotFinite> for EngineError {
    fn from(found: NotFinite) -> Self {
        Self::NotFinite(Box::new(found))
    }
}

impl From<GpuError> for EngineError {
    fn from(error: GpuError) -> Self {
        match error {
            GpuError::Cancelled => Self::Cancelled,
            other => Self::Gpu(other),
        }
    }
}

impl From<ModelError> for EngineError {
    fn from(error: ModelError) -> Self {
        match error {
            // A job that is cancelled while it loads, or a device that is lost meanwhile, is not an
            // error of the model.
            ModelError::Gpu(error) => error.into(),
            ModelError::Request(message) => Self::Request(message),
            other => Self::Model(other),
        }
    }
}

impl From<CacheError> for EngineError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Gpu(error) => error.into(),
            other => Self::Cache(other),
        }
    }
}

impl EngineError {
    /// Whether the caller asked for something impossible. All other errors are failures of a
    /// possible request.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::Request(_) | Self::Sampling(_) | Self::Cache(_))
    }
}
