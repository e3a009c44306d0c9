//! How much the clips of runs resemble the baseline's.

use crate::app::data::runs::Run;

/// A run in the state that its clip was compared in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClipKey {
    /// The run's number.
    pub run: u64,
    /// The run's version.
    pub version: u64,
}

impl ClipKey {
    /// The key of a run as it is now.
    pub fn of(run: &Run) -> Self {
        Self { run: run.id, version: run.version }
    }
}

/// Two runs whose clips are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClipPair {
    /// The baseline.
    pub baseline: ClipKey,
    /// The other run.
    pub run: ClipKey,
}

impl ClipPair {
    /// The pair of a run and its baseline.
    pub fn of(baseline: &Run, run: &Run) -> Self {
        Self { baseline: ClipKey::of(baseline), run: ClipKey::of(run) }
    }
}

/// The state of the comparison of two clips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// It is being computed.
    Asked,
    /// It is done.
    Found(Likeness),
    /// The clips differ in size or length.
    Cannot,
}

/// Similarity of a run's clip to the baseline's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likeness {
    /// PSNR in dB; infinite for equal clips.
    pub psnr: f64,
    /// SSIM; 1 for equal clips.
    pub ssim: f64,
}
