//! One generation: text, denoising, decoding.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::caching::StepPlan;
use crate::gpu::{Gpu, GpuError, Stream, StreamOptions};
use crate::model::ModelError;
use crate::model::wan::files::ModelFiles;
use crate::model::wan::text_encoder::TextEncoder;
use crate::model::wan::tokenizer::{MAX_SEQUENCE_LENGTH, Tokenizer};
use crate::model::wan::transformer::{TextContext, WanTransformer};
use crate::model::wan::vae::Vae;
use crate::ops::RopeTable;
use crate::sampling::{Buffer, CpuSampler, Guidance, Scheduler, noise};

use super::{Control, EngineError, Event, GenerateRequest, Generated, Seconds, Stage};

type Result<T> = std::result::Result<T, EngineError>;

/// Runs one request to its end, reporting on the way.
pub(super) fn run(
    gpu: &Gpu,
    request: &GenerateRequest,
    submit_budget: Duration,
    control: &Arc<Control>,
    events: &Sender<Event>,
) -> Result<Generated> {
    let start = Instant::now();
    let gate = control.clone();
    let options = StreamOptions {
        budget: submit_budget,
        gate: Some(Box::new(move || if gate.may_go_on() { Ok(()) } else { Err(GpuError::Cancelled) })),
        ..Default::default()
    };
    let mut job = Job { gpu, request, events, cx: Stream::new(gpu, options), seconds: Seconds::default() };
    let mut generated = job.run()?;
    generated.seconds.total = start.elapsed().as_secs_f64();
    Ok(generated)
}

struct Job<'a> {
    gpu: &'a Gpu,
    request: &'a GenerateRequest,
    events: &'a Sender<Event>,
    cx: Stream,
    seconds: Seconds,
}

/// Adds the time that `work` takes to a counter.
fn timed<T>(counter: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    *counter += start.elapsed().as_secs_f64();
    result
}

impl Job<'_> {
    fn run(&mut self) -> Result<Generated> {
        self.report(Event::Stage(Stage::Load))?;
        let files = ModelFiles::find(&self.request.model)?;
        let (transformer_config, transformer_weights) = files.transformer()?;
        let (vae_config, vae_weights) = files.vae()?;
        let shape = self.request.latent_shape(&transformer_config, &vae_config)?;
        let scheduler = self.request.scheduler(&files.scheduler()?)?;
        let guidance = Guidance::new(self.request.guidance_scale)?;

        self.report(Event::Stage(Stage::Text))?;
        let (features, negative) = self.encode_prompts(&files, &guidance)?;

        self.report(Event::Stage(Stage::Load))?;
        let gpu = self.gpu;
        let transformer = timed(&mut self.seconds.load, || {
            let transformer = WanTransformer::load(gpu, &transformer_config, &transformer_weights)?;
            gpu.wait()?;
            Ok(transformer)
        })?;

        self.report(Event::Stage(Stage::Denoise))?;
        let initial = self.initial_latents(shape);
        let start = Instant::now();
        let mut denoiser = Denoiser {
            context: transformer.prepare_text(&mut self.cx, &features)?,
            negative: negative.map(|text| transformer.prepare_text(&mut self.cx, &text)).transpose()?,
            rope: transformer.rope(&mut self.cx, [shape[1], shape[2], shape[3]])?,
            transformer: &transformer,
            guidance,
            shape,
        };
        let latents = self.denoise(&mut denoiser, scheduler.as_ref(), &initial)?;
        self.seconds.denoise = start.elapsed().as_secs_f64();
        drop(denoiser);
        drop(transformer);
        self.gpu.release_free_memory();

        self.report(Event::Stage(Stage::Decode))?;
        let vae = timed(&mut self.seconds.load, || Ok(Vae::load(gpu, &vae_weights, &vae_config)?))?;
        let start = Instant::now();
        let frames = self.decode(&vae, &latents, shape)?;
        self.seconds.decode = start.elapsed().as_secs_f64();
        Ok(Generated {
            width: self.request.width,
            height: self.request.height,
            frames,
            initial_latents: initial,
            latent_shape: shape,
            latents,
            seconds: self.seconds,
            peak_memory: self.gpu.memory().peak,
        })
    }

    /// Features of the prompt and, if guidance needs it, of the negative prompt. The text encoder is dropped again: the big model's
    /// does not fit beside the transformer.
    fn encode_prompts(&mut self, files: &ModelFiles, guidance: &Guidance) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let tokenizer = Tokenizer::load(files.tokenizer()?)?;
        let ids = tokenizer.encode(&self.request.prompt, MAX_SEQUENCE_LENGTH)?;
        let negative_ids = tokenizer.encode(&self.request.negative_prompt, MAX_SEQUENCE_LENGTH)?;
        let (config, weights) = files.text_encoder()?;
        let gpu = self.gpu;
        let encoder = timed(&mut self.seconds.load, || Ok(TextEncoder::load(gpu, &config, &weights)?))?;
        let cx = &mut self.cx;
        let features = timed(&mut self.seconds.text, || {
            let features = encoder.encode(cx, &ids)?;
            let negative = guidance.needs_uncond().then(|| encoder.encode(cx, &negative_ids)).transpose()?;
            Ok((features, negative))
        });
        drop(encoder);
        gpu.release_free_memory();
        features
    }

    fn initial_latents(&self, shape: [usize; 4]) -> Vec<f32> {
        match &self.request.latents {
            Some(latents) => latents.clone(),
            None => noise::randn(self.request.seed, shape.iter().product()),
        }
    }

    fn denoise(&mut self, denoiser: &mut Denoiser, scheduler: &dyn Scheduler, initial: &[f32]) -> Result<Vec<f32>> {
        let mut sampler = CpuSampler::new(scheduler, initial);
        let steps = scheduler.num_inference_steps();
        for (step, &timestep) in scheduler.timesteps().iter().enumerate() {
            let start = Instant::now();
            let velocity = denoiser.velocity(&mut self.cx, sampler.sample(), timestep)?;
            let x0 = sampler.step(&velocity)?;
            let latents = sampler.sample().to_vec();
            self.report(Event::Step { step, steps, seconds: start.elapsed().as_secs_f64(), latents, x0 })?;
        }
        Ok(sampler.sample().to_vec())
    }

    /// Frames as RGB values in [-1, 1]; tile by tile where a whole frame would not fit the device.
    fn decode(&mut self, vae: &Vae, latents: &[f32], shape: [usize; 4]) -> Result<Vec<Vec<f32>>> {
        let latents = self.cx.upload("latents", latents, &shape)?;
        let tiling = vae.needed_tiling(self.gpu.caps(), u64::MAX, self.request.height, self.request.width);
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

/// The model as the sampler sees it.
struct Denoiser<'a> {
    transformer: &'a WanTransformer,
    context: TextContext,
    negative: Option<TextContext>,
    rope: RopeTable,
    guidance: Guidance,
    shape: [usize; 4],
}

impl Denoiser<'_> {
    /// The guided velocity for a sample.
    fn velocity(&self, cx: &mut Stream, sample: &[f32], timestep: f32) -> Result<Vec<f32>> {
        let latents = cx.upload("latents", sample, &self.shape)?;
        let plan = StepPlan::default();
        let mut forward = |context: &TextContext| -> std::result::Result<_, ModelError> {
            self.transformer.forward(cx, &latents, timestep, context, &self.rope, &plan)
        };
        let cond = forward(&self.context)?;
        let uncond = self.negative.as_ref().map(&mut forward).transpose()?;
        let cond = cx.read(&cond)?;
        match (self.guidance.combine(), uncond) {
            (Some(combination), Some(uncond)) => {
                let uncond = cx.read(&uncond)?;
                let weight = |wanted| combination.terms().iter().find(|(b, _)| *b == wanted).map_or(0.0, |(_, c)| *c);
                let (a, b) = (weight(Buffer::VelocityCond), weight(Buffer::VelocityUncond));
                Ok(cond.iter().zip(&uncond).map(|(c, u)| a * c + b * u).collect())
            }
            _ => Ok(cond),
        }
    }
}
