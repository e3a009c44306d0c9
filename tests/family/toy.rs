//! A tiny family of models that has nothing in common with Wan2.1: a class label in place of a
//! prompt, a joint sequence of condition and video, and two kinds of blocks. Double blocks change
//! both parts of the sequence and cost more. Single blocks change the video alone, so their deltas
//! cover a part of the sequence.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ditscope::gpu::{Caps, ElementType, Gpu, GpuError, Stream, Tensor};
use ditscope::model::ModelError;
use ditscope::model::family::{
    AttentionWatch, Condition, Costs, Decoder, Family, Features, Geometry, Latents, Memory, Model, ModelFolder, Pass,
    Run, RunSetup, SamplerDefaults, Summary, Transformer,
};
use ditscope::ops::{
    self, Activation, Attention, HeadsPart, HostWeight, LayerNormThen, Then, Weight, attention_paid, attention_received,
};
use ditscope::sampling::{ClipSettings, SchedulerChoice, SolverOrder};

type Result<T> = std::result::Result<T, ModelError>;

/// Width of the residual stream.
pub const DIM: usize = 64;
const HEADS: usize = 2;
/// Rows of the sequence that hold the condition, before the video's rows.
pub const CONDITION_ROWS: usize = 4;
/// Blocks: double blocks first.
pub const DOUBLE: usize = 2;
pub const BLOCKS: usize = 5;
const CHANNELS: usize = 4;
/// Pixels of a latent cell's side.
const SPACE: usize = 4;
/// Cells of a patch's side.
const PATCH: usize = 2;
const ROW: usize = CHANNELS * PATCH * PATCH;
/// Highest class. The class after it stands for no class.
pub const CLASSES: u32 = 10;

/// The family. Its models are folders with a file `toy.json`.
pub struct Toy;

impl Family for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn find(&self, folder: &Path) -> Result<Box<dyn ModelFolder>> {
        if folder.join("toy.json").is_file() {
            return Ok(Box::new(ToyModel));
        }
        Err(ModelError::NotAModel { path: folder.into(), problem: "there is no toy.json".into() })
    }
}

/// A model. Its weights are pseudo-random.
struct ToyModel;

impl ModelFolder for ToyModel {
    fn defaults(&self) -> ClipSettings {
        let mut clip = ClipSettings::default();
        (clip.width, clip.height, clip.num_frames, clip.fps) = (32, 32, 3, 4);
        (clip.num_inference_steps, clip.guidance_scale) = (6, 2.0);
        clip
    }

    fn check_condition(&self, condition: &Condition) -> Result<()> {
        label(condition).map(|_| ())
    }

    fn summary(&self) -> Summary {
        Summary { text: "a toy".into(), json: "{}".into(), problems: Vec::new() }
    }

    fn open(&self) -> Result<Box<dyn Model>> {
        Ok(Box::new(Self))
    }
}

/// The class of a condition. The empty prompt is no class.
fn label(condition: &Condition) -> Result<u32> {
    match condition {
        Condition::Label(label) if *label < CLASSES => Ok(*label),
        Condition::Text(text) if text.is_empty() => Ok(CLASSES),
        other => Err(ModelError::Request(format!("{other}: choose a class below {CLASSES}"))),
    }
}

impl Model for ToyModel {
    fn id(&self) -> String {
        "0123456789abcdef".into()
    }

    fn decoder_id(&self) -> String {
        "fedcba9876543210".into()
    }

    fn encoder_key(&self) -> String {
        "toy".into()
    }

    fn transformer_key(&self) -> String {
        "toy".into()
    }

    fn blocks(&self) -> usize {
        BLOCKS
    }

    fn sampler(&self) -> SamplerDefaults {
        SamplerDefaults { scheduler: SchedulerChoice::Euler, solver_order: SolverOrder::Two, flow_shift: 2.0 }
    }

    fn geometry(&self, clip: &ClipSettings) -> Result<Geometry> {
        let unit = SPACE * PATCH;
        let fits = |side: usize| side > 0 && side.is_multiple_of(unit);
        if !fits(clip.width) || !fits(clip.height) || clip.num_frames == 0 {
            return Err(ModelError::Request(format!("sides are multiples of {unit}")));
        }
        let [height, width] = [clip.height / SPACE, clip.width / SPACE];
        Ok(Geometry {
            latent_shape: [CHANNELS, clip.num_frames, height, width],
            token_grid: [clip.num_frames, height / PATCH, width / PATCH],
        })
    }

    fn costs(&self, geometry: &Geometry, condition_rows: usize) -> Costs {
        let (tokens, dim) = (geometry.tokens() as f64, DIM as f64);
        let single = 2.0 * tokens * (12.0 * dim * dim + 2.0 * dim * tokens);
        let double = single + 2.0 * (tokens + condition_rows as f64) * 12.0 * dim * dim;
        let blocks = (0..BLOCKS).map(|block| if block < DOUBLE { double } else { single }).collect();
        Costs { outside: 2.0 * tokens * dim * ROW as f64, blocks }
    }

    fn memory(&self, _clip: &ClipSettings, geometry: &Geometry) -> Memory {
        let delta = ((geometry.tokens() + CONDITION_ROWS) * DIM * 4) as u64;
        Memory { transformer: 1 << 20, activations: 20 * delta, delta, ..Memory::default() }
    }

    fn estimated_rows(&self, _condition: &Condition) -> usize {
        CONDITION_ROWS
    }

    fn encode(&self, _cx: &mut Stream, conditions: &[&Condition]) -> Result<Vec<Features>> {
        let encode = |condition: &&Condition| {
            let values = random(1000 + u64::from(label(condition)?), CONDITION_ROWS * DIM);
            Ok(Features { values: values.into(), rows: CONDITION_ROWS })
        };
        conditions.iter().map(encode).collect()
    }

    /// The first row names the subject.
    fn subject_rows(&self, _condition: &Condition) -> Result<Vec<u32>> {
        Ok(vec![0])
    }

    fn load_transformer(&self, gpu: &Gpu) -> Result<Arc<dyn Transformer>> {
        let block = |index: usize| ToyBlock::new(gpu, index as u64);
        Ok(Arc::new(ToyTransformer {
            blocks: (0..BLOCKS).map(block).collect::<Result<_>>()?,
            embedding: random(7, ROW * DIM),
            head: weight(gpu, 8, ROW, DIM)?,
        }))
    }

    fn load_decoder(&self, _gpu: &Gpu) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(ToyDecoder))
    }
}

/// Pseudo-random numbers in [-1, 1).
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn weight(gpu: &Gpu, seed: u64, outputs: usize, inputs: usize) -> Result<Weight> {
    let scale = 1.0 / (inputs as f32).sqrt();
    let values: Vec<f32> = random(seed, outputs * inputs).into_iter().map(|value| value * scale).collect();
    Ok(Weight::linear(gpu, "toy", &HostWeight::from_f32(&values), [outputs, inputs], None)?)
}

/// Attention of the video to itself; in double blocks also to the condition, which has a
/// feed-forward of its own.
struct ToyBlock {
    qkv: Weight,
    out: Weight,
    cross_q: Weight,
    cross_kv: Weight,
    feed_forward: [Weight; 2],
    condition: Weight,
}

impl ToyBlock {
    fn new(gpu: &Gpu, index: u64) -> Result<Self> {
        let weight = |part: u64, outputs: usize| weight(gpu, 100 * (index + 1) + part, outputs, DIM);
        Ok(Self {
            qkv: weight(0, 3 * DIM)?,
            out: weight(1, DIM)?,
            cross_q: weight(2, DIM)?,
            cross_kv: weight(3, 2 * DIM)?,
            feed_forward: [weight(4, DIM)?, weight(5, DIM)?],
            condition: weight(6, DIM)?,
        })
    }
}

struct ToyTransformer {
    blocks: Vec<ToyBlock>,
    /// `[row, dim]`, on the host.
    embedding: Vec<f32>,
    head: Weight,
}

impl Transformer for ToyTransformer {
    fn begin_run<'a>(&'a self, _cx: &mut Stream, setup: &RunSetup) -> Result<Box<dyn Run + 'a>> {
        Ok(Box::new(ToyRun {
            model: self,
            geometry: *setup.geometry,
            timesteps: setup.timesteps.to_vec(),
            conditions: setup.conditions.iter().map(|features| features.values.clone()).collect(),
            started: None,
        }))
    }
}

/// A step: its timestep, and the embedded video.
struct Started {
    timestep: f32,
    video: Vec<f32>,
}

struct ToyRun<'a> {
    model: &'a ToyTransformer,
    geometry: Geometry,
    timesteps: Vec<f32>,
    conditions: Vec<Arc<[f32]>>,
    started: Option<Started>,
}

impl ToyRun<'_> {
    /// Calls `visit` with every cell of the latents, its token, and its place in the token's row.
    fn for_each_cell(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [_, frames, height, width] = self.geometry.latent_shape;
        let [_, grid_height, grid_width] = self.geometry.token_grid;
        for cell in 0..CHANNELS * frames * height * width {
            let (x, y, rest) = (cell % width, cell / width % height, cell / width / height);
            let (frame, channel) = (rest % frames, rest / frames);
            let token = (frame * grid_height + y / PATCH) * grid_width + x / PATCH;
            visit(cell, token, (channel * PATCH + y % PATCH) * PATCH + x % PATCH);
        }
    }

    /// What a double block does beside a single block's work; gives its attention to the condition.
    fn double_block(&self, cx: &mut Stream, block: &ToyBlock, pass: &Pass) -> Result<(Tensor, Parts)> {
        let (condition, video) = (pass.state.slice(0, CONDITION_ROWS), self.video_rows(pass));
        let normed = ops::layer_norm(cx, &video, 1e-5, LayerNormThen::Store)?;
        let queries = ops::project_heads(cx, &normed, &block.cross_q, HEADS, &[HeadsPart::default()])?;
        let keys = HeadsPart { transposed: true, ..HeadsPart::default() };
        let heads = ops::project_heads(cx, &condition, &block.cross_kv, HEADS, &[keys, HeadsPart::default()])?;
        let parts = Parts { q: queries[0].clone(), k: heads[0].clone(), v: heads[1].clone() };
        let log_sum = cx.empty("log-sum", &parts.q.shape()[..2], ElementType::F32)?;
        let attended = ops::attention(cx, &parts.call(&log_sum))?;
        ops::matmul(cx, &attended, &block.out, Activation::None, Then::AddTo(&video))?;
        let normed = ops::layer_norm(cx, &condition, 1e-5, LayerNormThen::Store)?;
        ops::matmul(cx, &normed, &block.condition, Activation::Silu, Then::AddTo(&condition))?;
        Ok((log_sum, parts))
    }
}

/// Operands of an attention.
struct Parts {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Parts {
    fn call<'a>(&'a self, log_sum: &'a Tensor) -> Attention<'a> {
        let scale = 1.0 / ((DIM / HEADS) as f32).sqrt();
        Attention { q: &self.q, k: &self.k, v: &self.v, scale, bias: None, log_sum: Some(log_sum) }
    }
}

impl Run for ToyRun<'_> {
    fn condition_rows(&self, _branch: usize) -> usize {
        CONDITION_ROWS
    }

    fn start_step(&mut self, _cx: &mut Stream, step: usize, latents: &[f32]) -> Result<()> {
        let mut rows = vec![0.0; self.geometry.tokens() * ROW];
        self.for_each_cell(|cell, token, within| rows[token * ROW + within] = latents[cell]);
        let column = |row: &[f32], column: usize| -> f32 {
            row.iter().zip(self.model.embedding.iter().skip(column).step_by(DIM)).map(|(x, w)| x * w).sum()
        };
        let video = rows.chunks(ROW).flat_map(|row| (0..DIM).map(move |c| column(row, c))).collect();
        self.started = Some(Started { timestep: self.timesteps[step] / 1000.0, video });
        Ok(())
    }

    fn begin(&self, cx: &mut Stream, branch: usize) -> Result<Pass> {
        let no_step = || GpuError::shape("toy", "no step was started");
        let Started { timestep, video } = self.started.as_ref().ok_or_else(no_step)?;
        let condition = self.conditions[branch].iter().map(|value| value + timestep);
        let rows: Vec<f32> = condition.chain(video.iter().copied()).collect();
        let state = cx.upload("toy", &rows, &[rows.len() / DIM, DIM])?;
        Ok(Pass { branch, state })
    }

    fn run_blocks(
        &self,
        cx: &mut Stream,
        pass: &Pass,
        blocks: Range<usize>,
        mut watch: Option<&mut AttentionWatch>,
    ) -> Result<()> {
        let video = self.video_rows(pass);
        for index in blocks {
            let block = &self.model.blocks[index];
            let normed = ops::layer_norm(cx, &video, 1e-5, LayerNormThen::Store)?;
            let keys = HeadsPart { transposed: true, ..HeadsPart::default() };
            let parts = [HeadsPart::default(), keys, HeadsPart::default()];
            let heads = ops::project_heads(cx, &normed, &block.qkv, HEADS, &parts)?;
            let parts = Parts { q: heads[0].clone(), k: heads[1].clone(), v: heads[2].clone() };
            let log_sum = cx.empty("log-sum", &parts.q.shape()[..2], ElementType::F32)?;
            let attended = ops::attention(cx, &parts.call(&log_sum))?;
            if let Some(watch) = watch.as_deref_mut() {
                let received = attention_received(cx, &parts.call(&log_sum), watch.queries.as_ref())?;
                watch.received.push((index, received));
            }
            ops::matmul(cx, &attended, &block.out, Activation::None, Then::AddTo(&video))?;
            let double = index < DOUBLE;
            let cross = double.then(|| self.double_block(cx, block, pass)).transpose()?;
            if let (Some((log_sum, parts)), Some(AttentionWatch { paid_to: Some(words), paid, .. })) =
                (cross, watch.as_deref_mut())
            {
                paid.push((index, attention_paid(cx, &parts.call(&log_sum), words)?));
            }
            let normed = ops::layer_norm(cx, &video, 1e-5, LayerNormThen::Store)?;
            let hidden = ops::matmul(cx, &normed, &block.feed_forward[0], Activation::Gelu, Then::Store)?;
            ops::matmul(cx, &hidden, &block.feed_forward[1], Activation::None, Then::AddTo(&video))?;
        }
        Ok(())
    }

    fn changed_by(&self, pass: &Pass, blocks: Range<usize>) -> Tensor {
        if blocks.start < DOUBLE { pass.state.clone() } else { self.video_rows(pass) }
    }

    fn video_rows(&self, pass: &Pass) -> Tensor {
        pass.state.slice(CONDITION_ROWS, self.geometry.tokens())
    }

    fn finish(&self, cx: &mut Stream, pass: &Pass) -> Result<Tensor> {
        let normed = ops::layer_norm(cx, &self.video_rows(pass), 1e-5, LayerNormThen::Store)?;
        Ok(ops::matmul(cx, &normed, &self.model.head, Activation::None, Then::Store)?)
    }

    fn end_step(&mut self) {
        self.started = None;
    }

    fn velocity(&self, values: &[f32]) -> Result<Vec<f32>> {
        let mut latents = vec![0.0; self.geometry.latent_shape.iter().product()];
        self.for_each_cell(|cell, token, within| latents[cell] = values[token * ROW + within]);
        Ok(latents)
    }
}

/// The first three channels as colours, each cell a square.
struct ToyDecoder;

impl Decoder for ToyDecoder {
    fn fits(&self, _caps: &Caps, _memory: u64, _clip: &ClipSettings) -> bool {
        true
    }

    fn decode(&self, _cx: &mut Stream, latents: &Latents, _tiled: bool) -> Result<Vec<Vec<f32>>> {
        let [_, frames, height, width] = latents.shape;
        let value = |channel: usize, frame: usize, y: usize, x: usize| {
            latents.values[((channel * frames + frame) * height + y / SPACE) * width + x / SPACE].tanh()
        };
        let pixels = |frame: usize| {
            let places = (0..height * SPACE).flat_map(|y| (0..width * SPACE).map(move |x| (y, x)));
            places.flat_map(|(y, x)| (0..3).map(move |channel| value(channel, frame, y, x))).collect()
        };
        Ok((0..frames).map(pixels).collect())
    }
}
