//! Attention received and paid, compared with CPU twins.

use super::*;
use crate::gpu::{GpuOptions, StreamOptions};
use crate::ops::testing::*;
use crate::ops::{AttentionBias, attention};

/// Extents, and the size of q (a large one makes a peaked softmax).
#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    n_q: usize,
    n_k: usize,
    d: usize,
    sharpness: f32,
}

const CASES: [Case; 7] = [
    Case { heads: 1, n_q: 1, n_k: 1, d: 32, sharpness: 1.0 },
    Case { heads: 2, n_q: 33, n_k: 65, d: 64, sharpness: 1.0 },
    Case { heads: 3, n_q: 37, n_k: 31, d: 40, sharpness: 3.0 },
    Case { heads: 2, n_q: 70, n_k: 103, d: 48, sharpness: 1.0 },
    Case { heads: 2, n_q: 9, n_k: 130, d: 128, sharpness: 1.0 },
    // The largest weight of a row is about 1.
    Case { heads: 1, n_q: 50, n_k: 200, d: 32, sharpness: 100.0 },
    // Two parts of queries, the second not full.
    Case { heads: 2, n_q: 300, n_k: 37, d: 4, sharpness: 30.0 },
];

struct Operands {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_values: Vec<f32>,
    k_values: Vec<f32>,
}

impl Operands {
    fn new(cx: &mut Stream, case: &Case) -> Self {
        let Case { heads, n_q, n_k, d, sharpness } = *case;
        let q_values: Vec<f32> = random(1, heads * n_q * d).iter().map(|x| x * sharpness).collect();
        let k_values = random(2, heads * n_k * d);
        let n_k4 = n_k.next_multiple_of(4);
        let mut transposed = vec![0.0; heads * d * n_k4];
        for (i, value) in k_values.iter().enumerate() {
            transposed[(i / (n_k * d) * d + i % d) * n_k4 + i / d % n_k] = *value;
        }
        Self {
            q: cx.upload("q", &q_values, &[heads, n_q, d]).unwrap(),
            k: cx.upload("k", &transposed, &[heads, d, n_k4]).unwrap(),
            v: random_tensor(cx, 3, &[heads, n_k, d]).0,
            q_values,
            k_values,
        }
    }

    fn call(&self, case: &Case) -> Attention<'_> {
        let scale = 1.0 / (case.d as f32).sqrt();
        Attention { q: &self.q, k: &self.k, v: &self.v, scale, bias: None, log_sum: None }
    }

    /// The log-sum of the attention with a bias.
    fn log_sum(&self, cx: &mut Stream, case: &Case, bias: Option<AttentionBias>) -> Tensor {
        let log_sum = cx.empty("log-sum", &[case.heads, case.n_q], ElementType::F32).unwrap();
        attention(cx, &Attention { bias, log_sum: Some(&log_sum), ..self.call(case) }).unwrap();
        log_sum
    }

    /// The CPU twin: the softmax matrix `[heads, n_q, n_k]` in f64, with one bias for each key.
    fn weights(&self, case: &Case, bias: &[f32]) -> Vec<f64> {
        let Case { heads, n_q, n_k, d, .. } = *case;
        let mut all = Vec::with_capacity(heads * n_q * n_k);
        for row in 0..heads * n_q {
            let q = &self.q_values[row * d..][..d];
            let score = |key: usize| {
                let k = &self.k_values[(row / n_q * n_k + key) * d..][..d];
                let dot: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                dot / (d as f64).sqrt() + bias.get(key).map_or(0.0, |bias| f64::from(*bias))
            };
            let scores: Vec<f64> = (0..n_k).map(score).collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - top).exp()).sum();
            all.extend(scores.iter().map(|score| (score - top).exp() / sum));
        }
        all
    }
}

/// The CPU twin of [`attention_received`] over some query rows.
fn received_cpu(case: &Case, weights: &[f64], rows: &[u32]) -> Vec<f32> {
    let Case { heads, n_q, n_k, .. } = *case;
    let weight = |head: usize, row: u32, key: usize| weights[(head * n_q + row as usize) * n_k + key];
    let factor = n_k as f64 / (heads * rows.len()) as f64;
    let sum = |key: usize| (0..heads).flat_map(|head| rows.iter().map(move |row| weight(head, *row, key))).sum::<f64>();
    (0..n_k).map(|key| (factor * sum(key)) as f32).collect()
}

fn limit(case: &Case) -> f64 {
    2e-6 * f64::from(case.sharpness).max(1.0)
}

fn check(cx: &mut Stream, case: &Case, variants: &[AttentionVariant]) {
    let operands = Operands::new(cx, case);
    let rows: Vec<u32> = (0..case.n_q as u32).collect();
    let want = received_cpu(case, &operands.weights(case, &[]), &rows);
    let log_sum = operands.log_sum(cx, case, None);
    let call = Attention { log_sum: Some(&log_sum), ..operands.call(case) };
    let some: Vec<u32> = rows.iter().copied().step_by(3).collect();
    let want_of_some = received_cpu(case, &operands.weights(case, &[]), &some);
    let some = Rows::new(cx, some, case.n_q).unwrap();
    for &variant in variants {
        let what = format!("{case:?} {variant:?}");
        let got = attention_received_with(cx, variant, &call, None).unwrap();
        let got = cx.read(&got).unwrap();
        assert_close(&got, &want, limit(case), &what);
        let mean = got.iter().map(|a| f64::from(*a)).sum::<f64>() / got.len() as f64;
        assert!((mean - 1.0).abs() < 1e-4, "{what}: mean {mean}");
        let got = attention_received_with(cx, variant, &call, Some(&some)).unwrap();
        assert_close(&cx.read(&got).unwrap(), &want_of_some, limit(case), &format!("{what}, every third query"));
    }
}

/// Head dimensions only change the length of a loop. Two of them check every variant, the others
/// one.
#[test]
fn every_subgroup_variant_agrees_with_the_twin() {
    let (gpu, _turn) = gpu();
    let mut variants = AttentionVariant::available(&gpu);
    variants.retain(|variant| matches!(variant, AttentionVariant::Subgroup { .. }));
    let mut cx = stream(&gpu);
    for case in CASES {
        let checked = if [4, 40].contains(&case.d) { variants.len() } else { variants.len().min(1) };
        check(&mut cx, &case, &variants[..checked]);
    }
}

/// One case for each variant, because CPU drivers take seconds to compile a kernel with barriers.
/// The queries take several turns.
#[test]
fn tiles_agree_with_the_twin_on_the_base_tier() {
    let (gpu, _turn) = base_gpu();
    let variants = AttentionVariant::available(&gpu);
    assert!(variants.iter().all(|variant| matches!(variant, AttentionVariant::Tile { .. })));
    let mut cx = stream(&gpu);
    for (variant, d) in [(variants[0], 40), (variants[1], 32)] {
        check(&mut cx, &Case { heads: 2, n_q: 150, n_k: 70, d, sharpness: 1.0 }, &[variant]);
    }
}

/// Every permutation of the tile kernel that ships.
#[test]
#[ignore = "takes minutes to compile on a CPU driver"]
fn every_tile_agrees_with_the_twin() {
    let (gpu, _turn) = base_gpu();
    let mut cx = stream(&gpu);
    for d in [32, 40, 64, 128] {
        let case = Case { heads: 2, n_q: 150, n_k: 70, d, sharpness: 1.0 };
        check(&mut cx, &case, &AttentionVariant::available(&gpu));
    }
}

#[test]
fn splits_at_the_limits_change_no_bit() {
    let (_, _turn) = gpu();
    let gpu = narrow_gpu(12_000);
    let case = Case { heads: 6, n_q: 75, n_k: 71, d: 40, sharpness: 1.0 };
    let budgets = [std::time::Duration::from_nanos(20_000), StreamOptions::default().budget];
    let results = budgets.map(|budget| {
        let mut cx = Stream::new(&gpu, StreamOptions::default().with_budget(budget));
        let operands = Operands::new(&mut cx, &case);
        let want = received_cpu(&case, &operands.weights(&case, &[]), &(0..75).collect::<Vec<_>>());
        let log_sum = operands.log_sum(&mut cx, &case, None);
        let call = Attention { log_sum: Some(&log_sum), ..operands.call(&case) };
        let got = attention_received(&mut cx, &call, None).unwrap();
        let got = cx.read(&got).unwrap();
        assert_close(&got, &want, limit(&case), "split");
        got
    });
    assert_eq!(results[0], results[1]);
}

#[test]
fn sampled_queries_agree_with_the_twin() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let case = Case { heads: 3, n_q: 120, n_k: 121, d: 32, sharpness: 4.0 };
    let operands = Operands::new(&mut cx, &case);
    let log_sum = operands.log_sum(&mut cx, &case, None);
    let call = Attention { log_sum: Some(&log_sum), ..operands.call(&case) };
    let weights = operands.weights(&case, &[]);
    for count in [1, 17, 119, 500] {
        let rows = sampled_rows([4, 5, 6], count);
        assert_eq!(rows.len(), count.min(120));
        let queries = Rows::receiving(&mut cx, Received::Sampled(count), [4, 5, 6]).unwrap();
        let got = attention_received(&mut cx, &call, queries.as_ref()).unwrap();
        let want = received_cpu(&case, &weights, &rows);
        assert_close(&cx.read(&got).unwrap(), &want, limit(&case), &format!("{count} samples"));
    }
    let of_another_grid = Rows::receiving(&mut cx, Received::Sampled(8), [4, 5, 7]).unwrap();
    assert!(matches!(attention_received(&mut cx, &call, of_another_grid.as_ref()), Err(GpuError::Shape { .. })));
    assert!(matches!(Rows::receiving(&mut cx, Received::Sampled(0), [4, 5, 6]), Err(GpuError::Shape { .. })));
}

/// Profiling stores log-sums, and must not change the result of the attention.
#[test]
fn attention_is_the_same_bit_for_bit_with_a_log_sum() {
    // Of the head dimensions of other tests, whose kernels with a log-sum are compiled already.
    for (base_tier, d) in [(false, 32), (true, 32)] {
        let (gpu, _turn) = if base_tier { base_gpu() } else { gpu() };
        let mut cx = stream(&gpu);
        let case = Case { heads: 2, n_q: 70, n_k: 103, d, sharpness: 5.0 };
        let operands = Operands::new(&mut cx, &case);
        let log_sum = operands.log_sum(&mut cx, &case, None);
        let call = operands.call(&case);
        let plain = attention(&mut cx, &call).unwrap();
        let with = attention(&mut cx, &Attention { log_sum: Some(&log_sum), ..call }).unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(cx.read(&plain).unwrap()), bits(cx.read(&with).unwrap()));
    }
}

#[test]
fn attention_paid_agrees_with_the_twin() {
    let (gpu, _turn) = gpu();
    let small = narrow_gpu(20_000);
    let budget = std::time::Duration::from_nanos(20_000);
    let streams = [stream(&gpu), Stream::new(&small, StreamOptions::default().with_budget(budget))];
    for mut cx in streams {
        for (case, keys) in [(CASES[1], vec![64, 3, 3, 10]), (CASES[2], vec![30]), (CASES[3], (0..103).collect())] {
            let operands = Operands::new(&mut cx, &case);
            let bias: Vec<f32> = random(7, case.n_k).iter().map(|x| 3.0 * x).collect();
            let table = cx.upload("bias", &bias, &[case.n_k]).unwrap();
            let key_bias = AttentionBias { tensor: &table, head_stride: 0, query_stride: 0, offset: 0 };
            for bias_of in [None, Some(key_bias)] {
                let log_sum = operands.log_sum(&mut cx, &case, bias_of);
                let call = Attention { bias: bias_of, log_sum: Some(&log_sum), ..operands.call(&case) };
                let rows = keys.iter().map(|key| *key as u32).collect();
                let rows = Rows::new(&mut cx, rows, case.n_k).unwrap();
                let got = attention_paid(&mut cx, &call, &rows).unwrap();
                let weights = operands.weights(&case, if bias_of.is_some() { &bias } else { &[] });
                let mut chosen = keys.clone();
                chosen.sort_unstable();
                chosen.dedup();
                let paid = |query: usize| {
                    let head = |head: usize| &weights[(head * case.n_q + query) * case.n_k..][..case.n_k];
                    let sum = |head_row: &[f64]| chosen.iter().map(|key| head_row[*key]).sum::<f64>();
                    ((0..case.heads).map(|h| sum(head(h))).sum::<f64>() / case.heads as f64) as f32
                };
                let want: Vec<f32> = (0..case.n_q).map(paid).collect();
                assert_close(&cx.read(&got).unwrap(), &want, limit(&case), &format!("{case:?}"));
            }
        }
    }
}

#[test]
fn wrong_keys_rows_and_biases_are_refused() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let case = CASES[2];
    let operands = Operands::new(&mut cx, &case);
    let call = operands.call(&case);
    for rows in [vec![], vec![31], vec![0, 4000]] {
        assert!(matches!(Rows::new(&mut cx, rows.clone(), 31), Err(GpuError::Shape { .. })), "{rows:?}");
    }
    let log_sum = operands.log_sum(&mut cx, &case, None);
    let with = Attention { log_sum: Some(&log_sum), ..call };
    let [keys, others] = [31, 32].map(|of| Rows::new(&mut cx, vec![30], of).unwrap());
    assert!(attention_paid(&mut cx, &with, &keys).is_ok());
    assert!(matches!(attention_paid(&mut cx, &with, &others), Err(GpuError::Shape { .. })), "keys of another text");
    assert!(matches!(attention_paid(&mut cx, &call, &keys), Err(GpuError::Shape { .. })), "no log-sum");
    assert!(matches!(attention_received(&mut cx, &call, None), Err(GpuError::Shape { .. })), "no log-sum");
    let table = cx.zeros("bias", &[31], ElementType::F32).unwrap();
    let bias = Some(AttentionBias { tensor: &table, head_stride: 0, query_stride: 0, offset: 0 });
    let biased = attention_received(&mut cx, &Attention { bias, ..with }, None);
    assert!(matches!(biased, Err(GpuError::Shape { .. })));
}

#[test]
fn samples_are_distinct_and_spread_over_the_grid() {
    for grid in [[5, 8, 8], [21, 30, 52], [1, 1, 7], [3, 1, 2], [2, 3, 3], [21, 17, 1]] {
        let tokens: usize = grid.iter().product();
        for count in [1, 2, 5, 8, 17, 100, 256, tokens - 1, tokens, tokens + 1] {
            let rows = sampled_rows(grid, count);
            assert_eq!(rows.len(), count.min(tokens), "{grid:?} {count}");
            assert!(rows.windows(2).all(|pair| pair[0] < pair[1]) && (rows[rows.len() - 1] as usize) < tokens);
        }
    }
    // On a Wan grid every frame, every eighth of the rows and every eighth of the columns has its
    // share.
    let rows = sampled_rows([21, 30, 52], 256);
    let count = |of: &dyn Fn(u32) -> usize, n: usize| {
        let mut counts = vec![0; n];
        rows.iter().for_each(|row| counts[of(*row)] += 1);
        counts
    };
    for counts in [
        count(&|row| row as usize / (30 * 52), 21),
        count(&|row| row as usize / 52 % 30 * 8 / 30, 8),
        count(&|row| row as usize % 52 * 8 / 52, 8),
    ] {
        let mean = 256 / counts.len();
        assert!(counts.iter().all(|n| (mean / 3..=mean * 2 + 1).contains(n)), "{counts:?}");
    }
}

/// Prints the processor time of attention received and of the attention.
#[test]
#[ignore = "a measurement, not a test"]
fn cost_beside_the_attention() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let mut cx = stream(&gpu);
    for (heads, grid, d) in [(6, [5, 8, 8], 32), (2, [5, 20, 20], 128)] {
        let n = grid.iter().product();
        let case = Case { heads, n_q: n, n_k: n, d, sharpness: 1.0 };
        let operands = Operands::new(&mut cx, &case);
        let log_sum = cx.empty("log-sum", &[heads, n], ElementType::F32).unwrap();
        let call = Attention { log_sum: Some(&log_sum), ..operands.call(&case) };
        let sampled = Rows::receiving(&mut cx, Received::Sampled(256), grid).unwrap();
        let mut seconds = |what: &str, run: &mut dyn FnMut(&mut Stream)| {
            run(&mut cx);
            cx.finish().unwrap();
            let start = processor_seconds();
            let turns = (2_000_000_000 / (heads * n * n * d)).max(1);
            (0..turns).for_each(|_| run(&mut cx));
            cx.finish().unwrap();
            let seconds = (processor_seconds() - start) / turns as f64;
            println!("{heads} x {n} x {d} {what}: {:.2} ms", 1e3 * seconds);
        };
        seconds("attention", &mut |cx| drop(attention(cx, &call).unwrap()));
        for variant in AttentionVariant::available(&gpu) {
            let what = format!("received, exact, {variant:?}");
            seconds(&what, &mut |cx| drop(attention_received_with(cx, variant, &call, None).unwrap()));
        }
        seconds("received, 256 samples", &mut |cx| drop(attention_received(cx, &call, sampled.as_ref()).unwrap()));
    }
}

/// User and system time of this process (Linux; 0 elsewhere).
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks =
        |field: usize| stat.split_whitespace().nth(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / 100.0
}
