//! What is known about the form's model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::data::form::Form;
use crate::caching::{Evidence, Learnt};
use crate::engine::{ClipSettings, RequestInfo};
use crate::study::{LearntFile, StudyError, evidence_of, find_profile, profile_place};

/// What is known about the form's model and size.
#[derive(Clone, Debug, Default)]
pub struct ModelStatus {
    /// Facts about the model, or why it cannot be used. `None` until the model has been read.
    pub facts: Option<Result<RequestInfo, String>>,
    /// The evidence for strategies. `None` until the model has been read.
    pub evidence: Option<ModelEvidence>,
    /// The query that facts and evidence answer. It differs from the form's query while the model
    /// is being read.
    pub query: Option<ModelQuery>,
}

impl ModelStatus {
    /// The facts about the model, if it has been read and can be used.
    pub fn facts(&self) -> Option<&RequestInfo> {
        self.facts.as_ref()?.as_ref().ok()
    }

    /// What ordinary runs told of the model.
    pub fn learnt(&self) -> Learnt {
        self.evidence.as_ref().map(|evidence| evidence.learnt.clone()).unwrap_or_default()
    }

    /// Whether the model has a profile that fits.
    pub fn has_profile(&self) -> bool {
        self.evidence.as_ref().is_some_and(|evidence| evidence.profile == Ok(true))
    }
}

/// The answer to a query about a model.
#[derive(Clone, Debug)]
pub struct ModelAnswer {
    /// The query.
    pub query: ModelQuery,
    /// Facts about the model, or why it cannot be used.
    pub facts: Result<RequestInfo, String>,
    /// The evidence for strategies, if the model can be used.
    pub evidence: Option<ModelEvidence>,
}

/// The settings that the facts about a model depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelQuery {
    model: PathBuf,
    /// The settings of the clip. Settings that no answer depends on have fixed values.
    clip: ClipSettings,
    /// Number of words in the prompt. The cost depends on it, plans do not.
    words: usize,
    /// Whether block changes are measured. The memory depends on it, plans do not.
    changes: bool,
}

impl ModelQuery {
    /// The query for a form.
    pub fn of(form: &Form) -> Self {
        let words = form.prompt.split_whitespace().count();
        let clip = ClipSettings { guidance_scale: 1.0, seed: 0, fps: 1, ..form.clip };
        Self { model: form.model.clone(), clip, words, changes: form.changes }
    }

    /// The model's folder.
    pub fn model(&self) -> &Path {
        &self.model
    }

    /// Whether plans for one query also fit the other.
    pub fn plans_like(&self, other: &Self) -> bool {
        Self { words: other.words, changes: other.changes, ..self.clone() } == *other
    }
}

/// The evidence about a model that strategies are calibrated with.
#[derive(Clone, Debug)]
pub struct ModelEvidence {
    /// The model's own facts, and what its profile says.
    pub evidence: Arc<Evidence>,
    /// What ordinary runs told of the model.
    pub learnt: Learnt,
    /// Whether the model has a profile. The error says why its profile does not fit.
    pub profile: Result<bool, String>,
}

impl ModelEvidence {
    /// Reads the profile in a model's folder, if there is one, and computes the planner's plans.
    pub fn of(model: &Path, facts: &RequestInfo, learnt: Option<&Path>) -> Self {
        let learnt = learnt.map(|folder| LearntFile::within(folder, &facts.model_id).read()).unwrap_or_default();
        let (evidence, profile) = match read(model, facts, &learnt) {
            Ok(Some(evidence)) => (evidence, Ok(true)),
            Ok(None) => (evidence_of(facts, None, &learnt), Ok(false)),
            Err(why) => (evidence_of(facts, None, &learnt), Err(why)),
        };
        // The plans are computed here, so that no frame of the window has to wait for them. A
        // goal that cannot be planned says why when it is asked for.
        evidence.plans().ok();
        Self { evidence: Arc::new(evidence), learnt, profile }
    }
}

fn read(model: &Path, facts: &RequestInfo, learnt: &Learnt) -> Result<Option<Evidence>, String> {
    let found = find_profile(model, None, facts).map_err(|error| match error {
        StudyError::Profile { path, source } => format!("{}: {source}", path.display()),
        other => other.full(),
    });
    let Some(profile) = found? else { return Ok(None) };
    let evidence = evidence_of(facts, Some(&profile), learnt);
    if evidence.calibration().is_some() {
        evidence.plans().map_err(|error| format!("{}: {error}", profile_place(model).display()))?;
    }
    Ok(Some(evidence))
}
