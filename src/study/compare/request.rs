//! The request for a comparison, whose strategies are given by name and not tuned yet.

use crate::caching::{Evidence, Learnt};
use crate::engine::{GenerateRequest, RequestInfo};
use crate::metrics::LPIPS_MIN_SIDE;
use crate::profiling::profile::Profile;

use super::{CompareStudy, Part, Settings, tune};
use crate::study::{Session, StudyError, evidence_of};

/// A request for a comparison. [`CompareRequest::new`] makes one; its fields can then be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CompareRequest {
    /// The model and the clip's settings. The study sets prompt, seed and strategy.
    pub request: GenerateRequest,
    /// The prompts of the clips.
    pub prompts: Vec<String>,
    /// Number of seeds of each prompt: 0 to `seeds` - 1.
    pub seeds: u64,
    /// The strategies, in the form of `generate --strategy`.
    pub strategies: Vec<String>,
    /// Speed-ups to which each strategy is tuned. If empty, the strategies keep their settings.
    pub speedups: Vec<f64>,
    /// The prompt for trial runs. It should not be one of the compared prompts.
    pub tuning_prompt: String,
    /// The part of the comparison to make. `None` for the whole comparison.
    pub shard: Option<super::Shard>,
    /// What ordinary runs told of the model. Without a profile the planner plans from this.
    pub learnt: Learnt,
}

impl CompareRequest {
    /// A comparison of strategies on prompts with one seed each. The strategies keep their
    /// settings. The request's own prompt is the prompt for trial runs.
    pub fn new(request: GenerateRequest, prompts: Vec<String>, strategies: Vec<String>) -> Self {
        let tuning_prompt = request.condition.to_string();
        let (speedups, learnt) = (Vec::new(), Learnt::default());
        Self { request, prompts, seeds: 1, strategies, speedups, tuning_prompt, shard: None, learnt }
    }

    /// Checks the request before anything runs. Returns the largest number of bytes of deltas that
    /// a strategy keeps.
    ///
    /// # Errors
    /// [`StudyError`] for frames that are too small for LPIPS, for wrong names, settings and files,
    /// for a missing profile, and for settings that tuning would replace.
    pub fn check(&self, facts: &RequestInfo, profile: Option<&Profile>) -> Result<u64, StudyError> {
        self.check_with(facts, &evidence_of(facts, profile, &self.learnt))
    }

    /// The same as [`CompareRequest::check`], with given evidence.
    ///
    /// # Errors
    /// The errors of [`CompareRequest::check`].
    pub fn check_with(&self, facts: &RequestInfo, evidence: &Evidence) -> Result<u64, StudyError> {
        check_size(&self.request)?;
        tune::check(&self.names(), &self.speedups, &self.request, facts, evidence)
    }

    /// The prompts from which the strategies are made, by a profile or by trial runs.
    pub fn known_prompts(&self, profile: Option<&Profile>) -> Vec<String> {
        let tuned = !self.speedups.is_empty() && self.names().into_iter().any(tune::by_trial);
        let profiled = profile.into_iter().flat_map(|profile| profile.prompts.clone());
        profiled.chain(tuned.then(|| self.tuning_prompt.clone())).collect()
    }

    /// The conditions of the comparison on a session's engine, without strategies.
    pub fn settings(&self, session: &Session, facts: &RequestInfo, profile: Option<&Profile>) -> Settings {
        let part = self.shard.map(|shard| Part { shard, prompts: self.prompts.clone(), seeds: self.seeds });
        let known_prompts = self.known_prompts(profile);
        Settings { part, known_prompts, ..Settings::new(&self.request, facts, session.engine()) }
    }

    /// Tunes the strategies and returns the comparison with the tuned strategies.
    ///
    /// # Errors
    /// The errors of [`CompareRequest::check`]; [`StudyError::Cancelled`]; the error of a failed
    /// job.
    pub fn tune(
        &self,
        session: &Session,
        facts: &RequestInfo,
        profile: Option<&Profile>,
    ) -> Result<CompareStudy, StudyError> {
        let evidence = evidence_of(facts, profile, &self.learnt);
        let request = GenerateRequest { condition: self.tuning_prompt.as_str().into(), ..self.request.clone() };
        let tuner = tune::Tuner::new(session, request, facts, &evidence);
        let strategies = tuner.entries(&self.names(), &self.speedups)?;
        Ok(self.study(Settings { strategies, ..self.settings(session, facts, profile) }))
    }

    /// The comparison under given conditions, without rows.
    pub fn study(&self, settings: Settings) -> CompareStudy {
        let (request, prompts, seeds) = (self.request.clone(), self.prompts.clone(), self.seeds);
        CompareStudy { request, prompts, seeds, settings, rows: Vec::new() }
    }

    fn names(&self) -> Vec<&str> {
        self.strategies.iter().map(String::as_str).collect()
    }
}

/// Checks that the frames are large enough for LPIPS.
fn check_size(request: &GenerateRequest) -> Result<(), StudyError> {
    if request.clip.width.min(request.clip.height) < LPIPS_MIN_SIDE {
        let message = format!("LPIPS needs {LPIPS_MIN_SIDE} pixels a side: choose a larger size");
        return Err(StudyError::Request(message));
    }
    Ok(())
}
