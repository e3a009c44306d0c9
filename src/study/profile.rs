//! The study that makes a profile of a model.
//!
//! The study has these phases:
//!
//! 1. It generates and measures a clip for every prompt and seed.
//! 2. If the attention maps are sampled, it compares them with exact maps of the first clip.
//! 3. It tries a plan that computes a fifth of the steps, on the first prompt, and measures its
//!    PSNR.
//!
//! A thorough study has two phases in place of the third:
//!
//! 1. It makes a small error at a few steps and measures the effect on the clip. Otherwise the
//!    effect is assumed, as for a model without a profile.
//! 2. It tries plans for three speed-ups and measures their PSNR.

mod mask;
mod measured;
mod trials;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::caching::{Planner, StrategyConfig};
use crate::engine::{GenerateRequest, Observe, Received, RequestInfo};
use crate::media::{check_place, write_bytes};
use crate::profiling::partition::TauRule;
use crate::profiling::profile::{Profile, Queries};
use crate::profiling::recorder::KeptMaps;

use super::{Session, Size, StudyError, StudyEvent};

pub use mask::MaskSource;
use measured::Measured;
use trials::Trials;

/// Numbers of steps that a profile may have. Reuse needs at least two steps, and the planner limits
/// the number.
const PLANNABLE: RangeInclusive<usize> = 2..=Planner::MOST_STEPS;

/// A profile to make.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProfileStudy {
    /// The model and the clip's settings. The study sets prompt, seed, strategy and observation.
    pub request: GenerateRequest,
    /// The prompts of the clips. Plans from many prompts also work for other prompts.
    pub prompts: Vec<String>,
    /// Number of seeds of each prompt: 0 to `seeds` - 1.
    pub seeds: u64,
    /// The source of the foreground masks.
    pub mask: MaskSource,
    /// The attention queries that are measured.
    pub queries: Queries,
    /// The rule of the threshold between foreground and background blocks.
    pub rule: TauRule,
    /// Whether errors are made on purpose, and three plans tried: ten runs more for one prompt.
    pub thorough: bool,
    /// The file to write. Until the profile is complete, a file with the ending `.partial` has the
    /// results of all finished runs.
    pub output: Option<PathBuf>,
}

/// A finished profile.
#[derive(Clone, Debug)]
pub struct Profiled {
    /// The profile.
    pub profile: Profile,
    /// Maps of a few steps, for the report's figures.
    pub maps: KeptMaps,
}

impl ProfileStudy {
    /// A study of these prompts with one seed, all queries, and automatic masks and threshold,
    /// which is not thorough.
    pub fn new(request: GenerateRequest, prompts: Vec<String>) -> Self {
        let (mask, rule) = (MaskSource::default(), TauRule::Otsu);
        Self { request, prompts, seeds: 1, mask, queries: Queries::Exact, rule, thorough: false, output: None }
    }

    /// Checks the study before anything runs, and returns the facts of its request.
    ///
    /// # Errors
    /// [`StudyError`] for invalid settings, for settings that do not fit the model, and for an
    /// output that cannot be written.
    pub fn check(&self) -> Result<RequestInfo, StudyError> {
        if self.prompts.is_empty() || self.seeds == 0 {
            return Err(StudyError::Request("a profile needs a prompt and a seed".into()));
        }
        if let Some(output) = &self.output {
            check_place(output)?;
        }
        let facts = RequestInfo::of(&self.observed(0, 0))?;
        self.mask.check(&self.prompts, self.seeds, facts.token_grid)?;
        if let TauRule::Lowest(count) = self.rule
            && count > facts.blocks
        {
            let message = format!("lowest{count} cannot be a threshold: the model has {} blocks", facts.blocks);
            return Err(StudyError::Request(message));
        }
        if !PLANNABLE.contains(&self.steps()) {
            let (steps, [least, most]) = (self.steps(), [PLANNABLE.start(), PLANNABLE.end()]);
            let message = format!("{steps} steps cannot be planned for: choose {least} to {most}");
            return Err(StudyError::Request(message));
        }
        Ok(facts)
    }

    /// The size of the study.
    pub fn size(&self) -> Size {
        let prompts = self.prompts.len();
        let exact = usize::from(self.queries != Queries::Exact);
        let measured = Size::run(self.steps(), 1.0).times(prompts * self.seeds as usize + exact);
        measured + if self.thorough { Trials::size(self.steps(), prompts) } else { Trials::quick_size(self.steps()) }
    }

    /// Makes the profile. A cancelled or failed study keeps its finished runs, with an assumed
    /// amplification, as [`StudyEvent::Profiled`] and, if there is an output, in the partial file.
    ///
    /// # Errors
    /// The errors of [`ProfileStudy::check`]; [`StudyError::Cancelled`]; the error of a failed job;
    /// [`StudyError::Profiling`] if the runs are not enough for a profile.
    pub fn run(&self, session: &Session) -> Result<Profiled, StudyError> {
        self.check()?;
        session.expect(self.size());
        let mut measured = Measured::new(self);
        if let Err(error) = self.measure(session, &mut measured) {
            return Err(self.keep(session, measured, error));
        }
        let (mut profile, maps, references, mut calibration) = measured.finish()?;
        // The partial profile keeps the measurements until the trials are done.
        let partial = self.output.as_deref().map(partial);
        if let Some(place) = &partial {
            write_bytes(place, profile.to_json()?.as_bytes())?;
        }
        session.tell(StudyEvent::Profiled(Box::new(profile.clone())));
        let trials = Trials { session, request: &self.request, blocks: profile.model.blocks, references: &references };
        let tried = if self.thorough { trials.calibrate(&mut calibration) } else { trials.quick(&mut calibration) };
        if let Err(error) = tried {
            return Err(match &partial {
                Some(place) => error.within(format!("the profile until then is in {}", place.display())),
                None => error,
            });
        }
        profile.calibration = Some(calibration);
        if let (Some(output), Some(partial)) = (&self.output, &partial) {
            write_bytes(output, profile.to_json()?.as_bytes())?;
            // A partial profile that cannot be removed does no harm.
            std::fs::remove_file(partial).ok();
        }
        Ok(Profiled { profile, maps })
    }

    fn measure(&self, session: &Session, measured: &mut Measured) -> Result<(), StudyError> {
        session.phase("profiling");
        for prompt in 0..self.prompts.len() {
            for seed in 0..self.seeds {
                measured.add(session, self.observed(prompt, seed))?;
                self.keep_so_far(session, measured);
            }
        }
        if self.queries != Queries::Exact {
            measured.compare_with_exact(session, self.observed(0, 0))?;
        }
        Ok(())
    }

    /// Writes the measurements so far to the partial file, so that nothing is lost if the program
    /// ends. A file that cannot be written does not end the study.
    fn keep_so_far(&self, session: &Session, measured: &Measured) {
        let (Some(place), Ok(profile)) = (self.output.as_deref().map(partial), measured.so_far()) else { return };
        let written = profile.to_json().map(|text| write_bytes(&place, text.as_bytes()));
        if let Ok(Err(error)) = written {
            session.warn(format!("the runs so far are not kept: {error}"));
        }
    }

    /// Writes and reports the measurements that were made before an error. Returns the error, with
    /// the path of the partial file.
    fn keep(&self, session: &Session, measured: Measured, error: StudyError) -> StudyError {
        let Ok((profile, ..)) = measured.finish() else { return error };
        let place = self.output.as_deref().map(partial);
        let written =
            place.filter(|place| profile.to_json().is_ok_and(|text| write_bytes(place, text.as_bytes()).is_ok()));
        session.tell(StudyEvent::Profiled(Box::new(profile)));
        match written {
            Some(place) => error.within(format!("the runs until then are in {}", place.display())),
            None => error,
        }
    }

    /// The request for a prompt and a seed, with all observations that a profile needs.
    fn observed(&self, prompt: usize, seed: u64) -> GenerateRequest {
        let attention = Some(match self.queries {
            Queries::Exact => Received::Exact,
            Queries::Sampled(count) => Received::Sampled(count),
        });
        let observe = Observe { attention, changes: true, residuals: true, ..Observe::default() };
        let strategy = StrategyConfig::off();
        GenerateRequest { strategy, observe, ..self.request.with_prompt(&self.prompts[prompt], seed) }
    }

    fn steps(&self) -> usize {
        self.request.clip.num_inference_steps
    }
}

/// The path of the partial profile.
fn partial(output: &Path) -> PathBuf {
    output.with_added_extension("partial")
}
