//! Attention without a score matrix: softmax(q k^T scale + bias) v by online softmax (Milakov and
//! Gimelshein 2018; Dao et al. 2022, FlashAttention), f32 throughout.

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor};

use super::selftest::{self, Form};
use super::split::{fitting, ranges, window};
use super::tune::{self, Choice, Named, extent_class};

/// An additive bias on the scores before the softmax. The bias of a head, a query and a key is
/// element `head * head_stride + key + offset - query * query_stride` of `tensor`.
///
/// With both strides 0 every key has one bias. Biases by relative position are a `[heads, 2 n - 1]`
/// table with head stride `2 n - 1`, query stride 1 and offset `n - 1`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBias<'a> {
    /// Finite f32 elements.
    pub tensor: &'a Tensor,
    /// Elements from one head to the next.
    pub head_stride: usize,
    /// Elements backwards from one query to the next.
    pub query_stride: usize,
    /// Element of head 0, query 0 and key 0.
    pub offset: usize,
}

/// The operands of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Queries, `[heads, n_q, d]` f32.
    pub q: &'a Tensor,
    /// Keys, transposed: `[heads, d, n]` f32 where n is `n_k` rounded up to a multiple of 4.
    pub k: &'a Tensor,
    /// Values, `[heads, n_k, d]` f32.
    pub v: &'a Tensor,
    /// Factor of the scores, usually 1/sqrt(d).
    pub scale: f32,
    /// Added to the scores.
    pub bias: Option<AttentionBias<'a>>,
    /// Receives the logarithm of each row's sum of exp(score): `[heads, n_q]` f32.
    pub log_sum: Option<&'a Tensor>,
}

arguments! {
    /// Arguments of the attention kernels, as in `shaders/lib/attention.wgsl`.
    AttentionArguments => ["attention_tile", "attention_subgroup"];
    params AttentionParams {
        n_q: u32,
        n_k: u32,
        n_k4: u32,
        first_query: u32,
        end_query: u32,
        first_head: u32,
        q4: u32,
        k4: u32,
        v4: u32,
        output4: u32,
        output_row4: u32,
        scale: f32,
        bias_head_stride: u32,
        bias_query_stride: u32,
        bias_offset: u32,
    }
    tensors {
        q @ 1: Read F32,
        k @ 2: Read F32,
        v @ 3: Read F32,
        output @ 4: ReadWrite F32,
    }
    flagged {
        bias @ 5: Read F32 if "BIAS",
        log_sum @ 6: ReadWrite F32 if "LOG_SUM",
    }
}

/// A way to compute an attention. All variants give the same result up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionVariant {
    /// Tiles in workgroup memory. A workgroup computes `16 * rows` query rows.
    Tile {
        /// Query rows of a thread.
        rows: u32,
    },
    /// One subgroup of 8 lanes. The lanes share operands by broadcast.
    Subgroup {
        /// Groups of 8 query rows.
        row_groups: u32,
        /// Groups of four keys of a lane.
        key_groups: u32,
    },
}

impl AttentionVariant {
    /// Every variant that the device can run.
    pub fn available(gpu: &Gpu) -> Vec<Self> {
        let tiles = [2, 4].map(|rows| Self::Tile { rows });
        if gpu.caps().subgroup_min.is_none_or(|size| size < 8) {
            return tiles.to_vec();
        }
        let subgroups =
            [(1, 1), (2, 1), (1, 2)].map(|(row_groups, key_groups)| Self::Subgroup { row_groups, key_groups });
        [&subgroups[..], &tiles[..]].concat()
    }

    /// The variants worth measuring on this kind of device, the likeliest first.
    pub(super) fn candidates(gpu: &Gpu) -> Vec<Self> {
        let [narrow, tall] = [1, 2].map(|row_groups| Self::Subgroup { row_groups, key_groups: 1 });
        tune::candidates(gpu, [narrow, tall], [2, 4].map(|rows| Self::Tile { rows }), narrow)
    }

    /// Query rows of a workgroup.
    fn rows(self) -> usize {
        match self {
            Self::Tile { rows } => 16 * rows as usize,
            Self::Subgroup { row_groups, .. } => 8 * row_groups as usize,
        }
    }

    fn kernel(self, d: usize) -> Kernel {
        match self {
            Self::Tile { rows } => Kernel::new("attention_tile")
                .set("TM", rows)
                .set("HEAD_DIM", d)
                .set("CHUNKS", d.div_ceil(32))
                .set("VALUE", "vec4<f32>"),
            Self::Subgroup { row_groups, key_groups } => {
                // The widest vector that divides a row among 8 lanes.
                let (width, value) = match d {
                    _ if d.is_multiple_of(32) => (4, "vec4<f32>"),
                    _ if d.is_multiple_of(16) => (2, "vec2<f32>"),
                    _ => (1, "f32"),
                };
                Kernel::new("attention_subgroup")
                    .set("ROW_GROUPS", row_groups)
                    .set("KEY_GROUPS", key_groups)
                    .set("HEAD_DIM", d)
                    .set("WIDTH", width)
                    .set("LANE_COLUMNS", (d / width).div_ceil(8))
                    .set("VALUE", value)
            }
        }
    }
}

impl Named for AttentionVariant {
    fn name(self) -> String {
        self.to_string()
    }
}

impl std::fmt::Display for AttentionVariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tile { rows } => write!(f, "tile {rows}"),
            Self::Subgroup { row_groups, key_groups } => write!(f, "subgroup {row_groups}x{key_groups}"),
        }
    }
}

/// Most floating-point operations of the attention that variants are measured on, unless one head
/// takes more.
const MEASURED_FLOPS: f64 = 1e11;

/// Attention of all heads. The result is `[n_q, heads * d]` f32, ready for the output projection.
///
/// # Errors
/// Shapes do not fit, the keys of one head exceed the largest binding, or an error of the GPU.
pub fn attention(cx: &mut Stream, call: &Attention) -> Result<Tensor> {
    let gpu = cx.gpu().clone();
    let (available, candidates) = (AttentionVariant::available(&gpu), AttentionVariant::candidates(&gpu));
    let choice = attention_choice(&available, &candidates, call)?;
    // Some heads of a long video are enough to tell the variants apart.
    let heads = ((MEASURED_FLOPS / choice.flops * call.q.shape()[0] as f64) as usize).clamp(1, call.q.shape()[0]);
    let [q, k, v] = [call.q, call.k, call.v].map(|tensor| tensor.slice(0, heads));
    let log_sum = call.log_sum.map(|log_sum| log_sum.slice(0, heads));
    let sample = Attention { q: &q, k: &k, v: &v, log_sum: log_sum.as_ref(), ..*call };
    let variant = choice.decide(cx, |cx, variant| attention_with(cx, variant, &sample).map(drop))?;
    attention_with(cx, variant, call)
}

/// The choice among variants in [`attention`].
pub(super) fn attention_choice<'a>(
    available: &'a [AttentionVariant],
    candidates: &'a [AttentionVariant],
    call: &Attention,
) -> Result<Choice<'a, AttentionVariant>> {
    let [heads, n_q, n_k, d] = call.extents()?;
    let [queries, keys] = [n_q, n_k].map(extent_class);
    let bias = if call.bias.is_some() { " biased" } else { "" };
    let flops = 4.0 * (heads * d) as f64 * n_q as f64 * n_k as f64;
    let form = Form { d, bias: call.bias.is_some(), log_sum: call.log_sum.is_some() };
    Ok(Choice {
        class: format!("attention{bias} {heads}x{queries}x{keys}x{d}"),
        kernel: form.name(),
        test: Box::new(move |cx, variant| selftest::attention(cx, variant, form)),
        available,
        candidates,
        flops,
    })
}

/// [`attention`] by a given variant.
///
/// # Errors
/// As [`attention`].
pub fn attention_with(cx: &mut Stream, variant: AttentionVariant, call: &Attention) -> Result<Tensor> {
    let [heads, n_q, n_k, d] = call.extents()?;
    let out = cx.empty("attention", &[n_q, heads * d], ElementType::F32)?;
    let kernel = variant.kernel(d).flag_if(call.bias.is_some(), "BIAS").flag_if(call.log_sum.is_some(), "LOG_SUM");
    let n_k4 = n_k.next_multiple_of(4);
    let row_flops = 4.0 * n_k as f64 * d as f64;
    let max_binding = cx.gpu().caps().max_binding;
    let affordable = (cx.dispatch_budget() / row_flops) as usize;
    let head_rows = fitting(max_binding, 4 * heads * d).min(65_535 * variant.rows()).min(n_q);
    let most_rows = head_rows.min(affordable.max(variant.rows()));
    let most_heads = (affordable / most_rows).min(fitting(max_binding, 4 * d * n_q.max(n_k4))).min(65_535);
    for queries in ranges(n_q, most_rows, variant.rows()) {
        for some in ranges(heads, most_heads, 1) {
            let q_rows = (some.len() - 1) * n_q + queries.len();
            let (q, q4) = window(call.q, (some.start * n_q + queries.start) * d, q_rows * d);
            let (k, k4) = window(call.k, some.start * d * n_k4, some.len() * d * n_k4);
            let (v, v4) = window(call.v, some.start * n_k * d, some.len() * n_k * d);
            let (output, output4) = window(&out, queries.start * heads * d, queries.len() * heads * d);
            let params = AttentionParams {
                n_q: n_q as u32,
                n_k: n_k as u32,
                n_k4: n_k4 as u32 / 4,
                first_query: queries.start as u32,
                end_query: queries.end as u32,
                first_head: some.start as u32,
                q4,
                k4,
                v4,
                output4: output4 + (some.start * d / 4) as u32,
                output_row4: (heads * d / 4) as u32,
                scale: call.scale * std::f32::consts::LOG2_E,
                bias_head_stride: call.bias.map_or(0, |bias| bias.head_stride as u32),
                bias_query_stride: call.bias.map_or(0, |bias| bias.query_stride as u32),
                bias_offset: call.bias.map_or(0, |bias| bias.offset as u32),
            };
            let (bias, log_sum) = (call.bias.map(|bias| bias.tensor), call.log_sum);
            cx.dispatch(&Dispatch {
                kernel: &kernel,
                arguments: &AttentionArguments { params, q: &q, k: &k, v: &v, output: &output, bias, log_sum },
                groups: [queries.len().div_ceil(variant.rows()) as u32, some.len() as u32, 1],
                flops: row_flops * queries.len() as f64 * some.len() as f64,
            })?;
        }
    }
    Ok(out)
}

impl Attention<'_> {
    /// Heads, queries, keys and head dimension.
    ///
    /// # Errors
    /// Shapes do not agree, or there are no queries or no keys.
    pub(super) fn extents(&self) -> Result<[usize; 4]> {
        let wrong = |what: &str| {
            let shapes = format!("q {:?}, k {:?}, v {:?}", self.q.shape(), self.k.shape(), self.v.shape());
            Err(GpuError::shape("attention", format!("{what}: {shapes}")))
        };
        let (&[heads, n_q, d], &[_, n_k, _]) = (self.q.shape(), self.v.shape()) else {
            return wrong("q and v need three axes");
        };
        if self.k.shape() != [heads, d, n_k.next_multiple_of(4)] || self.v.shape() != [heads, n_k, d] {
            return wrong("k or v do not fit q");
        }
        if self.q.is_empty() || self.v.is_empty() || d % 4 != 0 {
            return wrong("no rows, no keys or a head dimension that is no multiple of 4");
        }
        if [self.q, self.k, self.v].iter().any(|tensor| tensor.element_type() != ElementType::F32) {
            return wrong("operands are f32");
        }
        if self.log_sum.is_some_and(|log_sum| log_sum.shape() != [heads, n_q]) {
            return wrong("the log-sum has one value a head and query");
        }
        if let Some(bias) = self.bias {
            let back = (n_q - 1) * bias.query_stride;
            let last = (heads - 1) * bias.head_stride + bias.offset + n_k - 1;
            if back > bias.offset || last >= bias.tensor.len() {
                return wrong(&format!(
                    "a bias of {} elements does not cover all heads, queries and keys",
                    bias.tensor.len()
                ));
            }
        }
        Ok([heads, n_q, n_k, d])
    }
}

#[cfg(test)]
mod tests;
