//! Attention without a score matrix: softmax(q k^T scale + bias) v by online softmax (Milakov and Gimelshein 2018; Dao et al. 2022,
//! FlashAttention), f32 throughout.

use crate::gpu::{Dispatch, ElementType, Gpu, GpuError, Kernel, Result, Stream, Tensor};

use super::split::{fitting, ranges, window};
use super::tune::{self, Choice, Named, extent_class};

/// An additive bias on the scores before the softmax: the one of a head, a query and a key is element
/// `head * head_stride + key + offset - query * query_stride` of `tensor`.
///
/// One bias per key is strides of 0; biases by relative position are a `[heads, 2 n - 1]` table with head stride `2 n - 1`, query
/// stride 1 and offset `n - 1`.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBias<'a> {
    /// f32 elements; finite.
    pub tensor: &'a Tensor,
    /// Elements from one head to the next.
    pub head_stride: usize,
    /// Elements back from one query to the next.
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
    /// Where to store the logarithm of each row's sum of exp(score), `[heads, n_q]` f32.
    pub log_sum: Option<&'a Tensor>,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
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

/// How an attention is computed. All variants give the same result up to rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionVariant {
    /// Tiles in workgroup memory, `16 * rows` query rows a workgroup.
    Tile {
        /// Query rows a thread.
        rows: u32,
    },
    /// One subgroup of 8 lanes, operands spread by broadcast.
    Subgroup {
        /// Groups of 8 query rows.
        row_groups: u32,
        /// Groups of four keys a lane.
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

    /// Those worth measuring on this kind of device, the likeliest first.
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
                // The widest vector that leaves no lane idle.
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

/// Floating-point operations of an attention that variants are measured on, at most, unless one head takes more.
const MEASURED_FLOPS: f64 = 1e11;

/// Attention of all heads; the result is `[n_q, heads * d]` f32, ready for the output projection. Fails if shapes do not fit, or
/// if the keys of one head exceed the largest binding.
pub fn attention(cx: &mut Stream, call: &Attention) -> Result<Tensor> {
    let gpu = cx.gpu().clone();
    let (available, candidates) = (AttentionVariant::available(&gpu), AttentionVariant::candidates(&gpu));
    let choice = attention_choice(&available, &candidates, call)?;
    // Of a long video, some heads are enough to tell the variants apart.
    let heads = ((MEASURED_FLOPS / choice.flops * call.q.shape()[0] as f64) as usize).clamp(1, call.q.shape()[0]);
    let [q, k, v] = [call.q, call.k, call.v].map(|tensor| tensor.slice(0, heads));
    let log_sum = call.log_sum.map(|log_sum| log_sum.slice(0, heads));
    let sample = Attention { q: &q, k: &k, v: &v, log_sum: log_sum.as_ref(), ..*call };
    let variant = choice.decide(cx, |cx, variant| attention_with(cx, variant, &sample).map(drop))?;
    attention_with(cx, variant, call)
}

/// What [`attention`] chooses among.
pub(super) fn attention_choice<'a>(
    available: &'a [AttentionVariant],
    candidates: &'a [AttentionVariant],
    call: &Attention,
) -> Result<Choice<'a, AttentionVariant>> {
    let [heads, n_q, n_k, d] = call.extents()?;
    let [queries, keys] = [n_q, n_k].map(extent_class);
    let bias = if call.bias.is_some() { " biased" } else { "" };
    let flops = 4.0 * (heads * d) as f64 * n_q as f64 * n_k as f64;
    Ok(Choice { class: format!("attention{bias} {heads}x{queries}x{keys}x{d}"), available, candidates, flops })
}

/// [`attention`] by a given variant.
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
            let params = Params {
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
            let mut tensors = vec![(1, &q), (2, &k), (3, &v), (4, &output)];
            tensors.extend(call.bias.map(|bias| (5, bias.tensor)));
            tensors.extend(call.log_sum.map(|log_sum| (6, log_sum)));
            cx.dispatch(&Dispatch {
                kernel: &kernel,
                tensors: &tensors,
                params: bytemuck::bytes_of(&params),
                groups: [queries.len().div_ceil(variant.rows()) as u32, some.len() as u32, 1],
                flops: row_flops * queries.len() as f64 * some.len() as f64,
            })?;
        }
    }
    Ok(out)
}

impl Attention<'_> {
    /// Heads, queries, keys and head dimension, after checking that all shapes agree.
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
mod tests {
    use super::*;
    use crate::gpu::{GpuOptions, StreamOptions};
    use crate::ops::testing::*;

    /// One case: extents, the size of q (large: peaked softmax), and the bias.
    #[derive(Clone, Copy, Debug)]
    struct Case {
        heads: usize,
        n_q: usize,
        n_k: usize,
        d: usize,
        sharpness: f32,
        bias: Bias,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Bias {
        None,
        Key,
        Relative,
    }

    impl Bias {
        /// Elements, head stride, query stride, offset.
        fn layout(self, case: &Case) -> [usize; 4] {
            let table = case.n_q + case.n_k - 1;
            match self {
                Self::None => [4, 0, 0, 0],
                Self::Key => [case.n_k, 0, 0, 0],
                Self::Relative => [case.heads * table, table, 1, case.n_q - 1],
            }
        }
    }

    struct Operands {
        q: Vec<f32>,
        /// [heads, n_k, d], not transposed.
        k: Vec<f32>,
        v: Vec<f32>,
        bias: Vec<f32>,
    }

    fn operands(case: &Case) -> Operands {
        let scaled = |seed, count, factor: f32| random(seed, count).iter().map(|x| x * factor).collect::<Vec<_>>();
        Operands {
            q: scaled(1, case.heads * case.n_q * case.d, case.sharpness),
            k: random(2, case.heads * case.n_k * case.d),
            v: random(3, case.heads * case.n_k * case.d),
            bias: scaled(4, case.bias.layout(case)[0], 3.0),
        }
    }

    /// [heads, n, d] to [heads, d, n4], padding zero.
    fn transposed(values: &[f32], heads: usize, n: usize, d: usize) -> Vec<f32> {
        let n4 = n.next_multiple_of(4);
        let mut out = vec![0.0; heads * d * n4];
        for head in 0..heads {
            for key in 0..n {
                for i in 0..d {
                    out[(head * d + i) * n4 + key] = values[(head * n + key) * d + i];
                }
            }
        }
        out
    }

    /// The CPU twin: output and log-sums, in f64.
    fn attention_twin(case: &Case, operands: &Operands, scale: f32) -> (Vec<f32>, Vec<f32>) {
        let Case { heads, n_q, n_k, d, .. } = *case;
        let [_, head_stride, query_stride, offset] = case.bias.layout(case);
        let (mut out, mut log_sums) = (vec![0.0; n_q * heads * d], vec![0.0; heads * n_q]);
        for head in 0..heads {
            for query in 0..n_q {
                let q = &operands.q[(head * n_q + query) * d..][..d];
                let score = |key: usize| {
                    let k = &operands.k[(head * n_k + key) * d..][..d];
                    let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let bias = match case.bias {
                        Bias::None => 0.0,
                        _ => operands.bias[head * head_stride + key + offset - query * query_stride],
                    };
                    dot * f64::from(scale) + f64::from(bias)
                };
                let scores: Vec<f64> = (0..n_k).map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                log_sums[head * n_q + query] = (largest + sum.ln()) as f32;
                for i in 0..d {
                    let column = weights
                        .iter()
                        .enumerate()
                        .map(|(key, w)| w * f64::from(operands.v[(head * n_k + key) * d + i]));
                    out[query * heads * d + head * d + i] = (column.sum::<f64>() / sum) as f32;
                }
            }
        }
        (out, log_sums)
    }

    fn check(cx: &mut Stream, case: Case, variants: &[AttentionVariant]) {
        let Case { heads, n_q, n_k, d, bias, .. } = case;
        let host = operands(&case);
        let scale = 1.0 / (d as f32).sqrt();
        let q = cx.upload("q", &host.q, &[heads, n_q, d]).unwrap();
        let k = cx.upload("k", &transposed(&host.k, heads, n_k, d), &[heads, d, n_k.next_multiple_of(4)]).unwrap();
        let v = cx.upload("v", &host.v, &[heads, n_k, d]).unwrap();
        let table = cx.upload("bias", &host.bias, &[host.bias.len()]).unwrap();
        let [_, head_stride, query_stride, offset] = bias.layout(&case);
        let bias = (bias != Bias::None).then_some(AttentionBias { tensor: &table, head_stride, query_stride, offset });
        let (want, want_sums) = attention_twin(&case, &host, scale);
        for &variant in variants {
            let log_sum = cx.empty("log-sum", &[heads, n_q], ElementType::F32).unwrap();
            let call = Attention { q: &q, k: &k, v: &v, scale, bias, log_sum: Some(&log_sum) };
            let out = attention_with(cx, variant, &call).unwrap();
            let what = format!("{case:?} {variant:?}");
            assert_close(&cx.read(&out).unwrap(), &want, 2e-6 * f64::from(case.sharpness).max(1.0).sqrt(), &what);
            assert_close(&cx.read(&log_sum).unwrap(), &want_sums, 2e-6, &format!("log-sum of {what}"));
        }
    }

    const CASES: [Case; 8] = [
        Case { heads: 1, n_q: 1, n_k: 1, d: 32, sharpness: 1.0, bias: Bias::None },
        Case { heads: 2, n_q: 33, n_k: 65, d: 64, sharpness: 1.0, bias: Bias::Relative },
        Case { heads: 3, n_q: 37, n_k: 31, d: 40, sharpness: 1.0, bias: Bias::Key },
        Case { heads: 2, n_q: 70, n_k: 103, d: 48, sharpness: 1.0, bias: Bias::None },
        Case { heads: 2, n_q: 9, n_k: 130, d: 128, sharpness: 1.0, bias: Bias::Key },
        // The largest probability is about 1.
        Case { heads: 1, n_q: 50, n_k: 200, d: 32, sharpness: 100.0, bias: Bias::None },
        Case { heads: 1, n_q: 130, n_k: 2, d: 4, sharpness: 1.0, bias: Bias::Relative },
        Case { heads: 1, n_q: 3, n_k: 5, d: 100, sharpness: 30.0, bias: Bias::Relative },
    ];

    #[test]
    fn every_subgroup_variant_agrees_with_the_twin() {
        let (gpu, _turn) = gpu();
        let mut variants = AttentionVariant::available(&gpu);
        variants.retain(|variant| matches!(variant, AttentionVariant::Subgroup { .. }));
        let mut cx = stream(&gpu);
        for case in CASES {
            check(&mut cx, case, &variants);
        }
    }

    /// Few cases: CPU drivers take seconds to compile a kernel with barriers.
    #[test]
    fn tiles_agree_with_the_twin_on_the_base_tier() {
        let (gpu, _turn) = base_gpu();
        let variants = AttentionVariant::available(&gpu);
        assert!(variants.iter().all(|variant| matches!(variant, AttentionVariant::Tile { .. })));
        let mut cx = stream(&gpu);
        check(&mut cx, CASES[2], &variants);
        check(&mut cx, CASES[1], &variants[..1]);
    }

    #[test]
    fn heads_and_rows_are_split_at_the_limits() {
        let (_, _turn) = gpu();
        // Bindings hold the k of one head of d 40 and 71 keys (11,520 bytes), and 8 rows of the output (9,600 bytes); a dispatch a few rows.
        let gpu = narrow_gpu(12_000);
        let budget = std::time::Duration::from_nanos(20_000);
        let case = Case { heads: 6, n_q: 75, n_k: 71, d: 40, sharpness: 1.0, bias: Bias::Relative };
        for budget in [budget, StreamOptions::default().budget] {
            let mut cx = Stream::new(&gpu, StreamOptions { budget, ..Default::default() });
            check(&mut cx, case, &AttentionVariant::available(&gpu)[..1]);
        }
    }

    /// Prints GFLOP/s by the processor time of two cores, which other programs do not disturb much.
    #[test]
    #[ignore = "a measurement, not a test"]
    fn speed() {
        let gpu = Gpu::open(&GpuOptions::default()).unwrap();
        let mut cx = stream(&gpu);
        for (heads, n, d) in [(6, 1000, 32), (4, 1000, 48), (3, 1000, 64), (2, 1000, 128)] {
            let (q, _) = random_tensor(&mut cx, 1, &[heads, n, d]);
            let (k, _) = random_tensor(&mut cx, 2, &[heads, d, n]);
            let (v, _) = random_tensor(&mut cx, 3, &[heads, n, d]);
            let call = Attention { q: &q, k: &k, v: &v, scale: 1.0 / (d as f32).sqrt(), bias: None, log_sum: None };
            for variant in AttentionVariant::available(&gpu) {
                let start = processor_seconds();
                attention_with(&mut cx, variant, &call).unwrap();
                cx.finish().unwrap();
                let first = processor_seconds();
                attention_with(&mut cx, variant, &call).unwrap();
                cx.finish().unwrap();
                let seconds = processor_seconds() - first;
                let flops = 4.0 * (heads * n * n * d) as f64;
                println!(
                    "{heads} x {n} x {d} {variant:?}: {:.1} GFLOP/s, compiled in {:.1} s",
                    2.0 * flops / seconds / 1e9,
                    first - start - seconds
                );
            }
        }
    }

    /// User and system time of this process (Linux; 0 elsewhere).
    fn processor_seconds() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let ticks =
            |field: usize| stat.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(13) + ticks(14)) / 100.0
    }

    #[test]
    fn wrong_shapes_are_refused() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let mut tensor = |shape: &[usize]| cx.zeros("zeros", shape, ElementType::F32).unwrap();
        let (q, k, v, table) = (tensor(&[2, 5, 4]), tensor(&[2, 4, 8]), tensor(&[2, 7, 4]), tensor(&[11]));
        let right = Attention { q: &q, k: &k, v: &v, scale: 1.0, bias: None, log_sum: None };
        attention(&mut cx, &right).unwrap();
        let bias = |head_stride, query_stride, offset| {
            Some(AttentionBias { tensor: &table, head_stride, query_stride, offset })
        };
        attention(&mut cx, &Attention { bias: bias(0, 1, 4), ..right }).unwrap();
        let wrong = [
            Attention { k: &v, ..right },
            Attention { v: &k, ..right },
            Attention { q: &table, ..right },
            Attention { log_sum: Some(&table), ..right },
            Attention { bias: bias(0, 1, 3), ..right },
            Attention { bias: bias(0, 1, 5), ..right },
            Attention { bias: bias(1, 1, 4), ..right },
        ];
        for call in wrong {
            assert!(matches!(attention(&mut cx, &call), Err(GpuError::Shape { .. })), "{call:?}");
        }
    }
}
