use super::*;
use crate::gpu::StreamOptions;
use crate::ops::testing::*;

/// One case: extents, the size of q (a large one makes a peaked softmax), and the bias.
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
                let column =
                    weights.iter().enumerate().map(|(key, w)| w * f64::from(operands.v[(head * n_k + key) * d + i]));
                out[query * heads * d + head * d + i] = (column.sum::<f64>() / sum) as f32;
            }
        }
    }
    (out, log_sums)
}

fn check(cx: &mut Stream, case: Case, variants: &[AttentionVariant]) {
    check_with(cx, case, variants, &[true]);
}

/// Compares variants with the twin, with and without the log-sum.
fn check_with(cx: &mut Stream, case: Case, variants: &[AttentionVariant], with_log_sum: &[bool]) {
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
    let all = variants.iter().flat_map(|variant| with_log_sum.iter().map(move |with| (*variant, *with)));
    for (variant, with_log_sum) in all {
        let log_sum = cx.empty("log-sum", &[heads, n_q], ElementType::F32).unwrap();
        let call = Attention { q: &q, k: &k, v: &v, scale, bias, log_sum: with_log_sum.then_some(&log_sum) };
        let out = attention_with(cx, variant, &call).unwrap();
        let what = format!("{case:?} {variant:?}");
        assert_close(&cx.read(&out).unwrap(), &want, 2e-6 * f64::from(case.sharpness).max(1.0).sqrt(), &what);
        if with_log_sum {
            assert_close(&cx.read(&log_sum).unwrap(), &want_sums, 2e-6, &format!("log-sum of {what}"));
        }
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
    Case { heads: 1, n_q: 130, n_k: 70, d: 4, sharpness: 1.0, bias: Bias::Relative },
    Case { heads: 1, n_q: 3, n_k: 5, d: 100, sharpness: 30.0, bias: Bias::Relative },
];

/// Head dimensions above 48 only give a lane more columns, and take long to compile on CPU drivers.
/// One variant checks them.
#[test]
fn every_subgroup_variant_agrees_with_the_twin() {
    let (gpu, _turn) = gpu();
    let mut variants = AttentionVariant::available(&gpu);
    variants.retain(|variant| matches!(variant, AttentionVariant::Subgroup { .. }));
    let mut cx = stream(&gpu);
    for case in CASES {
        let checked = if case.d > 48 { variants.len().min(1) } else { variants.len() };
        check(&mut cx, case, &variants[..checked]);
    }
}

/// Keys of three turns, the last not full. One case for each variant, because CPU drivers take
/// seconds to compile a kernel with barriers: one chunk of columns, and two with the second not
/// full.
#[test]
fn tiles_agree_with_the_twin_on_the_base_tier() {
    let (gpu, _turn) = base_gpu();
    let variants = AttentionVariant::available(&gpu);
    assert!(variants.iter().all(|variant| matches!(variant, AttentionVariant::Tile { .. })));
    let mut cx = stream(&gpu);
    for (variant, d, bias) in [(variants[0], 32, Bias::None), (variants[1], 40, Bias::Key)] {
        check(&mut cx, Case { heads: 2, n_q: 37, n_k: 70, d, sharpness: 1.0, bias }, &[variant]);
    }
}

/// Every permutation of the tile kernel that ships.
#[test]
#[ignore = "takes minutes to compile on a CPU driver"]
fn every_tile_agrees_with_the_twin() {
    let (gpu, _turn) = base_gpu();
    let variants = AttentionVariant::available(&gpu);
    let mut cx = stream(&gpu);
    for d in [32, 40, 64, 128] {
        for bias in [Bias::None, Bias::Key] {
            check_with(
                &mut cx,
                Case { heads: 2, n_q: 37, n_k: 70, d, sharpness: 1.0, bias },
                &variants,
                &[false, true],
            );
        }
    }
}

#[test]
fn heads_and_rows_are_split_at_the_limits() {
    let (_, _turn) = gpu();
    // A binding holds 71 keys of one head of d 40 (11,520 bytes), and 8 rows of the output
    // (9,600 bytes). A dispatch holds a few rows.
    let gpu = narrow_gpu(12_000);
    let budget = std::time::Duration::from_nanos(20_000);
    let case = Case { heads: 6, n_q: 75, n_k: 71, d: 40, sharpness: 1.0, bias: Bias::Relative };
    for budget in [budget, StreamOptions::default().budget] {
        let mut cx = Stream::new(&gpu, StreamOptions::default().with_budget(budget));
        check(&mut cx, case, &AttentionVariant::available(&gpu)[..1]);
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let mut tensor = |shape: &[usize]| cx.zeros("zeros", shape, ElementType::F32).unwrap();
    let (q, k, v, table) = (tensor(&[2, 5, 4]), tensor(&[2, 4, 8]), tensor(&[2, 7, 4]), tensor(&[11]));
    let right = Attention { q: &q, k: &k, v: &v, scale: 1.0, bias: None, log_sum: None };
    attention(&mut cx, &right).unwrap();
    let bias =
        |head_stride, query_stride, offset| Some(AttentionBias { tensor: &table, head_stride, query_stride, offset });
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
