//! One step of the model as the sampler sees it: both branches, carried out as the strategy's plan says, and measured.

use std::collections::VecDeque;
use std::ops::Range;

use crate::caching::{
    Action, BranchPlan, CacheError, Decision, DeltaStore, Forecast, Observation, OutputKind, ProbeResult, Segment,
    StepContext, StepPlan, Strategy,
};
use crate::gpu::{Stream, Tensor};
use crate::model::wan::transformer::{Pass, TextContext, WanTransformer};
use crate::ops::RopeTable;
use crate::sampling::{Buffer, Guidance};

use super::capture::{BlockRecord, StepRecord};
use super::{EngineError, Observe};

type Result<T> = std::result::Result<T, EngineError>;

/// Outputs that are kept for forecasts.
const OUTPUTS: usize = 4;

/// Mean of |a - b|.
pub(super) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len().max(1) as f64
}

/// Mean of |a|.
pub(super) fn size(a: &[f32]) -> f64 {
    a.iter().map(|a| f64::from(a.abs())).sum::<f64>() / a.len().max(1) as f64
}

/// A prediction and what it was made for.
struct Output {
    velocity: Vec<f32>,
    latents: Vec<f32>,
}

/// Deltas for measuring only: of every block and of the whole stack.
struct Meter {
    blocks: DeltaStore,
}

/// What belongs to the prompt or to the negative prompt.
struct Branch {
    context: TextContext,
    deltas: DeltaStore,
    /// Predictions that the transformer made, newest first.
    outputs: VecDeque<Output>,
    meter: Option<Meter>,
}

/// What a branch did in a step.
struct BranchDone {
    velocity: Vec<f32>,
    blocks: Vec<BlockRecord>,
    residual_change: Option<f64>,
    magnitude_ratio: Option<f64>,
}

/// The probe's earlier deltas, newest first.
#[derive(Default)]
struct Probes {
    last_step: Option<Vec<f32>>,
    computed: VecDeque<Vec<f32>>,
    now: Vec<f32>,
}

/// The model as the sampler sees it.
pub(super) struct Denoiser<'a> {
    model: &'a WanTransformer,
    rope: RopeTable,
    guidance: Guidance,
    shape: [usize; 4],
    observe: Observe,
    cond: Branch,
    uncond: Option<Branch>,
    probes: Probes,
    last_velocity: Option<Vec<f32>>,
}

/// A step's guided prediction and its record, still without time, preview and memory.
pub(super) struct Predicted {
    pub velocity: Vec<f32>,
    pub record: StepRecord,
}

impl<'a> Denoiser<'a> {
    /// `features` and `negative` are the text encoder's outputs; `depth` is how many deltas of a run the strategy may need.
    pub fn new(
        cx: &mut Stream,
        model: &'a WanTransformer,
        (features, negative): (&[f32], Option<&[f32]>),
        (guidance, shape): (Guidance, [usize; 4]),
        observe: Observe,
        depth: usize,
    ) -> Result<Self> {
        let mut branch = |text: &[f32]| -> Result<Branch> {
            let meter = observe.changes.then(|| Meter { blocks: DeltaStore::new(2) });
            let context = model.prepare_text(cx, text)?;
            Ok(Branch { context, deltas: DeltaStore::new(depth), outputs: VecDeque::new(), meter })
        };
        let (cond, uncond) = (branch(features)?, negative.map(branch).transpose()?);
        let rope = model.rope(cx, [shape[1], shape[2], shape[3]])?;
        let (probes, last_velocity) = (Probes::default(), None);
        Ok(Self { model, rope, guidance, shape, observe, cond, uncond, probes, last_velocity })
    }

    /// The guided velocity for a sample, made as the strategy decides.
    pub fn step(
        &mut self,
        cx: &mut Stream,
        strategy: &mut dyn Strategy,
        now: &StepContext,
        sample: &[f32],
        timestep: f32,
    ) -> Result<Predicted> {
        let latents = cx.upload("latents", sample, &self.shape)?;
        let input = Input { model: self.model, rope: &self.rope, observe: self.observe, latents, sample, timestep };
        let blocks = self.model.config().num_layers;
        let (plan, cond) = match strategy.plan(now) {
            Decision::Plan(plan) => {
                let cond = self.cond.run(cx, &input, &plan.cond, None)?;
                (plan, cond)
            }
            Decision::Probe { blocks: probe } => {
                let context = self.cond.context.clone();
                let pass = input.begin(cx, &context)?;
                let result = self.probes.measure(cx, &input, &pass, probe)?;
                let plan = strategy.decide(now, &result)?;
                self.probes.keep(plan.cond.is_full(blocks));
                let cond = self.cond.run(cx, &input, &plan.cond, Some((pass, probe)))?;
                (plan, cond)
            }
        };
        let uncond = match &mut self.uncond {
            Some(branch) => Some(branch.run(cx, &input, &plan.uncond, None)?),
            None => None,
        };
        if let Some(seen) = self.cond.observation(&plan.cond, blocks) {
            strategy.observe(now.step, &seen);
        }
        Ok(self.combine(now.step, plan, cond, uncond))
    }

    /// Guidance, and the record of the step.
    fn combine(&mut self, step: usize, plan: StepPlan, cond: BranchDone, uncond: Option<BranchDone>) -> Predicted {
        let (mut velocity, mut record) = (cond.velocity, StepRecord { step, plan: Some(plan), ..Default::default() });
        if let (Some(combination), Some(uncond)) = (self.guidance.combine(), &uncond) {
            let weight = |wanted| combination.terms().iter().find(|(b, _)| *b == wanted).map_or(0.0, |(_, c)| *c);
            let (a, b) = (weight(Buffer::VelocityCond), weight(Buffer::VelocityUncond));
            velocity.iter_mut().zip(&uncond.velocity).for_each(|(c, u)| *c = a * *c + b * u);
        }
        if let Some(last) = self.last_velocity.replace(velocity.clone()) {
            let change = distance(&velocity, &last);
            record.prediction_change = Some(change);
            record.relative_change = Some(change / size(&last));
        }
        (record.cond, record.uncond) = (cond.blocks, uncond.map_or(Vec::new(), |uncond| uncond.blocks));
        (record.residual_change, record.magnitude_ratio) = (cond.residual_change, cond.magnitude_ratio);
        record.delta_memory = self.cond.deltas.bytes() + self.uncond.as_ref().map_or(0, |branch| branch.deltas.bytes());
        Predicted { velocity, record }
    }
}

/// What both branches of a step start from.
struct Input<'a> {
    model: &'a WanTransformer,
    rope: &'a RopeTable,
    observe: Observe,
    latents: Tensor,
    sample: &'a [f32],
    timestep: f32,
}

impl<'a> Input<'a> {
    fn begin<'c>(&self, cx: &mut Stream, context: &'c TextContext) -> Result<Pass<'c>>
    where
        'a: 'c,
    {
        Ok(self.model.begin(cx, &self.latents, self.timestep, context, self.rope)?)
    }
}

impl Branch {
    /// Carries a plan out. `started` is a pass whose first blocks have run already.
    fn run(
        &mut self,
        cx: &mut Stream,
        input: &Input,
        plan: &BranchPlan,
        started: Option<(Pass, usize)>,
    ) -> Result<BranchDone> {
        let count = input.model.config().num_layers;
        let mut blocks: Vec<BlockRecord> = plan
            .cells(count)
            .into_iter()
            .map(|cell| BlockRecord { cell, change: None, received: None, seconds: None })
            .collect();
        let segments = match plan {
            BranchPlan::Output(kind, forecast) => {
                let velocity = self.forecast(*kind, forecast, input.sample)?;
                return Ok(BranchDone { velocity, blocks, residual_change: None, magnitude_ratio: None });
            }
            BranchPlan::Blocks(segments) => segments,
        };
        let context = self.context.clone();
        let (pass, done) = match started {
            Some((pass, done)) => (pass, done),
            None => (input.begin(cx, &context)?, 0),
        };
        let before = self.meter.is_some().then(|| copy(cx, pass.hidden_states())).transpose()?;
        for Segment { blocks: range, action } in segments {
            let rest = range.start.max(done)..range.end;
            if rest.is_empty() {
                continue;
            }
            match action {
                Action::Compute => run_blocks(cx, input, &pass, rest, self.meter.as_mut(), &mut blocks)?,
                Action::Store => {
                    let (deltas, meter) = (&mut self.deltas, self.meter.as_mut());
                    let work = |cx: &mut Stream| run_blocks(cx, input, &pass, rest, meter, &mut blocks);
                    deltas.record(cx, range.clone(), pass.hidden_states(), work)?;
                }
                Action::Reuse(forecast) => self.deltas.apply(cx, range, forecast, pass.hidden_states())?,
            }
        }
        let (residual_change, magnitude_ratio) = match before {
            Some(before) if plan.is_full(count) => self.residual(cx, before, pass.hidden_states(), count)?,
            _ => (None, None),
        };
        let velocity = input.model.finish(cx, &pass)?;
        let velocity = cx.read(&velocity)?;
        self.outputs.truncate(OUTPUTS - 1);
        self.outputs.push_front(Output { velocity: velocity.clone(), latents: input.sample.to_vec() });
        Ok(BranchDone { velocity, blocks, residual_change, magnitude_ratio })
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

    /// How the whole stack's residual changed since it was last measured, and the ratio of the magnitudes.
    fn residual(
        &mut self,
        cx: &mut Stream,
        before: Tensor,
        after: &Tensor,
        count: usize,
    ) -> Result<(Option<f64>, Option<f64>)> {
        let Some(meter) = &mut self.meter else { return Ok((None, None)) };
        let whole = 0..count;
        meter.blocks.keep(cx, whole.clone(), before, after)?;
        let [new, old] = meter.blocks.get(&whole) else { return Ok((None, None)) };
        let (width, new, old) = (after.columns(), cx.read(new)?, cx.read(old)?);
        let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let ratios = new.chunks_exact(width).zip(old.chunks_exact(width)).map(|(a, b)| norm(a) / norm(b));
        let (sum, rows) = ratios.fold((0.0, 0usize), |(sum, rows), ratio| (sum + ratio, rows + 1));
        Ok((Some(distance(&new, &old) / size(&old)), Some(sum / rows.max(1) as f64)))
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

/// Runs blocks; where wanted, one by one, measured.
fn run_blocks(
    cx: &mut Stream,
    input: &Input,
    pass: &Pass,
    range: Range<usize>,
    mut meter: Option<&mut Meter>,
    records: &mut [BlockRecord],
) -> Result<()> {
    if meter.is_none() && !input.observe.times {
        return Ok(input.model.run_blocks(cx, pass, range)?);
    }
    for block in range {
        let start = std::time::Instant::now();
        if input.observe.times {
            cx.finish()?;
        }
        let one = block..block + 1;
        match meter.as_deref_mut() {
            Some(meter) => {
                let work = |cx: &mut Stream| Ok::<_, EngineError>(input.model.run_blocks(cx, pass, one.clone())?);
                meter.blocks.record(cx, one.clone(), pass.hidden_states(), work)?;
                if let [new, old] = meter.blocks.get(&one) {
                    let (new, old) = (cx.read(new)?, cx.read(old)?);
                    records[block].change = Some((distance(&new, &old) / size(&old)) as f32);
                }
            }
            None => input.model.run_blocks(cx, pass, one)?,
        }
        if input.observe.times {
            cx.finish()?;
            records[block].seconds = Some(start.elapsed().as_secs_f32());
        }
    }
    Ok(())
}

fn copy(cx: &mut Stream, x: &Tensor) -> Result<Tensor> {
    let copy = cx.empty("residual", x.shape(), x.dtype())?;
    cx.copy(x, &copy)?;
    Ok(copy)
}

impl Probes {
    /// Runs the first blocks and compares their delta with earlier ones.
    fn measure(&mut self, cx: &mut Stream, input: &Input, pass: &Pass, blocks: usize) -> Result<ProbeResult> {
        let before = cx.read(pass.hidden_states())?;
        input.model.run_blocks(cx, pass, 0..blocks)?;
        let mut delta = cx.read(pass.hidden_states())?;
        delta.iter_mut().zip(&before).for_each(|(after, before)| *after -= before);
        let relative = |to: &Vec<f32>| distance(&delta, to) / size(to);
        let result = ProbeResult {
            since_last_step: self.last_step.as_ref().map(relative),
            since_computed: self.computed.front().map(relative),
            progress: match (self.computed.front(), self.computed.get(1)) {
                (Some(newer), Some(older)) => Some(distance(&delta, older) / distance(newer, older)),
                _ => None,
            },
        };
        self.now = delta;
        Ok(result)
    }

    /// Remembers the delta just measured; `computed`: the whole model ran in its step.
    fn keep(&mut self, computed: bool) {
        if computed {
            self.computed.truncate(1);
            self.computed.push_front(self.now.clone());
        }
        self.last_step = Some(std::mem::take(&mut self.now));
    }
}
