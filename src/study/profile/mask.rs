//! The source of foreground masks.

use std::path::PathBuf;

use crate::engine::{Capture, MeanPaid, estimate_masks, subject_of};
use crate::media::read_gray;
use crate::profiling::mask::{self, Estimate, Estimator};

use super::StudyError;

/// The source of foreground masks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MaskSource {
    /// An estimate from the run itself.
    Estimated(Estimator),
    /// A picture for all frames, an animated picture, or a folder of pictures. A file serves one
    /// prompt and seed only.
    File(PathBuf),
}

impl Default for MaskSource {
    fn default() -> Self {
        Self::Estimated(Estimator::Auto)
    }
}

impl MaskSource {
    /// Checks that masks will exist, before anything runs. Fails for a file that is unreadable or
    /// shows no mask, for a file with more than one clip, for a prompt without a subject, and for
    /// motion in a single frame.
    pub(super) fn check(&self, prompts: &[String], seeds: u64, grid: [usize; 3]) -> Result<(), StudyError> {
        match self {
            Self::File(_) if prompts.len() as u64 * seeds > 1 => {
                let message =
                    "a mask from a file is of one clip: name one prompt and one seed, or let masks be estimated";
                Err(StudyError::Request(message.into()))
            }
            Self::File(place) => {
                let wrong = |error| StudyError::Request(format!("{}: {error}", place.display()));
                mask::file(&read_gray(place)?, grid).map(drop).map_err(wrong)
            }
            Self::Estimated(Estimator::Prompt) => match prompts.iter().find(|prompt| subject_of(prompt).is_none()) {
                None => Ok(()),
                Some(prompt) => {
                    let message = format!("no subject was found in \"{prompt}\"; try the mask auto");
                    Err(StudyError::Request(message))
                }
            },
            Self::Estimated(Estimator::Motion) if grid[0] < 2 => {
                let message = "nothing moves in a single frame: ask for 5 frames or more, or for another --mask";
                Err(StudyError::Request(message.into()))
            }
            Self::Estimated(_) => Ok(()),
        }
    }

    /// The mask of a run with these clean latents.
    pub(super) fn choose(&self, latents: &[f32], capture: &Capture) -> Result<Estimate, StudyError> {
        let run = &capture.run;
        let estimator = match self {
            Self::File(place) => return Ok(mask::file(&read_gray(place)?, run.token_grid)?),
            Self::Estimated(estimator) => *estimator,
        };
        let mut paid = MeanPaid::new(run.tokens());
        for (step, record) in capture.steps.iter().enumerate() {
            paid.add(step, capture.steps.len(), record);
        }
        let estimates = estimate_masks(latents, run.latent_shape, run.token_grid, paid.mean().as_deref())?;
        let found = estimates.into_iter().find(|estimate| estimate.estimator == estimator);
        found.ok_or_else(|| StudyError::Failed(format!("no {estimator:?} mask was found for \"{}\"", run.prompt)))
    }
}

/// A warning for a mask whose scores are not reliable.
pub(super) fn doubt(estimate: &Estimate) -> Option<String> {
    /// Below this confidence the estimates hardly agree, or hardly separate two classes.
    const UNSURE: f64 = 0.02;
    if estimate.mask.is_trivial() {
        return Some("no frame of the mask has foreground and background, so this run has no scores".into());
    }
    let confidence = estimate.confidence;
    (confidence < UNSURE)
        .then(|| format!("the mask is a guess (confidence {confidence:.2}): so are the scores of this run"))
}
