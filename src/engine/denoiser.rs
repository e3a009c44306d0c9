//! One step of the model as the sampler sees it: both branches, carried out as the strategy's plan says, and measured.

use std::cell::OnceCell;
use std::collections::VecDeque;

use crate::caching::{
    Action, BranchPlan, CacheError, Cell, Correction, Decision, DeltaStore, Forecast, MOST_OUTPUTS, Observation,
    OutputKind, Segment, StepContext, StepPlan, Strategy,
};
use crate::gpu::{Stream, Tensor};
use crate::model::wan::patches::Patches;
use crate::model::wan::transformer::{AttentionWatch, Pass, Start, TextContext, TimeEmbeddings, WanTransformer};
use crate::ops::{RopeTable, Rows};
use crate::sampling::{Buffer, Guidance};

use super::capture::{BlockRecord, StepRecord};
use super::control::Control;
use super::meter::{Measured, Meter, Probes, Residual, distance, size};
use super::{EngineError, Observe};

type Result<T> = std::result::Result<T, EngineError>;

/// A prediction and what it was made for.
struct Output {
    velocity: Vec<f32>,
    latents: Vec<f32>,
}

/// What belongs to the prompt or to the negative prompt.
struct Branch<'a> {
    context: TextContext,
    deltas: DeltaStore,
    /// Predictions that the transformer made, newest first.
    outputs: VecDeque<Output>,
    meter: Meter<'a>,
}

/// The velocity of a branch: forecast from earlier ones, or still on the GPU.
enum Velocity {
    Forecast(Vec<f32>),
    OnGpu(Tensor),
}

/// A branch's pass whose first blocks have run, or none yet.
struct Started<'a> {
    pass: Pass<'a>,
    measured: Measured,
    /// So many blocks have run.
    done: usize,
}

/// What a branch has recorded for a step, to be read back together with the other branch's.
struct Recorded {
    velocity: Velocity,
    /// What a forecast would have predicted, where the plan has a correction.
    expected: Option<Tensor>,
    cells: Vec<Cell>,
    measured: Option<Measured>,
}

impl Recorded {
    /// What is read back: the velocity, then what was expected, both as rows of patches, and what was measured.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let velocity = match &self.velocity {
            Velocity::OnGpu(velocity) => Some(velocity),
            Velocity::Forecast(_) => None,
        };
        velocity.into_iter().chain(&self.expected).chain(self.measured.iter().flat_map(Measured::tensors))
    }
}

/// What a branch did in a step.
struct BranchDone {
    velocity: Vec<f32>,
    /// What a forecast would have predicted, where the plan has a correction.
    expected: Option<Vec<f32>>,
    blocks: Vec<BlockRecord>,
    residual: Residual,
}

/// The model as the sampler sees it.
pub(super) struct Denoiser<'a> {
    model: &'a WanTransformer,
    times: &'a TimeEmbeddings,
    rope: RopeTable,
    guidance: Guidance,
    patches: Patches,
    cond: Branch<'a>,
    uncond: Option<Branch<'a>>,
    probes: Probes,
    last_velocity: Option<Vec<f32>>,
}

/// A step's guided prediction and its record, still without time, preview and memory.
pub(super) struct Predicted {
    pub velocity: Vec<f32>,
    /// The velocity less what a forecast would have predicted, where the plan has a correction.
    pub surprise: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    pub record: StepRecord,
}

impl<'a> Denoiser<'a> {
    /// `features` and `negative` are the text encoder's outputs; `depth` is how many deltas of a run the strategy may need.
    pub fn new(
        cx: &mut Stream,
        (control, model, times): (&'a Control, &'a WanTransformer, &'a TimeEmbeddings),
        (features, negative): (&[f32], Option<&[f32]>),
        (guidance, patches): (Guidance, Patches),
        (observe, subject): (Observe, Vec<u32>),
        depth: usize,
    ) -> Result<Self> {
        let rope = model.rope(cx, &patches)?;
        let queries = observe.attention.map(|mode| Rows::receiving(cx, mode, rope.grid())).transpose()?;
        let mut branch = |text: &[f32], subject: Vec<u32>| -> Result<Branch<'a>> {
            let context = model.prepare_text(cx, text)?;
            let words = (!subject.is_empty()).then(|| Rows::new(cx, subject, context.rows())).transpose()?;
            let watch = queries.clone().map(|queries| AttentionWatch::new(queries, words));
            let meter = Meter::new(control, observe, model.config().num_layers, watch);
            Ok(Branch { context, deltas: DeltaStore::new(depth), outputs: VecDeque::new(), meter })
        };
        let cond = branch(features, subject)?;
        let uncond = negative.map(|text| branch(text, Vec::new())).transpose()?;
        let (probes, last_velocity) = (Probes::default(), None);
        Ok(Self { model, times, rope, guidance, patches, cond, uncond, probes, last_velocity })
    }

    /// The guided velocity for a sample, made as the strategy decides.
    pub fn step(
        &mut self,
        cx: &mut Stream,
        strategy: &mut dyn Strategy,
        now: &StepContext,
        sample: &[f32],
    ) -> Result<Predicted> {
        let (model, times, rope, patches) = (self.model, self.times, &self.rope, &self.patches);
        let input = Input { model, times, rope, patches, step: now.step, start: OnceCell::new(), sample };
        let blocks = self.model.config().num_layers;
        let (plan, cond) = match strategy.plan(now) {
            Decision::Plan(plan) => {
                let cond = self.cond.record(cx, &input, (&plan.cond, plan.correction.as_ref()), None)?;
                (plan, cond)
            }
            Decision::Probe { blocks: probe } => {
                let context = self.cond.context.clone();
                // Whether the rest follows is not known yet.
                let mut started = self.cond.start(cx, &input, &context, true)?;
                let Started { pass, measured, done } = &mut started;
                let run = |cx: &mut Stream| self.cond.meter.run_blocks(cx, (model, pass), 0..probe, measured);
                let result = self.probes.measure(cx, pass, run)?;
                *done = probe;
                let plan = strategy.decide(now, &result)?;
                if plan.correction.is_some() {
                    return Err(CacheError::Unexpected("a plan made after a probe cannot have a correction").into());
                }
                self.probes.keep(plan.cond.is_full(blocks));
                let cond = self.cond.record(cx, &input, (&plan.cond, None), Some(started))?;
                (plan, cond)
            }
        };
        let mut uncond = None;
        if let Some(branch) = &mut self.uncond {
            let recorded = branch.record(cx, &input, (&plan.uncond, plan.correction.as_ref()), None)?;
            uncond = Some((branch, recorded));
        }
        let recorded = std::iter::once(&cond).chain(uncond.as_ref().map(|(_, recorded)| recorded));
        let tensors: Vec<&Tensor> = recorded.flat_map(Recorded::tensors).collect();
        let mut values = cx.read_all(&tensors)?.into_iter();
        let cond = self.cond.collect(cond, &mut values, &input)?;
        let uncond = uncond.map(|(branch, recorded)| branch.collect(recorded, &mut values, &input)).transpose()?;
        if let Some(seen) = self.cond.observation(&plan.cond, blocks) {
            strategy.observe(now.step, &seen);
        }
        Ok(self.combine(now.step, plan, cond, uncond))
    }

    /// Guidance, and the record of the step.
    fn combine(&mut self, step: usize, plan: StepPlan, cond: BranchDone, uncond: Option<BranchDone>) -> Predicted {
        let uncond_of = |part: fn(&BranchDone) -> Option<&Vec<f32>>| uncond.as_ref().and_then(part);
        let velocity = self.guided(cond.velocity, uncond_of(|done| Some(&done.velocity)));
        let residual =
            cond.residual.sample.map(|cond| self.guided(cond, uncond_of(|done| done.residual.sample.as_ref())));
        let surprise = cond.expected.map(|expected| {
            let expected = self.guided(expected, uncond_of(|done| done.expected.as_ref()));
            velocity.iter().zip(&expected).map(|(found, expected)| found - expected).collect()
        });
        let mut record = StepRecord { step, plan: Some(plan), ..Default::default() };
        if let Some(last) = self.last_velocity.replace(velocity.clone()) {
            let change = distance(&velocity, &last);
            record.prediction_change = Some(change).filter(|change| change.is_finite());
            record.relative_change = Some(change / size(&last)).filter(|change| change.is_finite());
        }
        (record.cond, record.uncond) = (cond.blocks, uncond.map_or(Vec::new(), |uncond| uncond.blocks));
        (record.residual_change, record.magnitude_ratio) = (cond.residual.change, cond.residual.magnitude_ratio);
        let branches = std::iter::once(&self.cond).chain(&self.uncond);
        record.delta_memory = branches.map(|branch| branch.deltas.bytes()).sum::<u64>() + self.probes.bytes();
        Predicted { velocity, surprise, residual, record }
    }

    /// Mixes what both branches say; without guidance it is cond's.
    fn guided(&self, mut cond: Vec<f32>, uncond: Option<&Vec<f32>>) -> Vec<f32> {
        if let (Some(combination), Some(uncond)) = (self.guidance.combine(), uncond) {
            let weight = |wanted| combination.terms().iter().find(|(b, _)| *b == wanted).map_or(0.0, |(_, c)| *c);
            let (a, b) = (weight(Buffer::VelocityCond), weight(Buffer::VelocityUncond));
            cond.iter_mut().zip(uncond).for_each(|(c, u)| *c = a * *c + b * u);
        }
        cond
    }
}

/// What both branches of a step start from.
struct Input<'a> {
    model: &'a WanTransformer,
    times: &'a TimeEmbeddings,
    rope: &'a RopeTable,
    patches: &'a Patches,
    step: usize,
    /// Made when the first branch runs: a step may forecast its output without the transformer.
    start: OnceCell<Start<'a>>,
    /// The latents `[channels, frames, height, width]`.
    sample: &'a [f32],
}

impl Input<'_> {
    fn begin<'a>(&'a self, cx: &mut Stream, context: &'a TextContext) -> Result<Pass<'a>> {
        let start = match self.start.get() {
            Some(start) => start,
            None => {
                let start = self.model.start(cx, (self.sample, self.patches), self.times, self.step)?;
                self.start.get_or_init(|| start)
            }
        };
        Ok(self.model.begin(cx, start, context, self.rope)?)
    }
}

impl Branch<'_> {
    /// Begins a pass; `whole`: all blocks may run.
    fn start<'a>(
        &self,
        cx: &mut Stream,
        input: &'a Input,
        context: &'a TextContext,
        whole: bool,
    ) -> Result<Started<'a>> {
        let pass = input.begin(cx, context)?;
        let measured = self.meter.begin(cx, pass.hidden_states(), whole)?;
        Ok(Started { pass, measured, done: 0 })
    }

    /// Records the work of a plan, on from a pass that has been started already.
    fn record(
        &mut self,
        cx: &mut Stream,
        input: &Input,
        (plan, correction): (&BranchPlan, Option<&Correction>),
        started: Option<Started>,
    ) -> Result<Recorded> {
        let count = input.model.config().num_layers;
        let cells = plan.cells(count);
        let segments = match plan {
            BranchPlan::Output(kind, forecast) => {
                let velocity = Velocity::Forecast(self.forecast(*kind, forecast, input.sample)?);
                return Ok(Recorded { velocity, expected: None, cells, measured: None });
            }
            BranchPlan::Blocks(segments) => segments,
        };
        let context = self.context.clone();
        let Started { pass, mut measured, done } = match started {
            Some(started) => started,
            None => self.start(cx, input, &context, plan.is_full(count))?,
        };
        let expected = correction.map(|c| self.expected(cx, input, &pass, &c.expected)).transpose()?;
        for Segment { blocks: range, action } in segments {
            let rest = range.start.max(done)..range.end;
            if rest.is_empty() {
                continue;
            }
            let (deltas, meter) = (&mut self.deltas, &mut self.meter);
            match action {
                Action::Compute => meter.run_blocks(cx, (input.model, &pass), rest, &mut measured)?,
                Action::Store => {
                    let work = |cx: &mut Stream| meter.run_blocks(cx, (input.model, &pass), rest, &mut measured);
                    deltas.record(cx, range.clone(), pass.hidden_states(), work)?;
                }
                Action::Reuse(forecast) => deltas.apply(cx, range, forecast, pass.hidden_states())?,
            }
        }
        self.meter.sum_up(cx, pass.hidden_states(), plan.is_full(count), &mut measured)?;
        let velocity = Velocity::OnGpu(input.model.finish(cx, pass.start(), pass.hidden_states())?);
        Ok(Recorded { velocity, expected, cells, measured: Some(measured) })
    }

    /// Takes what was read back of the recorded work, in the order of [`Recorded::tensors`].
    fn collect(
        &mut self,
        recorded: Recorded,
        values: &mut impl Iterator<Item = Vec<f32>>,
        input: &Input,
    ) -> Result<BranchDone> {
        let Recorded { velocity, expected, cells, measured } = recorded;
        let mut next = || {
            let rows = values.next().ok_or(CacheError::Unexpected("a velocity was not read back"))?;
            Result::Ok(input.model.velocity(input.patches, &rows)?)
        };
        let velocity = match velocity {
            Velocity::Forecast(velocity) => velocity,
            Velocity::OnGpu(_) => {
                let velocity = next()?;
                self.outputs.truncate(MOST_OUTPUTS - 1);
                self.outputs.push_front(Output { velocity: velocity.clone(), latents: input.sample.to_vec() });
                velocity
            }
        };
        let expected = expected.map(|_| next()).transpose()?;
        let mut blocks = BlockRecord::of_cells(cells);
        let residual = match measured {
            Some(measured) => self.meter.end(measured, values, &mut blocks),
            None => Residual::default(),
        };
        Ok(BranchDone { velocity, expected, blocks, residual })
    }

    /// The velocity that a forecast of the stack's residual gives.
    fn expected(&self, cx: &mut Stream, input: &Input, pass: &Pass, forecast: &Forecast) -> Result<Tensor> {
        let x = cx.copy_of(pass.hidden_states())?;
        self.deltas.apply(cx, &(0..input.model.config().num_layers), forecast, &x)?;
        Ok(input.model.finish(cx, pass.start(), &x)?)
    }

    /// The output forecast from earlier ones.
    fn forecast(&self, kind: OutputKind, forecast: &Forecast, sample: &[f32]) -> Result<Vec<f32>> {
        if self.outputs.len() < forecast.depth() || forecast.depth() == 0 {
            return Err(CacheError::NothingStored(format!("{} outputs", forecast.depth())).into());
        }
        let mut velocity = match kind {
            OutputKind::Velocity => vec![0.0; sample.len()],
            OutputKind::Offset => sample.to_vec(),
        };
        for (output, weight) in self.outputs.iter().zip(&forecast.0) {
            for ((to, v), x) in velocity.iter_mut().zip(&output.velocity).zip(&output.latents) {
                *to += weight * if kind == OutputKind::Offset { v - x } else { *v };
            }
        }
        Ok(velocity)
    }

    /// What EasyCache watches, after a step that the transformer computed in full.
    fn observation(&self, plan: &BranchPlan, count: usize) -> Option<Observation> {
        let newest = self.outputs.front().filter(|_| plan.is_full(count))?;
        let before = self.outputs.get(1);
        Some(Observation {
            output_size: size(&newest.velocity),
            output_change: before.map(|before| distance(&newest.velocity, &before.velocity)),
            latent_change: before.map(|before| distance(&newest.latents, &before.latents)),
        })
    }
}
