//! Foreground masks on the token grid, made without a segmentation model. A mask comes from motion,
//! principal components, attention to the prompt's subject, the agreement of these estimators,
//! files, or a brush.
//!
//! The paper uses PCA and SAM 2. Here the estimators use the clean latents after the last step,
//! which the host has anyway, so they need only plain arithmetic on the CPU. Only the map of
//! `prompt` is measured on the GPU ([`crate::ops::attention_paid`]). A mask is made once and used
//! for all steps.
//!
//! Every mask has a **confidence** from 0 to 1:
//!
//! - `motion`, `pca`, `prompt`: the separation of the two classes, which is the variance between
//!   them divided by the whole variance. A separation of 2/pi (a normal distribution cut in the
//!   middle) gives 0, a separation of 1 (only two values) gives 1. `pca` multiplies the result by
//!   how clearly one class dominates the border.
//! - `file`: how clearly each token is inside or outside the mask.
//! - `painted`: 1.
//! - `auto`: the agreement of the estimators.

use serde::{Deserialize, Serialize};

use super::ProfilingError;
use super::statistics::{Cut, beyond_normal, otsu, smooth};
use crate::media::GrayFrame;

mod pca;

pub use pca::pca;

/// A mask of the tokens that are foreground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    grid: [usize; 3],
    bits: Vec<bool>,
}

impl Mask {
    /// A mask on a grid (frames, height, width) of tokens. The width varies fastest.
    ///
    /// # Errors
    /// [`ProfilingError::Size`] if the numbers of bits and of tokens differ.
    pub fn new(grid: [usize; 3], bits: Vec<bool>) -> Result<Self, ProfilingError> {
        ProfilingError::check_size("mask", grid.iter().product(), bits.len())?;
        Ok(Self { grid, bits })
    }

    /// Frames, height and width in tokens.
    pub fn grid(&self) -> [usize; 3] {
        self.grid
    }

    /// One bit for each token.
    pub fn bits(&self) -> &[bool] {
        &self.bits
    }

    /// The share of tokens that are foreground, 0 to 1.
    pub fn share(&self) -> f64 {
        self.bits.iter().filter(|bit| **bit).count() as f64 / self.bits.len().max(1) as f64
    }

    /// Whether no frame has both foreground and background. Such a mask cannot score anything.
    pub fn is_trivial(&self) -> bool {
        let [_, height, width] = self.grid;
        self.bits.chunks((height * width).max(1)).all(|frame| frame.iter().all(|bit| *bit == frame[0]))
    }

    /// Intersection over union with another mask. `None` for different grids and for two empty
    /// masks.
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
#[non_exhaustive]
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
    /// The agreement of other estimators.
    Auto,
}

impl Estimator {
    /// The estimator's name in commands, captures and profiles.
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

/// A mask and the map from which it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The estimator that made the mask.
    pub estimator: Estimator,
    /// The mask.
    pub mask: Mask,
    /// The confidence, 0 to 1; see the documentation of the module.
    pub confidence: f64,
    /// The map: one value for each token, large for foreground.
    pub map: Vec<f64>,
}

/// Means of latents `[channels, frames, height, width]` over the tokens of a grid (frames, height,
/// width): `[channels][tokens]`.
///
/// # Errors
/// [`ProfilingError::Size`] for a wrong number of values. [`ProfilingError::Invalid`] for empty
/// latents, a grid that does not divide them evenly, and values that are not finite.
fn pooled(
    latents: &[f32],
    [channels, frames, height, width]: [usize; 4],
    grid: [usize; 3],
) -> Result<Vec<Vec<f64>>, ProfilingError> {
    ProfilingError::check_size("latents", channels * frames * height * width, latents.len())?;
    let divided = [frames, height, width].iter().zip(grid).all(|(side, tokens)| tokens > 0 && side % tokens == 0);
    if latents.is_empty() || !divided || latents.iter().any(|value| !value.is_finite()) {
        let what = format!(
            "latents of {channels}x{frames}x{height}x{width} for {grid:?} tokens: sides must be multiples and values \
             finite"
        );
        return Err(ProfilingError::Invalid(what));
    }
    let [deep, high, wide] = [frames / grid[0], height / grid[1], width / grid[2]];
    let token = |values: &[f32], token: usize| {
        let (f, y, x) = (token / (grid[1] * grid[2]) * deep, token / grid[2] % grid[1] * high, token % grid[2] * wide);
        let rows = (f..f + deep).flat_map(|f| (y..y + high).map(move |y| (f * height + y) * width + x));
        let cells = rows.flat_map(|start| &values[start..start + wide]);
        cells.map(|value| f64::from(*value)).sum::<f64>() / (deep * high * wide) as f64
    };
    let tokens = grid.iter().product();
    let channel = |values: &[f32]| (0..tokens).map(|index| token(values, index)).collect();
    Ok(latents.chunks_exact(frames * height * width).map(channel).collect())
}

/// Cuts a map at Otsu's threshold. If the map has no two classes, no token is foreground and the
/// confidence is 0.
fn cut(estimator: Estimator, map: Vec<f64>, grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let Cut { threshold, separation } = otsu(&map).unwrap_or(Cut { threshold: f64::INFINITY, separation: 0.0 });
    let mask = Mask::new(grid, map.iter().map(|value| *value > threshold).collect())?;
    Ok(Estimate { estimator, mask, confidence: beyond_normal(separation), map })
}

/// The estimator `motion`: tokens that change over time are foreground. The input is x0 latents
/// `[channels, frames, height, width]`, and the grid of tokens (frames, height, width) that divides
/// them.
///
/// The map of a frame is the smoothed distance of its latents from the median over frames. It acts
/// as a robust temporal variance that is separate for each frame, so an object is found at its
/// place in each frame and not at all places where it has been. A single frame has no motion, so
/// its confidence is 0.
///
/// # Errors
/// [`ProfilingError::Size`] if the latents do not fit their extents. [`ProfilingError::Invalid`]
/// for a grid that does not divide the latents, values that are not finite, and empty latents.
pub fn motion(latents: &[f32], extents: [usize; 4], grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let channels = pooled(latents, extents, grid)?;
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

/// The estimator `prompt`: tokens that attend to the words of the subject are foreground.
///
/// `paid` has one value for each token: the attention that the token pays to these words
/// ([`crate::ops::attention_paid`]). The caller chooses the blocks and steps over which it is
/// averaged. The map is smoothed and cut at Otsu's threshold.
///
/// # Errors
/// [`ProfilingError::Size`] if the numbers of values and of tokens differ.
pub fn prompt(paid: &[f32], grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    ProfilingError::check_size("attention paid", grid.iter().product(), paid.len())?;
    let map: Vec<f64> = paid.iter().map(|value| f64::from(*value)).collect();
    cut(Estimator::Prompt, smooth(&map, grid), grid)
}

/// The estimator `painted`: a mask that the user drew.
///
/// # Errors
/// [`ProfilingError::Size`] if the numbers of bits and of tokens differ.
pub fn painted(bits: Vec<bool>, grid: [usize; 3]) -> Result<Estimate, ProfilingError> {
    let map = bits.iter().map(|bit| f64::from(u8::from(*bit))).collect();
    Ok(Estimate { estimator: Estimator::Painted, mask: Mask::new(grid, bits)?, confidence: 1.0, map })
}

/// The estimator `file`: pictures of a mask ([`crate::media::read_gray`]) that are bright or opaque
/// in the foreground.
///
/// A pixel counts as foreground if it is brighter than the middle between the darkest and the
/// brightest value. A token is foreground if at least half of its area is. If several pictures
/// belong to one latent frame, their mean counts.
///
/// There may be one picture for each latent frame, one for each video frame (`4 (frames - 1) + 1`,
/// grouped as in the VAE), one picture for all frames, or any number, spread evenly.
///
/// # Errors
/// [`ProfilingError::NoMask`] without pictures, for an empty picture, and if no frame shows both
/// foreground and background.
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
        // By rounding, the shares of a token's pixels may add up to a little more than 1.
        map.extend(frame.into_iter().map(|covered| covered.min(1.0)));
    }
    let confidence = map.iter().map(|covered| (2.0 * covered - 1.0).abs()).sum::<f64>() / map.len() as f64;
    let mask = Mask::new(grid, map.iter().map(|covered| *covered >= 0.5).collect())?;
    if mask.is_trivial() {
        return Err(ProfilingError::NoMask("no frame of the mask has tokens of foreground and of background"));
    }
    Ok(Estimate { estimator: Estimator::File, mask, confidence, map })
}

/// The pictures that belong to latent frame `f` of `frames`.
fn group_of(f: usize, frames: usize, pictures: usize) -> std::ops::Range<usize> {
    if pictures == frames {
        f..f + 1
    } else if pictures == 4 * (frames - 1) + 1 {
        // The first latent frame covers one picture, every other latent frame four pictures.
        if f == 0 { 0..1 } else { 4 * f - 3..4 * f + 1 }
    } else {
        let place = if frames > 1 { (2 * f * (pictures - 1) + frames - 1) / (2 * (frames - 1)) } else { pictures / 2 };
        place..place + 1
    }
}

/// The share of each cell's area where `inside` holds. A pixel counts with its part that lies in
/// the cell.
fn coverage(picture: &GrayFrame, [rows, columns]: [usize; 2], inside: impl Fn(u8) -> bool) -> Vec<f64> {
    /// The pixels that overlap cell `i` of `n`, each with the length of the overlap in cells.
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

/// The estimator `auto`: the agreement of other estimates.
///
/// Each estimate votes with its confidence, and a token is foreground if it gets more than half of
/// all votes. Trivial masks do not vote. The confidence is the mean confidence of the voters times
/// the mean IoU of their pairs. A single estimate is not confirmed by another, so its confidence is
/// halved.
///
/// `None` without estimates, and for estimates of different grids.
pub fn auto(estimates: &[Estimate]) -> Option<Estimate> {
    let first = estimates.first()?;
    let same_grid = estimates.iter().all(|estimate| estimate.mask.grid == first.mask.grid);
    let mut voters: Vec<&Estimate> = estimates.iter().filter(|estimate| !estimate.mask.is_trivial()).collect();
    if voters.is_empty() {
        voters = vec![first];
    }
    let sure = voters.iter().map(|estimate| estimate.confidence).sum::<f64>();
    // If all confidences are 0, all votes are equal.
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
mod tests;
