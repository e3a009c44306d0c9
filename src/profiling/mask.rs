//! Foreground masks on the token grid, without a segmentation model: motion, principal components, attention to the prompt's subject,
//! the agreement of these, files, or painted by hand.
//!
//! The paper takes PCA and SAM 2. Here a mask comes from the clean latents after the last step, which the host has anyway, so everything
//! here is plain arithmetic on the CPU; the `prompt` map alone is measured on the GPU ([`crate::ops::attention_paid`]). A mask is made
//! once and used for all steps.
//!
//! **Confidence**, 0 to 1. Of `motion`, `pca` and `prompt`: how far the two classes lie apart, as the variance between them by the
//! whole variance, from 2/pi (a normal distribution cut in two: no classes) to 1 (two values); for `pca` times how one-sided the
//! border is. Of `file`: how pure the tokens are. Of `painted`: 1. Of `auto`: how much the estimators agree.

use serde::{Deserialize, Serialize};

use super::ProfilingError;
use super::statistics::{beyond_normal, otsu, smooth};
use crate::media::GrayFrame;

mod pca;

pub use pca::pca;

/// Which tokens are foreground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    grid: [usize; 3],
    bits: Vec<bool>,
}

impl Mask {
    /// A mask on a grid (frames, height, width) of tokens, frames slowest.
    ///
    /// # Errors
    /// Another number of bits than tokens.
    pub fn new(grid: [usize; 3], bits: Vec<bool>) -> Result<Self, ProfilingError> {
        ProfilingError::check_size("mask", grid.iter().product(), bits.len())?;
        Ok(Self { grid, bits })
    }

    /// Frames, height and width in tokens.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// One bit a token.
    pub fn bits(&self) -> &[bool] {
        &self.bits
    }

    /// The share of tokens that are foreground, 0 to 1.
    pub fn share(&self) -> f64 {
        self.bits.iter().filter(|bit| **bit).count() as f64 / self.bits.len().max(1) as f64
    }

    /// Whether no frame has both foreground and background: such a mask can score nothing.
    pub fn is_trivial(&self) -> bool {
        let [_, height, width] = self.grid;
        self.bits.chunks((height * width).max(1)).all(|frame| frame.iter().all(|bit| *bit == frame[0]))
    }

    /// Intersection over union with another mask; `None` for another grid or two empty masks.
    pub fn iou(&self, other: &Self) -> Option<f64> {
        let count = |both: fn(bool, bool) -> bool| {
            self.bits.iter().zip(&other.bits).filter(|(a, b)| both(**a, **b)).count() as f64
        };
        let union = count(|a, b| a | b);
        (self.grid == other.grid && union > 0.0).then(|| count(|a, b| a & b) / union)
    }
}

/// How a mask was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Change over time.
    Motion,
    /// Principal components.
    Pca,
    /// Attention paid to words of the prompt.
    Prompt,
    /// Pictures from disk.
    File,
    /// Drawn by the user.
    Painted,
    /// The agreement of others.
    Auto,
}

impl Estimator {
    /// Its name in commands, captures and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Motion => "motion",
            Self::Pca => "pca",
            Self::Prompt => "prompt",
            Self::File => "file",
            Self::Painted => "painted",
            Self::Auto => "auto",
        }
    }
}

/// A mask, and what it was cut from.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Who says so.
    pub estimator: Estimator,
    /// The mask.
    pub mask: Mask,
    /// How sure, 0 to 1; see the head of this file.
    pub confidence: f64,
    /// What was cut in two: one value a token, large for foreground.
    pub map: Vec<f64>,
}

/// Latents `[channels, frames, height, width]` in patches of (1, 2, 2) to means over the patches, `[channels][tokens]`, and the token
/// grid.
///
/// # Errors
/// Another number of values, no values, odd sides or values that are not finite.
fn pooled(
    latents: &[f32],
    [channels, frames, height, width]: [usize; 4],
) -> Result<(Vec<Vec<f64>>, [usize; 3]), ProfilingError> {
    ProfilingError::check_size("latents", channels * frames * height * width, latents.len())?;
    if latents.is_empty() || height % 2 != 0 || width % 2 != 0 || latents.iter().any(|value| !value.is_finite()) {
        let what = format!("latents of {channels}x{frames}x{height}x{width}: sides must be even and values finite");
        return Err(ProfilingError::Invalid(what));
    }
    let grid = [frames, height / 2, width / 2];
    let channel = |values: &[f32]| {
        let at = |f: usize, y: usize, x: usize| f64::from(values[(f * height + y) * width + x]);
        let tokens = (0..grid.iter().product()).map(|token: usize| {
            let (f, y, x) = (token / (grid[1] * grid[2]), token / grid[2] % grid[1] * 2, token % grid[2] * 2);
            (at(f, y, x) + at(f, y, x + 1) + at(f, y + 1, x) + at(f, y + 1, x + 1)) / 4.0
        });
        tokens.collect()
    };
    Ok((latents.chunks_exact(frames * height * width).map(channel).collect(), grid))
}

/// An estimate by Otsu's threshold of a map; without two classes nothing is foreground and the confidence is 0.
fn cut(estimator: Estimator, map: Vec<f64>, grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let (threshold, separation) = otsu(&map).unwrap_or((f64::INFINITY, 0.0));
    let mask = Mask::new(grid, map.iter().map(|value| *value > threshold).collect())?;
    Ok(Estimate { estimator, mask, confidence: beyond_normal(separation), map })
}

/// `motion`: what changes over time is foreground. The map of a frame is its distance from the median over frames, of all channels
/// and smoothed; its square's mean over frames is the temporal variance, made robust, so that an object is found where it is in each
/// frame and not wherever it has been. x0 latents `[channels, frames, height, width]`; one frame alone moves nothing: confidence 0.
///
/// # Errors
/// Latents that do not fit their extents; see [`ProfilingError`].
pub fn motion(latents: &[f32], extents: [usize; 4]) -> Result<Estimate, ProfilingError> {
    let (channels, grid) = pooled(latents, extents)?;
    let frame = grid[1] * grid[2];
    let mut energy = vec![0.0; frame * grid[0]];
    for values in &channels {
        for place in 0..frame {
            let mut over_time: Vec<f64> = values.iter().skip(place).step_by(frame).copied().collect();
            over_time.sort_by(f64::total_cmp);
            let [low, high] = [over_time[(grid[0] - 1) / 2], over_time[grid[0] / 2]];
            let median = (low + high) / 2.0;
            for f in 0..grid[0] {
                energy[f * frame + place] += (values[f * frame + place] - median).powi(2);
            }
        }
    }
    let distance: Vec<f64> = energy.iter().map(|energy| (energy / channels.len() as f64).sqrt()).collect();
    cut(Estimator::Motion, smooth(&distance, grid), grid)
}

/// `prompt`: what attends to the subject's words is foreground. `paid` is one value a token, the attention paid to them
/// ([`crate::ops::attention_paid`]), averaged over blocks and steps as the caller likes; smoothed and cut by Otsu.
///
/// # Errors
/// Another number of values than tokens.
pub fn prompt(paid: &[f32], grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    ProfilingError::check_size("attention paid", grid.iter().product(), paid.len())?;
    let map: Vec<f64> = paid.iter().map(|value| f64::from(*value)).collect();
    cut(Estimator::Prompt, smooth(&map, grid), grid)
}

/// `painted`: drawn by the user.
///
/// # Errors
/// Another number of bits than tokens.
pub fn painted(bits: Vec<bool>, grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let map = bits.iter().map(|bit| f64::from(u8::from(*bit))).collect();
    Ok(Estimate { estimator: Estimator::Painted, mask: Mask::new(grid, bits)?, confidence: 1.0, map })
}

/// `file`: pictures of a mask ([`crate::media::read_gray`]), bright or opaque where the foreground is; what is brighter than half-way
/// between the darkest and the brightest value counts. A token is foreground if half its area is; a mean over pictures where several
/// belong to one latent frame. Pictures may be as many as latent frames, as many as video frames (`4 (frames - 1) + 1`, as the VAE
/// groups them), one for all, or any number, spread evenly.
///
/// # Errors
/// No pictures, or empty ones; none that shows foreground beside background.
pub fn file(pictures: &[GrayFrame], grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let values = || pictures.iter().flat_map(|picture| picture.values.iter().copied());
    let broken =
        |picture: &GrayFrame| picture.values.is_empty() || picture.values.len() != picture.width * picture.height;
    let (Some(low), Some(high)) = (values().min(), values().max()) else {
        return Err(ProfilingError::NoMask("the mask has no pictures"));
    };
    if pictures.iter().any(broken) || grid.contains(&0) {
        return Err(ProfilingError::NoMask("a mask picture or the token grid is empty"));
    }
    let cut = u16::from(low) + u16::from(high);
    let mut map = Vec::with_capacity(grid.iter().product());
    for f in 0..grid[0] {
        let group = &pictures[group_of(f, grid[0], pictures.len())];
        let mut frame = vec![0.0; grid[1] * grid[2]];
        for picture in group {
            let covered = coverage(picture, [grid[1], grid[2]], |value| 2 * u16::from(value) > cut);
            frame.iter_mut().zip(covered).for_each(|(sum, covered)| *sum += covered / group.len() as f64);
        }
        // Shares of a token's pixels may add up to a little more than all of it.
        map.extend(frame.into_iter().map(|covered| covered.min(1.0)));
    }
    let confidence = map.iter().map(|covered| (2.0 * covered - 1.0).abs()).sum::<f64>() / map.len() as f64;
    let mask = Mask::new(grid, map.iter().map(|covered| *covered >= 0.5).collect())?;
    if mask.is_trivial() {
        return Err(ProfilingError::NoMask("no frame of the mask has tokens of foreground and of background"));
    }
    Ok(Estimate { estimator: Estimator::File, mask, confidence, map })
}

/// Which pictures belong to latent frame `f` of `frames`.
fn group_of(f: usize, frames: usize, pictures: usize) -> std::ops::Range<usize> {
    if pictures == frames {
        f..f + 1
    } else if pictures == 4 * (frames - 1) + 1 {
        // The first latent frame is the first picture, every other one four pictures.
        if f == 0 { 0..1 } else { 4 * f - 3..4 * f + 1 }
    } else {
        let place = if frames > 1 { (2 * f * (pictures - 1) + frames - 1) / (2 * (frames - 1)) } else { pictures / 2 };
        place..place + 1
    }
}

/// The share of each cell's area where `inside` holds, with pixels counted by the part of them in the cell.
fn coverage(picture: &GrayFrame, [rows, columns]: [usize; 2], inside: impl Fn(u8) -> bool) -> Vec<f64> {
    /// Pixels that reach into cell `i` of `n`, with the length inside, in cells.
    fn overlaps(i: usize, n: usize, pixels: usize) -> Vec<(usize, f64)> {
        let (start, end) = (i * pixels, (i + 1) * pixels);
        let length = |pixel: usize| end.min((pixel + 1) * n) - start.max(pixel * n);
        (start / n..end.div_ceil(n)).map(|pixel| (pixel, length(pixel) as f64 / pixels as f64)).collect()
    }
    let across: Vec<_> = (0..columns).map(|column| overlaps(column, columns, picture.width)).collect();
    let mut shares = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let down = overlaps(row, rows, picture.height);
        for across in &across {
            let line = |y: usize| {
                let part = |(x, share): &(usize, f64)| {
                    if inside(picture.values[y * picture.width + x]) { *share } else { 0.0 }
                };
                across.iter().map(part).sum::<f64>()
            };
            shares.push(down.iter().map(|(y, share)| share * line(*y)).sum());
        }
    }
    shares
}

/// `auto`: the estimators' agreement. A token is foreground if those that say so have more than half of all confidence; estimates
/// that can score nothing have no vote. The confidence is their mean one times the mean IoU of each pair; that of a single
/// estimate is half its own, nobody having confirmed it. `None` without estimates of one and the same grid.
pub fn auto(estimates: &[Estimate]) -> Option<Estimate> {
    let first = estimates.first()?;
    let same_grid = estimates.iter().all(|estimate| estimate.mask.grid == first.mask.grid);
    let mut voters: Vec<&Estimate> = estimates.iter().filter(|estimate| !estimate.mask.is_trivial()).collect();
    if voters.is_empty() {
        voters = vec![first];
    }
    let sure = voters.iter().map(|estimate| estimate.confidence).sum::<f64>();
    // Nobody is sure: all votes are equal.
    let weight = |estimate: &Estimate| if sure > 0.0 { estimate.confidence / sure } else { 1.0 / voters.len() as f64 };
    let mut map = vec![0.0; first.mask.bits.len()];
    for estimate in &voters {
        let votes = map.iter_mut().zip(&estimate.mask.bits).filter(|(_, bit)| **bit);
        votes.for_each(|(sum, _)| *sum += weight(estimate));
    }
    let agreement = super::stability::pairwise(&voters, |a, b| a.mask.iou(&b.mask)).unwrap_or(0.5);
    let mask = Mask { grid: first.mask.grid, bits: map.iter().map(|share| *share > 0.5).collect() };
    let confidence = agreement * sure / voters.len() as f64;
    same_grid.then_some(Estimate { estimator: Estimator::Auto, mask, confidence, map })
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
