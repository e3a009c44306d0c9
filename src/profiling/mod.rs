//! Room `profiling`: which blocks of a model attend to the foreground, and how stable this is
//! (ProfilingDiT, arXiv 2504.03140).
//!
//! ```text
//! mask.rs       foreground masks on the token grid from latents, cross-attention, files or a brush
//! score.rs      compares a map of received attention with a mask: recall, precision, lift, AUC
//! recorder.rs   collects maps and changes of many runs, and makes a profile of them
//! partition.rs  foreground and background blocks by a threshold
//! stability.rs  rank correlations, and the agreement of lists
//! profile.rs    the profile file
//! report.rs     figures and tables of a profile
//! ```
//!
//! The room works on plain data on the host. The caller measures on the GPU
//! ([`crate::ops::attention_received`], [`crate::ops::Changes`]) and reads the results back. The
//! room knows `media` (reads mask images, writes figures) and `caching`'s plain data (the
//! calibration in a profile).

pub mod mask;
pub mod partition;
pub mod profile;
pub mod recorder;
pub mod report;
pub mod score;
pub mod stability;

mod statistics;

/// Why profiling fails. Every message is one line for the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfilingError {
    /// A list has the wrong length.
    #[error("{what}: {got} values where {expected} belong")]
    Size {
        /// The name of the values.
        what: &'static str,
        /// The number of values that is needed.
        expected: usize,
        /// The number of values that was given.
        got: usize,
    },
    /// The profile breaks a rule of its format.
    #[error("the profile is not valid: {0}")]
    Invalid(String),
    /// The profile belongs to another model.
    #[error("the profile does not fit: {0}")]
    Misfit(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// An image or a figure cannot be read or written.
    #[error(transparent)]
    Media(#[from] crate::media::MediaError),
    /// The pictures of a mask do not separate foreground and background.
    #[error("{0}")]
    NoMask(&'static str),
    /// The recorded data are not enough for a profile.
    #[error("nothing was measured that could be scored: {0}")]
    Nothing(&'static str),
}

impl ProfilingError {
    /// Fails unless `got == expected`.
    pub(crate) fn check_size(what: &'static str, expected: usize, got: usize) -> Result<(), Self> {
        if got == expected { Ok(()) } else { Err(Self::Size { what, expected, got }) }
    }
}
