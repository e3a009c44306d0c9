//! Room `metrics`: numbers that say how alike two clips are, computed on the CPU. The room knows no
//! other room.
//!
//! | metric | equal frames | range | quantity |
//! |---|---|---|---|
//! | PSNR | infinity | 0 dB and up | mean squared error, in decibels below white |
//! | SSIM | 1 | -1 to 1 | local means, contrasts and correlation (Wang et al. 2004) |
//! | LPIPS | 0 | 0 and up | distance of a network's features (Zhang et al. 2018) |
//! | SSIMULACRA2 | 100 | up to 100, also below 0 | SSIM and edge artefacts at six scales |
//!
//! The network of LPIPS was trained to recognise objects. SSIMULACRA2 was fitted to human ratings.
//! On SSIMULACRA2's scale, 90 means almost indistinguishable, 70 high quality, 50 medium and 30 low
//! quality. Clips are compared frame by frame, so no metric sees flicker.

mod conv;
mod frames;
mod lpips;
mod ssim;
mod ssimulacra2;

use rayon::prelude::*;
use serde::Serialize;

pub use frames::FloatFrames;
pub use lpips::{MIN_SIDE as LPIPS_MIN_SIDE, lpips};
pub use ssim::{WINDOW as SSIM_WINDOW, ssim};
pub use ssimulacra2::ssimulacra2;

/// Why clips cannot be compared.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A clip is empty.
    #[error("a clip without frames cannot be compared")]
    NoFrames,
    /// A side is 0, or the size of a frame overflows.
    #[error("frames of {width}x{height} pixels cannot be compared")]
    FrameExtent {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A frame has more or fewer values than the clip's size asks for.
    #[error("frame {index} has {actual} values, but {expected} are width x height x 3")]
    FrameSize {
        /// Index of the frame, from 0.
        index: usize,
        /// `width * height * 3`.
        expected: usize,
        /// Number of values in the frame.
        actual: usize,
    },
    /// A frame has a value that is NaN or infinite.
    #[error("frame {index} has values that are no numbers")]
    NotFinite {
        /// Index of the frame, from 0.
        index: usize,
    },
    /// The clips have different sizes.
    #[error("the clips differ in size: {}x{} and {}x{} pixels", a[0], a[1], b[0], b[1])]
    DifferentSize {
        /// Width and height of the first clip.
        a: [usize; 2],
        /// Width and height of the second clip.
        b: [usize; 2],
    },
    /// The clips have different lengths.
    #[error("the clips differ in length: {a} and {b} frames")]
    DifferentLength {
        /// Number of frames in the first clip.
        a: usize,
        /// Number of frames in the second clip.
        b: usize,
    },
    /// The frames are too small for a metric.
    #[error("{metric} needs frames of at least {least}x{least} pixels; these are {width}x{height}")]
    TooSmall {
        /// The metric's name.
        metric: &'static str,
        /// The smallest width and height that the metric takes, in pixels.
        least: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The built-in weights of LPIPS are damaged.
    #[error("the built-in weights of LPIPS are damaged: {0}; build the program again")]
    Weights(String),
    /// SSIMULACRA2 refused the frames, for example because they have more than 268 million pixels.
    #[error("SSIMULACRA2: {0}")]
    Ssimulacra2(String),
}

/// How alike two clips are, for the whole clip and for each frame.
///
/// The PSNR of equal frames is infinite. JSON has no infinity, so serde_json writes `null` for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fidelity {
    /// PSNR of the clip in dB, infinite for equal clips. It comes from the squared error averaged
    /// over all frames, so one equal frame does not make it infinite.
    pub psnr: f64,
    /// SSIM, averaged over the frames.
    pub ssim: f64,
    /// LPIPS (AlexNet, version 0.1), averaged over the frames.
    pub lpips: f64,
    /// SSIMULACRA2, averaged over the frames.
    pub ssimulacra2: f64,
    /// PSNR of each frame in dB, infinite for equal frames.
    pub frame_psnr: Vec<f64>,
    /// SSIM of each frame.
    pub frame_ssim: Vec<f64>,
    /// LPIPS of each frame.
    pub frame_lpips: Vec<f64>,
    /// SSIMULACRA2 of each frame.
    pub frame_ssimulacra2: Vec<f64>,
}

/// The metrics of one pair of frames.
struct FrameScores {
    squared_error: f64,
    ssim: f64,
    lpips: f64,
    ssimulacra2: f64,
}

impl FrameScores {
    fn of(a: Frame, b: Frame) -> Result<Self, MetricsError> {
        Ok(Self {
            squared_error: mean_squared_error(a, b)?,
            ssim: ssim(a, b)?,
            lpips: lpips(a, b)?,
            ssimulacra2: ssimulacra2(a, b)?,
        })
    }
}

/// Compares two clips by all metrics, on all cores. SSIMULACRA2 treats `a` as the original; the
/// other metrics are symmetric.
///
/// # Errors
/// [`MetricsError::DifferentSize`]; [`MetricsError::DifferentLength`]; [`MetricsError::TooSmall`]
/// for a side below [`LPIPS_MIN_SIDE`] pixels; [`MetricsError::Ssimulacra2`] for huge frames.
pub fn compare(a: &FloatFrames, b: &FloatFrames) -> Result<Fidelity, MetricsError> {
    if a.len() != b.len() {
        return Err(MetricsError::DifferentLength { a: a.len(), b: b.len() });
    }
    let pairs: Vec<_> = a.frames().zip(b.frames()).collect();
    let scores = pairs.into_par_iter().map(|(a, b)| FrameScores::of(a, b));
    let scores = scores.collect::<Result<Vec<_>, MetricsError>>()?;
    let of_frames = |metric: fn(&FrameScores) -> f64| scores.iter().map(metric).collect::<Vec<f64>>();
    let squared_errors = of_frames(|scores| scores.squared_error);
    let frame_psnr = squared_errors.iter().copied().map(decibels).collect();
    let frame_ssim = of_frames(|scores| scores.ssim);
    let frame_lpips = of_frames(|scores| scores.lpips);
    let frame_ssimulacra2 = of_frames(|scores| scores.ssimulacra2);
    Ok(Fidelity {
        psnr: decibels(mean(&squared_errors)),
        ssim: mean(&frame_ssim),
        lpips: mean(&frame_lpips),
        ssimulacra2: mean(&frame_ssimulacra2),
        frame_psnr,
        frame_ssim,
        frame_lpips,
        frame_ssimulacra2,
    })
}

/// PSNR of two clips in dB, infinite for equal clips. It takes much less time than [`compare`].
///
/// # Errors
/// [`MetricsError::DifferentSize`], [`MetricsError::DifferentLength`].
pub fn clip_psnr(a: &FloatFrames, b: &FloatFrames) -> Result<f64, MetricsError> {
    if a.len() != b.len() {
        return Err(MetricsError::DifferentLength { a: a.len(), b: b.len() });
    }
    let errors = a.frames().zip(b.frames()).map(|(a, b)| mean_squared_error(a, b)).collect::<Result<Vec<_>, _>>()?;
    Ok(decibels(mean(&errors)))
}

/// PSNR of two frames in dB with a peak value of 1, infinite for equal frames.
///
/// # Errors
/// [`MetricsError::DifferentSize`].
pub fn psnr(a: Frame, b: Frame) -> Result<f64, MetricsError> {
    mean_squared_error(a, b).map(decibels)
}

/// One frame of a [`FloatFrames`].
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

    /// `height * width * 3` values in [0, 1]: rows from top to bottom, `R G B` for each pixel.
    pub fn values(self) -> &'a [f32] {
        self.values
    }

    fn size(self) -> [usize; 2] {
        [self.width, self.height]
    }
}

/// Refuses frames of different sizes and frames with a side below `least` pixels.
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
