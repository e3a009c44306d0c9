//! Room `metrics`: how alike two clips are. Frames in, numbers out; on the CPU. It knows no other room.
//!
//! | metric | of equal frames | range | what it measures |
//! |---|---|---|---|
//! | PSNR | infinity | 0 dB up | the mean squared error, in decibels below white |
//! | SSIM | 1 | -1 to 1 | local means, contrasts and correlation (Wang et al. 2004) |
//! | LPIPS | 0 | 0 up | the distance between the features of a network that recognises objects (Zhang et al. 2018) |
//! | SSIMULACRA2 | 100 | 100 down, also below 0 | SSIM and artefacts of edges at six scales, fitted to human ratings |
//!
//! SSIMULACRA2's scale: 90 can hardly be told apart, 70 is high quality, 50 medium, 30 low. Clips are compared frame by
//! frame; none of the metrics sees flicker.

mod conv;
mod frames;
mod lpips;
mod ssim;
mod ssimulacra2;

use rayon::prelude::*;
use serde::Serialize;

pub use frames::Frames;
pub use lpips::{MIN_SIDE as LPIPS_MIN_SIDE, lpips};
pub use ssim::{WINDOW as SSIM_WINDOW, ssim};
pub use ssimulacra2::ssimulacra2;

/// Why clips cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetricsError {
    /// A clip is empty.
    #[error("a clip without frames cannot be compared")]
    NoFrames,
    /// A side is 0, or no memory holds a frame of this size.
    #[error("frames of {width}x{height} pixels cannot be compared")]
    FrameExtent {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A frame's values do not fit the clip's size.
    #[error("frame {index} has {actual} values, but {expected} are width x height x 3")]
    FrameSize {
        /// Which frame, from 0.
        index: usize,
        /// `width * height * 3`.
        expected: usize,
        /// What the frame holds.
        actual: usize,
    },
    /// A frame has a value that is NaN or infinite.
    #[error("frame {index} has values that are no numbers")]
    NotFinite {
        /// Which frame, from 0.
        index: usize,
    },
    /// The clips are of different sizes.
    #[error("the clips differ in size: {}x{} and {}x{} pixels", a[0], a[1], b[0], b[1])]
    DifferentSize {
        /// Width and height of the first.
        a: [usize; 2],
        /// Width and height of the second.
        b: [usize; 2],
    },
    /// The clips are of different lengths.
    #[error("the clips differ in length: {a} and {b} frames")]
    DifferentLength {
        /// Frames of the first.
        a: usize,
        /// Frames of the second.
        b: usize,
    },
    /// The frames are too small for a metric.
    #[error("{metric} needs frames of at least {least}x{least} pixels; these are {width}x{height}")]
    TooSmall {
        /// The metric's name.
        metric: &'static str,
        /// The least width and height, in pixels.
        least: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The built-in weights of LPIPS are damaged.
    #[error("the built-in weights of LPIPS are damaged: {0}; build the program again")]
    Weights(String),
    /// SSIMULACRA2 refused, for example frames of more than 268 million pixels.
    #[error("SSIMULACRA2: {0}")]
    Ssimulacra2(String),
}

/// How alike two clips are: for the whole clip and for each frame.
///
/// Equal frames have an infinite PSNR; JSON knows no infinity, so serde_json writes `null` for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fidelity {
    /// PSNR of the clip in dB, from the squared error averaged over all frames (so that one equal frame does not make
    /// it infinite); infinite for equal clips.
    pub psnr: f64,
    /// SSIM, averaged over the frames.
    pub ssim: f64,
    /// LPIPS (AlexNet, version 0.1), averaged over the frames.
    pub lpips: f64,
    /// SSIMULACRA2, averaged over the frames.
    pub ssimulacra2: f64,
    /// PSNR of each frame in dB; infinite for equal frames.
    pub frame_psnr: Vec<f64>,
    /// SSIM of each frame.
    pub frame_ssim: Vec<f64>,
    /// LPIPS of each frame.
    pub frame_lpips: Vec<f64>,
    /// SSIMULACRA2 of each frame.
    pub frame_ssimulacra2: Vec<f64>,
}

/// Compares two clips by all metrics, on all cores. SSIMULACRA2 takes `a` for the original; the others are symmetric.
///
/// # Errors
/// [`MetricsError::DifferentSize`], [`MetricsError::DifferentLength`]; [`MetricsError::TooSmall`] below
/// [`LPIPS_MIN_SIDE`] pixels; [`MetricsError::Ssimulacra2`] for huge frames.
pub fn compare(a: &Frames, b: &Frames) -> Result<Fidelity, MetricsError> {
    if a.len() != b.len() {
        return Err(MetricsError::DifferentLength { a: a.len(), b: b.len() });
    }
    let pairs: Vec<_> = a.frames().zip(b.frames()).collect();
    let scores = pairs
        .into_par_iter()
        .map(|(a, b)| Ok((mean_squared_error(a, b)?, ssim(a, b)?, lpips(a, b)?, ssimulacra2(a, b)?)));
    let scores = scores.collect::<Result<Vec<_>, MetricsError>>()?;
    let error = mean(&scores.iter().map(|score| score.0).collect::<Vec<_>>());
    let frame_psnr = scores.iter().map(|score| decibels(score.0)).collect();
    let frame_ssim: Vec<_> = scores.iter().map(|score| score.1).collect();
    let frame_lpips: Vec<_> = scores.iter().map(|score| score.2).collect();
    let frame_ssimulacra2: Vec<_> = scores.iter().map(|score| score.3).collect();
    Ok(Fidelity {
        psnr: decibels(error),
        ssim: mean(&frame_ssim),
        lpips: mean(&frame_lpips),
        ssimulacra2: mean(&frame_ssimulacra2),
        frame_psnr,
        frame_ssim,
        frame_lpips,
        frame_ssimulacra2,
    })
}

/// PSNR of two clips in dB, without the dearer metrics; infinite for equal clips.
///
/// # Errors
/// [`MetricsError::DifferentSize`], [`MetricsError::DifferentLength`].
pub fn clip_psnr(a: &Frames, b: &Frames) -> Result<f64, MetricsError> {
    if a.len() != b.len() {
        return Err(MetricsError::DifferentLength { a: a.len(), b: b.len() });
    }
    let errors = a.frames().zip(b.frames()).map(|(a, b)| mean_squared_error(a, b)).collect::<Result<Vec<_>, _>>()?;
    Ok(decibels(mean(&errors)))
}

/// PSNR of two frames in dB, with 1 as the peak; infinite for equal frames.
///
/// # Errors
/// [`MetricsError::DifferentSize`].
pub fn psnr(a: Frame, b: Frame) -> Result<f64, MetricsError> {
    mean_squared_error(a, b).map(decibels)
}

/// One frame of a [`Frames`].
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    width: usize,
    height: usize,
    values: &'a [f32],
}

impl<'a> Frame<'a> {
    /// Width in pixels.
    pub fn width(self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(self) -> usize {
        self.height
    }

    /// `height * width * 3` values in [0, 1]: rows from the top, `R G B`.
    pub fn values(self) -> &'a [f32] {
        self.values
    }

    fn size(self) -> [usize; 2] {
        [self.width, self.height]
    }
}

/// Refuses frames of different sizes, or smaller than `least` pixels.
fn check(metric: &'static str, least: usize, a: Frame, b: Frame) -> Result<(), MetricsError> {
    if a.size() != b.size() {
        return Err(MetricsError::DifferentSize { a: a.size(), b: b.size() });
    }
    let [width, height] = a.size();
    if width.min(height) < least {
        return Err(MetricsError::TooSmall { metric, least, width, height });
    }
    Ok(())
}

fn mean_squared_error(a: Frame, b: Frame) -> Result<f64, MetricsError> {
    check("PSNR", 1, a, b)?;
    let squares = a.values.iter().zip(b.values).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    Ok(squares.sum::<f64>() / a.values.len() as f64)
}

fn decibels(mean_squared_error: f64) -> f64 {
    -10.0 * mean_squared_error.log10()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
