//! The profile file: one JSON object. Every value is checked when a profile is read.
//!
//! | field | meaning |
//! |---|---|
//! | `format`, `version` | `"ditscope-profile"` and 1; other versions are refused |
//! | `model` | `id` (a name), `hash` (of the weights), `blocks` |
//! | `settings` | the settings of the profiled videos, see [`RunSettings`] |
//! | `prompts`, `seeds` | the prompts and seeds of the profiled videos |
//! | `token_grid` | latent frames, token rows, token columns |
//! | `queries` | `"exact"`, or `{"sampled": n}` for n queries per head |
//! | `sampled_agreement` | rank correlation (Spearman) of sampled and exact maps, or null |
//! | `mask` | `estimator`, mean `confidence` (0 to 1), mean `share` of foreground tokens |
//! | `branches` | the scored branches: `"cond"`, `"uncond"` |
//! | `scores` | scores of every block at every step, see below |
//! | `block_lift` | mean lift of each block over all steps; the partition is made from it |
//! | `partition` | `rule`, `tau`, and the lists `foreground` and `background` |
//! | `delta_change` | `[step][block]`: relative change of a block's delta, see below |
//! | `prediction_l1` | `[step]`: mean absolute difference of consecutive predictions (Fig. 4) |
//! | `residual_change` | `[step]`: relative change of the sum of all blocks' deltas |
//! | `calibration` | data for MagCache, TeaCache and the planner, or null: [`Calibration`] |
//! | `stability` | agreement between `steps`, `prompts`, `seeds` and `branches`, see below |
//!
//! **Scores** are `recall` (R_attn of eq. 6), `precision`, `lift` and `auc`. Newer profiles also
//! have `recall_fixed` and `precision_fixed`, the recall and precision of all tokens that receive
//! more attention than the mean. (The paper uses a fixed threshold but does not print it.) Each
//! score has a `mean` and a `spread` (standard deviation) over prompts, seeds and branches. Both
//! are `[step][block]` and null where nothing was measured. Step 0 is the noisiest step.
//!
//! **Changes**: a block's delta is the difference between its output and its input. Its relative
//! change is the sum of the absolute differences since the previous step, divided by the sum of the
//! absolute values at the previous step. All changes are null at step 0.
//!
//! **Stability** says how much the order of the blocks and the foreground lists agree. The values
//! are means over pairs: `spearman` and `kendall` of the mean lifts, and `jaccard` of the lists, or
//! null.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ProfilingError;
use super::mask::Estimator;
use super::partition::Partition;
use crate::caching::{BlockFindings, Calibration, Evidence};
use crate::sampling::ClipSettings;
use crate::sampling::limits::{MOST_BLOCKS, MOST_STORED_STEPS};

/// The value of [`Profile::format`].
pub const FORMAT: &str = "ditscope-profile";
/// The value of [`Profile::version`].
pub const VERSION: u32 = 1;

/// Largest size of a profile, in bytes.
const MOST_BYTES: u64 = 64 << 20;
// The following limits are far beyond any model.
const MOST_PROMPTS: usize = 10_000;
const MOST_TEXT: usize = 20_000;

/// The model that a profile belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelId {
    /// A name for people.
    pub id: String,
    /// Hash of the model's weights. A profile fits only a model with the same hash.
    pub hash: String,
    /// Number of transformer blocks.
    pub blocks: usize,
}

/// The settings of the profiled videos.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredSettings", into = "StoredSettings")]
pub struct RunSettings {
    /// The clips. Seeds are in [`Profile::seeds`]; a profile does not hold the frames a second.
    pub clip: ClipSettings,
    /// Name of the scheduler.
    pub scheduler: String,
}

impl RunSettings {
    /// Denoising steps.
    pub fn steps(&self) -> usize {
        self.clip.num_inference_steps
    }
}

/// [`RunSettings`] in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSettings {
    steps: usize,
    scheduler: String,
    flow_shift: f64,
    guidance_scale: f64,
    width: usize,
    height: usize,
    frames: usize,
}

impl From<StoredSettings> for RunSettings {
    fn from(stored: StoredSettings) -> Self {
        let clip = ClipSettings {
            width: stored.width,
            height: stored.height,
            num_frames: stored.frames,
            num_inference_steps: stored.steps,
            guidance_scale: stored.guidance_scale,
            flow_shift: Some(stored.flow_shift),
            ..ClipSettings::default()
        };
        Self { clip, scheduler: stored.scheduler }
    }
}

impl From<RunSettings> for StoredSettings {
    fn from(RunSettings { clip, scheduler }: RunSettings) -> Self {
        Self {
            steps: clip.num_inference_steps,
            scheduler,
            flow_shift: clip.flow_shift.unwrap_or(1.0),
            guidance_scale: clip.guidance_scale,
            width: clip.width,
            height: clip.height,
            frames: clip.num_frames,
        }
    }
}

/// The queries whose attention is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queries {
    /// All queries.
    Exact,
    /// This number of queries per head.
    Sampled(usize),
}

/// One of the two forwards of a guided step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// The forward with the prompt.
    Cond,
    /// The forward with the negative prompt.
    Uncond,
}

/// The masks that blocks were scored against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskInfo {
    /// The estimator that made the masks.
    pub estimator: Estimator,
    /// Mean confidence, 0 to 1.
    pub confidence: f64,
    /// Mean share of tokens that are foreground, 0 to 1.
    pub share: f64,
}

/// Values as `[step][block]`. `None` where nothing was measured.
pub type StepBlock = Vec<Vec<Option<f64>>>;

/// A score of every block at every step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreMap {
    /// Mean over runs.
    pub mean: StepBlock,
    /// Standard deviation over runs.
    pub spread: StepBlock,
}

/// All scores. [`super::score::Score`] describes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Recall, which is R_attn of eq. 6.
    pub recall: ScoreMap,
    /// Precision of the same tokens as `recall`.
    pub precision: ScoreMap,
    /// Precision divided by the foreground's share.
    pub lift: ScoreMap,
    /// Area under the ROC curve.
    pub auc: ScoreMap,
    /// Recall at the fixed threshold.
    #[serde(default)]
    pub recall_fixed: Option<ScoreMap>,
    /// Precision at the fixed threshold.
    #[serde(default)]
    pub precision_fixed: Option<ScoreMap>,
}

impl Scores {
    /// Names and maps of all scores in the profile.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &ScoreMap)> {
        let always =
            [("recall", &self.recall), ("precision", &self.precision), ("lift", &self.lift), ("auc", &self.auc)];
        let fixed = [("recall_fixed", &self.recall_fixed), ("precision_fixed", &self.precision_fixed)];
        always.into_iter().chain(fixed.into_iter().filter_map(|(name, map)| Some((name, map.as_ref()?))))
    }
}

/// The agreement of rankings and lists. Values are means over pairs, and `None` if no pair can be
/// compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Rank correlation of the blocks' lifts, -1 to 1.
    pub spearman: Option<f64>,
    /// Kendall's tau-b of the blocks' lifts, -1 to 1.
    pub kendall: Option<f64>,
    /// Jaccard index of the foreground lists, 0 to 1. The profile's rule makes each list.
    pub jaccard: Option<f64>,
}

/// The agreement between parts of the runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stability {
    /// Between steps.
    pub steps: Agreement,
    /// Between prompts.
    pub prompts: Agreement,
    /// Between seeds.
    pub seeds: Agreement,
    /// Between the branches.
    pub branches: Agreement,
}

/// A profile. The table in the documentation of the module describes the fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented once, in the table of the file's format")]
#[non_exhaustive]
pub struct Profile {
    pub format: String,
    pub version: u32,
    pub model: ModelId,
    pub settings: RunSettings,
    pub prompts: Vec<String>,
    pub seeds: Vec<u64>,
    pub token_grid: [usize; 3],
    pub queries: Queries,
    pub sampled_agreement: Option<f64>,
    pub mask: MaskInfo,
    pub branches: Vec<Branch>,
    pub scores: Scores,
    pub block_lift: Vec<f64>,
    pub partition: Partition,
    pub delta_change: StepBlock,
    pub prediction_l1: Vec<Option<f64>>,
    pub residual_change: Vec<Option<f64>>,
    pub stability: Stability,
    #[serde(default)]
    pub calibration: Option<Calibration>,
}

/// The fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

fn invalid<T>(what: impl Into<String>) -> Result<T, ProfilingError> {
    // The message may quote the file. It stays one line of limited length.
    let what = what.into().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    Err(ProfilingError::Invalid(what))
}

impl Profile {
    /// Reads and checks a profile file.
    ///
    /// # Errors
    /// [`ProfilingError::Io`]; [`ProfilingError::Invalid`] if the file breaks the format.
    pub fn read(path: &Path) -> Result<Self, ProfilingError> {
        let io = |source| ProfilingError::Io { path: path.into(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        Self::from_json(&bytes)
    }

    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] if the text breaks the format.
    pub fn from_json(json: &[u8]) -> Result<Self, ProfilingError> {
        if json.len() as u64 > MOST_BYTES {
            return invalid(format!("it is larger than {} MiB", MOST_BYTES >> 20));
        }
        let head: Head = match serde_json::from_slice(json) {
            Ok(head) => head,
            Err(error) => return invalid(format!("it is no profile ({error})")),
        };
        if head.format != FORMAT {
            return invalid(format!("its format is \"{}\", not \"{FORMAT}\"", head.format));
        }
        if head.version != VERSION {
            return invalid(format!(
                "its version is {}, this program reads {VERSION}; profile the model again",
                head.version
            ));
        }
        let profile: Self = match serde_json::from_slice(json) {
            Ok(profile) => profile,
            Err(error) => return invalid(error.to_string()),
        };
        profile.check()?;
        Ok(profile)
    }

    /// The profile as JSON, after the same checks as in [`Self::from_json`].
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] if a number is not finite or sizes do not agree.
    pub fn to_json(&self) -> Result<String, ProfilingError> {
        self.check()?;
        serde_json::to_string(self).or_else(|error| invalid(error.to_string()))
    }

    /// Checks that the profile belongs to this model. `former` are identities that earlier versions
    /// of the program gave to it.
    ///
    /// # Errors
    /// [`ProfilingError::Misfit`], which names the difference.
    pub fn check_fits(&self, model_hash: &str, former: &[String], blocks: usize) -> Result<(), ProfilingError> {
        if self.model.blocks != blocks {
            let (id, own) = (&self.model.id, self.model.blocks);
            return Err(ProfilingError::Misfit(format!(
                "it is of {id} with {own} blocks, the model has {blocks}; profile this model"
            )));
        }
        if self.model.hash != model_hash && !former.contains(&self.model.hash) {
            let short = |hash: &str| hash.chars().take(12).collect::<String>();
            return Err(ProfilingError::Misfit(format!(
                "it is of other weights ({}, hash {}) than the model's ({}); profile this model",
                self.model.id,
                short(&self.model.hash),
                short(model_hash)
            )));
        }
        Ok(())
    }

    /// The same profile with background blocks that a person chose.
    ///
    /// # Errors
    /// The errors of [`Partition::by_hand`].
    pub fn with_background(&self, background: Vec<usize>) -> Result<Self, ProfilingError> {
        Ok(Self { partition: Partition::by_hand(background, self.model.blocks)?, ..self.clone() })
    }

    /// What the profile says for a run of its model with these noise levels (one a step, and 0
    /// after the last).
    pub fn evidence(&self, sigmas: Vec<f64>) -> Evidence {
        let blocks = self.model.blocks;
        let change = |block: usize| self.delta_change.iter().filter_map(|step| step[block]).sum::<f64>();
        let mut by_change: Vec<usize> = (0..blocks).collect();
        by_change.sort_by(|a, b| change(*a).total_cmp(&change(*b)));
        let Partition { background, foreground, .. } = self.partition.clone();
        let findings = BlockFindings { lift: self.block_lift.clone(), background, foreground, by_change };
        let evidence = Evidence::new(sigmas, blocks).with_findings(findings);
        match &self.calibration {
            Some(calibration) => evidence.with_calibration(calibration.clone()),
            None => evidence,
        }
    }

    /// Checks every rule of the format.
    fn check(&self) -> Result<(), ProfilingError> {
        let (steps, blocks) = (self.settings.steps(), self.model.blocks);
        if !(1..=MOST_BLOCKS).contains(&blocks) || !(1..=MOST_STORED_STEPS).contains(&steps) {
            return invalid(format!(
                "{blocks} blocks and {steps} steps; at most {MOST_BLOCKS} and {MOST_STORED_STEPS}"
            ));
        }
        self.check_words()?;
        self.check_numbers()?;
        if let Some(calibration) = &self.calibration {
            calibration.check().or_else(|error| invalid(error.to_string()))?;
            if calibration.steps() != steps {
                return invalid(format!("its calibration has {} steps, the runs {steps}", calibration.steps()));
            }
        }
        for (name, map) in self.scores.all() {
            let most = if name == "lift" { f64::MAX } else { 1.0 };
            check_matrix(&format!("scores.{name}.mean"), &map.mean, steps, blocks, most)?;
            check_matrix(&format!("scores.{name}.spread"), &map.spread, steps, blocks, f64::MAX)?;
        }
        check_matrix("delta_change", &self.delta_change, steps, blocks, f64::MAX)?;
        check_row("prediction_l1", &self.prediction_l1, steps, f64::MAX)?;
        check_row("residual_change", &self.residual_change, steps, f64::MAX)?;
        let lifts: Vec<Option<f64>> = self.block_lift.iter().copied().map(Some).collect();
        check_row("block_lift", &lifts, blocks, f64::MAX)?;
        self.partition.check(blocks)
    }

    fn check_words(&self) -> Result<(), ProfilingError> {
        let texts = [&self.model.id, &self.model.hash, &self.settings.scheduler];
        let long = texts.into_iter().chain(&self.prompts).any(|text| text.len() > MOST_TEXT);
        if long || self.prompts.len() > MOST_PROMPTS || self.seeds.len() > MOST_PROMPTS {
            return invalid(format!(
                "more than {MOST_PROMPTS} prompts or seeds, or a text of more than {MOST_TEXT} bytes"
            ));
        }
        if self.model.hash.is_empty() || self.branches.is_empty() || self.branches.len() > 2 {
            return invalid("the model's hash or the list of branches is empty or too long");
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ProfilingError> {
        let tokens = self.token_grid.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if !tokens.is_some_and(|tokens| (1..=1 << 31).contains(&tokens)) {
            return invalid(format!("a token grid of {:?}", self.token_grid));
        }
        let ClipSettings { flow_shift, guidance_scale, .. } = self.settings.clip;
        if !flow_shift.is_none_or(f64::is_finite) || !guidance_scale.is_finite() {
            return invalid("flow_shift and guidance_scale must be finite");
        }
        let unit = 0.0..=1.0;
        if !unit.contains(&self.mask.confidence) || !unit.contains(&self.mask.share) {
            return invalid("mask.confidence and mask.share must be from 0 to 1");
        }
        let Stability { steps, prompts, seeds, branches } = self.stability;
        let agreements = [steps, prompts, seeds, branches].map(|a| [a.spearman, a.kendall, a.jaccard]);
        let correlations = agreements.iter().flatten().chain([&self.sampled_agreement]).flatten();
        if correlations.into_iter().any(|value| !(-1.0..=1.0).contains(value)) {
            return invalid("stability and sampled_agreement must be from -1 to 1");
        }
        if self.queries == Queries::Sampled(0) {
            return invalid("0 sampled queries");
        }
        Ok(())
    }
}

fn check_matrix(
    name: &str,
    rows: &[Vec<Option<f64>>],
    steps: usize,
    blocks: usize,
    most: f64,
) -> Result<(), ProfilingError> {
    if rows.len() != steps {
        return invalid(format!("{name} has {} steps, not {steps}", rows.len()));
    }
    rows.iter().enumerate().try_for_each(|(step, row)| check_row(&format!("{name}[{step}]"), row, blocks, most))
}

fn check_row(name: &str, row: &[Option<f64>], count: usize, most: f64) -> Result<(), ProfilingError> {
    if row.len() != count {
        return invalid(format!("{name} has {} values, not {count}", row.len()));
    }
    match row.iter().flatten().find(|value| !(0.0..=most).contains(*value)) {
        Some(value) => invalid(format!("{name} holds {value}, which is no such score")),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests;
