//! Foreground masks of a run, from its clean latents and from what its tokens paid to the subject.

use crate::profiling::ProfilingError;
use crate::profiling::mask::{self, Estimate, Estimator};

use super::capture::{MaskRecord, StepRecord};

/// Share of the last steps whose cross-attention counts: earlier ones see noise.
const LATE: f64 = 0.5;

/// All estimates that can be made, `auto` last: motion and principal components of the latents `[C, F, H, W]`, and, where it was
/// watched, the attention paid to the prompt's subject.
///
/// # Errors
/// Latents that do not fit the token grid.
pub fn estimate_masks(
    latents: &[f32],
    shape: [usize; 4],
    grid: [usize; 3],
    steps: &[StepRecord],
) -> Result<Vec<Estimate>, ProfilingError> {
    let mut estimates = vec![mask::motion(latents, shape)?, mask::pca(latents, shape)?];
    if let Some(paid) = mean_paid(steps, grid.iter().product()) {
        estimates.push(mask::prompt(&paid, grid)?);
    }
    let auto = mask::auto(&estimates);
    estimates.extend(auto);
    Ok(estimates)
}

/// Mean over the blocks of the late steps of the share that each token pays to the subject.
fn mean_paid(steps: &[StepRecord], tokens: usize) -> Option<Vec<f32>> {
    let late = &steps[((1.0 - LATE) * steps.len() as f64) as usize..];
    let maps = late.iter().flat_map(|step| &step.cond).filter_map(|block| block.paid.as_ref());
    let (mut sum, mut count) = (vec![0.0; tokens], 0usize);
    for map in maps.filter(|map| map.len() == tokens) {
        sum.iter_mut().zip(map).for_each(|(sum, value)| *sum += value);
        count += 1;
    }
    (count > 0).then(|| sum.into_iter().map(|value| value / count as f32).collect())
}

impl From<&Estimate> for MaskRecord {
    fn from(estimate: &Estimate) -> Self {
        let estimator = match estimate.estimator {
            Estimator::Motion => "motion",
            Estimator::Pca => "pca",
            Estimator::Prompt => "prompt",
            Estimator::File => "file",
            Estimator::Painted => "painted",
            Estimator::Auto => "auto",
        };
        Self { estimator: estimator.into(), confidence: estimate.confidence, tokens: estimate.mask.bits().to_vec() }
    }
}
