//! One generation: text, denoising, decoding.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::caching::{
    Action, BranchPlan, Evidence, Forecast, ForwardCost, PublishedTea, Signal, StepContext, StepPlan, Strategy,
    StrategyConfig, StrategyInputs,
};
use crate::gpu::{Gpu, GpuError, Stream, StreamOptions};
use crate::model::wan::config::TransformerConfig;
use crate::model::wan::files::ModelFiles;
use crate::model::wan::tokenizer::{MAX_SEQUENCE_LENGTH, Tokenizer};
use crate::model::wan::transformer::{TimeEmbeddings, WanTransformer};
use crate::model::wan::vae::{Tiling, Vae};
use crate::sampling::{ClipSettings, CpuSampler, Guidance, noise};

use super::capture::{KernelRecord, RunInfo};
use super::control::Stopwatch;
use super::denoiser::Denoiser;
use super::kept::{Features, Kept};
use super::meter::{distance, size};
use super::open_model::OpenModel;
use super::{
    Control, EngineError, Event, GenerateRequest, Generated, MeanPaid, PreviewMap, Seconds, Stage, StepDone,
    estimate_masks, subject_of,
};

type Result<T> = std::result::Result<T, EngineError>;

/// Runs one request to its end, reporting on the way. What is `kept` of earlier jobs is not made again.
pub(super) fn run(
    gpu: &Gpu,
    request: &GenerateRequest,
    submit_budget: Duration,
    (control, events): (&Arc<Control>, &Sender<Event>),
    kept: &mut Kept,
) -> Result<Generated> {
    let watch = Stopwatch::start(control);
    let gate = control.clone();
    let gpu = gpu.gated(Arc::new(move || if gate.may_go_on() { Ok(()) } else { Err(GpuError::Cancelled) }));
    let options = StreamOptions { budget: submit_budget, timed: request.observe.times };
    gpu.reset_peak_memory();
    let (cx, seconds) = (Stream::new(&gpu, options), Seconds::default());
    let mut job = Job { gpu: &gpu, request, control, events, kept, cx, seconds };
    let mut generated = job.run()?;
    generated.seconds.total = watch.seconds();
    Ok(generated)
}

struct Job<'a> {
    gpu: &'a Gpu,
    request: &'a GenerateRequest,
    control: &'a Control,
    events: &'a Sender<Event>,
    kept: &'a mut Kept,
    cx: Stream,
    seconds: Seconds,
}

/// The request's strategy, with what was published for the model where it needs that and has nothing else.
fn strategy_of(request: &GenerateRequest, model: &OpenModel) -> StrategyConfig {
    let mut config = request.strategy.clone();
    let sigmas = model.scheduler.sigmas().iter().map(|sigma| f64::from(*sigma)).collect();
    let blocks = model.transformer.0.num_layers;
    let published = Evidence::new(sigmas, blocks).with_published_tea(published_tea(&model.transformer.0));
    // A strategy that contradicts itself is refused when it is built.
    config.calibrate(&published).ok();
    config
}

/// What a job is made of once the model's configurations are read.
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
        let (features, negative) = self.encode_prompts(model, &setup.guidance)?;

        self.report(Event::Stage(Stage::Load))?;
        let gpu = self.gpu;
        let kept = &mut *self.kept;
        let transformer =
            timed(self.control, &mut self.seconds.load, || Ok(kept.transformer(gpu, &model.transformer)?))?;

        self.report(Event::Stage(Stage::Denoise))?;
        let initial = self.initial_latents(model.shape);
        let watch = Stopwatch::start(self.control);
        let subject = self.subject_rows(&model.files)?;
        let text = (&*features, negative.as_deref());
        let latents = self.denoise(&transformer, &setup, text, subject, &initial)?;
        self.seconds.denoise = watch.seconds();
        drop(transformer);
        if !model.has_room_beside_decoder(self.request, gpu.caps().memory) {
            self.kept.forget_transformer(gpu);
        }
        self.gpu.release_free_memory();

        self.report(Event::Stage(Stage::Decode))?;
        let vae =
            timed(self.control, &mut self.seconds.load, || Ok(Vae::load_decoder(gpu, &model.vae.1, &model.vae.0)?))?;
        let watch = Stopwatch::start(self.control);
        let frames = self.decode(&vae, &latents, model.shape)?;
        self.seconds.decode = watch.seconds();
        Ok(Generated {
            width: self.request.clip.width,
            height: self.request.clip.height,
            frames,
            initial_latents: initial,
            latent_shape: model.shape,
            latents,
            seconds: self.seconds,
            peak_memory: self.gpu.memory().peak,
        })
    }

    fn setup(&self) -> Result<Setup> {
        let model = OpenModel::of(self.request)?;
        self.check_strategy(&model)?;
        Ok(Setup {
            guidance: Guidance::new(self.request.clip.guidance_scale)?,
            preview: PreviewMap::of_model(&model.files.folder, model.shape[0])?,
            model,
        })
    }

    /// Fails before any weights are read where the strategy cannot work.
    fn check_strategy(&self, model: &OpenModel) -> Result<()> {
        let (steps, blocks) = (model.scheduler.num_inference_steps(), model.transformer.0.num_layers);
        strategy_of(self.request, model).build(&StrategyInputs { steps, blocks, signal_changes: Vec::new() })?;
        Ok(())
    }

    /// Features of the prompt and, if guidance needs it, of the negative prompt.
    fn encode_prompts(&mut self, model: &OpenModel, guidance: &Guidance) -> Result<(Features, Option<Features>)> {
        let tokenizer = Tokenizer::load(model.files.tokenizer()?)?;
        let ids = |text: &str| tokenizer.encode(text, MAX_SEQUENCE_LENGTH);
        let mut prompts = vec![ids(&self.request.prompt)?];
        if guidance.needs_uncond() {
            prompts.push(ids(&self.request.negative_prompt)?);
        }
        let (cx, prompts_before) = (&mut self.cx, &mut self.kept.prompts);
        let features = timed(self.control, &mut self.seconds.text, || {
            Ok(prompts_before.features(cx, &model.text_encoder, prompts)?)
        })?;
        self.gpu.release_free_memory();
        let mut features = features.into_iter();
        Ok((features.next().ok_or(EngineError::Stopped)?, features.next()))
    }

    /// Context rows of the prompt's subject; none where nothing is profiled or no subject is found.
    fn subject_rows(&self, files: &ModelFiles) -> Result<Vec<u32>> {
        let prompt = &self.request.prompt;
        let Some(subject) = self.request.observe.attention.and_then(|_| subject_of(prompt)) else {
            return Ok(Vec::new());
        };
        let tokenizer = Tokenizer::load(files.tokenizer()?)?;
        // Words are tokenised one by one, so that a prefix has the prompt's first tokens, and then the end token.
        let rows =
            |end: usize| Ok::<_, EngineError>(tokenizer.encode(&prompt[..end], MAX_SEQUENCE_LENGTH)?.len() as u32 - 1);
        Ok((rows(subject.start)?..rows(subject.end)?).collect())
    }

    fn initial_latents(&self, shape: [usize; 4]) -> Vec<f32> {
        match &self.request.latents {
            Some(latents) => latents.values.clone(),
            None => noise::randn(self.request.clip.seed, shape.iter().product()),
        }
    }

    fn denoise(
        &mut self,
        transformer: &WanTransformer,
        setup: &Setup,
        features: (&[f32], Option<&[f32]>),
        subject: Vec<u32>,
        initial: &[f32],
    ) -> Result<Vec<f32>> {
        let (scheduler, shape) = (setup.model.scheduler.as_ref(), setup.model.shape);
        let times = transformer.prepare_times(&mut self.cx, scheduler.timesteps())?;
        let mut strategy = self.strategy(&setup.model, &times)?;
        let expected = strategy.preview().unwrap_or_default();
        let signal_changes = self.both_signals(&times)?;
        let info = RunInfo { signal_changes, ..self.run_info(setup, features.0, expected.clone())? };
        self.report(Event::Started(Box::new(info)))?;
        // Before hours are spent on it, what is known.
        let (config, blocks) = (&self.request.strategy, transformer.config().num_layers);
        self.warn(config.few_steps(times.steps()))?;
        self.warn(config.warning(&expected, blocks))?;
        let depth = if expected.is_empty() { strategy.depth() } else { needed_depth(&expected) };
        let (guidance, observe) = (setup.guidance, (self.request.observe, subject));
        let model = (self.control, transformer, &times);
        let mut denoiser =
            Denoiser::new(&mut self.cx, model, features, (guidance, setup.model.patches), observe, depth)?;
        let mut sampler = CpuSampler::new(scheduler, initial);
        let steps = scheduler.num_inference_steps();
        let (mut plans, mut latent_step) = (Vec::with_capacity(steps), None);
        let mut paid = MeanPaid::new(setup.model.patches.tokens());
        for step in 0..steps {
            let watch = Stopwatch::start(self.control);
            let now = StepContext { step, steps, latent_step };
            let before = sampler.sample().to_vec();
            let mut predicted = denoiser.step(&mut self.cx, strategy.as_mut(), &now, &before)?;
            let correction = predicted.record.plan.as_ref().and_then(|plan| plan.correction.as_ref());
            if let Some((correction, surprise)) = correction.zip(predicted.surprise.as_ref()) {
                sampler.correct(&correction.shares, surprise)?;
            }
            let x0 = sampler.step(&predicted.velocity)?;
            let latents = sampler.sample().to_vec();
            latent_step = Some(distance(&latents, &before));
            predicted.record.preview = Some(setup.preview.frames(&x0, shape));
            predicted.record.memory = self.gpu.memory().used;
            predicted.record.kernels = self.kernel_records()?;
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
            match estimate_masks(&latents, shape, setup.model.patches.grid(), paid.mean().as_deref()) {
                Ok(found) => found.iter().try_for_each(|estimate| self.report(Event::Mask(estimate.into())))?,
                // The clip matters more than what is in its foreground.
                Err(error) => self.report(Event::Warning(format!("no foreground mask could be estimated: {error}")))?,
            }
        }
        Ok(latents)
    }

    /// Tells what the user should know, if there is anything.
    fn warn(&self, told: Option<String>) -> Result<()> {
        told.map_or(Ok(()), |text| self.report(Event::Warning(text)))
    }

    /// Relative changes of both of TeaCache's signals, where changes are measured.
    fn both_signals(&mut self, times: &TimeEmbeddings) -> Result<Vec<[f64; 2]>> {
        if !self.request.observe.changes {
            return Ok(Vec::new());
        }
        let (embedding, projection) =
            (self.signal_changes(times, Signal::Embedding)?, self.signal_changes(times, Signal::Projection)?);
        Ok(embedding.into_iter().zip(projection).map(|(e, p)| [e, p]).collect())
    }

    fn strategy(&mut self, model: &OpenModel, times: &TimeEmbeddings) -> Result<Box<dyn Strategy>> {
        let config = strategy_of(self.request, model);
        let (steps, blocks) = (times.steps(), model.transformer.0.num_layers);
        let changes = config.signal().map(|signal| self.signal_changes(times, signal)).transpose()?;
        Ok(config.build(&StrategyInputs { steps, blocks, signal_changes: changes.unwrap_or_default() })?)
    }

    /// Relative changes of TeaCache's signal; on Wan it depends on the timestep alone.
    fn signal_changes(&mut self, times: &TimeEmbeddings, signal: Signal) -> Result<Vec<f64>> {
        let signals = times.signals(&mut self.cx, signal == Signal::Projection)?;
        let changes = signals.windows(2).map(|pair| distance(&pair[1], &pair[0]) / size(&pair[0]));
        Ok(std::iter::once(0.0).chain(changes).take(signals.len()).collect())
    }

    fn run_info(&self, setup: &Setup, features: &[f32], expected: Vec<StepPlan>) -> Result<RunInfo> {
        let (request, model) = (self.request, &setup.model);
        let (config, weights) = &model.transformer;
        // The valid rows of the prompt, and one that stands for all padding.
        let text_rows = features.len() / config.text_dim + 1;
        let folder = std::fs::canonicalize(&request.model).unwrap_or_else(|_| request.model.clone());
        Ok(RunInfo {
            program: concat!("ditscope ", env!("CARGO_PKG_VERSION")).into(),
            adapter: self.gpu.adapter_name().into(),
            model: folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            model_id: weights.fingerprint(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            clip: ClipSettings {
                guidance_scale: if request.clip.guided() { request.clip.guidance_scale } else { 1.0 },
                flow_shift: Some(request.shift(&model.scheduler_config)),
                ..request.clip
            },
            noise: if request.latents.is_some() { "given".into() } else { noise::GENERATOR.into() },
            scheduler: request.scheduler_choice(&model.scheduler_config).name().into(),
            sigmas: model.scheduler.sigmas().iter().map(|sigma| f64::from(*sigma)).collect(),
            strategy: request.strategy.clone(),
            expected,
            blocks: config.num_layers,
            token_grid: model.patches.grid(),
            latent_shape: model.shape,
            cost: Some(forward_cost(config, model.patches.tokens(), text_rows)),
            signal_changes: Vec::new(),
        })
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

    /// Frames as RGB values in [-1, 1]; tile by tile where a whole frame would not fit the device, as is known before or found out: the
    /// denoising that came before must not be lost.
    fn decode(&mut self, vae: &Vae, latents: &[f32], shape: [usize; 4]) -> Result<Vec<Vec<f32>>> {
        let (caps, memory) = (self.gpu.caps(), self.gpu.memory_to_count_on());
        let tiling = vae.needed_tiling(caps, memory, self.request.clip.height, self.request.clip.width);
        let decoded = self.decode_with(vae, tiling, latents, shape);
        match decoded {
            Err(EngineError::Gpu(GpuError::OutOfMemory { .. } | GpuError::BufferTooLarge { .. }))
                if tiling.is_none() =>
            {
                self.kept.forget_transformer(self.gpu);
                self.cx.finish().ok();
                self.gpu.release_free_memory();
                self.report(Event::Warning("Whole frames do not fit the GPU's memory: decoding tile by tile.".into()))?;
                self.decode_with(vae, Some(Tiling::default()), latents, shape)
            }
            decoded => decoded,
        }
    }

    fn decode_with(
        &mut self,
        vae: &Vae,
        tiling: Option<Tiling>,
        latents: &[f32],
        shape: [usize; 4],
    ) -> Result<Vec<Vec<f32>>> {
        let latents = self.cx.upload("latents", latents, &shape)?;
        let mut frames = Vec::new();
        vae.decode(&mut self.cx, &latents, tiling, &mut |chunk| {
            let frame = chunk.shape[1..].iter().product();
            frames.extend(chunk.values.chunks_exact(frame).map(<[f32]>::to_vec));
            Ok(())
        })?;
        Ok(frames)
    }

    /// Sends an event; a listener that is gone has cancelled the job.
    fn report(&self, event: Event) -> Result<()> {
        self.events.send(event).map_err(|_| EngineError::Cancelled)
    }
}

/// Deltas of a run that a plan combines at most.
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

/// TeaCache's polynomials that were published for a model.
pub(super) fn published_tea(config: &TransformerConfig) -> PublishedTea {
    let [embedding, projection] = crate::model::wan::published::tea_coefficients(config);
    PublishedTea { embedding, projection }
}

/// FLOPs of one forward pass over `tokens` tokens and `text` context rows: products and attention, two a multiply-add.
pub(super) fn forward_cost(config: &TransformerConfig, tokens: usize, text: usize) -> ForwardCost {
    let (dim, tokens, text) = (config.dim() as f64, tokens as f64, text as f64);
    let products = 6.0 * dim * dim + 2.0 * dim * config.ffn_dim as f64; // self q, k, v, o; cross q, o; feed-forward
    let patch = config.patch_elements(config.in_channels) + config.patch_elements(config.out_channels);
    let block = 2.0 * tokens * (products + 2.0 * dim * (tokens + text));
    ForwardCost::even(block, 2.0 * tokens * dim * patch as f64, config.num_layers)
}
