//! Room `engine`: a job on its own thread. Requests in, events out; pause, resume and cancel at any
//! time.
//!
//! ```text
//! Engine::start(gpu) ──> generate(request) ──> events: Started, Stage, Step, Finished | Failed
//!                        control: pause, resume, cancel (acts before the next submit)
//! Event ── Capture::observe ──> Capture
//! ```
//! The caller gives the device. Beside a window the engine has a device of its own, so that neither
//! waits for the other.

pub mod capture;
mod compact;
mod control;
mod defaults;
mod denoiser;
mod error;
mod finite;
mod generate;
mod kept;
mod masks;
mod meter;
mod open_model;
mod outbox;
mod preview;
mod recovery;
mod replay;
mod request;
mod request_info;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::caching::RunMeasurement;
use crate::gpu::Gpu;
use crate::media::{self, Clip, MediaError};

use kept::Kept;
use outbox::Outbox;

pub use crate::model::family::{Condition, Latents};
pub use crate::model::{Lora, NamedFiles, subject_of};
pub use crate::ops::Received;
pub use crate::sampling::{ClipSettings, SchedulerChoice, limits};
pub use capture::{BlockRecord, Capture, Frames, MaskRecord, Outcome, Record, RunInfo, StepRecord, StepState};
pub use control::Control;
pub use defaults::{clip_settings_of, negative_prompt_of};
pub use error::EngineError;
pub use finite::{Cause, NotFinite};
pub use masks::{MeanPaid, estimate_masks};
pub use preview::PreviewMap;
pub use request::{GenerateRequest, Observe};
pub use request_info::RequestInfo;

/// Seconds spent in each part of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Seconds {
    /// Reading and uploading weights.
    pub load: f64,
    /// Tokenizer and text encoder.
    pub text: f64,
    /// All denoising steps.
    pub denoise: f64,
    /// The VAE.
    pub decode: f64,
    /// The whole job.
    pub total: f64,
}

/// The parts of a job, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the model's files.
    Load,
    /// Encoding the prompts.
    Text,
    /// Denoising.
    Denoise,
    /// Decoding latents to frames.
    Decode,
}

/// A finished generation.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Frames a second.
    pub fps: u32,
    /// Frames as RGB values in [-1, 1], `height * width * 3` each.
    pub frames: Vec<Vec<f32>>,
    /// The initial noise, `[channels, frames, height, width]` of the latents.
    pub initial_latents: Vec<f32>,
    /// Extents of the latents.
    pub latent_shape: [usize; 4],
    /// The clean latents.
    pub latents: Vec<f32>,
    /// What the run told of the model, where residuals were sampled and every step was computed in
    /// full.
    pub measured: Option<RunMeasurement>,
    /// Seconds that each part of the job took.
    pub seconds: Seconds,
    /// Highest GPU memory in bytes.
    pub peak_memory: u64,
}

/// What a job reports. The last event of a job is `Finished` or `Failed`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The description of the run. It comes before the first step.
    Started(Box<RunInfo>),
    /// A part begins.
    Stage(Stage),
    /// A denoising step is done.
    Step(Box<StepDone>),
    /// A foreground mask was estimated.
    Mask(MaskRecord),
    /// A message that the user should see.
    Warning(String),
    /// The job is done.
    Finished(Box<Generated>),
    /// The job failed or was cancelled.
    Failed(EngineError),
}

/// A finished step. Its latents are on the CPU, so the run could go on from here.
#[derive(Clone, Debug)]
pub struct StepDone {
    /// Number of steps of the run.
    pub steps: usize,
    /// What was done and measured.
    pub record: StepRecord,
    /// The sample after the step.
    pub latents: Vec<f32>,
    /// A sample of the tokens' guided residual (what all blocks together add), where changes or
    /// residuals are measured and all blocks ran.
    pub residual: Option<Vec<f32>>,
}

impl Event {
    /// The records that a capture keeps of the event.
    pub fn records(&self) -> Vec<Record> {
        match self {
            Self::Started(run) => vec![Record::Run(run.clone())],
            Self::Stage(_) => Vec::new(),
            Self::Step(done) => vec![Record::Step(Box::new(done.record.clone()))],
            Self::Mask(mask) => vec![Record::Mask(mask.clone())],
            Self::Warning(text) => vec![Record::Warning(text.clone())],
            Self::Finished(generated) => vec![Record::Clip(generated.rgb()), Record::Outcome(generated.outcome())],
            Self::Failed(error) => {
                vec![Record::Outcome(Outcome { error: Some(error.to_string()), ..Outcome::default() })]
            }
        }
    }
}

impl Generated {
    /// The frames as 8-bit RGB.
    pub fn rgb(&self) -> Frames {
        let byte = |value: &f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
        let frames = self.frames.iter().map(|frame| frame.iter().map(byte).collect()).collect();
        Frames { width: self.width, height: self.height, frames }
    }

    /// The frames as a clip, for [`media`] to write.
    ///
    /// # Errors
    /// The sizes or the rate fit no file.
    pub fn clip(&self) -> Result<Clip, MediaError> {
        let Frames { width, height, frames } = self.rgb();
        Clip::new(width as u32, height as u32, self.fps, frames)
    }

    /// Writes the frames to a file, or a folder of pictures, whose name says the format (see
    /// [`media::write_or_keep`]). The file holds `settings`: JSON such as [`RunInfo::settings`], or
    /// nothing.
    ///
    /// # Errors
    /// The errors of [`Generated::clip`], and errors of the file system.
    pub fn write(&self, path: &Path, settings: &str) -> Result<(), MediaError> {
        media::write_or_keep(path, &self.clip()?, settings)
    }

    fn outcome(&self) -> Outcome {
        Outcome { seconds: self.seconds, peak_memory: self.peak_memory, error: None }
    }
}

/// A worker thread with a device. Dropping it cancels what runs and waits for the thread.
#[derive(Debug)]
pub struct Engine {
    requests: Option<Sender<GenerateRequest>>,
    events: Receiver<Event>,
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
    adapter: String,
    driver: String,
    memory: Option<u64>,
}

impl Engine {
    /// Starts the thread. `submit_budget` is the longest GPU time of one submit: 8 to 16 ms beside
    /// a window, 100 ms without.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start(mut gpu: Gpu, submit_budget: Duration) -> Result<Self, EngineError> {
        let (requests, inbox) = bounded::<GenerateRequest>(1);
        // `Outbox` bounds the number of steps in this channel. All other events must be kept.
        let (to, events) = unbounded();
        let control = Arc::new(Control::default());
        let shared = control.clone();
        let (adapter, driver, memory) = (gpu.adapter_name().to_owned(), gpu.driver(), gpu.caps().memory);
        let work = move || {
            let mut kept = Kept::default();
            for request in inbox {
                let with_states = request.observe.state || request.earlier.is_some();
                let outbox = Outbox::new(&to, &shared, with_states);
                let last = match recovery::run(&mut gpu, request, submit_budget, &shared, &outbox, &mut kept) {
                    Ok(generated) => Event::Finished(Box::new(generated)),
                    Err(error) => Event::Failed(error),
                };
                // This must come before the event, because the listener may then start a new job.
                shared.ended();
                if to.send(last).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(work).map_err(EngineError::Thread)?;
        Ok(Self { requests: Some(requests), events, control, thread: Some(thread), adapter, driver, memory })
    }

    /// Queues a job; it starts when the one before it ends. Waits if one is queued already.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn generate(&self, request: GenerateRequest) -> Result<(), EngineError> {
        let requests = self.requests.as_ref().ok_or(EngineError::Stopped)?;
        self.control.expect();
        requests.send(request).map_err(|_| EngineError::Stopped)
    }

    /// What the jobs report, in order. Nobody has to read it: see [`Engine::wait`]. A job waits for
    /// a slow listener while 64 events are unread. When nothing is read for ten seconds the job
    /// goes on without, and drops its steps. All other events stay until they are read.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Waits for the end of the job that runs or waits, and gives its result. The events until then
    /// are read and dropped.
    ///
    /// # Errors
    /// The errors of the job, and [`EngineError::Stopped`] if the thread has ended.
    pub fn wait(&self) -> Result<Generated, EngineError> {
        for event in &self.events {
            match event {
                Event::Finished(generated) => return Ok(*generated),
                Event::Failed(error) => return Err(error),
                _ => {}
            }
        }
        Err(EngineError::Stopped)
    }

    /// Name of the adapter.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Name and version of the adapter's driver; empty where the system does not tell.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The adapter's own memory in bytes, where the driver tells.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// Pause, resume, cancel.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.control.shut_down();
        self.requests = None;
        // Replacing the receiver closes the channel, so that unread events do not block the thread.
        let (_, closed) = bounded(0);
        self.events = closed;
        if let Some(thread) = self.thread.take() {
            // The panic hook has already printed a panic of the worker.
            thread.join().ok();
        }
    }
}
