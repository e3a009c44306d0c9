//! Attention received and paid, for profiling: column and row sums of the softmax matrix without
//! the matrix.
//!
//! The attention stores the logarithm of each query row's sum ([`Attention::log_sum`]). A second
//! kernel computes the weights exp(q k^T scale - log-sum) again, tile by tile, and keeps one sum
//! for each key. The order of additions follows from the shapes alone, so the results are the same
//! on every run of one device.

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::attention::{Attention, AttentionVariant};
use super::split::{fitting, ranges, window};

/// The queries whose attention to a key is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// All queries.
    Exact,
    /// This many queries, spread by [`sampled_rows`]. All queries if there are no more.
    Sampled(usize),
}

/// Some rows of a matrix, uploaded once for many uses.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Distinct and sorted, u32.
    indices: Tensor,
    /// Rows of the whole matrix.
    of: usize,
}

impl Rows {
    /// These rows of a matrix of `of` rows. A row that is named twice counts once.
    ///
    /// # Errors
    /// No row, a row that does not exist, or an error of the GPU.
    pub fn new(cx: &mut Stream, mut rows: Vec<u32>, of: usize) -> Result<Self> {
        rows.sort_unstable();
        rows.dedup();
        if rows.last().is_none_or(|last| *last as usize >= of) {
            return Err(GpuError::shape("rows", format!("{rows:?} of {of}")));
        }
        Ok(Self { indices: cx.upload("rows", &rows, &[rows.len()])?, of })
    }

    /// The queries that take part on a grid (frames, rows, columns) of tokens. `None` stands for
    /// all of them.
    ///
    /// # Errors
    /// A sample of no queries, or an error of the GPU.
    pub fn receiving(cx: &mut Stream, mode: Received, grid: [usize; 3]) -> Result<Option<Self>> {
        let tokens = grid.iter().product();
        match mode {
            Received::Sampled(count) if count < tokens => Self::new(cx, sampled_rows(grid, count), tokens).map(Some),
            _ => Ok(None),
        }
    }

    fn count(&self) -> usize {
        self.indices.len()
    }
}

impl AttentionVariant {
    /// The variant that computes attention received.
    fn receiving(gpu: &Gpu) -> Self {
        // Measured on the CPU driver with 2000 tokens of d 128: 80 ms. The other subgroup variants
        // take 90 and 100 ms, the tiles 780 and 380 ms, the attention itself 370 ms.
        let broadcast = Self::Subgroup { row_groups: 2, key_groups: 1 };
        if gpu.caps().cpu && Self::available(gpu).contains(&broadcast) { broadcast } else { Self::Tile { rows: 4 } }
    }

    /// Keys of a workgroup that computes attention received.
    fn keys(self) -> usize {
        match self {
            Self::Tile { .. } => 32,
            Self::Subgroup { key_groups, .. } => 32 * key_groups as usize,
        }
    }

    fn receiving_kernel(self, d: usize, sampled: bool) -> Kernel {
        match self {
            Self::Tile { rows } => Kernel::new("received_tile").set("TM", rows),
            Self::Subgroup { row_groups, key_groups } => {
                Kernel::new("received_subgroup").set("ROW_GROUPS", row_groups).set("KEY_GROUPS", key_groups)
            }
        }
        .set("HEAD_DIM", d)
        .flag_if(sampled, "SAMPLED")
    }
}

arguments! {
    /// Arguments of the kernels of attention received, as in `shaders/lib/received.wgsl`.
    ReceivedArguments => ["received_tile", "received_subgroup"];
    params ReceivedParams {
        n_q: u32,
        n_k4: u32,
        first_query: u32,
        end_query: u32,
        bound_row: u32,
        first_key4: u32,
        end_key4: u32,
        first_head: u32,
        q4: u32,
        k4: u32,
        parts4: u32,
        scale: f32,
    }
    tensors {
        q @ 1: Read F32,
        k @ 2: Read F32,
        log_sum @ 3: Read F32,
        parts @ 4: ReadWrite F32,
    }
    flagged {
        rows @ 5: Read U32 if "SAMPLED",
    }
}

arguments! {
    /// Arguments of `attention_paid.wgsl`.
    PaidArguments => ["attention_paid"];
    params PaidParams {
        n_q: u32,
        n_k4: u32,
        first_query: u32,
        end_query: u32,
        first_head: u32,
        chosen: u32,
        q4: u32,
        k4: u32,
        scale: f32,
        bias_head_stride: u32,
        bias_query_stride: u32,
        bias_offset: u32,
    }
    tensors {
        q @ 1: Read F32,
        k @ 2: Read F32,
        log_sum @ 3: Read F32,
        keys @ 4: Read U32,
        parts @ 5: ReadWrite F32,
    }
    flagged {
        bias @ 6: Read F32 if "BIAS",
    }
}

arguments! {
    /// Arguments of `sum_rows.wgsl`.
    SumRows => ["sum_rows"];
    params SumRowsParams {
        rows: u32,
        columns: u32,
        stride: u32,
        factor: f32,
    }
    tensors {
        x @ 1: Read F32,
        y @ 2: ReadWrite F32,
    }
}

/// Attention received by every key, `[n_k]` f32: `n_k * mean over heads and queries of P[q, k]`, so
/// 1 on average (ProfilingDiT, eq. 5 as meant). `call` is an attention that was just computed,
/// without a bias, and with its log-sum. `queries` are the queries that take part: all if `None`.
///
/// # Errors
/// Shapes that do not fit, a bias, no log-sum, or an error of the GPU. One head's keys must fit a
/// binding, and with `queries` also one head's queries.
pub fn attention_received(cx: &mut Stream, call: &Attention, queries: Option<&Rows>) -> Result<Tensor> {
    attention_received_with(cx, AttentionVariant::receiving(cx.gpu()), call, queries)
}

/// Most bytes of partial sums.
const MOST_PARTS: u64 = 32 << 20;
/// Fewest query rows of a part. With fewer, writing the partial sums would cost more than the
/// weights.
const LEAST_PART: usize = 256;

/// [`attention_received`] by a given variant.
///
/// # Errors
/// As [`attention_received`].
pub fn attention_received_with(
    cx: &mut Stream,
    variant: AttentionVariant,
    call: &Attention,
    sample: Option<&Rows>,
) -> Result<Tensor> {
    let [heads, n_q, n_k, d] = call.extents()?;
    if let Some(sample) = sample.filter(|sample| sample.of != n_q) {
        return Err(GpuError::shape("attention_received", format!("a sample of {} queries from {n_q}", sample.of)));
    }
    let count = sample.map_or(n_q, Rows::count);
    let Some(log_sum) = call.log_sum.filter(|_| call.bias.is_none()) else {
        return Err(GpuError::shape("attention_received", "needs the log-sum of an attention without a bias"));
    };
    let n_k4 = n_k.next_multiple_of(4);
    let max_binding = cx.gpu().caps().max_binding;
    // The parts of queries depend on shapes and limits, never on the measured speed. Otherwise the
    // order of additions would change from run to run.
    let most_parts = fitting(max_binding.min(MOST_PARTS), 4 * heads * n_k4).max(1);
    let part_rows = count.div_ceil(most_parts).next_multiple_of(8).max(LEAST_PART).min(count);
    let part_rows = part_rows.min(fitting(max_binding, 4 * d).max(1));
    let part_count = count.div_ceil(part_rows);
    let parts = cx.empty("received, parts", &[part_count * heads, n_k4], ElementType::F32)?;
    let kernel = variant.receiving_kernel(d, sample.is_some());
    let key_flops = 2.0 * (part_rows * (d + 4)) as f64;
    for part in 0..part_count {
        let queries = part * part_rows..((part + 1) * part_rows).min(count);
        // The rows of a sample may lie anywhere.
        let bound = if sample.is_some() { 0..n_q } else { queries.clone() };
        let affordable = (cx.dispatch_budget() / key_flops) as usize;
        let most_keys = affordable.clamp(variant.keys(), 65_535 * variant.keys());
        let most_keys = most_keys.min(n_k4.next_multiple_of(variant.keys()));
        let bindable = fitting(max_binding, 4 * d * n_k4).min(fitting(max_binding, 4 * n_q * d).max(1));
        let most_heads = (affordable / most_keys).min(bindable).min(65_535);
        for some in ranges(heads, most_heads, 1) {
            for keys in ranges(n_k4, most_keys, variant.keys()) {
                let q_rows = (some.len() - 1) * n_q + bound.len();
                let (q, q4) = window(call.q, (some.start * n_q + bound.start) * d, q_rows * d);
                let (k, k4) = window(call.k, some.start * d * n_k4, some.len() * d * n_k4);
                let start = (part * heads + some.start) * n_k4 + keys.start;
                let (sums, parts4) = window(&parts, start, (some.len() - 1) * n_k4 + keys.len());
                let params = ReceivedParams {
                    n_q: n_q as u32,
                    n_k4: n_k4 as u32 / 4,
                    first_query: queries.start as u32,
                    end_query: queries.end as u32,
                    bound_row: bound.start as u32,
                    first_key4: keys.start as u32 / 4,
                    end_key4: keys.end as u32 / 4,
                    first_head: some.start as u32,
                    q4,
                    k4,
                    parts4,
                    scale: call.scale * std::f32::consts::LOG2_E,
                };
                let rows = sample.map(|sample| &sample.indices);
                cx.dispatch(&Dispatch {
                    kernel: &kernel,
                    arguments: &ReceivedArguments { params, q: &q, k: &k, log_sum, parts: &sums, rows },
                    groups: [keys.len().div_ceil(variant.keys()) as u32, some.len() as u32, 1],
                    flops: key_flops * (keys.len() * some.len()) as f64,
                })?;
            }
        }
    }
    sum_rows(cx, &parts, n_k, n_k as f32 / (heads * count) as f32)
}

/// Attention paid by every query to the chosen `keys`, `[n_q]` f32: the sum of the softmax weights
/// of these keys, averaged over heads, so between 0 and 1. Masks from the words of a subject use
/// it: `call` is a cross-attention that was just computed, with its bias and log-sum.
///
/// # Errors
/// Shapes that do not fit, no log-sum, or an error of the GPU.
pub fn attention_paid(cx: &mut Stream, call: &Attention, keys: &Rows) -> Result<Tensor> {
    let [heads, n_q, n_k, d] = call.extents()?;
    let Some(log_sum) = call.log_sum.filter(|_| keys.of == n_k) else {
        let message = format!("needs a log-sum and some of {n_k} keys, not of {}", keys.of);
        return Err(GpuError::shape("attention_paid", message));
    };
    let n_k4 = n_k.next_multiple_of(4);
    let parts = cx.empty("paid, heads", &[heads, n_q], ElementType::F32)?;
    let kernel = Kernel::new("attention_paid").set("HEAD_DIM", d).flag_if(call.bias.is_some(), "BIAS");
    let row_flops = (2 * d * keys.count()) as f64;
    let max_binding = cx.gpu().caps().max_binding;
    let affordable = ((cx.dispatch_budget() / row_flops) as usize).max(64);
    let most_rows = affordable.min(fitting(max_binding, 4 * d)).min(65_535 * 64).min(n_q.next_multiple_of(64));
    let bindable = fitting(max_binding, 4 * d * n_k4).min(fitting(max_binding, 4 * n_q * d).max(1));
    let most_heads = (affordable / most_rows.max(1)).min(bindable).min(65_535);
    for queries in ranges(n_q, most_rows, 64) {
        for some in ranges(heads, most_heads, 1) {
            let q_rows = (some.len() - 1) * n_q + queries.len();
            let (q, q4) = window(call.q, (some.start * n_q + queries.start) * d, q_rows * d);
            let (k, k4) = window(call.k, some.start * d * n_k4, some.len() * d * n_k4);
            let params = PaidParams {
                n_q: n_q as u32,
                n_k4: n_k4 as u32 / 4,
                first_query: queries.start as u32,
                end_query: queries.end as u32,
                first_head: some.start as u32,
                chosen: keys.count() as u32,
                q4,
                k4,
                scale: call.scale * std::f32::consts::LOG2_E,
                bias_head_stride: call.bias.map_or(0, |bias| bias.head_stride as u32),
                bias_query_stride: call.bias.map_or(0, |bias| bias.query_stride as u32),
                bias_offset: call.bias.map_or(0, |bias| bias.offset as u32),
            };
            let bias = call.bias.map(|bias| bias.tensor);
            cx.dispatch(&Dispatch {
                kernel: &kernel,
                arguments: &PaidArguments { params, q: &q, k: &k, log_sum, keys: &keys.indices, parts: &parts, bias },
                groups: [queries.len().div_ceil(64) as u32, some.len() as u32, 1],
                flops: row_flops * (queries.len() * some.len()) as f64,
            })?;
        }
    }
    sum_rows(cx, &parts, n_q, 1.0 / heads as f32)
}

/// `factor` times the sums of the first `columns` columns of a matrix: `[columns]`. The matrix must
/// fit a binding.
fn sum_rows(cx: &mut Stream, x: &Tensor, columns: usize, factor: f32) -> Result<Tensor> {
    let out = cx.empty("sums of rows", &[columns], ElementType::F32)?;
    let [rows, columns32, stride] = [x.rows(), columns, x.columns()].map(|n| n as u32);
    cx.dispatch(&Dispatch {
        kernel: &Kernel::new("sum_rows"),
        arguments: &SumRows { params: SumRowsParams { rows, columns: columns32, stride, factor }, x, y: &out },
        groups: fold_groups(columns.div_ceil(64)),
        flops: 4.0 * x.len() as f64,
    })?;
    Ok(out)
}

/// `count` tokens of a grid (frames, rows, columns), sorted, and always the same: all tokens if
/// there are no more. They are spread evenly over all three axes. The grid is halved along its
/// longest axis until every part gets one token, which a hash of the part picks.
pub fn sampled_rows(grid: [usize; 3], count: usize) -> Vec<u32> {
    let tokens = grid.iter().product::<usize>();
    let mut rows = Vec::with_capacity(count.min(tokens));
    if tokens > 0 && count > 0 {
        sample_part(grid, [0; 3], grid, count.min(tokens), &mut rows);
    }
    rows.sort_unstable();
    rows
}

/// Samples `count` tokens (at least one, at most all) of the part of `grid` at `start` with these
/// `extents`.
fn sample_part(grid: [usize; 3], start: [usize; 3], extents: [usize; 3], count: usize, rows: &mut Vec<u32>) {
    let index = |[t, h, w]: [usize; 3]| (t * grid[1] + h) * grid[2] + w;
    if count == 1 {
        // Fibonacci hashing of the part's corner. Without this jitter, samples would line up with
        // the columns of the grid.
        let mut hash = (index(start) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = [0, 1, 2].map(|axis| {
            hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            start[axis] + (hash >> 40) as usize % extents[axis]
        });
        rows.push(index(place) as u32);
        return;
    }
    let axis = (0..3).max_by_key(|axis| extents[*axis]).unwrap_or(0);
    let half = extents[axis] / 2;
    // Rounding to the nearest gives neither half more samples than it has tokens.
    let first_count = (2 * count * half + extents[axis]) / (2 * extents[axis]);
    let (mut first, mut second, mut middle) = (extents, extents, start);
    first[axis] = half;
    second[axis] -= half;
    middle[axis] += half;
    if first_count > 0 {
        sample_part(grid, start, first, first_count, rows);
    }
    if count > first_count {
        sample_part(grid, middle, second, count - first_count, rows);
    }
}

#[cfg(test)]
mod tests;
