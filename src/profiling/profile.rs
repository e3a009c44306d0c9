//! The profile file: JSON, one object, read with suspicion.
//!
//! | field | meaning |
//! |---|---|
//! | `format`, `version` | `"ditscope-profile"`, 1; other versions are refused |
//! | `model` | `id` (a name), `hash` (of its weights), `blocks` |
//! | `settings` | `steps`, `scheduler`, `flow_shift`, `guidance_scale`, and the video's `width`, `height` (pixels), `frames` |
//! | `prompts`, `seeds` | what was generated |
//! | `token_grid` | latent frames, token rows, token columns |
//! | `queries` | `"exact"`, or `{"sampled": n}` queries a head |
//! | `sampled_agreement` | Spearman's correlation of sampled with exact maps, where both were measured, or null |
//! | `mask` | `estimator`, mean `confidence` (0 to 1), mean `share` of tokens that are foreground |
//! | `branches` | which of `"cond"`, `"uncond"` were scored; scores are means over them, prompts and seeds |
//! | `scores` | `recall` (eq. 6, R_attn), `precision`, `lift`, `auc`, and, where measured, recall and precision of all tokens that receive more than the mean (the paper has a fixed threshold and does not print it), `recall_fixed` and `precision_fixed`; each with `mean` and `spread` (standard deviation over runs and their branches), `[step][block]`, null where not measured; step 0 is the noisiest |
//! | `block_lift` | mean lift of each block over all steps: what the partition is made of |
//! | `partition` | `rule`, `tau`, `foreground` and `background` blocks; every block is in one of them |
//! | `delta_change` | `[step][block]`: the sum of the absolute change of what the block adds since the step before, by the sum of what it added then; null at step 0 |
//! | `prediction_l1` | `[step]`: mean absolute difference of consecutive predictions (the paper's Fig. 4); null at step 0 |
//! | `residual_change` | `[step]`: as `delta_change`, of what all blocks together add |
//! | `calibration` | what MagCache, TeaCache and the planner need, or null; see [`crate::caching::Calibration`] |
//! | `stability` | how much the blocks' order and the foreground lists agree between `steps`, `prompts`, `seeds`, `branches`: mean pairwise `spearman`, `kendall` (of mean lifts) and `jaccard` (of lists), or null |

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ProfilingError;
use super::mask::Estimator;
use super::partition::Partition;
use crate::caching::Calibration;

/// [`Profile::format`].
pub const FORMAT: &str = "ditscope-profile";
/// [`Profile::version`].
pub const VERSION: u32 = 1;

/// Bytes of a profile at most.
const MOST_BYTES: u64 = 64 << 20;
/// Limits of what a profile may say: far beyond any model.
const MOST_BLOCKS: usize = 1024;
const MOST_STEPS: usize = 2000;
const MOST_PROMPTS: usize = 10_000;
const MOST_TEXT: usize = 20_000;

/// Which model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelId {
    /// A name for people.
    pub id: String,
    /// Of its weights; profiles fit no other.
    pub hash: String,
    /// Number of transformer blocks.
    pub blocks: usize,
}

/// How the profiled videos were generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSettings {
    /// Denoising steps.
    pub steps: usize,
    /// Name of the scheduler.
    pub scheduler: String,
    /// Shift of the sigma schedule.
    pub flow_shift: f64,
    /// Guidance.
    pub guidance_scale: f64,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Video frames.
    pub frames: usize,
}

/// Which queries took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queries {
    /// All.
    Exact,
    /// This many a head.
    Sampled(usize),
}

/// Half of a guided step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// With the prompt.
    Cond,
    /// With the negative prompt.
    Uncond,
}

/// The masks that were scored against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskInfo {
    /// How they were made.
    pub estimator: Estimator,
    /// Mean confidence, 0 to 1.
    pub confidence: f64,
    /// Mean share of tokens that are foreground, 0 to 1.
    pub share: f64,
}

/// `[step][block]`, `None` where nothing was measured.
pub type StepBlock = Vec<Vec<Option<f64>>>;

/// One score of every block at every step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreMap {
    /// Mean over runs.
    pub mean: StepBlock,
    /// Standard deviation over runs.
    pub spread: StepBlock,
}

/// All scores; see [`super::score::Score`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Eq. 6, R_attn.
    pub recall: ScoreMap,
    /// At the matched count.
    pub precision: ScoreMap,
    /// Precision by the foreground's share.
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
    /// Names and maps of all scores that there are.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &ScoreMap)> {
        let always =
            [("recall", &self.recall), ("precision", &self.precision), ("lift", &self.lift), ("auc", &self.auc)];
        let fixed = [("recall_fixed", &self.recall_fixed), ("precision_fixed", &self.precision_fixed)];
        always.into_iter().chain(fixed.into_iter().filter_map(|(name, map)| Some((name, map.as_ref()?))))
    }
}

/// How much rankings and lists agree; means over pairs, `None` without a pair to compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Rank correlation of the blocks' lifts, -1 to 1.
    pub spearman: Option<f64>,
    /// Kendall's tau-b of the blocks' lifts, -1 to 1.
    pub kendall: Option<f64>,
    /// Of the foreground lists, each by the profile's own rule, 0 to 1.
    pub jaccard: Option<f64>,
}

/// What the lists agree across.
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

/// A profile; the table at the head of this file says what the fields hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented once, in the table of the file's format")]
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

/// What every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

fn invalid<T>(what: impl Into<String>) -> Result<T, ProfilingError> {
    // One line, whatever the file put into the message.
    let what = what.into().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    Err(ProfilingError::Invalid(what))
}

impl Profile {
    /// Reads and checks a profile file.
    ///
    /// # Errors
    /// [`ProfilingError::Io`]; [`ProfilingError::Invalid`] for anything that breaks the format, in one line.
    pub fn read(path: &Path) -> Result<Self, ProfilingError> {
        let io = |source| ProfilingError::Io { path: path.into(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        Self::from_json(&bytes)
    }

    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`], in one line.
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

    /// The profile as JSON, checked as if it were read.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] where a number is not finite or sizes do not agree.
    pub fn to_json(&self) -> Result<String, ProfilingError> {
        self.check()?;
        serde_json::to_string(self).or_else(|error| invalid(error.to_string()))
    }

    /// Fails unless the profile is of this model.
    ///
    /// # Errors
    /// [`ProfilingError::Misfit`], saying what differs.
    pub fn check_fits(&self, model_hash: &str, blocks: usize) -> Result<(), ProfilingError> {
        if self.model.blocks != blocks {
            let (id, own) = (&self.model.id, self.model.blocks);
            return Err(ProfilingError::Misfit(format!(
                "it is of {id} with {own} blocks, the model has {blocks}; profile this model"
            )));
        }
        if self.model.hash != model_hash {
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

    /// The same profile with background blocks that somebody chose.
    ///
    /// # Errors
    /// As [`Partition::by_hand`].
    pub fn with_background(&self, background: Vec<usize>) -> Result<Self, ProfilingError> {
        Ok(Self { partition: Partition::by_hand(background, self.model.blocks)?, ..self.clone() })
    }

    /// Every rule of the format.
    fn check(&self) -> Result<(), ProfilingError> {
        let (steps, blocks) = (self.settings.steps, self.model.blocks);
        if !(1..=MOST_BLOCKS).contains(&blocks) || !(1..=MOST_STEPS).contains(&steps) {
            return invalid(format!("{blocks} blocks and {steps} steps; at most {MOST_BLOCKS} and {MOST_STEPS}"));
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
        let RunSettings { flow_shift, guidance_scale, .. } = self.settings;
        if !flow_shift.is_finite() || !guidance_scale.is_finite() {
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
#[path = "profile_tests.rs"]
pub(super) mod tests;
