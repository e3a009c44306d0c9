//! UMT5EncoderModel: turns token ids into one row of features for each token. Names and the order
//! of operations are those of transformers.

use crate::gpu::{Stream, Tensor};
use crate::model::ModelError;
use crate::ops::{
    Activation, Attention, AttentionBias, HeadsPart, Then, Weight, attention, mark, matmul, project_heads, rms_norm,
};
use crate::weights::Checkpoint;

use super::config::TextEncoderConfig;
use super::load::Loader;

/// The encoder. Its weights stay in the mapped checkpoint, and only the embeddings of a prompt's
/// tokens are read.
///
/// A block is on the GPU only while it computes. All blocks of UMT5-XXL take 10 GB in 16 bits,
/// which is more than many GPUs have, and each is needed only for a fraction of a second.
#[derive(Debug)]
pub struct TextEncoder<'a> {
    config: TextEncoderConfig,
    checkpoint: &'a Checkpoint,
}

#[derive(Debug)]
struct Block {
    attention_norm: Tensor,
    qkv: Weight,
    out: Weight,
    /// Relative position biases `[buckets, heads]` on the CPU.
    bias_table: Vec<f32>,
    ffn_norm: Tensor,
    /// The weight whose output goes through GELU.
    wi_0: Weight,
    wi_1: Weight,
    wo: Weight,
}

impl Block {
    fn load(loader: &Loader, index: usize) -> Result<Self, ModelError> {
        let name = |part: &str| format!("encoder.block.{index}.layer.{part}");
        Ok(Self {
            attention_norm: loader.vector(&name("0.layer_norm.weight"))?,
            qkv: loader.linears(&["q", "k", "v"].map(|part| name(&format!("0.SelfAttention.{part}"))))?,
            out: loader.linear(&name("0.SelfAttention.o"))?,
            bias_table: loader.values(&name("0.SelfAttention.relative_attention_bias.weight"))?,
            ffn_norm: loader.vector(&name("1.layer_norm.weight"))?,
            wi_0: loader.linear(&name("1.DenseReluDense.wi_0"))?,
            wi_1: loader.linear(&name("1.DenseReluDense.wi_1"))?,
            wo: loader.linear(&name("1.DenseReluDense.wo"))?,
        })
    }
}

impl<'a> TextEncoder<'a> {
    /// The encoder of a checkpoint. Nothing is read yet.
    pub fn new(config: &TextEncoderConfig, checkpoint: &'a Checkpoint) -> Self {
        Self { config: config.clone(), checkpoint }
    }

    /// Features `[ids, d_model]` of each prompt, row-major. The ids are the valid tokens without
    /// padding. The model masks padding, so leaving it out does not change the result. 16-bit
    /// weights stay 16-bit.
    ///
    /// # Errors
    /// [`ModelError`] for a missing tensor, and for errors of the GPU such as a lack of memory.
    pub fn encode(&self, cx: &mut Stream, prompts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let gpu = cx.gpu().clone();
        let loader = Loader { gpu: &gpu, checkpoint: self.checkpoint };
        let (width, eps) = (self.config.d_model, self.config.layer_norm_epsilon);
        let padded = width.next_multiple_of(4);
        let embed = |ids: &&[u32]| Ok(cx.upload("embeddings", &self.embed(ids, padded)?, &[ids.len(), padded])?);
        let streams: Vec<Tensor> = prompts.iter().map(embed).collect::<Result<_, ModelError>>()?;
        for x in &streams {
            mark(cx, || "the token embeddings".into(), x)?;
        }
        for index in 0..self.config.num_layers {
            let block = Block::load(&loader, index)?;
            for x in &streams {
                self.attend(cx, &block, x)?;
                mark(cx, || format!("layer {index}, attention"), x)?;
                self.feed_forward(cx, &block, x)?;
                mark(cx, || format!("layer {index}, feed-forward"), x)?;
            }
            // The next block needs the memory.
            cx.finish()?;
            drop(block);
            gpu.release_free_memory();
        }
        let final_norm = loader.vector("encoder.final_layer_norm.weight")?;
        let normed = |x: &Tensor| rms_norm(cx, x, &final_norm, eps);
        let normed: Vec<Tensor> = streams.iter().map(normed).collect::<Result<_, _>>()?;
        for x in &normed {
            mark(cx, || "the last norm".into(), x)?;
        }
        let rows = cx.read_all(&normed.iter().collect::<Vec<_>>())?;
        let valid = |rows: Vec<f32>| rows.chunks_exact(padded).flat_map(|row| &row[..width]).copied().collect();
        Ok(rows.into_iter().map(valid).collect())
    }

    fn feed_forward(&self, cx: &mut Stream, block: &Block, x: &Tensor) -> Result<(), ModelError> {
        let normed = rms_norm(cx, x, &block.ffn_norm, self.config.layer_norm_epsilon)?;
        let gate = matmul(cx, &normed, &block.wi_0, Activation::Gelu, Then::Store)?;
        let hidden = matmul(cx, &normed, &block.wi_1, Activation::None, Then::Times(&gate))?;
        matmul(cx, &hidden, &block.wo, Activation::None, Then::AddTo(x))?;
        Ok(())
    }

    fn embed(&self, ids: &[u32], padded: usize) -> Result<Vec<f32>, ModelError> {
        let name = "shared.weight";
        let table = self.checkpoint.require(name, &[self.config.vocab_size, self.config.d_model])?;
        let mut values = Vec::with_capacity(ids.len() * padded);
        for (i, &id) in ids.iter().enumerate() {
            values.extend(table.rows_to_f32(id as usize..id as usize + 1)?);
            values.resize((i + 1) * padded, 0.0);
        }
        Ok(values)
    }

    fn attend(&self, cx: &mut Stream, block: &Block, x: &Tensor) -> Result<(), ModelError> {
        let tokens = x.rows();
        let normed = rms_norm(cx, x, &block.attention_norm, self.config.layer_norm_epsilon)?;
        let parts = [HeadsPart::default(), HeadsPart { transposed: true, ..Default::default() }, HeadsPart::default()];
        let heads = project_heads(cx, &normed, &block.qkv, self.config.num_heads, &parts)?;
        let span = 2 * tokens - 1;
        let biases = self.relative_biases(&block.bias_table, tokens);
        let biases = cx.upload("relative biases", &biases, &[biases.len()])?;
        let bias = AttentionBias { tensor: &biases, head_stride: span, query_stride: 1, offset: tokens - 1 };
        // T5 does not scale its attention scores.
        let call = Attention { q: &heads[0], k: &heads[1], v: &heads[2], scale: 1.0, bias: Some(bias), log_sum: None };
        let attended = attention(cx, &call)?;
        matmul(cx, &attended, &block.out, Activation::None, Then::AddTo(x))?;
        Ok(())
    }

    /// Biases by head and distance, `[heads, 2 tokens - 1]`. The distance `key - query` starts at
    /// `1 - tokens`. The values are padded to a multiple of 4.
    fn relative_biases(&self, table: &[f32], tokens: usize) -> Vec<f32> {
        let heads = self.config.num_heads;
        let last = tokens as i64 - 1;
        let mut biases = Vec::with_capacity(heads * (2 * tokens + 2));
        for head in 0..heads {
            biases.extend((-last..=last).map(|distance| table[self.bucket(distance) * heads + head]));
        }
        biases.resize(biases.len().next_multiple_of(4), 0.0);
        biases
    }

    /// The bucket of a distance. Half of the buckets are for keys after the query. In each half,
    /// the first half of the buckets is exact, and the rest is logarithmic up to the largest
    /// distance.
    fn bucket(&self, distance: i64) -> usize {
        let half = self.config.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let side = if distance > 0 { half } else { 0 };
        let magnitude = distance.unsigned_abs() as usize;
        if magnitude < exact {
            return side + magnitude;
        }
        // The reference computes in f32, whose rounding decides at the edges of buckets.
        let ratio = (magnitude as f32 / exact as f32).ln();
        let span = (self.config.relative_attention_max_distance as f32 / exact as f32).ln();
        let logarithmic = (ratio / span * (half - exact) as f32) as usize;
        side + (exact + logarithmic).min(half - 1)
    }
}
