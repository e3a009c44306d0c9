//! Collects measurements of generated videos and makes a profile of them.
//!
//! ```text
//! for every run:
//!     begin(prompt, seed, mask)
//!     received(..), delta_change(..), prediction_l1(..), residual_change(..)
//!     end()
//! finish()    returns the profile and the maps that the report shows
//! ```
//!
//! A mask is made from the clean latents, so a run is recorded after it has finished. Each map is
//! scored and then dropped.

use std::collections::{BTreeMap, BTreeSet};

use super::ProfilingError;
use super::mask::{Estimate, Mask};
use super::partition::{Partition, TauRule};
use super::profile::{
    Agreement, Branch, FORMAT, MaskInfo, ModelId, Profile, Queries, RunSettings, ScoreMap, Scores, Stability,
    StepBlock, VERSION,
};
use super::score::{FIXED_THRESHOLD, Score, score};
use super::stability::{jaccard, kendall, pairwise, spearman};
use super::statistics::mean_and_spread;

/// The facts that are known before the first run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The model.
    pub model: ModelId,
    /// How videos are generated.
    pub settings: RunSettings,
    /// Latent frames, token rows, token columns.
    pub token_grid: [usize; 3],
    /// The queries that are measured.
    pub queries: Queries,
    /// The rule that partitions the blocks.
    pub rule: TauRule,
}

/// Maps for the report: the middle frame of every block at a few steps, from the conditional branch
/// of the first run.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptMaps {
    /// Token rows and columns.
    pub extents: [usize; 2],
    /// Index of the latent frame.
    pub frame: usize,
    /// The mask of the frame.
    pub mask: Vec<bool>,
    /// The maps by (block, step).
    pub maps: BTreeMap<(usize, usize), Vec<f32>>,
}

/// The scores of one prompt, seed and branch.
#[derive(Clone, Debug)]
struct Sample {
    prompt: usize,
    seed: u64,
    branch: Branch,
    /// Indexed by `step * blocks + block`.
    scores: Vec<Option<Score>>,
}

/// The run that is being recorded.
#[derive(Clone, Debug)]
struct Run {
    prompt: usize,
    seed: u64,
    mask: Estimate,
    scores: BTreeMap<Branch, Vec<Option<Score>>>,
}

/// A running mean of values that are not negative. Other values are ignored.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        if value.is_finite() && value >= 0.0 {
            self.sum += value;
            self.count += 1;
        }
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// Collects runs.
#[derive(Clone, Debug)]
pub struct Recorder {
    setup: Setup,
    prompts: Vec<String>,
    samples: Vec<Sample>,
    masks: Vec<MaskInfo>,
    run: Option<Run>,
    kept: KeptMaps,
    kept_steps: BTreeSet<usize>,
    delta_change: Vec<Mean>,
    prediction_l1: Vec<Mean>,
    residual_change: Vec<Mean>,
    agreement: Mean,
}

/// The steps whose maps a report shows: at most six evenly spaced steps including the first and the
/// last. For 50 steps they are the paper's 0, 10, 20, 30, 40, 49.
pub fn figure_steps(steps: usize) -> Vec<usize> {
    let count = steps.min(6);
    let mut list: Vec<usize> = (0..count).map(|i| if count > 1 { i * steps / (count - 1) } else { 0 }).collect();
    list.iter_mut().for_each(|step| *step = (*step).min(steps - 1));
    list.dedup();
    list
}

impl Recorder {
    /// A recorder without runs.
    ///
    /// # Errors
    /// [`ProfilingError::Nothing`] without blocks, steps or tokens.
    pub fn new(setup: Setup) -> Result<Self, ProfilingError> {
        let (steps, blocks) = (setup.settings.steps(), setup.model.blocks);
        let [frames, height, width] = setup.token_grid;
        if steps == 0 || blocks == 0 || setup.token_grid.contains(&0) {
            return Err(ProfilingError::Nothing("there are no steps, no blocks or no tokens"));
        }
        Ok(Self {
            kept_steps: figure_steps(steps).into_iter().collect(),
            kept: KeptMaps { extents: [height, width], frame: frames / 2, mask: Vec::new(), maps: BTreeMap::new() },
            delta_change: vec![Mean::default(); steps * blocks],
            prediction_l1: vec![Mean::default(); steps],
            residual_change: vec![Mean::default(); steps],
            agreement: Mean::default(),
            prompts: Vec::new(),
            samples: Vec::new(),
            masks: Vec::new(),
            run: None,
            setup,
        })
    }

    /// Begins a run. An earlier run that has not ended is dropped.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] for a mask of another grid.
    pub fn begin(&mut self, prompt: &str, seed: u64, mask: Estimate) -> Result<(), ProfilingError> {
        self.check_grid(&mask.mask)?;
        let index = self.prompts.iter().position(|known| known == prompt).unwrap_or_else(|| {
            self.prompts.push(prompt.into());
            self.prompts.len() - 1
        });
        self.run = Some(Run { prompt: index, seed, mask, scores: BTreeMap::new() });
        Ok(())
    }

    /// Records the attention received by every token in one block at one step.
    ///
    /// # Errors
    /// [`ProfilingError::Nothing`] outside a run; [`ProfilingError::Invalid`] for a step or block
    /// that does not exist; [`ProfilingError::Size`] for a wrong number of tokens.
    pub fn received(&mut self, step: usize, block: usize, branch: Branch, map: &[f32]) -> Result<(), ProfilingError> {
        self.check_place(step, block)?;
        let [frames, height, width] = self.setup.token_grid;
        ProfilingError::check_size("attention received", frames * height * width, map.len())?;
        let blocks = self.setup.model.blocks;
        let places = self.setup.settings.steps() * blocks;
        let Some(run) = &mut self.run else {
            return Err(ProfilingError::Nothing("a map came outside a run"));
        };
        if self.samples.is_empty() && branch == Branch::Cond && self.kept_steps.contains(&step) {
            let frame = map[self.kept.frame * height * width..][..height * width].to_vec();
            self.kept.maps.insert((block, step), frame);
        }
        let scores = run.scores.entry(branch).or_insert_with(|| vec![None; places]);
        scores[step * blocks + block] = score(map, &run.mask.mask, FIXED_THRESHOLD);
        Ok(())
    }

    /// Records the change of a block's delta since the previous step: the sum of |new - old|
    /// divided by the sum of |old|.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] for a step or block that does not exist.
    pub fn delta_change(&mut self, step: usize, block: usize, change: f64) -> Result<(), ProfilingError> {
        self.check_place(step, block)?;
        let blocks = self.setup.model.blocks;
        self.delta_change[step * blocks + block].add(change);
        Ok(())
    }

    /// Records the mean absolute difference between the predictions of this step and the previous
    /// step.
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] for a step that does not exist.
    pub fn prediction_l1(&mut self, step: usize, mean: f64) -> Result<(), ProfilingError> {
        self.check_place(step, 0)?;
        self.prediction_l1[step].add(mean);
        Ok(())
    }

    /// Records the change of the residual, which is the sum of all blocks' deltas, in the same form
    /// as [`Recorder::delta_change`].
    ///
    /// # Errors
    /// [`ProfilingError::Invalid`] for a step that does not exist.
    pub fn residual_change(&mut self, step: usize, change: f64) -> Result<(), ProfilingError> {
        self.check_place(step, 0)?;
        self.residual_change[step].add(change);
        Ok(())
    }

    /// Records the rank correlation of a sampled and an exact map of the same block and step.
    pub fn compare_sampled(&mut self, sampled: &[f32], exact: &[f32]) {
        let wide = |map: &[f32]| map.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        // Mean ignores values below zero, so a negative correlation counts as zero.
        if let Some(correlation) = spearman(&wide(sampled), &wide(exact)) {
            self.agreement.add(correlation.max(0.0));
        }
    }

    /// Ends a run.
    ///
    /// # Errors
    /// [`ProfilingError::Nothing`] if no run has begun.
    pub fn end(&mut self) -> Result<(), ProfilingError> {
        let Some(Run { prompt, seed, mask, scores }) = self.run.take() else {
            return Err(ProfilingError::Nothing("a run ended that had not begun"));
        };
        if self.kept.mask.is_empty() {
            let frame = self.kept.extents.iter().product::<usize>();
            self.kept.mask = mask.mask.bits()[self.kept.frame * frame..][..frame].to_vec();
        }
        self.masks.push(MaskInfo { estimator: mask.estimator, confidence: mask.confidence, share: mask.mask.share() });
        self.samples.extend(scores.into_iter().map(|(branch, scores)| Sample { prompt, seed, branch, scores }));
        Ok(())
    }

    /// The profile of all ended runs, and the maps for its report.
    ///
    /// # Errors
    /// [`ProfilingError::Nothing`] if a block was never scored, either because it has no maps or
    /// because the masks have no foreground or no background.
    pub fn finish(self) -> Result<(Profile, KeptMaps), ProfilingError> {
        let blocks = self.setup.model.blocks;
        let block_lift = self.lifts(|_, _| true).ok_or(ProfilingError::Nothing(
            "some block has no score; are the masks empty or full? try another estimator",
        ))?;
        let masks = &self.masks;
        let mean = |value: fn(&MaskInfo) -> f64| masks.iter().map(value).sum::<f64>() / masks.len().max(1) as f64;
        let estimator = masks.first().map(|mask| mask.estimator).ok_or(ProfilingError::Nothing("no run has ended"))?;
        let set = |of: fn(&Sample) -> u64| self.samples.iter().map(of).collect::<BTreeSet<u64>>();
        let branches: BTreeSet<Branch> = self.samples.iter().map(|sample| sample.branch).collect();
        let profile = Profile {
            format: FORMAT.into(),
            version: VERSION,
            seeds: set(|sample| sample.seed).into_iter().collect(),
            branches: branches.into_iter().collect(),
            mask: MaskInfo { estimator, confidence: mean(|mask| mask.confidence), share: mean(|mask| mask.share) },
            scores: Scores {
                recall: self.score_map(|score| Some(score.recall)),
                precision: self.score_map(|score| Some(score.precision)),
                lift: self.score_map(|score| Some(score.lift)),
                auc: self.score_map(|score| Some(score.auc)),
                recall_fixed: Some(self.score_map(|score| Some(score.recall_fixed))),
                precision_fixed: Some(self.score_map(|score| score.precision_fixed)),
            },
            partition: Partition::new(&block_lift, self.setup.rule)?,
            stability: self.stability(),
            block_lift,
            delta_change: self.delta_change.chunks(blocks).map(means).collect(),
            prediction_l1: means(&self.prediction_l1),
            residual_change: means(&self.residual_change),
            sampled_agreement: self.agreement.get(),
            prompts: self.prompts,
            model: self.setup.model,
            settings: self.setup.settings,
            token_grid: self.setup.token_grid,
            queries: self.setup.queries,
            calibration: None,
        };
        profile.to_json()?;
        Ok((profile, self.kept))
    }

    fn score_map(&self, value: fn(&Score) -> Option<f64>) -> ScoreMap {
        let (steps, blocks) = (self.setup.settings.steps(), self.setup.model.blocks);
        let at = |step: usize, block: usize| {
            let scores = self.samples.iter().filter_map(move |sample| sample.scores[step * blocks + block].as_ref());
            mean_and_spread(scores.filter_map(value))
        };
        let map = |part: fn((f64, f64)) -> f64| -> StepBlock {
            (0..steps).map(|step| (0..blocks).map(|block| at(step, block).map(part)).collect()).collect()
        };
        ScoreMap { mean: map(|pair| pair.0), spread: map(|pair| pair.1) }
    }

    /// The mean lift of each block over the chosen samples and steps. `None` if a block has no
    /// score.
    fn lifts(&self, chosen: impl Fn(&Sample, usize) -> bool) -> Option<Vec<f64>> {
        let blocks = self.setup.model.blocks;
        let of_block = |block: usize| {
            let places =
                self.samples.iter().flat_map(|sample| (0..self.setup.settings.steps()).map(move |step| (sample, step)));
            let mut mean = Mean::default();
            for (sample, step) in places.filter(|(sample, step)| chosen(sample, *step)) {
                if let Some(score) = &sample.scores[step * blocks + block] {
                    mean.add(score.lift);
                }
            }
            mean.get()
        };
        (0..blocks).map(of_block).collect()
    }

    fn stability(&self) -> Stability {
        let by = |key: fn(&Sample) -> u64| {
            let keys: BTreeSet<u64> = self.samples.iter().map(key).collect();
            self.agreement(keys.into_iter().filter_map(|value| self.lifts(|sample, _| key(sample) == value)).collect())
        };
        let steps = (0..self.setup.settings.steps()).filter_map(|step| self.lifts(|_, at| at == step)).collect();
        Stability {
            steps: self.agreement(steps),
            prompts: by(|sample| sample.prompt as u64),
            seeds: by(|sample| sample.seed),
            branches: by(|sample| sample.branch as u64),
        }
    }

    fn agreement(&self, lifts: Vec<Vec<f64>>) -> Agreement {
        let lists = lifts.iter().filter_map(|lifts| Partition::new(lifts, self.setup.rule).ok());
        let lists: Vec<Vec<usize>> = lists.map(|partition| partition.foreground).collect();
        Agreement {
            spearman: pairwise(&lifts, |a, b| spearman(a, b)),
            kendall: pairwise(&lifts, |a, b| kendall(a, b)),
            jaccard: pairwise(&lists, |a, b| Some(jaccard(a, b))),
        }
    }

    fn check_place(&self, step: usize, block: usize) -> Result<(), ProfilingError> {
        let (steps, blocks) = (self.setup.settings.steps(), self.setup.model.blocks);
        if step < steps && block < blocks {
            return Ok(());
        }
        Err(ProfilingError::Invalid(format!("block {block} at step {step} of {blocks} blocks and {steps} steps")))
    }

    fn check_grid(&self, mask: &Mask) -> Result<(), ProfilingError> {
        if mask.grid() == self.setup.token_grid {
            return Ok(());
        }
        let (own, other) = (self.setup.token_grid, mask.grid());
        Err(ProfilingError::Invalid(format!("a mask of {other:?} tokens for a video of {own:?}")))
    }
}

fn means(means: &[Mean]) -> Vec<Option<f64>> {
    means.iter().map(|mean| mean.get()).collect()
}

#[cfg(test)]
pub(super) mod tests;
