//! One step of the model as the sampler sees it. Both branches carry out the strategy's plan and
//! are measured.

use std::collections::VecDeque;

use crate::caching::{
    Action, BranchPlan, CacheError, Cell, Correction, Decision, DeltaStore, Forecast, MOST_OUTPUTS, Observation,
    OutputKind, Segment, StepContext, StepPlan, Strategy,
};
use crate::gpu::{Stream, Tensor};
use crate::model::family::{AttentionWatch, Pass, Run};
use crate::ops::{Rows, all_finite};
use crate::sampling::{BranchWeights, Guidance};

use super::capture::{BlockRecord, StepRecord};
use super::control::Control;
use super::finite::NotFinite;
use super::meter::{Measured, Meter, Probes, Residual, distance, size};
use super::{EngineError, Observe};

type Result<T> = std::result::Result<T, EngineError>;

/// A prediction and the latents that it was made for.
struct Output {
    velocity: Vec<f32>,
    latents: Vec<f32>,
}

/// One branch: the prompt's or the negative prompt's.
struct Branch<'a> {
    /// The branch's place among the run's conditions.
    index: usize,
    deltas: DeltaStore,
    /// Predictions of the transformer, newest first. Forecasts are not among them.
    outputs: VecDeque<Output>,
    meter: Meter<'a>,
}

/// The velocity of a branch: a forecast from earlier velocities, or a tensor that is still on the
/// GPU.
enum Velocity {
    Forecast(Vec<f32>),
    OnGpu(Tensor),
}

/// A branch's pass of which some blocks may have run.
struct Started {
    pass: Pass,
    measured: Measured,
    /// Number of blocks that have run, from the first.
    done: usize,
}

/// A branch's results of a step, still on the GPU. Both branches are read back together.
struct Recorded {
    velocity: Velocity,
    /// The velocity that a forecast predicts, if the plan has a correction.
    expected: Option<Tensor>,
    cells: Vec<Cell>,
    measured: Option<Measured>,
}

impl Recorded {
    /// The tensors to read back: the velocity, the expected velocity, then the measurements.
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let velocity = match &self.velocity {
            Velocity::OnGpu(velocity) => Some(velocity),
            Velocity::Forecast(_) => None,
        };
        velocity.into_iter().chain(&self.expected).chain(self.measured.iter().flat_map(Measured::tensors))
    }
}

/// The result of a branch in a step.
struct BranchDone {
    velocity: Vec<f32>,
    /// The velocity that a forecast predicts, if the plan has a correction.
    expected: Option<Vec<f32>>,
    blocks: Vec<BlockRecord>,
    residual: Residual,
}

/// The parts of a [`Denoiser`].
pub(super) struct Setup<'a> {
    pub control: &'a Control,
    /// The run of the transformer, with a condition for each branch.
    pub run: Box<dyn Run + 'a>,
    /// Blocks of the transformer.
    pub blocks: usize,
    /// Tokens along frames, height, width.
    pub token_grid: [usize; 3],
    pub guidance: Guidance,
    pub observe: Observe,
    /// The rows of the condition that name the subject.
    pub subject: Vec<u32>,
    /// Number of deltas of the same blocks that the strategy may combine in a forecast.
    pub depth: usize,
}

/// The model as the sampler sees it.
pub(super) struct Denoiser<'a> {
    run: Box<dyn Run + 'a>,
    blocks: usize,
    guidance: Option<BranchWeights>,
    cond: Branch<'a>,
    uncond: Option<Branch<'a>>,
    probes: Probes,
    last_velocity: Option<Vec<f32>>,
}

/// A step's guided prediction and its record. The caller adds time, preview and memory to the
/// record.
pub(super) struct Predicted {
    pub velocity: Vec<f32>,
    /// The velocity minus the forecast velocity, if the plan has a correction.
    pub surprise: Option<Vec<f32>>,
    pub residual: Option<Vec<f32>>,
    pub record: StepRecord,
}

impl<'a> Denoiser<'a> {
    pub fn new(cx: &mut Stream, setup: Setup<'a>) -> Result<Self> {
        let Setup { control, run, blocks, token_grid, guidance, observe, subject, depth } = setup;
        let queries = observe.attention.map(|mode| Rows::receiving(cx, mode, token_grid)).transpose()?;
        let mut branch = |index: usize, subject: Vec<u32>| -> Result<Branch<'a>> {
            let rows = run.condition_rows(index);
            let words = (!subject.is_empty()).then(|| Rows::new(cx, subject, rows)).transpose()?;
            let watch = queries.clone().map(|queries| AttentionWatch::new(queries, words));
            let meter = Meter::new(control, observe, blocks, watch);
            Ok(Branch { index, deltas: DeltaStore::new(depth), outputs: VecDeque::new(), meter })
        };
        let cond = branch(0, subject)?;
        let guidance = guidance.weights();
        let uncond = guidance.map(|_| branch(1, Vec::new())).transpose()?;
        Ok(Self { run, blocks, guidance, cond, uncond, probes: Probes::default(), last_velocity: None })
    }

    /// Takes over the guided velocity of a step that an earlier run computed.
    pub fn take_over(&mut self, velocity: &[f32]) {
        self.last_velocity = Some(velocity.to_vec());
    }

    /// Computes the guided velocity for a sample as the strategy decides.
    pub fn step(
        &mut self,
        cx: &mut Stream,
        strategy: &mut dyn Strategy,
        now: &StepContext,
        sample: &[f32],
    ) -> Result<Predicted> {
        let blocks = self.blocks;
        let mut input = Input { run: &mut *self.run, blocks, step: now.step, started: false, sample };
        let (plan, cond) = match strategy.plan(now) {
            Decision::Plan(plan) => {
                let cond = self.cond.record(cx, &mut input, &plan.cond, plan.correction.as_ref())?;
                (plan, cond)
            }
            Decision::Probe { blocks: probe } => {
                // The strategy decides after these blocks whether the others run.
                let mut started = self.cond.start(cx, &mut input, true)?;
                let Started { pass, measured, done } = &mut started;
                let video = input.run.video_rows(pass);
                let run = |cx: &mut Stream| self.cond.meter.run_blocks(cx, &*input.run, pass, 0..probe, measured);
                let result = self.probes.measure(cx, &video, run)?;
                *done = probe;
                let plan = strategy.decide(now, &result)?;
                if plan.correction.is_some() {
                    return Err(CacheError::Unexpected("a plan made after a probe cannot have a correction").into());
                }
                self.probes.keep(plan.cond.is_full(blocks));
                let cond = self.cond.carry_on(cx, &input, &plan.cond, started, None)?;
                (plan, cond)
            }
        };
        let mut uncond = None;
        if let Some(branch) = &mut self.uncond {
            let recorded = branch.record(cx, &mut input, &plan.uncond, plan.correction.as_ref())?;
            uncond = Some((branch, recorded));
        }
        let recorded = std::iter::once(&cond).chain(uncond.as_ref().map(|(_, recorded)| recorded));
        let tensors: Vec<&Tensor> = recorded.flat_map(Recorded::tensors).collect();
        let mut values = cx.read_all(&tensors)?.into_iter();
        let cond = self.cond.collect(cond, &mut values, &input)?;
        let uncond = uncond.map(|(branch, recorded)| branch.collect(recorded, &mut values, &input)).transpose()?;
        self.run.end_step();
        if let Some(seen) = self.cond.observation(&plan.cond, blocks) {
            strategy.observe(now.step, &seen);
        }
        Ok(self.combine(now.step, plan, cond, uncond))
    }

    /// Applies guidance and makes the record of the step.
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

    /// The guided value of both branches. Without guidance this is the cond branch's value.
    fn guided(&self, mut cond: Vec<f32>, uncond: Option<&Vec<f32>>) -> Vec<f32> {
        if let (Some(weights), Some(uncond)) = (self.guidance, uncond) {
            cond.iter_mut().zip(uncond).for_each(|(c, u)| *c = weights.cond * *c + weights.uncond * u);
        }
        cond
    }
}

/// What both branches of a step share.
struct Input<'s, 'a> {
    run: &'s mut (dyn Run + 'a),
    blocks: usize,
    step: usize,
    /// Whether the run knows of the step. A step may forecast its output without the transformer.
    started: bool,
    /// The latents `[channels, frames, height, width]`.
    sample: &'s [f32],
}

impl Input<'_, '_> {
    fn begin(&mut self, cx: &mut Stream, branch: usize) -> Result<Pass> {
        if !self.started {
            self.run.start_step(cx, self.step, self.sample)?;
            self.started = true;
        }
        Ok(self.run.begin(cx, branch)?)
    }
}

impl Branch<'_> {
    /// Begins a pass. `whole` says that all blocks may run.
    fn start(&self, cx: &mut Stream, input: &mut Input, whole: bool) -> Result<Started> {
        let pass = input.begin(cx, self.index)?;
        let measured = self.meter.begin(cx, &input.run.video_rows(&pass), whole)?;
        Ok(Started { pass, measured, done: 0 })
    }

    /// Records the work of a plan.
    fn record(
        &mut self,
        cx: &mut Stream,
        input: &mut Input,
        plan: &BranchPlan,
        correction: Option<&Correction>,
    ) -> Result<Recorded> {
        if let BranchPlan::Output(kind, forecast) = plan {
            return self.forecast_only(input, *kind, forecast);
        }
        let started = self.start(cx, input, plan.is_full(input.blocks))?;
        let expected = correction.map(|c| self.expected(cx, input, &started.pass, &c.expected)).transpose()?;
        self.carry_on(cx, input, plan, started, expected)
    }

    /// Records the rest of a plan's work on a pass that has been started.
    fn carry_on(
        &mut self,
        cx: &mut Stream,
        input: &Input,
        plan: &BranchPlan,
        started: Started,
        expected: Option<Tensor>,
    ) -> Result<Recorded> {
        let (run, count) = (&*input.run, input.blocks);
        let segments = match plan {
            BranchPlan::Blocks(segments) => segments,
            BranchPlan::Output(kind, forecast) => return self.forecast_only(input, *kind, forecast),
        };
        let Started { pass, mut measured, done } = started;
        for Segment { blocks: range, action } in segments {
            let rest = range.start.max(done)..range.end;
            if rest.is_empty() {
                continue;
            }
            let (deltas, meter) = (&mut self.deltas, &mut self.meter);
            match action {
                Action::Compute => meter.run_blocks(cx, run, &pass, rest, &mut measured)?,
                Action::Store => {
                    let changed = run.changed_by(&pass, range.clone());
                    let work = |cx: &mut Stream| meter.run_blocks(cx, run, &pass, rest, &mut measured);
                    deltas.record(cx, range.clone(), &changed, work)?;
                }
                Action::Reuse(forecast) => deltas.apply(cx, range, forecast, &run.changed_by(&pass, range.clone()))?,
            }
        }
        self.meter.sum_up(cx, &run.video_rows(&pass), plan.is_full(count), &mut measured)?;
        let velocity = Velocity::OnGpu(run.finish(cx, &pass)?);
        Ok(Recorded { velocity, expected, cells: plan.cells(count), measured: Some(measured) })
    }

    /// The record of a step in which the transformer does not run.
    fn forecast_only(&self, input: &Input, kind: OutputKind, forecast: &Forecast) -> Result<Recorded> {
        let velocity = Velocity::Forecast(self.forecast(kind, forecast, input.sample)?);
        Ok(Recorded { velocity, expected: None, cells: vec![Cell::Reused; input.blocks], measured: None })
    }

    /// Takes the values that were read back, in the order of [`Recorded::tensors`].
    fn collect(
        &mut self,
        recorded: Recorded,
        values: &mut impl Iterator<Item = Vec<f32>>,
        input: &Input,
    ) -> Result<BranchDone> {
        let Recorded { velocity, expected, cells, measured } = recorded;
        let mut next = || {
            let rows = values.next().ok_or(CacheError::Unexpected("a velocity was not read back"))?;
            Result::Ok(input.run.velocity(&rows)?)
        };
        let velocity = match velocity {
            Velocity::Forecast(velocity) => velocity,
            Velocity::OnGpu(_) => {
                let velocity = next()?;
                if !all_finite(&velocity) {
                    return Err(NotFinite::prediction(self.index).into());
                }
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

    /// The velocity that follows from a forecast of the stack's residual.
    fn expected(&self, cx: &mut Stream, input: &Input, pass: &Pass, forecast: &Forecast) -> Result<Tensor> {
        let pass = Pass { branch: pass.branch, state: cx.copy_of(&pass.state)? };
        let all = 0..input.blocks;
        self.deltas.apply(cx, &all, forecast, &input.run.changed_by(&pass, all.clone()))?;
        Ok(input.run.finish(cx, &pass)?)
    }

    /// The output, forecast from earlier outputs.
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

    /// The quantities that EasyCache watches, after a step that the transformer computed in full.
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
