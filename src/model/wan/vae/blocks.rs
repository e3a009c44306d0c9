//! Blocks that encoder and decoder share. Activations are `[frames, height, width, channels]`.

use super::load::ConvLoader;
use crate::gpu::{ElementType, Result, Stream, Tensor};
use crate::model::ModelError;
use crate::ops::{
    Activation, Conv, Target, Then, Weight, channel_norm, conv, conv_variants, matmul_with, row_softmax, transpose,
};

/// The memory of the convolutions over time between the chunks of one video. It has the last input
/// frames of each convolution, in the order in which a chunk passes the convolutions.
#[derive(Default)]
pub(super) struct Cache {
    slots: Vec<Option<Tensor>>,
    next: usize,
    chunk: usize,
}

impl Cache {
    /// Whether the chunk is the video's first one.
    pub(super) fn is_first_chunk(&self) -> bool {
        self.chunk == 0
    }

    /// The number of the chunk, from 0.
    pub(super) fn chunk(&self) -> usize {
        self.chunk
    }

    /// Ends a chunk. The caller must call this after each chunk.
    pub(super) fn end_chunk(&mut self) {
        self.next = 0;
        self.chunk += 1;
    }

    fn slot(&mut self) -> &mut Option<Tensor> {
        self.next += 1;
        self.slots.resize(self.slots.len().max(self.next), None);
        &mut self.slots[self.next - 1]
    }

    /// Skips the memory of a convolution that this chunk leaves out.
    pub(super) fn skip(&mut self) {
        self.slot();
    }

    /// Makes a tensor of the remembered frames followed by new frames of shape `shape`, and returns
    /// it with the number of remembered frames. `write` writes the new frames, starting at that
    /// number. The last `keep` frames are remembered.
    pub(super) fn extend(
        &mut self,
        cx: &mut Stream,
        shape: &[usize],
        keep: usize,
        write: impl FnOnce(&mut Stream, &Tensor, usize) -> Result<()>,
    ) -> Result<(Tensor, usize)> {
        let slot = self.slot();
        let past = slot.take();
        let history = past.as_ref().map_or(0, |past| past.shape()[0]);
        let frames = history + shape[0];
        let with_frames = |frames: usize| [&[frames], &shape[1..]].concat();
        let all = cx.empty("frames", &with_frames(frames), ElementType::F32)?;
        if let Some(past) = past {
            cx.copy(&past, &all.slice(0, history))?;
        }
        write(cx, &all, history)?;
        let kept = keep.min(frames);
        let tail = cx.empty("history", &with_frames(kept), ElementType::F32)?;
        cx.copy(&all.slice(frames - kept, kept), &tail)?;
        *slot = Some(tail);
        Ok((all, history))
    }

    /// [`Cache::extend`] with the frames of a tensor.
    pub(super) fn append(&mut self, cx: &mut Stream, x: &Tensor, keep: usize) -> Result<(Tensor, usize)> {
        self.extend(cx, x.shape(), keep, |cx, all, history| cx.copy(x, &all.slice(history, x.shape()[0])))
    }
}

/// Number of frames that a causal convolution over three frames remembers.
pub(super) const HISTORY: usize = 2;

/// A causal 3 x 3 x 3 convolution of `x`.
pub(super) fn causal(cx: &mut Stream, cache: &mut Cache, x: &Tensor, weight: &Weight) -> Result<Tensor> {
    let (all, history) = cache.append(cx, x, HISTORY)?;
    conv(cx, &all, weight, &Conv::causal(history), Activation::None, Target::New)
}

/// Channel norm, SiLU, and a causal 3 x 3 x 3 convolution.
pub(super) struct NormConv {
    gamma: Tensor,
    weight: Weight,
}

impl NormConv {
    pub(super) fn load(
        loader: &ConvLoader,
        [norm, conv]: [&str; 2],
        outputs: usize,
        inputs: usize,
    ) -> std::result::Result<Self, ModelError> {
        let gamma = loader.gamma(&format!("{norm}.gamma"), inputs, 3)?;
        Ok(Self { gamma, weight: loader.cube(conv, outputs, inputs)? })
    }

    pub(super) fn forward(&self, cx: &mut Stream, cache: &mut Cache, x: &Tensor, target: Target) -> Result<Tensor> {
        let (all, history) = cache
            .extend(cx, x.shape(), HISTORY, |cx, all, history| channel_norm(cx, x, &self.gamma, true, all, history))?;
        conv(cx, &all, &self.weight, &Conv::causal(history), Activation::None, target)
    }
}

/// `WanResidualBlock`: two [`NormConv`]s and a shortcut.
pub(super) struct ResidualBlock {
    first: NormConv,
    second: NormConv,
    shortcut: Option<Weight>,
}

impl ResidualBlock {
    pub(super) fn load(
        loader: &ConvLoader,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> std::result::Result<Self, ModelError> {
        let sub = |what: &str| format!("{name}.{what}");
        let shortcut = (inputs != outputs).then(|| loader.point(&sub("conv_shortcut"), outputs, inputs));
        Ok(Self {
            first: NormConv::load(loader, [&sub("norm1"), &sub("conv1")], outputs, inputs)?,
            second: NormConv::load(loader, [&sub("norm2"), &sub("conv2")], outputs, outputs)?,
            shortcut: shortcut.transpose()?,
        })
    }

    /// Consumes `x`, because the result may use its memory.
    pub(super) fn forward(&self, cx: &mut Stream, cache: &mut Cache, x: Tensor) -> Result<Tensor> {
        let sum = match &self.shortcut {
            Some(weight) => conv(cx, &x, weight, &Conv::POINT, Activation::None, Target::New)?,
            None => x.clone(),
        };
        let hidden = self.first.forward(cx, cache, &x, Target::New)?;
        drop(x);
        self.second.forward(cx, cache, &hidden, Target::AddTo(&sum))
    }
}

/// `WanAttentionBlock`: attention with one head within each frame.
struct AttentionBlock {
    gamma: Tensor,
    query_key_value: [Weight; 3],
    out: Weight,
    dim: usize,
}

impl AttentionBlock {
    fn load(loader: &ConvLoader, name: &str, dim: usize) -> std::result::Result<Self, ModelError> {
        let qkv = format!("{name}.to_qkv");
        let part = |i: usize| loader.conv(&qkv, &Conv::POINT, &[1; 2], [3 * dim, dim], i * dim..(i + 1) * dim);
        Ok(Self {
            gamma: loader.gamma(&format!("{name}.norm.gamma"), dim, 2)?,
            query_key_value: [part(0)?, part(1)?, part(2)?],
            out: loader.conv(&format!("{name}.proj"), &Conv::POINT, &[1; 2], [dim, dim], 0..dim)?,
            dim,
        })
    }

    /// Adds the result to `x` in place.
    fn forward(&self, cx: &mut Stream, x: &Tensor) -> Result<()> {
        let normed = cx.empty("normed", x.shape(), ElementType::F32)?;
        channel_norm(cx, x, &self.gamma, false, &normed, 0)?;
        let attended = cx.empty("attended", x.shape(), ElementType::F32)?;
        for t in 0..x.shape()[0] {
            // The frame is copied, because a frame inside a tensor may start at an offset that
            // cannot be bound.
            let frame = cx.empty("frame", &[&[1], &x.shape()[1..]].concat(), ElementType::F32)?;
            cx.copy(&normed.slice(t, 1), &frame)?;
            let mut project = |weight| conv(cx, &frame, weight, &Conv::POINT, Activation::None, Target::New);
            let [query, key, value] = &self.query_key_value;
            let (query, key, value) = (project(query)?, project(key)?, project(value)?);
            self.attend(cx, [&query, &key, &value], &attended.slice(t, 1))?;
        }
        conv(cx, &attended, &self.out, &Conv::POINT, Activation::None, Target::AddTo(x))?;
        Ok(())
    }

    /// Computes softmax(q k^T / sqrt(dim)) v for one frame, one band of queries after another.
    fn attend(&self, cx: &mut Stream, qkv: [&Tensor; 3], out: &Tensor) -> Result<()> {
        /// Largest matrix of scores, in bytes.
        const SCORES: u64 = 64 << 20;
        /// The number of rows of a band is a multiple of this, so every band starts at a multiple
        /// of 256 bytes.
        const STEP: usize = 16;
        let [positions, channels] = [out.rows(), out.columns()];
        let [query, key, value] = qkv.map(|tensor| tensor.reshape(&[positions, channels]));
        let out = out.reshape(&[positions, channels]);
        let key = transpose(cx, &key)?;
        let padded = key.columns();
        let rows_of_value = cx.zeros("value", &[padded, channels], ElementType::F32)?;
        cx.copy(&value, &rows_of_value.slice(0, positions))?;
        let key = Weight::view(&key, 1.0 / (self.dim as f32).sqrt())?;
        let value = Weight::view(&rows_of_value, 1.0)?;
        let [for_scores, for_values] = [padded, channels].map(|n| conv_variants(cx.gpu(), n)[0]);
        let mut first = 0;
        while first < positions {
            let memory = SCORES.min(cx.gpu().caps().max_binding) as usize / (4 * padded);
            let time = (cx.dispatch_budget() / (2.0 * (padded * channels) as f64)) as usize;
            let rows = (memory.min(time) / STEP).max(1) * STEP;
            let rows = rows.min(positions - first);
            let band = query.slice(first, rows);
            let scores = matmul_with(cx, for_scores, &band, &key, Activation::None, Then::Store)?;
            row_softmax(cx, &scores, positions)?;
            let result = matmul_with(cx, for_values, &scores, &value, Activation::None, Then::Store)?;
            cx.copy(&result, &out.slice(first, rows))?;
            first += rows;
        }
        Ok(())
    }
}

/// `WanMidBlock`: residual block, attention, residual block.
pub(super) struct MidBlock {
    first: ResidualBlock,
    attention: AttentionBlock,
    second: ResidualBlock,
}

impl MidBlock {
    pub(super) fn load(loader: &ConvLoader, name: &str, dim: usize) -> std::result::Result<Self, ModelError> {
        let resnet = |i: usize| ResidualBlock::load(loader, &format!("{name}.resnets.{i}"), dim, dim);
        Ok(Self {
            first: resnet(0)?,
            attention: AttentionBlock::load(loader, &format!("{name}.attentions.0"), dim)?,
            second: resnet(1)?,
        })
    }

    pub(super) fn forward(&self, cx: &mut Stream, cache: &mut Cache, x: Tensor) -> Result<Tensor> {
        let x = self.first.forward(cx, cache, x)?;
        self.attention.forward(cx, &x)?;
        self.second.forward(cx, cache, x)
    }
}
