//! Values that are not finite: how a run says where they came up, and the second pass that finds
//! the place.
//!
//! The engine checks what it has on the host anyway: the features of the conditions, the velocity
//! of each branch, the latents after each step, and the frames. NaN and infinity spread through the
//! residual stream, so nothing inside a pass needs a check of its own. Only a broken run is passed
//! again, with a check after every part.

use std::fmt;

use crate::gpu::Stream;
use crate::model::family::{Condition, Decoder, Latents, Model, RunSetup, Transformer};
use crate::ops::{first_not_finite, mark};

use super::{EngineError, Stage};

type Result<T> = std::result::Result<T, EngineError>;

/// Where a run's values stopped being finite.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotFinite {
    /// The part of the job.
    pub stage: Stage,
    /// The step, from 0, and the number of steps.
    pub step: Option<[usize; 2]>,
    /// The branch: 0 is the prompt's, 1 the negative prompt's.
    pub branch: Option<usize>,
    /// The values, in words.
    pub what: String,
    /// What a second pass found.
    pub cause: Cause,
    /// Name of the adapter.
    pub adapter: String,
}

/// What a second pass found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// There was no second pass.
    Unknown,
    /// The first part whose values are not finite, for example `block 6, feed-forward`.
    Part(String),
    /// All values are finite the second time.
    NotAgain,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Load => "loading",
            Stage::Text => "text",
            Stage::Denoise => "denoising",
            Stage::Decode => "decoding",
        };
        write!(f, "{stage}")?;
        if let Some([step, steps]) = self.step {
            write!(f, ", step {} of {steps}", step + 1)?;
        }
        let of = match self.branch {
            Some(0) => " of the prompt",
            Some(_) => " of the negative prompt",
            None => "",
        };
        write!(f, ", on {}: {}{of} hold NaN or infinity", self.adapter, self.what)?;
        match &self.cause {
            Cause::Unknown => {}
            Cause::Part(part) => write!(f, ", first in {part}")?,
            Cause::NotAgain => f.write_str(", but not when computed again in full")?,
        }
        f.write_str(match &self.cause {
            Cause::NotAgain => {
                "; run again, without --strategy if it reuses, and if it comes back update the GPU driver or try --base-tier"
            }
            _ => "; take other weights or download these again, or try --base-tier, another --device or a newer GPU driver",
        })
    }
}

impl NotFinite {
    /// The velocity of a branch.
    pub(super) fn prediction(branch: usize) -> Self {
        Self { branch: Some(branch), ..Self::of(Stage::Denoise, "the model's predictions") }
    }

    /// Any values.
    pub(super) fn of(stage: Stage, what: impl Into<String>) -> Self {
        Self { stage, step: None, branch: None, what: what.into(), cause: Cause::Unknown, adapter: String::new() }
    }
}

/// What a second pass found. A pass that fails, for example for lack of memory, finds nothing: the
/// first error matters more.
pub(super) fn cause(found: Result<Option<String>>) -> Cause {
    found.map_or(Cause::Unknown, |part| part.map_or(Cause::NotAgain, Cause::Part))
}

/// Encodes a condition again with checks.
pub(super) fn in_encoder(cx: &mut Stream, model: &dyn Model, condition: &Condition) -> Result<Option<String>> {
    cx.start_trace();
    model.encode(cx, &[condition])?;
    Ok(first_not_finite(cx)?)
}

/// Passes a step of one branch again with checks, in full and from the start of the run.
pub(super) fn in_step(
    cx: &mut Stream,
    transformer: &dyn Transformer,
    of_run: &RunSetup,
    (step, branch, blocks): (usize, usize, usize),
    latents: &[f32],
) -> Result<Option<String>> {
    cx.start_trace();
    let mut run = transformer.begin_run(cx, of_run)?;
    run.start_step(cx, step, latents)?;
    let pass = run.begin(cx, branch)?;
    for block in 0..blocks {
        run.run_blocks(cx, &pass, block..block + 1, None)?;
        // A family that marks nothing within its blocks is still traced block by block.
        mark(cx, || format!("block {block}"), &pass.state)?;
    }
    let velocity = run.finish(cx, &pass)?;
    mark(cx, || "the output projection".into(), &velocity)?;
    Ok(first_not_finite(cx)?)
}

/// Decodes latents again with checks.
pub(super) fn in_decoder(
    cx: &mut Stream,
    decoder: &dyn Decoder,
    latents: &Latents,
    tiled: bool,
) -> Result<Option<String>> {
    cx.start_trace();
    decoder.decode(cx, latents, tiled)?;
    Ok(first_not_finite(cx)?)
}

/// A warning if frames show one colour only.
pub(super) fn one_colour(frames: &[Vec<f32>]) -> Option<String> {
    let of_one = |frame: &&Vec<f32>| frame.chunks_exact(3).all(|pixel| pixel == &frame[..3]);
    let count = frames.iter().filter(of_one).count();
    (count > 0).then(|| {
        format!(
            "{count} of {} frames show one colour only: look at the clip, and check the model's files if it should not be so",
            frames.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_one_colour_are_counted() {
        let plain = [0.5, -1.0, 0.25].repeat(4);
        let mut other = plain.clone();
        other[11] = 0.0;
        assert_eq!(one_colour(&[other.clone(), other.clone()]), None);
        let warning = one_colour(&[plain, other]).unwrap();
        assert!(warning.starts_with("1 of 2 frames"), "{warning}");
    }

    #[test]
    fn the_message_is_one_line_with_advice() {
        let mut found = NotFinite::prediction(1);
        (found.step, found.adapter, found.cause) = (Some([0, 8]), "a GPU".into(), Cause::Part("block 6".into()));
        let text = found.to_string();
        let told = "denoising, step 1 of 8, on a GPU: the model's predictions of the negative prompt hold NaN or infinity, \
                    first in block 6; take other weights";
        assert!(text.starts_with(told) && !text.contains('\n'), "{text}");
        found.cause = Cause::NotAgain;
        assert!(found.to_string().contains("run again"));
    }
}
