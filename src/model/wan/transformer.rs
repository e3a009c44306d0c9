//! WanTransformer3DModel: from noisy latents, a timestep and a text to a velocity. diffusers' names
//! and order of operations.

use std::cell::OnceCell;
use std::ops::Range;

use crate::gpu::{ElementType, Gpu, Stream, Tensor};
use crate::model::ModelError;
use crate::model::family::AttentionWatch;
use crate::ops::{
    Activation, Attention, AttentionBias, HeadsNorm, HeadsPart, LayerNormThen, RopeTable, Then, Weight, add_rows,
    attention, attention_paid, attention_received, layer_norm, mark, matmul, project_heads, row_parts, silu,
};
use crate::weights::Checkpoint;

use super::config::TransformerConfig;
use super::load::Loader;
use super::patches::Patches;
use super::tokenizer::MAX_SEQUENCE_LENGTH;

/// Rows of a block's modulation table, in the order that the model stores them.
mod row {
    pub const SHIFT_SELF: usize = 0;
    pub const SCALE_SELF: usize = 1;
    pub const GATE_SELF: usize = 2;
    pub const SHIFT_FFN: usize = 3;
    pub const SCALE_FFN: usize = 4;
    pub const GATE_FFN: usize = 5;
    pub const COUNT: usize = 6;
}

/// The model on a GPU.
#[derive(Debug)]
pub struct WanTransformer {
    config: TransformerConfig,
    patch_embedding: Weight,
    time_embedder: [Weight; 2],
    time_proj: Weight,
    text_embedder: [Weight; 2],
    blocks: Vec<Block>,
    /// Modulation tables of all blocks, `[blocks, 6, dim]`.
    tables: Tensor,
    /// Modulation table of the head, `[2, dim]`: shift, scale.
    head_table: Tensor,
    proj_out: Weight,
}

#[derive(Debug)]
struct Block {
    self_qkv: Weight,
    self_norms: [Tensor; 2],
    self_out: Weight,
    cross_norm: Option<[Tensor; 2]>,
    cross_q: Weight,
    cross_kv: Weight,
    cross_norms: [Tensor; 2],
    cross_out: Weight,
    ffn: [Weight; 2],
}

impl Block {
    fn load(loader: &Loader, index: usize, cross_attn_norm: bool) -> Result<Self, ModelError> {
        let name = |part: &str| format!("blocks.{index}.{part}");
        let linear = |part: &str| loader.linear(&name(part));
        let linears = |parts: &[&str]| loader.linears(&parts.iter().map(|part| name(part)).collect::<Vec<_>>());
        let pair = |a: &str, b: &str| Ok::<_, ModelError>([loader.vector(&name(a))?, loader.vector(&name(b))?]);
        Ok(Self {
            self_qkv: linears(&["attn1.to_q", "attn1.to_k", "attn1.to_v"])?,
            self_norms: pair("attn1.norm_q.weight", "attn1.norm_k.weight")?,
            self_out: linear("attn1.to_out.0")?,
            cross_norm: cross_attn_norm.then(|| pair("norm2.weight", "norm2.bias")).transpose()?,
            cross_q: linear("attn2.to_q")?,
            cross_kv: linears(&["attn2.to_k", "attn2.to_v"])?,
            cross_norms: pair("attn2.norm_q.weight", "attn2.norm_k.weight")?,
            cross_out: linear("attn2.to_out.0")?,
            ffn: [linear("ffn.net.0.proj")?, linear("ffn.net.2")?],
        })
    }
}

/// What a prompt contributes, the same for every step: the keys and values of every block's
/// cross-attention. Clones share memory.
#[derive(Clone, Debug)]
pub struct TextContext {
    /// Keys `[heads, head_dim, n4]` and values `[heads, n, head_dim]` of each block.
    keys_values: Vec<(Tensor, Tensor)>,
    /// Bias of each key.
    bias: Tensor,
    rows: usize,
}

/// What the timesteps contribute, the same for every prompt and clip. Clones share memory.
#[derive(Clone, Debug)]
pub struct TimeEmbeddings {
    /// Of every step, `[steps, dim]`.
    embedded: Tensor,
    /// Their projections, `[steps, 6, dim]`.
    projected: Tensor,
    /// Modulations of the head in every step, `[steps * 2, dim]`.
    heads: Tensor,
}

/// What the passes of one step have in common, whatever their prompt.
#[derive(Debug)]
pub struct Start {
    /// The embedded latents `[tokens, dim]`.
    x: Tensor,
    /// Modulations of all blocks, `[blocks * 6, dim]`: made when the first block runs, for a step
    /// may skip them all.
    modulations: OnceCell<Tensor>,
    times: TimeEmbeddings,
    step: usize,
}

/// One forward pass on its way through the blocks.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The prompt.
    pub context: &'a TextContext,
    /// Positions of the tokens.
    pub rope: &'a RopeTable,
    /// The step.
    pub start: &'a Start,
    /// The residual stream `[tokens, dim]`, changed in place by every block.
    pub x: &'a Tensor,
}

impl TextContext {
    /// Rows that can be attended to: the prompt's tokens, and one for all padding.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

impl TimeEmbeddings {
    /// How many steps they are of.
    pub fn steps(&self) -> usize {
        self.embedded.rows()
    }

    /// What TeaCache watches, of every step: the time embedding, `dim` values each, or its
    /// projection, `6 dim` values each.
    ///
    /// # Errors
    /// What the GPU reports.
    pub fn signals(&self, cx: &mut Stream, projected: bool) -> Result<Vec<Vec<f32>>, ModelError> {
        let signals = if projected { &self.projected } else { &self.embedded };
        let width = signals.len() / self.steps().max(1);
        Ok(cx.read(signals)?.chunks(width.max(1)).map(<[f32]>::to_vec).collect())
    }
}

/// One block of a pass.
struct BlockCall<'a> {
    index: usize,
    pass: &'a Pass<'a>,
    /// Modulations of all blocks, `[blocks * 6, dim]`.
    modulations: &'a Tensor,
}

impl WanTransformer {
    /// Uploads the weights; 16-bit ones stay 16-bit.
    ///
    /// # Errors
    /// A missing tensor, or what the GPU reports (out of memory, for instance).
    pub fn load(gpu: &Gpu, config: &TransformerConfig, checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let loader = Loader { gpu, checkpoint };
        let dim = config.dim();
        let embedder = |name: &str| {
            let linear = |i: usize| loader.linear(&format!("condition_embedder.{name}.linear_{i}"));
            Ok::<_, ModelError>([linear(1)?, linear(2)?])
        };
        let mut tables = Vec::with_capacity(config.num_layers * row::COUNT * dim);
        for index in 0..config.num_layers {
            tables.extend(loader.values(&format!("blocks.{index}.scale_shift_table"))?);
        }
        let tables = crate::ops::vector(gpu, "scale_shift_tables", &tables, tables.len())?;
        Ok(Self {
            patch_embedding: loader.linear("patch_embedding")?,
            time_embedder: embedder("time_embedder")?,
            time_proj: loader.linear("condition_embedder.time_proj")?,
            text_embedder: embedder("text_embedder")?,
            blocks: (0..config.num_layers)
                .map(|index| Block::load(&loader, index, config.cross_attn_norm))
                .collect::<Result<_, _>>()?,
            tables: tables.reshape(&[config.num_layers, row::COUNT, dim]),
            head_table: loader.vector("scale_shift_table")?.reshape(&[2, dim]),
            proj_out: loader.linear("proj_out")?,
            config: config.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Prepares a prompt: `text` is the text encoder's output `[n, text_dim]`, the `n` valid rows
    /// only.
    ///
    /// The model attends to 512 rows, of which `512 - n` are zero and so have one and the same key
    /// and value: one row stands for all of them, with ln(512 - n) added to its score.
    pub fn prepare_text(&self, cx: &mut Stream, text: &[f32]) -> Result<TextContext, ModelError> {
        let width = self.config.text_dim;
        let valid = text.len() / width;
        let pads = MAX_SEQUENCE_LENGTH.saturating_sub(valid);
        let rows = valid + usize::from(pads > 0);
        let padded_width = width.next_multiple_of(4);
        let mut padded = vec![0.0; rows * padded_width];
        for (to, from) in padded.chunks_exact_mut(padded_width).zip(text.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
        let mut bias = vec![0.0; rows.next_multiple_of(4)];
        if pads > 0 {
            bias[valid] = (pads as f32).ln();
        }
        let text = cx.upload("text", &padded, &[rows, padded_width])?;
        let hidden = matmul(cx, &text, &self.text_embedder[0], Activation::Gelu, Then::Store)?;
        let embedded = matmul(cx, &hidden, &self.text_embedder[1], Activation::None, Then::Store)?;
        mark(cx, || "the text embedding".into(), &embedded)?;
        let mut keys_values = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let keys = HeadsPart { transposed: true, ..self.normed(&block.cross_norms[1]) };
            let parts = [keys, HeadsPart::default()];
            let heads = project_heads(cx, &embedded, &block.cross_kv, self.config.num_attention_heads, &parts)?;
            let mut heads = heads.into_iter();
            keys_values.extend(heads.next().zip(heads.next()));
        }
        let bias = cx.upload("pad bias", &bias, &[bias.len()])?;
        Ok(TextContext { keys_values, bias, rows })
    }

    /// Position tables of the tokens.
    pub fn rope(&self, cx: &mut Stream, patches: &Patches) -> Result<RopeTable, ModelError> {
        Ok(RopeTable::new(cx, patches.grid(), self.config.attention_head_dim)?)
    }

    /// Embeds timesteps in 0..=1000, one of each step.
    ///
    /// # Errors
    /// What the GPU reports.
    pub fn prepare_times(&self, cx: &mut Stream, timesteps: &[f32]) -> Result<TimeEmbeddings, ModelError> {
        let steps = timesteps.len();
        let sinusoids: Vec<f32> = timesteps.iter().flat_map(|t| timestep_embedding(*t, self.config.freq_dim)).collect();
        let sinusoids = cx.upload("timesteps", &sinusoids, &[steps, sinusoids.len() / steps.max(1)])?;
        let hidden = matmul(cx, &sinusoids, &self.time_embedder[0], Activation::Silu, Then::Store)?;
        let embedded = matmul(cx, &hidden, &self.time_embedder[1], Activation::None, Then::Store)?;
        let activated = silu(cx, &embedded)?;
        let projected = matmul(cx, &activated, &self.time_proj, Activation::None, Then::Store)?;
        mark(cx, || "the time embedding".into(), &projected)?;
        let dim = self.config.dim();
        let heads = add_rows(cx, &self.head_table, &embedded, 0..steps)?.reshape(&[steps * 2, dim]);
        Ok(TimeEmbeddings { embedded, projected: projected.reshape(&[steps, row::COUNT, dim]), heads })
    }

    /// Embeds latents `[in_channels, frames, height, width]` at a step.
    ///
    /// # Errors
    /// Latents of another size, a step that `times` has not, or what the GPU reports.
    pub fn start(
        &self,
        cx: &mut Stream,
        latents: &[f32],
        patches: &Patches,
        times: &TimeEmbeddings,
        step: usize,
    ) -> Result<Start, ModelError> {
        if step >= times.steps() {
            let message = format!("step {step} of {}", times.steps());
            return Err(crate::gpu::GpuError::shape("transformer", message).into());
        }
        let rows = patches.rows_of(latents, self.config.in_channels)?;
        let rows = cx.upload("patches", &rows, &[patches.tokens(), rows.len() / patches.tokens()])?;
        let x = matmul(cx, &rows, &self.patch_embedding, Activation::None, Then::Store)?;
        mark(cx, || "the patch embedding".into(), &x)?;
        Ok(Start { x, modulations: OnceCell::new(), times: times.clone(), step })
    }

    /// A residual stream `[tokens, dim]` for one pass of the step.
    ///
    /// # Errors
    /// What the GPU reports.
    pub fn begin(&self, cx: &mut Stream, start: &Start) -> Result<Tensor, ModelError> {
        Ok(cx.copy_of(&start.x)?)
    }

    /// Runs some blocks. `watch` reads off their attention, which changes nothing in what they
    /// compute.
    ///
    /// # Errors
    /// What the GPU reports.
    pub fn run_blocks(
        &self,
        cx: &mut Stream,
        pass: &Pass,
        blocks: Range<usize>,
        mut watch: Option<&mut AttentionWatch>,
    ) -> Result<(), ModelError> {
        let modulations = self.modulations(cx, pass.start)?;
        for index in blocks {
            let call = BlockCall { index, pass, modulations };
            self.self_attention(cx, &call, watch.as_deref_mut())?;
            mark(cx, || format!("block {index}, self-attention"), pass.x)?;
            self.cross_attention(cx, &call, watch.as_deref_mut())?;
            mark(cx, || format!("block {index}, cross-attention"), pass.x)?;
            self.feed_forward(cx, &call)?;
            mark(cx, || format!("block {index}, feed-forward"), pass.x)?;
        }
        Ok(())
    }

    /// The velocity of hidden states `[tokens, dim]` that have passed the blocks, a patch a row:
    /// what [`Self::velocity`] puts in order.
    ///
    /// # Errors
    /// What the GPU reports.
    pub fn finish(&self, cx: &mut Stream, start: &Start, hidden_states: &Tensor) -> Result<Tensor, ModelError> {
        let shift = 2 * start.step;
        let modulated = LayerNormThen::Modulate { rows: &start.times.heads, shift, scale: shift + 1 };
        let normed = layer_norm(cx, hidden_states, self.config.eps, modulated)?;
        let velocity = matmul(cx, &normed, &self.proj_out, Activation::None, Then::Store)?;
        mark(cx, || "the output projection".into(), &velocity)?;
        Ok(velocity)
    }

    /// A velocity `[out_channels, frames, height, width]` from the rows of [`Self::finish`].
    ///
    /// # Errors
    /// Another number of values.
    pub fn velocity(&self, patches: &Patches, rows: &[f32]) -> Result<Vec<f32>, ModelError> {
        Ok(patches.latents_of(rows, self.config.out_channels)?)
    }

    /// A whole pass: the velocity for latents `[in_channels, frames, height, width]` at a timestep.
    ///
    /// # Errors
    /// Those of [`Self::start`], [`Self::run_blocks`] and [`Self::finish`].
    pub fn forward(
        &self,
        cx: &mut Stream,
        latents: &[f32],
        patches: &Patches,
        timestep: f32,
        context: &TextContext,
        rope: &RopeTable,
    ) -> Result<Vec<f32>, ModelError> {
        let times = self.prepare_times(cx, &[timestep])?;
        let start = self.start(cx, latents, patches, &times, 0)?;
        let x = self.begin(cx, &start)?;
        let pass = Pass { context, rope, start: &start, x: &x };
        self.run_blocks(cx, &pass, 0..self.blocks.len(), None)?;
        let rows = self.finish(cx, &start, &x)?;
        self.velocity(patches, &cx.read(&rows)?)
    }

    fn modulations<'a>(&self, cx: &mut Stream, start: &'a Start) -> Result<&'a Tensor, ModelError> {
        if let Some(modulations) = start.modulations.get() {
            return Ok(modulations);
        }
        let modulations = add_rows(cx, &self.tables, &start.times.projected, start.step..start.step + 1)?;
        Ok(start.modulations.get_or_init(|| modulations.reshape(&[modulations.rows(), self.config.dim()])))
    }

    fn self_attention(
        &self,
        cx: &mut Stream,
        &BlockCall { index, pass, modulations }: &BlockCall,
        watch: Option<&mut AttentionWatch>,
    ) -> Result<(), ModelError> {
        let (block, x) = (&self.blocks[index], pass.x);
        let first = index * row::COUNT;
        let modulated = LayerNormThen::Modulate {
            rows: modulations,
            shift: first + row::SHIFT_SELF,
            scale: first + row::SCALE_SELF,
        };
        let normed = layer_norm(cx, x, self.config.eps, modulated)?;
        let queries = HeadsPart { rope: Some(pass.rope), ..self.normed(&block.self_norms[0]) };
        let keys = HeadsPart { rope: Some(pass.rope), transposed: true, ..self.normed(&block.self_norms[1]) };
        let parts = [queries, keys, HeadsPart::default()];
        let heads = project_heads(cx, &normed, &block.self_qkv, self.config.num_attention_heads, &parts)?;
        drop(normed);
        // Left behind whether anybody watches or not: one kernel for both, so that watching cannot
        // change a bit.
        let log_sum = cx.empty("log-sum", &heads[0].shape()[..2], ElementType::F32)?;
        let [q, k, v] = [0, 1, 2].map(|part| &heads[part]);
        let call = Attention { q, k, v, scale: self.scale(), bias: None, log_sum: Some(&log_sum) };
        let attended = attention(cx, &call)?;
        if let Some(watch) = watch {
            watch.received.push((index, attention_received(cx, &call, watch.queries.as_ref())?));
        }
        let gated = Then::AddGated { residual: x, gates: modulations, row: first + row::GATE_SELF };
        matmul(cx, &attended, &block.self_out, Activation::None, gated)?;
        Ok(())
    }

    fn cross_attention(
        &self,
        cx: &mut Stream,
        &BlockCall { index, pass, .. }: &BlockCall,
        watch: Option<&mut AttentionWatch>,
    ) -> Result<(), ModelError> {
        let (block, x) = (&self.blocks[index], pass.x);
        let normed = match &block.cross_norm {
            Some([weight, bias]) => layer_norm(cx, x, self.config.eps, LayerNormThen::Affine { weight, bias })?,
            None => x.clone(),
        };
        let queries = self.normed(&block.cross_norms[0]);
        let heads = project_heads(cx, &normed, &block.cross_q, self.config.num_attention_heads, &[queries])?;
        drop(normed);
        let (q, (k, v)) = (&heads[0], &pass.context.keys_values[index]);
        let bias = AttentionBias { tensor: &pass.context.bias, head_stride: 0, query_stride: 0, offset: 0 };
        let log_sum = cx.empty("log-sum", &q.shape()[..2], ElementType::F32)?;
        let call = Attention { q, k, v, scale: self.scale(), bias: Some(bias), log_sum: Some(&log_sum) };
        let attended = attention(cx, &call)?;
        if let Some(AttentionWatch { paid_to: Some(words), paid, .. }) = watch {
            paid.push((index, attention_paid(cx, &call, words)?));
        }
        matmul(cx, &attended, &block.cross_out, Activation::None, Then::AddTo(x))?;
        Ok(())
    }

    fn feed_forward(
        &self,
        cx: &mut Stream,
        &BlockCall { index, pass, modulations }: &BlockCall,
    ) -> Result<(), ModelError> {
        let ([up, down], x) = (&self.blocks[index].ffn, pass.x);
        let first = index * row::COUNT;
        let modulated =
            LayerNormThen::Modulate { rows: modulations, shift: first + row::SHIFT_FFN, scale: first + row::SCALE_FFN };
        // Rows by rows: the hidden layer of a whole video would be the largest tensor of all.
        for rows in row_parts(cx.gpu(), x.rows(), up.n()) {
            let x = x.slice(rows.start, rows.len());
            let normed = layer_norm(cx, &x, self.config.eps, modulated)?;
            let hidden = matmul(cx, &normed, up, Activation::Gelu, Then::Store)?;
            let gated = Then::AddGated { residual: &x, gates: modulations, row: first + row::GATE_FFN };
            matmul(cx, &hidden, down, Activation::None, gated)?;
        }
        Ok(())
    }

    fn normed<'a>(&self, weight: &'a Tensor) -> HeadsPart<'a> {
        HeadsPart { norm: Some(HeadsNorm { weight, epsilon: self.config.eps }), ..Default::default() }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.config.attention_head_dim as f32).sqrt()
    }
}

/// The sinusoidal embedding of a timestep: `cos(t w_k)` for all k, then `sin(t w_k)`, with `w_k =
/// 10000^(-k / half)`; padded to a multiple of 4.
fn timestep_embedding(timestep: f32, dim: usize) -> Vec<f32> {
    let half = dim / 2;
    let angle = |k: usize| f64::from(timestep) * 10_000f64.powf(-(k as f64) / half as f64);
    let mut values: Vec<f32> = (0..half).map(|k| angle(k).cos() as f32).collect();
    values.extend((0..half).map(|k| angle(k).sin() as f32));
    values.resize(dim.next_multiple_of(4), 0.0);
    values
}
