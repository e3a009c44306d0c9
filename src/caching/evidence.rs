//! What is known of a model for one run. Rules take their calibration from here.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::plan_table::PlanTable;
use super::rule::{Shape, Signal};
use super::{CacheError, Calibration, Learnt, prior};

/// TeaCache's polynomials (highest power first) that the authors published for a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PublishedTea {
    /// For the time embedding.
    pub embedding: Option<[f64; 5]>,
    /// For the time projection (`ret_steps`).
    pub projection: Option<[f64; 5]>,
}

impl PublishedTea {
    /// The polynomial for a signal.
    pub fn of(&self, signal: Signal) -> Option<[f64; 5]> {
        match signal {
            Signal::Embedding => self.embedding,
            Signal::Projection => self.projection,
        }
    }
}

/// What a profile says about the blocks of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockFindings {
    /// Mean lift of each block: how much more than its share of attention the foreground receives.
    pub lift: Vec<f64>,
    /// Blocks that attend to the background, ascending.
    pub background: Vec<usize>,
    /// The other blocks, ascending.
    pub foreground: Vec<usize>,
    /// All blocks, those first whose deltas change least from step to step.
    pub by_change: Vec<usize>,
}

/// Standard deviation in dB of single clips around the mean of the same plan. On the demo model it
/// is mostly 6 to 8 dB and at most 11, wherever the plan comes from (`docs/notebook`).
pub const CLIP_SPREAD: f64 = 8.0;

/// Where the planner's knowledge of a model comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Known {
    /// Nothing was measured: what holds for models of this kind is assumed.
    Prior,
    /// So many ordinary runs without reuse were measured.
    Runs(usize),
    /// A profile was made.
    #[default]
    Profile,
}

impl Known {
    /// Where the knowledge comes from, in words.
    pub fn words(self) -> String {
        match self {
            Self::Prior => "a general assumption (a run without reuse or a profile tells more)".into(),
            Self::Runs(1) => "one run without reuse".into(),
            Self::Runs(count) => format!("{count} runs without reuse"),
            Self::Profile => "the model's profile".into(),
        }
    }

    /// Where the knowledge comes from, in a few words.
    pub fn short(self) -> String {
        match self {
            Self::Prior => "assumption".into(),
            Self::Runs(1) => "1 run".into(),
            Self::Runs(count) => format!("{count} runs"),
            Self::Profile => "profile".into(),
        }
    }
}

/// What is known of a model for a run: its size, the run's noise levels, and what was measured or
/// published. A profile gives the most; a single full run gives part of a calibration.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    sigmas: Vec<f64>,
    blocks: usize,
    published_tea: PublishedTea,
    calibration: Option<Calibration>,
    findings: Option<BlockFindings>,
    learnt: Learnt,
    resampled: OnceLock<Option<Calibration>>,
    plans: OnceLock<Result<PlanTable, String>>,
}

impl Evidence {
    /// Only the sizes: `sigmas` are the noise levels of the run's steps, and 0 after the last.
    pub fn new(sigmas: Vec<f64>, blocks: usize) -> Self {
        Self { sigmas, blocks, ..Self::default() }
    }

    /// Adds polynomials that were published for the model.
    pub fn with_published_tea(self, published_tea: PublishedTea) -> Self {
        Self { published_tea, ..self }
    }

    /// Adds a calibration, made for any schedule of the model.
    pub fn with_calibration(self, calibration: Calibration) -> Self {
        Self { calibration: Some(calibration), resampled: OnceLock::new(), plans: OnceLock::new(), ..self }
    }

    /// Adds what a profile says about the blocks.
    pub fn with_findings(self, findings: BlockFindings) -> Self {
        Self { findings: Some(findings), ..self }
    }

    /// Adds what ordinary runs told. The planner uses it where there is no calibration.
    pub fn with_learnt(self, learnt: Learnt) -> Self {
        Self { learnt, resampled: OnceLock::new(), plans: OnceLock::new(), ..self }
    }

    /// Denoising steps of the run.
    pub fn steps(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }

    /// Blocks of the model.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The sizes that ranges of settings depend on.
    pub fn shape(&self) -> Shape {
        Shape { steps: self.steps(), blocks: self.blocks }
    }

    /// The calibration for the schedule that it was measured on.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The calibration for the schedule of this run.
    pub fn calibration_here(&self) -> Option<&Calibration> {
        let resample = || self.calibration.as_ref()?.resampled(&self.sigmas);
        self.resampled.get_or_init(resample).as_ref()
    }

    /// What a profile says about the blocks.
    pub fn findings(&self) -> Option<&BlockFindings> {
        self.findings.as_ref()
    }

    /// TeaCache's polynomial for a signal: measured on this model, or else published for it.
    pub fn tea_coefficients(&self, signal: Signal) -> Option<[f64; 5]> {
        let measured = self.calibration.as_ref().and_then(|known| known.tea_coefficients(signal));
        measured.or_else(|| self.published_tea.of(signal))
    }

    /// Where the planner's knowledge comes from.
    pub fn known(&self) -> Known {
        match (&self.calibration, self.learnt.runs().len()) {
            (Some(_), _) => Known::Profile,
            (None, 0) => Known::Prior,
            (None, count) => Known::Runs(count),
        }
    }

    /// What the planner plans with: the calibration, or else what runs told, or else the prior.
    fn planned_with(&self) -> Result<Calibration, CacheError> {
        if self.calibration.is_some() {
            let misfit =
                || CacheError::Settings("the profile's calibration does not fit this sampler's schedule".into());
            return self.calibration_here().cloned().ok_or_else(misfit);
        }
        // Measurements that cannot be completed must not stand in the way of a plan.
        let learnt = self.learnt.calibration(&self.sigmas);
        let cautious = learnt.map(|known| prior::cautious(known, self.learnt.runs().len()));
        Ok(cautious.unwrap_or_else(|| prior::prior(&self.sigmas)))
    }

    /// The best plans for this run, one for every number of computed steps. The search runs once.
    ///
    /// # Errors
    /// [`CacheError::Settings`] for a calibration that does not fit the schedule, too many steps,
    /// or none.
    pub fn plans(&self) -> Result<&PlanTable, CacheError> {
        let search = || {
            let known = self.planned_with().map_err(|error| error.to_string())?;
            PlanTable::new(&known).map_err(|error| error.to_string())
        };
        self.plans.get_or_init(search).as_ref().map_err(|why| CacheError::Settings(why.clone()))
    }
}
