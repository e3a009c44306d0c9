//! A capture: the records of a run. A live run and a recorded file give the same records, so the
//! same code draws both.
//!
//! ```text
//! Event ── Capture::observe ──> Capture ──> panes, reports, figures
//! file  ── records ───────────────┘
//! ```

pub(crate) mod check;
pub mod file;
mod page;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer, Serialize};

use crate::caching::{Calibration, Cell, ForwardCost, StepPlan, StrategyConfig, calibrate_tea_cache, hit_rate};
use crate::sampling::ClipSettings;

use super::{Event, Seconds};
pub use page::page;

/// The description of a run. It is the first record of a capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    /// Program and version.
    pub program: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Name of the model's folder.
    pub model: String,
    /// Fingerprint of the transformer's configuration and weights.
    pub model_id: String,
    /// The prompt: what the clip shows.
    pub prompt: String,
    /// The negative prompt: what the clip must not show.
    pub negative_prompt: String,
    /// The clip's settings. The shift is the one that was used. The guidance is 1 where there was
    /// no uncond branch. The number of steps is the requested one; older captures lack it and have
    /// 0 (see [`RunInfo::requested_steps`]).
    #[serde(flatten, deserialize_with = "recorded_clip")]
    pub clip: ClipSettings,
    /// Generator of the initial noise.
    pub noise: String,
    /// The solver.
    pub scheduler: String,
    /// Noise level of each step, and 0 after the last.
    pub sigmas: Vec<f64>,
    /// The strategy: how the run reuses features.
    pub strategy: StrategyConfig,
    /// The plan of each step, if the strategy knows it before the run.
    pub expected: Vec<StepPlan>,
    /// Number of blocks of the transformer.
    pub blocks: usize,
    /// Tokens along frames, height, width.
    pub token_grid: [usize; 3],
    /// Extents of the latents: channels, frames, height, width.
    pub latent_shape: [usize; 4],
    /// Work of one forward pass.
    pub cost: Option<ForwardCost>,
    /// Relative changes of TeaCache's two signals (time embedding, time projection) from each step
    /// to the next, if the run measures changes. The first step's are 0.
    pub signal_changes: Vec<[f64; 2]>,
    /// The options of the command that began the run. Empty where nobody typed a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// Reads a clip's settings. Older captures lack the requested number of steps, which becomes 0.
fn recorded_clip<'de, D: Deserializer<'de>>(from: D) -> Result<ClipSettings, D::Error> {
    #[derive(Deserialize)]
    struct Recorded {
        #[serde(default)]
        num_inference_steps: usize,
        #[serde(flatten)]
        clip: ClipSettings,
    }
    let Recorded { num_inference_steps, clip } = Recorded::deserialize(from)?;
    Ok(ClipSettings { num_inference_steps, ..clip })
}

impl RunInfo {
    /// Denoising steps of the run.
    pub fn steps(&self) -> usize {
        self.sigmas.len().saturating_sub(1)
    }

    /// Requested denoising steps. The run has fewer where the strategy leaves some out.
    pub fn requested_steps(&self) -> usize {
        match self.clip.num_inference_steps {
            0 => self.steps(),
            steps => steps,
        }
    }

    /// Shift of the sigmas, or 1 if none is recorded.
    pub fn flow_shift(&self) -> f64 {
        self.clip.flow_shift.unwrap_or(1.0)
    }

    /// Whether there is an uncond branch.
    pub fn guided(&self) -> bool {
        self.clip.guided()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.token_grid.iter().product()
    }

    /// The settings that make the same clip again, as JSON. Files of clips hold them.
    pub fn settings(&self) -> serde_json::Value {
        serde_json::json!({
            "program": self.program,
            "model": self.model,
            "model_id": self.model_id,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.clip.seed,
            "noise": self.noise,
            "size": [self.clip.width, self.clip.height],
            "frames": self.clip.num_frames,
            "steps": self.steps(),
            "sigmas": self.sigmas,
            "guidance_scale": self.clip.guidance_scale,
            "flow_shift": self.flow_shift(),
            "scheduler": self.scheduler,
            "strategy": self.strategy.name(),
            "strategy_settings": self.strategy,
        })
    }
}

/// RGB frames: those of the clip, or small previews with one pixel for each latent cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frames {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// 8-bit RGB, `width * height * 3` bytes a frame.
    #[serde(with = "super::compact::byte_frames")]
    pub frames: Vec<Vec<u8>>,
}

/// The record of one block in one branch of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Whether the block was computed, stored or reused.
    pub cell: Cell,
    /// Relative change of the block's delta since it was last measured: mean |d - d'| / mean |d'|.
    #[serde(default)]
    pub change: Option<f32>,
    /// Attention received by each token, with mean 1 (ProfilingDiT eq. 5 as meant), if the run
    /// profiled attention.
    #[serde(default, with = "super::compact::halves")]
    pub received: Option<Vec<f32>>,
    /// Share of each token's cross-attention that goes to the prompt's subject, if the run profiled
    /// attention.
    #[serde(default, with = "super::compact::halves")]
    pub paid: Option<Vec<f32>>,
    /// GPU seconds, if the run measured them.
    #[serde(default)]
    pub seconds: Option<f32>,
}

impl BlockRecord {
    /// The records of blocks without measurements.
    pub fn of_cells(cells: Vec<Cell>) -> Vec<Self> {
        let record = |cell| Self { cell, change: None, received: None, paid: None, seconds: None };
        cells.into_iter().map(record).collect()
    }
}

/// GPU time of one kernel within a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// Shader and variant.
    pub kernel: String,
    /// Seconds on the GPU.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// Number of dispatches.
    pub calls: u64,
}

/// One denoising step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// The step's number, from 0.
    pub step: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The plan that the step carried out.
    pub plan: Option<StepPlan>,
    /// The blocks of the cond branch.
    pub cond: Vec<BlockRecord>,
    /// The blocks of the uncond branch. The list is empty without guidance.
    pub uncond: Vec<BlockRecord>,
    /// Mean |v_t - v_(t-1)| of the guided predictions (the paper's Fig. 4).
    pub prediction_change: Option<f64>,
    /// The same change, relative to mean |v_(t-1)|.
    pub relative_change: Option<f64>,
    /// Relative change of the whole stack's residual (cond) since it was last measured.
    pub residual_change: Option<f64>,
    /// MagCache's gamma: the residual's magnitude (cond) divided by the magnitude at the step
    /// before, mean over tokens.
    pub magnitude_ratio: Option<f64>,
    /// The clean latents as estimated at this step, shown as colours.
    pub preview: Option<Frames>,
    /// GPU time of each kernel, if the run measured it.
    pub kernels: Vec<KernelRecord>,
    /// GPU memory in use, in bytes.
    pub memory: u64,
    /// GPU memory of stored deltas, in bytes.
    pub delta_memory: u64,
    /// What a later run needs to go on after this step, if the run kept it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StepState>,
}

/// What a later run needs to go on after a step. The solver's history follows from the states of
/// all steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// The guided velocity, `[channels, frames, height, width]`.
    #[serde(with = "super::compact::floats")]
    pub velocity: Vec<f32>,
    /// The velocity minus its forecast, where the plan corrects the steps before. Empty elsewhere.
    #[serde(default, with = "super::compact::floats")]
    pub surprise: Vec<f32>,
}

impl StepRecord {
    /// The blocks of one branch.
    pub fn branch(&self, uncond: bool) -> &[BlockRecord] {
        if uncond { &self.uncond } else { &self.cond }
    }
}

/// A foreground mask on the token grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MaskRecord {
    /// The estimator: motion, pca, prompt, file, painted, auto, true.
    pub estimator: String,
    /// How sure the estimator is, 0 to 1.
    pub confidence: f64,
    /// Whether each token is foreground. Frames vary slowest, then lines.
    pub tokens: Vec<bool>,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Seconds that each part of the job took.
    pub seconds: Seconds,
    /// Highest GPU memory in bytes.
    pub peak_memory: u64,
    /// Why the run ended early, if it did.
    pub error: Option<String>,
}

/// One record of a capture file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The description of the run.
    Run(Box<RunInfo>),
    /// A step.
    Step(Box<StepRecord>),
    /// A foreground mask.
    Mask(MaskRecord),
    /// A message that the user should see.
    Warning(String),
    /// The decoded clip.
    Clip(Frames),
    /// The end.
    Outcome(Outcome),
}

/// The records of a run so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capture {
    /// The description of the run, once it has begun.
    pub run: RunInfo,
    /// The steps so far.
    pub steps: Vec<StepRecord>,
    /// Foreground masks.
    pub masks: Vec<MaskRecord>,
    /// Messages that the user should see.
    pub warnings: Vec<String>,
    /// The decoded clip.
    pub clip: Option<Frames>,
    /// How the run ended.
    pub outcome: Option<Outcome>,
}

impl Capture {
    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::Run(run) => *self = Self { run: *run, ..Self::default() },
            Record::Step(step) => self.steps.push(*step),
            Record::Mask(mask) => self.masks.push(mask),
            Record::Warning(text) => self.warnings.push(text),
            Record::Clip(clip) => self.clip = Some(clip),
            Record::Outcome(outcome) => self.outcome = Some(outcome),
        }
    }

    /// Adds the records of an event.
    pub fn observe(&mut self, event: &Event) {
        event.records().into_iter().for_each(|record| self.push(record));
    }

    /// The records of this capture, in the order of a file.
    pub fn records(&self) -> Vec<Record> {
        let mut records = vec![Record::Run(Box::new(self.run.clone()))];
        records.extend(self.steps.iter().map(|step| Record::Step(Box::new(step.clone()))));
        records.extend(self.masks.iter().cloned().map(Record::Mask));
        records.extend(self.warnings.iter().cloned().map(Record::Warning));
        records.extend(self.clip.iter().cloned().map(Record::Clip));
        records.extend(self.outcome.iter().cloned().map(Record::Outcome));
        records
    }

    /// The part of a calibration that a finished full run gives: magnitude ratios and TeaCache's
    /// polynomials. `None` for a run with reuse, without measured changes, or that has not ended.
    pub fn calibration(&self) -> Option<Calibration> {
        let complete = self.steps.len() == self.run.steps() && self.hit_rate() == 0.0;
        let ratios = self.steps.iter().skip(1).map(|step| step.magnitude_ratio).collect::<Option<Vec<f64>>>()?;
        if !complete || ratios.is_empty() {
            return None;
        }
        let changes = self.steps.iter().zip(&self.run.signal_changes);
        let known = changes.filter_map(|(step, signals)| Some((*signals, step.relative_change?)));
        let (signals, outputs): (Vec<[f64; 2]>, Vec<f64>) = known.unzip();
        let fit = |index: usize| {
            let signal: Vec<f64> = signals.iter().map(|pair| pair[index]).collect();
            calibrate_tea_cache(&signal, &outputs)
        };
        Some(Calibration {
            sigmas: self.run.sigmas.clone(),
            magnitude_ratios: std::iter::once(1.0).chain(ratios).collect(),
            tea_embedding: fit(0),
            tea_projection: fit(1),
            ..Calibration::default()
        })
    }

    /// The plans of the steps so far.
    pub fn plans(&self) -> Vec<StepPlan> {
        self.steps.iter().filter_map(|step| step.plan.clone()).collect()
    }

    /// Share of block executions avoided so far.
    pub fn hit_rate(&self) -> f64 {
        hit_rate(&self.plans(), self.run.blocks, self.run.guided())
    }

    /// FLOP speed-up of the denoising so far, compared with the requested steps.
    pub fn flop_speedup(&self) -> Option<f64> {
        let (plans, cost) = (self.plans(), self.run.cost.as_ref()?);
        (!plans.is_empty()).then_some(())?;
        // While the run goes on, its share of the requested steps counts.
        let share = self.run.requested_steps() as f64 / self.run.steps() as f64;
        Some(cost.speedup_to(plans.len(), &plans, self.run.guided()) * share)
    }
}
