//! UMT5EncoderModel: from token ids to one row of features a token. transformers' names and order of operations.

use crate::gpu::{Gpu, Stream, Tensor};
use crate::model::ModelError;
use crate::ops::{
    Activation, Attention, AttentionBias, HeadsPart, Then, Weight, attention, matmul, rms_norm, split_heads,
};
use crate::weights::Checkpoint;

use super::config::TextEncoderConfig;
use super::load::Loader;

/// The encoder on a GPU. The embedding table stays in the mapped checkpoint: only the rows of a prompt are read from it.
#[derive(Debug)]
pub struct TextEncoder<'a> {
    config: TextEncoderConfig,
    checkpoint: &'a Checkpoint,
    blocks: Vec<Block>,
    final_norm: Tensor,
}

#[derive(Debug)]
struct Block {
    attention_norm: Tensor,
    qkv: Weight,
    out: Weight,
    /// Relative position biases, `[buckets, heads]`, on the CPU.
    bias_table: Vec<f32>,
    ffn_norm: Tensor,
    /// The GELU side.
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
    /// Uploads the weights; 16-bit ones stay 16-bit.
    ///
    /// # Errors
    /// A missing tensor, or what the GPU reports (out of memory, for instance).
    pub fn load(gpu: &Gpu, config: &TextEncoderConfig, checkpoint: &'a Checkpoint) -> Result<Self, ModelError> {
        let loader = Loader { gpu, checkpoint };
        Ok(Self {
            blocks: (0..config.num_layers).map(|index| Block::load(&loader, index)).collect::<Result<_, _>>()?,
            final_norm: loader.vector("encoder.final_layer_norm.weight")?,
            config: config.clone(),
            checkpoint,
        })
    }

    /// Features `[ids, d_model]`, row-major. `ids` are the valid tokens without padding: padding is masked in the model, so leaving
    /// it out changes nothing.
    pub fn encode(&self, cx: &mut Stream, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        let width = self.config.d_model;
        let padded = width.next_multiple_of(4);
        let x = cx.upload("embeddings", &self.embed(ids, padded)?, &[ids.len(), padded])?;
        let eps = self.config.layer_norm_epsilon;
        for block in &self.blocks {
            self.attend(cx, block, &x)?;
            let normed = rms_norm(cx, &x, &block.ffn_norm, eps)?;
            let gate = matmul(cx, &normed, &block.wi_0, Activation::Gelu, Then::Store)?;
            let hidden = matmul(cx, &normed, &block.wi_1, Activation::None, Then::Times(&gate))?;
            matmul(cx, &hidden, &block.wo, Activation::None, Then::AddTo(&x))?;
        }
        let features = rms_norm(cx, &x, &self.final_norm, eps)?;
        let rows = cx.read(&features)?;
        Ok(rows.chunks_exact(padded).flat_map(|row| &row[..width]).copied().collect())
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
        let qkv = matmul(cx, &normed, &block.qkv, Activation::None, Then::Store)?;
        let parts = [HeadsPart::default(), HeadsPart { transposed: true, ..Default::default() }, HeadsPart::default()];
        let heads = split_heads(cx, &qkv, self.config.num_heads, &parts)?;
        let span = 2 * tokens - 1;
        let biases = self.relative_biases(&block.bias_table, tokens);
        let biases = cx.upload("relative biases", &biases, &[biases.len()])?;
        let bias = AttentionBias { tensor: &biases, head_stride: span, query_stride: 1, offset: tokens - 1 };
        // T5 does not scale its scores.
        let call = Attention { q: &heads[0], k: &heads[1], v: &heads[2], scale: 1.0, bias: Some(bias), log_sum: None };
        let attended = attention(cx, &call)?;
        matmul(cx, &attended, &block.out, Activation::None, Then::AddTo(x))?;
        Ok(())
    }

    /// Biases by head and distance: `[heads, 2 tokens - 1]`, distance `key - query` from `1 - tokens` on; padded to a multiple of 4.
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

    /// The bucket of a distance: half of them for keys behind the query, and in each half the first half exact, the rest
    /// logarithmic up to the largest distance.
    fn bucket(&self, distance: i64) -> usize {
        let half = self.config.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let side = if distance > 0 { half } else { 0 };
        let magnitude = distance.unsigned_abs() as usize;
        if magnitude < exact {
            return side + magnitude;
        }
        // f32 as in the reference: its rounding decides at the bucket's edges.
        let ratio = (magnitude as f32 / exact as f32).ln();
        let span = (self.config.relative_attention_max_distance as f32 / exact as f32).ln();
        let logarithmic = (ratio / span * (half - exact) as f32) as usize;
        side + (exact + logarithmic).min(half - 1)
    }
}
