//! A comparison that somebody asks for: strategies by name, which are still to be tuned.

use crate::caching::Evidence;
use crate::engine::{Facts, GenerateRequest};
use crate::metrics::LPIPS_MIN_SIDE;
use crate::profiling::profile::Profile;

use super::{CompareStudy, Part, Settings, tune};
use crate::study::{Session, StudyError, evidence_of};

/// A comparison that somebody asks for.
#[derive(Clone, Debug)]
pub struct CompareRequest {
    /// The model and the clip's settings. The study sets prompt, seed and strategy.
    pub request: GenerateRequest,
    /// What is generated.
    pub prompts: Vec<String>,
    /// Seeds of each prompt: 0 to `seeds` - 1.
    pub seeds: u64,
    /// The strategies, as `generate --strategy` takes them.
    pub strategies: Vec<String>,
    /// Speed-ups that each strategy is tuned to. Without any the settings are taken as they are.
    pub speedups: Vec<f64>,
    /// The prompt for trial runs; one that is not compared.
    pub tuning_prompt: String,
    /// Which part of the comparison is to be made; all of it if `None`.
    pub shard: Option<super::Shard>,
}

impl CompareRequest {
    /// Finds what can never be compared before anything runs. Gives the bytes of deltas that one of
    /// the strategies keeps at most.
    ///
    /// # Errors
    /// Frames that are too small for LPIPS; names, settings and files that are wrong; a profile that
    /// is missing; settings that tuning would replace.
    pub fn check(&self, facts: &Facts, profile: Option<&Profile>) -> Result<u64, StudyError> {
        self.check_with(facts, &evidence_of(facts, profile))
    }

    /// As [`CompareRequest::check`], with evidence that is at hand.
    ///
    /// # Errors
    /// As [`CompareRequest::check`].
    pub fn check_with(&self, facts: &Facts, evidence: &Evidence) -> Result<u64, StudyError> {
        check_size(&self.request)?;
        tune::check(&self.names(), &self.speedups, &self.request, facts, evidence)
    }

    /// The prompts that the strategies are made on, by profile and by trial.
    pub fn known_prompts(&self, profile: Option<&Profile>) -> Vec<String> {
        let tuned = !self.speedups.is_empty() && self.names().into_iter().any(tune::by_trial);
        let profiled = profile.into_iter().flat_map(|profile| profile.prompts.clone());
        profiled.chain(tuned.then(|| self.tuning_prompt.clone())).collect()
    }

    /// The conditions of the comparison on an engine, before strategies are chosen.
    pub fn settings(&self, session: &Session, facts: &Facts, profile: Option<&Profile>) -> Settings {
        let part = self.shard.map(|shard| Part { shard, prompts: self.prompts.clone(), seeds: self.seeds });
        let known_prompts = self.known_prompts(profile);
        Settings { part, known_prompts, ..Settings::new(&self.request, facts, session.engine()) }
    }

    /// Tunes the strategies; the comparison that can then be made.
    ///
    /// # Errors
    /// As [`CompareRequest::check`]; [`StudyError::Cancelled`]; a job that failed.
    pub fn tune(
        &self,
        session: &Session,
        facts: &Facts,
        profile: Option<&Profile>,
    ) -> Result<CompareStudy, StudyError> {
        let evidence = evidence_of(facts, profile);
        let request = GenerateRequest { condition: self.tuning_prompt.as_str().into(), ..self.request.clone() };
        let tuner = tune::Tuner::new(session, request, facts, &evidence);
        let strategies = tuner.entries(&self.names(), &self.speedups)?;
        Ok(self.study(Settings { strategies, ..self.settings(session, facts, profile) }))
    }

    /// The comparison under conditions that are settled, without rows.
    pub fn study(&self, settings: Settings) -> CompareStudy {
        let (request, prompts, seeds) = (self.request.clone(), self.prompts.clone(), self.seeds);
        CompareStudy { request, prompts, seeds, settings, rows: Vec::new() }
    }

    fn names(&self) -> Vec<&str> {
        self.strategies.iter().map(String::as_str).collect()
    }
}

/// Fails for frames that are too small for LPIPS.
fn check_size(request: &GenerateRequest) -> Result<(), StudyError> {
    if request.clip.width.min(request.clip.height) < LPIPS_MIN_SIDE {
        let message = format!("LPIPS needs {LPIPS_MIN_SIDE} pixels a side: choose a larger size");
        return Err(StudyError::Request(message));
    }
    Ok(())
}
