//! Runs one generation: conditions, denoising, decoding.

use std::sync::Arc;
use std::time::Duration;

use crate::caching::{
    Action, BranchPlan, Evidence, Forecast, RunMeasurement, RunRecorder, Signal, StepContext, StepPlan, Strategy,
    StrategyConfig, StrategyInputs,
};
use crate::gpu::{Gpu, GpuError, Stream, StreamOptions};
use crate::model::family::{Decoder, Features, Latents, Run, RunSetup, Transformer};
use crate::ops::all_finite;
use crate::sampling::{ClipSettings, CpuSampler, Guidance, noise};

use super::capture::{KernelRecord, RunInfo};
use super::control::Stopwatch;
use super::denoiser::{self, Denoiser};
use super::finite::{self, NotFinite};
use super::kept::Kept;
use super::meter::{distance, size};
use super::open_model::OpenModel;
use super::outbox::Outbox;
use super::replay;
use super::{
    Control, EngineError, Event, GenerateRequest, Generated, MeanPaid, PreviewMap, Seconds, Stage, StepDone,
    StepRecord, StepState, estimate_masks,
};

type Result<T> = std::result::Result<T, EngineError>;

/// Runs one request to its end and reports on the way. Parts that were `kept` from earlier jobs are
/// reused.
pub(super) fn run(
    gpu: &Gpu,
    request: &GenerateRequest,
    submit_budget: Duration,
    control: &Arc<Control>,
    outbox: &Outbox,
    kept: &mut Kept,
) -> Result<Generated> {
    let watch = Stopwatch::start(control);
    let gate = control.clone();
    let gpu = gpu.gated(Arc::new(move || if gate.may_go_on() { Ok(()) } else { Err(GpuError::Cancelled) }));
    let options = StreamOptions { budget: submit_budget, timed: request.observe.times };
    gpu.reset_peak_memory();
    let (cx, seconds) = (Stream::new(&gpu, options), Seconds::default());
    let mut job = Job { gpu: &gpu, request, control, outbox, kept, cx, seconds };
    let mut generated = job.run()?;
    outbox.end()?;
    generated.seconds.total = watch.seconds();
    Ok(generated)
}

struct Job<'a> {
    gpu: &'a Gpu,
    request: &'a GenerateRequest,
    control: &'a Control,
    outbox: &'a Outbox<'a>,
    kept: &'a mut Kept,
    cx: Stream,
    seconds: Seconds,
}

/// The request's strategy. A rule without calibration gets the calibration that was published for
/// the model, if there is one.
fn strategy_of(request: &GenerateRequest, model: &OpenModel) -> StrategyConfig {
    let mut config = request.strategy.clone();
    let sigmas = model.scheduler.sigmas().iter().map(|sigma| f64::from(*sigma)).collect();
    let published = Evidence::new(sigmas, model.model.blocks()).with_published_tea(model.published_tea());
    // An error is ignored here, because building the strategy reports it.
    config.calibrate(&published).ok();
    config
}

/// What a job needs besides the request, before any weights are read.
struct Setup {
    model: OpenModel,
    guidance: Guidance,
    preview: PreviewMap,
}

/// Adds the time that `work` takes to a counter.
fn timed<T>(control: &Control, counter: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let watch = Stopwatch::start(control);
    let result = work();
    *counter += watch.seconds();
    result
}

impl Job<'_> {
    fn run(&mut self) -> Result<Generated> {
        self.report(Event::Stage(Stage::Load))?;
        let setup = self.setup()?;
        let model = &setup.model;

        self.report(Event::Stage(Stage::Text))?;
        let features = self.encode_conditions(model, &setup.guidance)?;

        self.report(Event::Stage(Stage::Load))?;
        let gpu = self.gpu;
        let kept = &mut *self.kept;
        let transformer =
            timed(self.control, &mut self.seconds.load, || Ok(kept.transformer(gpu, model.model.as_ref())?))?;

        self.report(Event::Stage(Stage::Denoise))?;
        let initial = self.initial_latents(model.geometry.latent_shape);
        let watch = Stopwatch::start(self.control);
        let (latents, measured) = self.denoise(transformer.as_ref(), &setup, &features, &initial)?;
        self.seconds.denoise = watch.seconds();
        drop(transformer);
        if !model.has_room_beside_decoder(self.request, gpu.caps().memory) {
            self.kept.forget_transformer(gpu);
        }
        self.gpu.release_free_memory();

        self.report_set_aside()?;
        self.report(Event::Stage(Stage::Decode))?;
        let decoder = timed(self.control, &mut self.seconds.load, || Ok(model.model.load_decoder(gpu)?))?;
        let watch = Stopwatch::start(self.control);
        let frames = self.decode(decoder.as_ref(), &latents)?;
        self.seconds.decode = watch.seconds();
        Ok(Generated {
            width: self.request.clip.width,
            height: self.request.clip.height,
            fps: self.request.clip.fps,
            frames,
            initial_latents: initial,
            latent_shape: latents.shape,
            latents: latents.values,
            measured,
            seconds: self.seconds,
            peak_memory: self.gpu.memory().peak,
        })
    }

    fn setup(&self) -> Result<Setup> {
        let model = OpenModel::of(self.request)?;
        self.check_strategy(&model)?;
        Ok(Setup {
            guidance: Guidance::new(self.request.clip.guidance_scale)?,
            preview: PreviewMap::of_model(&model.folder, model.geometry.latent_shape[0])?,
            model,
        })
    }

    /// Checks that the strategy can work, before any weights are read.
    fn check_strategy(&self, model: &OpenModel) -> Result<()> {
        let (steps, blocks) = (model.scheduler.num_inference_steps(), model.model.blocks());
        strategy_of(self.request, model).build(&StrategyInputs { steps, blocks, signal_changes: Vec::new() })?;
        Ok(())
    }

    /// The features of the condition and, if guidance needs it, of the negative condition.
    fn encode_conditions(&mut self, model: &OpenModel, guidance: &Guidance) -> Result<Vec<Features>> {
        let mut conditions = vec![&self.request.condition];
        if guidance.needs_uncond() {
            conditions.push(&self.request.negative);
        }
        let (cx, before) = (&mut self.cx, &mut self.kept.conditions);
        let features = timed(self.control, &mut self.seconds.text, || {
            Ok(before.features(cx, model.model.as_ref(), &conditions)?)
        })?;
        self.gpu.release_free_memory();
        for (branch, (condition, features)) in conditions.iter().zip(&features).enumerate() {
            if !all_finite(&features.values) {
                let found = NotFinite { branch: Some(branch), ..NotFinite::of(Stage::Text, "the features") };
                let cause = finite::cause(finite::in_encoder(&mut self.cx, model.model.as_ref(), condition));
                return Err(self.broken(NotFinite { cause, ..found }));
            }
        }
        Ok(features)
    }

    /// Rows of the condition that name its subject. Empty where attention is not measured or no
    /// subject is found.
    fn subject_rows(&self, model: &OpenModel) -> Result<Vec<u32>> {
        match self.request.observe.attention {
            Some(_) => Ok(model.model.subject_rows(&self.request.condition)?),
            None => Ok(Vec::new()),
        }
    }

    fn initial_latents(&self, shape: [usize; 4]) -> Vec<f32> {
        match &self.request.latents {
            Some(latents) => latents.values.clone(),
            None => noise::randn(self.request.clip.seed, shape.iter().product()),
        }
    }

    fn denoise(
        &mut self,
        transformer: &dyn Transformer,
        setup: &Setup,
        features: &[Features],
        initial: &[f32],
    ) -> Result<(Latents, Option<RunMeasurement>)> {
        let (model, scheduler) = (&setup.model, setup.model.scheduler.as_ref());
        let (shape, token_grid) = (model.geometry.latent_shape, model.geometry.token_grid);
        let subject = self.subject_rows(model)?;
        let conditions: Vec<&Features> = features.iter().collect();
        let timesteps = scheduler.timesteps();
        let of_run = RunSetup { geometry: &model.geometry, timesteps, conditions: &conditions };
        let run = transformer.begin_run(&mut self.cx, &of_run)?;
        let (steps, blocks) = (scheduler.num_inference_steps(), model.model.blocks());
        let mut strategy = self.strategy(model, run.as_ref(), steps)?;
        let expected = strategy.preview().unwrap_or_default();
        let signal_changes = self.both_signals(run.as_ref())?;
        let rows = features.first().map_or(0, |features| features.rows);
        let info = RunInfo { signal_changes, ..self.run_info(setup, rows, expected.clone()) };
        let earlier = self.request.earlier.as_ref();
        earlier.map_or(Ok(()), |earlier| replay::check(&earlier.run, &info))?;
        self.report(Event::Started(Box::new(info)))?;
        // Warnings come before the work, which may take hours.
        for warning in model.warnings(self.request)? {
            self.report(Event::Warning(warning))?;
        }
        let config = &self.request.strategy;
        self.warn(config.few_steps(steps))?;
        self.warn(config.warning(&expected, blocks))?;
        let depth = if expected.is_empty() { strategy.depth() } else { needed_depth(&expected) };
        let (control, guidance, observe) = (self.control, setup.guidance, self.request.observe);
        let of_denoiser = denoiser::Setup { control, run, blocks, token_grid, guidance, observe, subject, depth };
        let mut denoiser = Denoiser::new(&mut self.cx, of_denoiser)?;
        let mut sampler = CpuSampler::new(scheduler, initial);
        let (mut plans, mut latent_step) = (Vec::with_capacity(steps), None);
        let mut paid = MeanPaid::new(model.geometry.tokens());
        let taken_over = earlier.map_or(0, |earlier| replay::taken_over(&earlier.steps, &expected, depth));
        self.warn(earlier.filter(|_| taken_over == 0).map(|_| replay::ANEW.into()))?;
        let mut residuals = RunRecorder::default();
        for step in 0..steps {
            let watch = Stopwatch::start(self.control);
            let now = StepContext { step, steps, latent_step };
            let before = sampler.sample().to_vec();
            if let Some((record, state)) = self.earlier(step).filter(|_| step < taken_over) {
                let correction = record.plan.as_ref().and_then(|plan| plan.correction.as_ref());
                if let Some(correction) = correction {
                    sampler.correct(&correction.shares, &state.surprise)?;
                }
                sampler.step(&state.velocity)?;
                denoiser.take_over(&state.velocity);
                let latents = sampler.sample().to_vec();
                latent_step = Some(distance(&latents, &before));
                plans.extend(record.plan.clone());
                paid.add(step, steps, record);
                let done = StepDone { steps, record: record.clone(), latents, residual: None };
                self.report(Event::Step(Box::new(done)))?;
                continue;
            }
            let mut predicted = match denoiser.step(&mut self.cx, strategy.as_mut(), &now, &before) {
                Err(EngineError::NotFinite(found)) => {
                    let at = (step, found.branch.unwrap_or(0), blocks);
                    let cause = finite::cause(finite::in_step(&mut self.cx, transformer, &of_run, at, &before));
                    return Err(self.broken(NotFinite { step: Some([step, steps]), cause, ..*found }));
                }
                predicted => predicted?,
            };
            let correction = predicted.record.plan.as_ref().and_then(|plan| plan.correction.as_ref());
            if let Some((correction, surprise)) = correction.zip(predicted.surprise.as_ref()) {
                sampler.correct(&correction.shares, surprise)?;
            }
            if let Some(residual) = predicted.residual.as_ref().filter(|_| observe.residuals) {
                residuals.add(f64::from(scheduler.sigmas()[step]), residual, &predicted.velocity);
            }
            let x0 = sampler.step(&predicted.velocity)?;
            let latents = sampler.sample().to_vec();
            if !all_finite(&latents) {
                let found = NotFinite::of(Stage::Denoise, "the latents after the step");
                return Err(self.broken(NotFinite { step: Some([step, steps]), ..found }));
            }
            latent_step = Some(distance(&latents, &before));
            predicted.record.preview = Some(setup.preview.frames(&x0, shape));
            predicted.record.memory = self.gpu.memory().used;
            predicted.record.kernels = self.kernel_records()?;
            // Without a state the run could not go on from here on a new device.
            let surprise = predicted.surprise.unwrap_or_default();
            predicted.record.state = Some(StepState { velocity: predicted.velocity, surprise });
            predicted.record.seconds = watch.seconds();
            plans.extend(predicted.record.plan.clone());
            paid.add(step, steps, &predicted.record);
            let done = StepDone { steps, record: predicted.record, latents, residual: predicted.residual };
            self.report(Event::Step(Box::new(done)))?;
        }
        if expected.is_empty() {
            self.warn(config.warning(&plans, blocks))?;
        }
        let latents = sampler.sample().to_vec();
        if self.request.observe.attention.is_some() {
            match estimate_masks(&latents, shape, token_grid, paid.mean().as_deref()) {
                Ok(found) => found.iter().try_for_each(|estimate| self.report(Event::Mask(estimate.into())))?,
                // A missing mask must not cost the clip.
                Err(error) => self.report(Event::Warning(format!("no foreground mask could be estimated: {error}")))?,
            }
        }
        Ok((Latents { shape, values: latents }, self.measured(residuals, setup)))
    }

    /// What a run without reuse told of the model, if a planner can use it.
    fn measured(&self, residuals: RunRecorder, setup: &Setup) -> Option<RunMeasurement> {
        let clip = &self.request.clip;
        let (levels, products, gain) = residuals.finish();
        if levels.len() != setup.model.scheduler.num_inference_steps() {
            return None;
        }
        let measured = RunMeasurement {
            levels,
            products,
            gain,
            size: [clip.width, clip.height, clip.num_frames],
            guidance_scale: if clip.guided() { clip.guidance_scale } else { 1.0 },
            scheduler: self.request.scheduler_choice(&setup.model.sampler).name().into(),
        };
        measured.is_sound().then_some(measured)
    }

    /// A step of an earlier run.
    fn earlier(&self, step: usize) -> Option<(&StepRecord, &StepState)> {
        let record = self.request.earlier.as_ref()?.steps.get(step)?;
        Some((record, record.state.as_ref()?))
    }

    /// Reports a warning, if there is one.
    fn warn(&self, told: Option<String>) -> Result<()> {
        told.map_or(Ok(()), |text| self.report(Event::Warning(text)))
    }

    /// Relative changes of both of TeaCache's signals. Empty if changes are not measured.
    fn both_signals(&mut self, run: &dyn Run) -> Result<Vec<[f64; 2]>> {
        if !self.request.observe.changes {
            return Ok(Vec::new());
        }
        let embedding = self.signal_changes(run, Signal::Embedding)?;
        let projection = self.signal_changes(run, Signal::Projection)?;
        Ok(embedding.into_iter().zip(projection).map(|(e, p)| [e, p]).collect())
    }

    fn strategy(&mut self, model: &OpenModel, run: &dyn Run, steps: usize) -> Result<Box<dyn Strategy>> {
        let config = strategy_of(self.request, model);
        let changes = config.signal().map(|signal| self.signal_changes(run, signal)).transpose()?;
        let signal_changes = changes.unwrap_or_default();
        Ok(config.build(&StrategyInputs { steps, blocks: model.model.blocks(), signal_changes })?)
    }

    /// Relative changes of TeaCache's signal from step to step. The first is 0. Empty for a model
    /// without a signal.
    fn signal_changes(&mut self, run: &dyn Run, signal: Signal) -> Result<Vec<f64>> {
        let signals = run.signals(&mut self.cx, signal == Signal::Projection)?;
        let changes = signals.windows(2).map(|pair| distance(&pair[1], &pair[0]) / size(&pair[0]));
        Ok(std::iter::once(0.0).chain(changes).take(signals.len()).collect())
    }

    fn run_info(&self, setup: &Setup, condition_rows: usize, expected: Vec<StepPlan>) -> RunInfo {
        let (request, model) = (self.request, &setup.model);
        let folder = std::fs::canonicalize(&request.model).unwrap_or_else(|_| request.model.clone());
        RunInfo {
            program: concat!("ditscope ", env!("CARGO_PKG_VERSION")).into(),
            adapter: self.gpu.adapter_name().into(),
            model: folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            model_id: model.model.id(),
            prompt: request.condition.to_string(),
            negative_prompt: request.negative.to_string(),
            clip: ClipSettings {
                guidance_scale: if request.clip.guided() { request.clip.guidance_scale } else { 1.0 },
                flow_shift: Some(request.shift(&model.sampler)),
                ..request.clip
            },
            noise: if request.latents.is_some() { "given".into() } else { noise::GENERATOR.into() },
            scheduler: request.scheduler_choice(&model.sampler).name().into(),
            sigmas: model.scheduler.sigmas().iter().map(|sigma| f64::from(*sigma)).collect(),
            strategy: request.strategy.clone(),
            expected,
            blocks: model.model.blocks(),
            token_grid: model.geometry.token_grid,
            latent_shape: model.geometry.latent_shape,
            cost: Some(model.cost(condition_rows)),
            signal_changes: Vec::new(),
            command: Vec::new(),
        }
    }

    fn kernel_records(&mut self) -> Result<Vec<KernelRecord>> {
        if !self.request.observe.times {
            return Ok(Vec::new());
        }
        let times = self.cx.take_times()?;
        let record = |(kernel, time): (&crate::gpu::Kernel, &crate::gpu::KernelTime)| KernelRecord {
            kernel: kernel.to_string(),
            seconds: time.seconds,
            flops: time.flops,
            calls: time.calls,
        };
        Ok(times.iter().map(record).collect())
    }

    /// Decodes the latents to frames with RGB values in [-1, 1]. If whole frames do not fit the
    /// device, the frames are decoded tile by tile. This also happens if decoding whole frames runs
    /// out of memory, so that the denoising is not lost.
    fn decode(&mut self, decoder: &dyn Decoder, latents: &Latents) -> Result<Vec<Vec<f32>>> {
        let (caps, memory) = (self.gpu.caps(), self.gpu.memory_to_count_on());
        let tiled = !decoder.fits(caps, memory, &self.request.clip);
        let decoded = decoder.decode(&mut self.cx, latents, tiled).map_err(EngineError::from);
        let (frames, tiled) = match decoded {
            Err(EngineError::Gpu(GpuError::OutOfMemory { .. } | GpuError::BufferTooLarge { .. })) if !tiled => {
                self.kept.forget_transformer(self.gpu);
                self.cx.finish().ok();
                self.gpu.release_free_memory();
                self.report(Event::Warning("Whole frames do not fit the GPU's memory: decoding tile by tile.".into()))?;
                (decoder.decode(&mut self.cx, latents, true)?, true)
            }
            decoded => (decoded?, tiled),
        };
        if let Some(frame) = frames.iter().position(|frame| !all_finite(frame)) {
            let found = NotFinite::of(Stage::Decode, format!("frames from number {} of {}", frame + 1, frames.len()));
            let cause = finite::cause(finite::in_decoder(&mut self.cx, decoder, latents, tiled));
            return Err(self.broken(NotFinite { cause, ..found }));
        }
        self.warn(finite::one_colour(&frames))?;
        Ok(frames)
    }

    /// The error of a run whose values are not finite. The transformer is not kept, because its
    /// weights on the GPU may be what is broken.
    fn broken(&mut self, found: NotFinite) -> EngineError {
        self.kept.forget_transformer(self.gpu);
        NotFinite { adapter: self.gpu.adapter_name().into(), ..found }.into()
    }

    /// Sends an event.
    /// Tells which kernel variants turned out to be wrong on this GPU.
    fn report_set_aside(&self) -> Result<()> {
        self.gpu.choices().take_news().into_iter().try_for_each(|text| self.report(Event::Warning(text)))
    }

    fn report(&self, event: Event) -> Result<()> {
        self.outbox.send(event)
    }
}

/// The largest number of a run's deltas that a plan combines.
fn needed_depth(expected: &[StepPlan]) -> usize {
    let of_branch = |plan: &BranchPlan| match plan {
        BranchPlan::Blocks(segments) => {
            let depths = segments.iter().map(|segment| match &segment.action {
                Action::Reuse(forecast) => Forecast::depth(forecast),
                _ => 1,
            });
            depths.max().unwrap_or(1)
        }
        BranchPlan::Output(..) => 1,
    };
    let of_step = |plan: &StepPlan| {
        let correction = plan.correction.as_ref().map_or(1, |correction| correction.expected.depth());
        plan.branches(true).map(of_branch).fold(correction, usize::max)
    };
    expected.iter().map(of_step).max().unwrap_or(1)
}
