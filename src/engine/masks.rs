//! Foreground masks of a run, from its clean latents and from the attention of its tokens to the
//! subject.

use crate::profiling::ProfilingError;
use crate::profiling::mask::{self, Estimate};

use super::capture::{MaskRecord, StepRecord};

/// Share of the steps whose cross-attention counts. These are the last steps, because earlier steps
/// see noise.
const LATE: f64 = 0.5;

/// The attention that tokens pay to the prompt's subject: the mean over all blocks of the late
/// steps. It is collected step by step and stores only one map.
#[derive(Clone, Debug)]
pub struct MeanPaid {
    sum: Vec<f32>,
    count: usize,
}

impl MeanPaid {
    /// An empty mean for this number of tokens.
    pub fn new(tokens: usize) -> Self {
        Self { sum: vec![0.0; tokens], count: 0 }
    }

    /// Adds the maps of a step if it is a late step of `steps`.
    pub fn add(&mut self, step: usize, steps: usize, record: &StepRecord) {
        if step < ((1.0 - LATE) * steps as f64) as usize {
            return;
        }
        let (maps, tokens) = (record.cond.iter().filter_map(|block| block.paid.as_ref()), self.sum.len());
        for map in maps.filter(|map| map.len() == tokens) {
            self.sum.iter_mut().zip(map).for_each(|(sum, value)| *sum += value);
            self.count += 1;
        }
    }

    /// The mean of all added maps. `None` without maps.
    pub fn mean(&self) -> Option<Vec<f32>> {
        (self.count > 0).then(|| self.sum.iter().map(|value| value / self.count as f32).collect())
    }
}

/// All possible estimates: motion and principal components of the latents `[C, F, H, W]`, the
/// attention `paid` to the prompt's subject by each token if it was measured, and `auto` as the
/// last estimate.
///
/// # Errors
/// [`ProfilingError`] if the latents do not fit the token grid.
pub fn estimate_masks(
    latents: &[f32],
    shape: [usize; 4],
    grid: [usize; 3],
    paid: Option<&[f32]>,
) -> Result<Vec<Estimate>, ProfilingError> {
    let mut estimates = vec![mask::motion(latents, shape, grid)?, mask::pca(latents, shape, grid)?];
    if let Some(paid) = paid {
        estimates.push(mask::prompt(paid, grid)?);
    }
    let auto = mask::auto(&estimates);
    estimates.extend(auto);
    Ok(estimates)
}

impl From<&Estimate> for MaskRecord {
    fn from(estimate: &Estimate) -> Self {
        Self {
            estimator: estimate.estimator.name().into(),
            confidence: estimate.confidence,
            tokens: estimate.mask.bits().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::Cell;
    use crate::engine::BlockRecord;

    #[test]
    fn only_late_steps_and_whole_maps_count() {
        let record = |paid: &[f32]| {
            let block = |paid: Option<&[f32]>| BlockRecord {
                cell: Cell::Computed,
                change: None,
                received: None,
                paid: paid.map(<[f32]>::to_vec),
                seconds: None,
            };
            StepRecord { cond: vec![block(Some(paid)), block(None), block(Some(paid))], ..StepRecord::default() }
        };
        let mut paid = MeanPaid::new(2);
        for (step, map) in [&[9.0, 9.0][..], &[9.0, 9.0], &[1.0, 4.0], &[3.0, 0.0], &[7.0]].into_iter().enumerate() {
            assert_eq!(paid.mean().is_some(), step > 2);
            paid.add(step, 5, &record(map));
        }
        assert_eq!(paid.mean(), Some(vec![2.0, 2.0]));
    }
}
