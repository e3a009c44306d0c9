//! Room `profiling`: which blocks of a model attend to the foreground, and how steady that is (ProfilingDiT, arXiv 2504.03140).
//!
//! ```text
//! mask.rs       foreground masks on the token grid from latents, cross-attention, files or a brush
//! score.rs      one map of attention received against one mask: recall, precision, lift, AUC
//! recorder.rs   collects maps and changes of many runs, and makes a profile of them
//! partition.rs  foreground and background blocks by a threshold; lists of blocks as text
//! controls.rs   lists of as many blocks that ignore attention, to compare with
//! stability.rs  rank correlations, and how much lists agree
//! profile.rs    the profile file
//! report.rs     figures and tables of a profile
//! ```
//! Plain data on the host: what is measured on the GPU ([`crate::ops::attention_received`], [`crate::ops::Changes`]) has been read back by
//! whoever calls. Knows `media` (mask images in, figures out) and `caching`'s plain data (the calibration in a profile).

pub mod controls;
pub mod mask;
pub mod partition;
pub mod profile;
pub mod recorder;
pub mod report;
pub mod score;
pub mod stability;

mod statistics;

/// What can go wrong in profiling. Every message is one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum ProfilingError {
    /// Sizes that do not fit each other.
    #[error("{what}: {got} values where {expected} belong")]
    Size {
        /// Which values.
        what: &'static str,
        /// How many fit.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A list of blocks that does not parse.
    #[error("the block list \"{list}\": {reason}; write numbers and ranges such as 0-5,9,12")]
    BlockList {
        /// The list, shortened.
        list: String,
        /// What is wrong.
        reason: String,
    },
    /// A profile that breaks a rule of its format.
    #[error("the profile is not valid: {0}")]
    Invalid(String),
    /// A profile of something else.
    #[error("the profile does not fit: {0}")]
    Misfit(String),
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Images or figures.
    #[error(transparent)]
    Media(#[from] crate::media::MediaError),
    /// Pictures that separate nothing.
    #[error("{0}")]
    NoMask(&'static str),
    /// Nothing was recorded that a profile could be made of.
    #[error("nothing was measured that could be scored: {0}")]
    Nothing(&'static str),
}

impl ProfilingError {
    /// Fails unless `got == expected`.
    pub(crate) fn check_size(what: &'static str, expected: usize, got: usize) -> Result<(), Self> {
        if got == expected { Ok(()) } else { Err(Self::Size { what, expected, got }) }
    }
}
