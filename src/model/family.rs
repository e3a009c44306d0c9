//! The seam between the engine and the models: what a family of models says about itself, and how
//! it runs.
//!
//! ```text
//! Family ─find─> ModelFolder ─open─> Model ─load_transformer─> Transformer ─begin_run─> Run
//!                defaults,           sizes, ─load_decoder────> Decoder
//!                summary             costs,
//!                                    memory,
//!                                    encode
//! ```
//! The engine knows these traits only. A family is a folder under `model/` and one line in
//! [`super::families`]. A family from outside is added with [`super::register`].

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::gpu::{Caps, Gpu, Stream, Tensor};
use crate::ops::Rows;
use crate::sampling::{ClipSettings, SchedulerChoice, SolverOrder};

use super::{ModelError, NamedFiles};

type Result<T> = std::result::Result<T, ModelError>;

/// A kind of model, for example Wan2.1.
pub trait Family: Send + Sync {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// Finds the files of a model. Nothing large is read.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`] if the folder holds no model of this family. Any other error says
    /// that it does, and what is wrong with the model.
    fn find(&self, folder: &Path) -> Result<Box<dyn ModelFolder>>;

    /// As [`Family::find`]; files that are named are taken whatever else the folder holds.
    ///
    /// # Errors
    /// As [`Family::find`]. A family whose files cannot be named refuses them.
    fn find_named(&self, folder: &Path, named: &NamedFiles) -> Result<Box<dyn ModelFolder>> {
        if named.is_empty() {
            return self.find(folder);
        }
        let problem = format!("files of {} cannot be named one by one", self.name());
        Err(ModelError::NotAModel { path: folder.into(), problem })
    }
}

/// The files of a model. Parts may be missing: [`ModelFolder::summary`] names them,
/// [`ModelFolder::open`] fails then.
pub trait ModelFolder {
    /// The settings of a clip that suit the model.
    fn defaults(&self) -> ClipSettings;

    /// What not to show if the user does not say.
    fn default_negative(&self) -> Condition {
        Condition::default()
    }

    /// Refuses a condition that the model cannot take, for example a prompt that is too long.
    ///
    /// # Errors
    /// [`ModelError::Request`].
    fn check_condition(&self, condition: &Condition) -> Result<()>;

    /// What the model is, for people and for scripts.
    fn summary(&self) -> Summary;

    /// Opens all parts: configurations are read, weights are mapped.
    ///
    /// # Errors
    /// A part is missing or damaged.
    fn open(&self) -> Result<Box<dyn Model>>;
}

/// What a model's folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// A table with one line for each part, then everything that is wrong.
    pub text: String,
    /// The same as JSON.
    pub json: String,
    /// What keeps the model from running, a line each. Empty for a model that can run.
    pub problems: Vec<String>,
}

/// What a clip is to show, or not to show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Condition {
    /// A prompt.
    Text(String),
    /// A class of a model that was trained on classes.
    Label(u32),
}

impl Condition {
    /// The text of a prompt.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Label(_) => None,
        }
    }
}

impl Default for Condition {
    /// The empty prompt.
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<&str> for Condition {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Condition {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Label(label) => f.pad(&format!("class {label}")),
        }
    }
}

/// Sizes that follow from a clip's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Extents of the latents: channels, frames, height, width.
    pub latent_shape: [usize; 4],
    /// Tokens along frames, height, width.
    pub token_grid: [usize; 3],
}

impl Geometry {
    /// Number of tokens of the video.
    pub fn tokens(&self) -> usize {
        self.token_grid.iter().product()
    }
}

/// Latents on the host, normalised as the transformer takes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    /// Channels, frames, height, width.
    pub shape: [usize; 4],
    /// Row-major.
    pub values: Vec<f32>,
}

/// How a model is sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerDefaults {
    /// The solver.
    pub scheduler: SchedulerChoice,
    /// The order of UniPC.
    pub solver_order: SolverOrder,
    /// Shift of the sigma schedule.
    pub flow_shift: f64,
}

/// FLOPs of one forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// All that is not in a block.
    pub outside: f64,
    /// Each block.
    pub blocks: Vec<f64>,
}

/// GPU memory in bytes, estimated from above, by phase. The phases follow one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Encoding conditions.
    pub encoding: u64,
    /// The transformer's weights.
    pub transformer: u64,
    /// The transformer's activations.
    pub activations: u64,
    /// The delta of one run of blocks in one branch.
    pub delta: u64,
    /// Decoding, the decoder's weights included.
    pub decoding: u64,
}

impl Memory {
    /// The most that a job takes, without stored deltas; `measured` deltas are kept for measuring.
    pub fn peak(&self, measured: usize) -> u64 {
        let denoising = self.transformer + self.activations + measured as u64 * self.delta;
        self.encoding.max(denoising).max(self.decoding)
    }
}

/// An encoded condition on the host. Clones share memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// What the encoder gave.
    pub values: Arc<[f32]>,
    /// Rows that the video's tokens can attend to.
    pub rows: usize,
}

/// An opened model: configurations, and weights that are mapped but not read.
pub trait Model {
    /// Fingerprint of the transformer's weights.
    fn id(&self) -> String;

    /// Identities that earlier versions of this program gave to the transformer's weights. Captures
    /// and profiles of that time hold them.
    fn former_ids(&self) -> Vec<String> {
        Vec::new()
    }

    /// Fingerprint of the decoder's weights.
    fn decoder_id(&self) -> String;

    /// What the user should know before a run, a line each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the user should know about a condition, for example that it is cut.
    ///
    /// # Errors
    /// A condition that the model cannot take.
    fn condition_warning(&self, _condition: &Condition) -> Result<Option<String>> {
        Ok(None)
    }

    /// Refuses a run whose request leaves open what the model's files do not say: the scheduler or
    /// the shift.
    ///
    /// # Errors
    /// [`ModelError::NotAModel`].
    fn check_sampler(&self, _scheduler_given: bool, _shift_given: bool) -> Result<()> {
        Ok(())
    }

    /// Names the encoder: equal for two models whose encoders give the same features.
    fn encoder_key(&self) -> String;

    /// Names the transformer: equal for two models whose loaded transformers are interchangeable.
    fn transformer_key(&self) -> String;

    /// Number of blocks of the transformer.
    fn blocks(&self) -> usize;

    /// How the model is sampled.
    fn sampler(&self) -> SamplerDefaults;

    /// The sizes of a clip.
    ///
    /// # Errors
    /// [`ModelError::Request`], with the nearest possible sizes, where the model cannot make such a
    /// clip.
    fn geometry(&self, clip: &ClipSettings) -> Result<Geometry>;

    /// Work of one forward pass for a condition of so many rows.
    fn costs(&self, geometry: &Geometry, condition_rows: usize) -> Costs;

    /// GPU memory of a job.
    fn memory(&self, clip: &ClipSettings, geometry: &Geometry) -> Memory;

    /// Rows of a condition, estimated without encoding it.
    fn estimated_rows(&self, condition: &Condition) -> usize;

    /// TeaCache's published polynomial for this model, highest power first: for the time projection
    /// (`ret_steps`) or the time embedding as the signal. `None` for models without a published
    /// calibration.
    fn published_tea_coefficients(&self, _ret_steps: bool) -> Option<[f64; 5]> {
        None
    }

    /// Encodes conditions, in their order.
    ///
    /// # Errors
    /// A condition that the model cannot take, or what the GPU reports.
    fn encode(&self, cx: &mut Stream, conditions: &[&Condition]) -> Result<Vec<Features>>;

    /// Rows of the condition's features that name the subject of the clip; empty where none is
    /// known.
    ///
    /// # Errors
    /// A condition that the model cannot take.
    fn subject_rows(&self, _condition: &Condition) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    /// Uploads the transformer's weights.
    ///
    /// # Errors
    /// A missing tensor, or what the GPU reports.
    fn load_transformer(&self, gpu: &Gpu) -> Result<Arc<dyn Transformer>>;

    /// Uploads the decoder's weights.
    ///
    /// # Errors
    /// As [`Model::load_transformer`].
    fn load_decoder(&self, gpu: &Gpu) -> Result<Box<dyn Decoder>>;
}

/// A transformer on the GPU.
pub trait Transformer: Send + Sync {
    /// Prepares what all steps of a clip share: conditions, timesteps, positions.
    ///
    /// # Errors
    /// Sizes that do not fit, or what the GPU reports.
    fn begin_run<'a>(&'a self, cx: &mut Stream, setup: &RunSetup) -> Result<Box<dyn Run + 'a>>;
}

/// What a clip is made from.
#[derive(Clone, Copy, Debug)]
pub struct RunSetup<'a> {
    /// Sizes.
    pub geometry: &'a Geometry,
    /// Timesteps in 0 to 1000, one a step.
    pub timesteps: &'a [f32],
    /// The condition of each branch: what to show, then, with guidance, what not to show.
    pub conditions: &'a [&'a Features],
}

/// One forward pass on its way through the blocks.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The branch: an index into [`RunSetup::conditions`].
    pub branch: usize,
    /// The residual stream `[rows, width]`, changed in place by every block. It may hold more rows
    /// than the video's tokens, for example those of the condition.
    pub state: Tensor,
}

/// A transformer at work on one clip.
pub trait Run {
    /// What TeaCache watches, a row for each step: the time embedding, or its projection. Empty for
    /// a model that has no such signal.
    ///
    /// # Errors
    /// What the GPU reports.
    fn signals(&self, _cx: &mut Stream, _projected: bool) -> Result<Vec<Vec<f32>>> {
        Ok(Vec::new())
    }

    /// Rows of a branch's condition that can be attended to.
    fn condition_rows(&self, branch: usize) -> usize;

    /// Starts a step with latents `[channels, frames, height, width]`, for all branches.
    ///
    /// # Errors
    /// Latents of another size, a step that does not exist, or what the GPU reports.
    fn start_step(&mut self, cx: &mut Stream, step: usize, latents: &[f32]) -> Result<()>;

    /// Begins a branch's pass of the started step.
    ///
    /// # Errors
    /// No step was started, or what the GPU reports.
    fn begin(&self, cx: &mut Stream, branch: usize) -> Result<Pass>;

    /// Runs some blocks. `watch` reads off their attention, which changes nothing in what they
    /// compute.
    ///
    /// # Errors
    /// What the GPU reports.
    fn run_blocks(
        &self,
        cx: &mut Stream,
        pass: &Pass,
        blocks: Range<usize>,
        watch: Option<&mut AttentionWatch>,
    ) -> Result<()>;

    /// The rows of the state that these blocks change: what a stored delta of them covers. Shares
    /// the state's memory.
    fn changed_by(&self, pass: &Pass, _blocks: Range<usize>) -> Tensor {
        pass.state.clone()
    }

    /// The rows of the state that are the video's tokens: what is measured. Shares the state's
    /// memory.
    fn video_rows(&self, pass: &Pass) -> Tensor {
        pass.state.clone()
    }

    /// The velocity of a pass, as the model leaves it on the GPU. [`Run::velocity`] puts it in
    /// order.
    ///
    /// # Errors
    /// What the GPU reports.
    fn finish(&self, cx: &mut Stream, pass: &Pass) -> Result<Tensor>;

    /// Frees what only the started step needs.
    fn end_step(&mut self) {}

    /// A velocity `[channels, frames, height, width]` from the values of [`Run::finish`].
    ///
    /// # Errors
    /// Another number of values.
    fn velocity(&self, values: &[f32]) -> Result<Vec<f32>>;
}

/// From latents to frames.
pub trait Decoder {
    /// Whether whole frames can be decoded: no binding exceeds the device's limits, and no more
    /// than `memory` bytes are taken.
    fn fits(&self, caps: &Caps, memory: u64, clip: &ClipSettings) -> bool;

    /// Frames as RGB values in [-1, 1], `height * width * 3` each; `tiled`: tile by tile, in less
    /// memory. A value that is not finite stays so, or becomes NaN: the engine refuses it.
    ///
    /// # Errors
    /// Latents that do not fit, or what the GPU reports.
    fn decode(&self, cx: &mut Stream, latents: &Latents, tiled: bool) -> Result<Vec<Vec<f32>>>;
}

/// What to read off the attention of the blocks of one pass, and what was read. Clones share
/// memory.
#[derive(Clone, Debug)]
pub struct AttentionWatch {
    /// The queries that count for what a token receives; `None` for all.
    pub queries: Option<Rows>,
    /// Rows of the condition whose share of the attention is wanted.
    pub paid_to: Option<Rows>,
    /// Attention received by each token of the video from the video's tokens, `[tokens]`, by block.
    pub received: Vec<(usize, Tensor)>,
    /// Attention that each token of the video pays to `paid_to`, `[tokens]`, by block.
    pub paid: Vec<(usize, Tensor)>,
}

impl AttentionWatch {
    /// A watch that has seen nothing.
    pub fn new(queries: Option<Rows>, paid_to: Option<Rows>) -> Self {
        Self { queries, paid_to, received: Vec::new(), paid: Vec::new() }
    }
}
