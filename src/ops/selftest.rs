//! Tests of kernel variants on the adapter at hand, against the plain loop on the CPU.
//!
//! Drivers miscompile: barriers disappear, products of 500 rows and more are nearly zero, some
//! tiles are wrong. So a variant is tested before it is first used, at a small size with tails and
//! at a real one (more than 500 rows, several turns of every loop). The plain loop computes some
//! rows; a sum that is known covers all of them. `ditscope doctor` runs all tests.

use std::time::Instant;

use crate::gpu::{ElementType, Gpu, GpuError, Result, Stream};
use crate::weights::{DType, Packing};

use super::bench::noise_from;
use super::sample::sample;
use super::{
    Activation, Attention, AttentionBias, AttentionVariant, Conv, Target, Then, Variant, Weight, attention_with,
    conv_with, matmul_with,
};

/// Largest relative error of a right result (f32 sums of up to a thousand products).
const BOUND: f64 = 1e-5;

/// The result of a test: the largest relative error, of sampled rows or of the sum over all rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Error(pub(super) f64);

impl Error {
    /// What is wrong, if anything is.
    pub(super) fn fault(self) -> Option<String> {
        // NaN is no right result.
        (!matches!(self.0.partial_cmp(&BOUND), Some(std::cmp::Ordering::Less)))
            .then(|| format!("relative error {:.1e}, {BOUND:.0e} is allowed", self.0))
    }
}

/// ||got - want|| / ||want||. NaN if a value is no number.
fn relative(got: impl Iterator<Item = f64>, want: impl Iterator<Item = f64>) -> f64 {
    let (difference, size) =
        got.zip(want).fold((0.0, 0.0), |(d, s), (got, want)| (d + (got - want) * (got - want), s + want * want));
    (difference / f64::max(size, 1e-30)).sqrt()
}

/// The larger of two errors. NaN is larger than any number.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// Whether row `i` of `count` is compared: the last two, and two in every 61.
fn is_sampled(i: usize, count: usize) -> bool {
    i % 61 < 2 || i + 2 >= count
}

/// Compares rows of a product `[m, n]` with the plain loop, and their sum over all rows with the
/// product of the summed rows. `inputs(row)` are the row's `k` inputs, `weight(i, column)` weights.
fn product_error(
    got: &[f32],
    [k, n]: [usize; 2],
    inputs: &dyn Fn(usize) -> Vec<f64>,
    weight: &dyn Fn(usize, usize) -> f64,
) -> f64 {
    let m = got.len() / n;
    let times = |x: &[f64], column: usize| (0..k).map(|i| x[i] * weight(i, column)).sum::<f64>();
    let (mut sampled_got, mut sampled_want) = (Vec::new(), Vec::new());
    let mut summed = vec![0.0; k];
    for row in 0..m {
        let x = inputs(row);
        summed.iter_mut().zip(&x).for_each(|(sum, x)| *sum += x);
        if is_sampled(row, m) {
            sampled_got.extend(got[row * n..][..n].iter().map(|v| f64::from(*v)));
            sampled_want.extend((0..n).map(|column| times(&x, column)));
        }
    }
    let total = |column: usize| (0..m).map(|row| f64::from(got[row * n + column])).sum::<f64>();
    let columns = relative((0..n).map(total), (0..n).map(|column| times(&summed, column)));
    worst(relative(sampled_got.into_iter(), sampled_want.into_iter()), columns)
}

/// Tests a variant of the product with weights of a type.
pub(super) fn product(cx: &mut Stream, variant: Variant, dtype: DType) -> Result<Error> {
    let gpu = cx.gpu().clone();
    let mut error = 0.0;
    for [m, k, n] in [[37, 20, 76], [517, 192, 132]] {
        let k = usize::next_multiple_of(k, dtype.block().0);
        let x = noise_from(1, m * k);
        let (host, values) = sample(dtype, [n, k]);
        let w = Weight::linear(&gpu, "test", &host, [n, k], None)?;
        let tensor = cx.upload("test", &x, &[m, k])?;
        let got = matmul_with(cx, variant, &tensor, &w, Activation::None, Then::Store)?;
        let got = cx.read(&got)?;
        let inputs = |row: usize| x[row * k..][..k].iter().map(|v| f64::from(*v)).collect();
        error = worst(error, product_error(&got, [k, n], &inputs, &|i, column| f64::from(values[column * k + i])));
    }
    Ok(Error(error))
}

/// Tests a variant of the convolution with weights of a type.
pub(super) fn convolution(cx: &mut Stream, variant: Variant, dtype: DType) -> Result<Error> {
    let gpu = cx.gpu().clone();
    let mut error = 0.0;
    for ([t, h, w], [inputs, outputs]) in [([2, 3, 5], [4, 8]), ([5, 12, 15], [12, 20])] {
        let geometry = Conv::causal(1);
        let (host, values) = sample(dtype, [outputs, 27 * inputs]);
        let weight = geometry.weight(&gpu, "test", &host, [outputs, inputs], 0..outputs, None)?;
        let x = noise_from(1, t * h * w * inputs);
        let tensor = cx.upload("test", &x, &[t, h, w, inputs])?;
        let got = conv_with(cx, variant, &tensor, &weight, &geometry, Activation::None, Target::New)?;
        let got = cx.read(&got)?;
        // The inputs of an output pixel, tap by tap, with zeros outside.
        let row_inputs = |row: usize| {
            let at = [row / (w * h), row / w % h, row % w];
            let tap = |tap: usize| {
                let [a, b, c] = [at[0] + tap / 9, at[1] + tap / 3 % 3, at[2] + tap % 3];
                let place = Some((a.checked_sub(1), b.checked_sub(1), c.checked_sub(1)));
                let inside = place.and_then(|(a, b, c)| Some((a?, b?, c?))).filter(|p| p.0 < t && p.1 < h && p.2 < w);
                let value = |i: usize| inside.map_or(0.0, |(a, b, c)| f64::from(x[((a * h + b) * w + c) * inputs + i]));
                (0..inputs).map(value).collect::<Vec<_>>()
            };
            (0..27).flat_map(tap).collect::<Vec<_>>()
        };
        let of = |i: usize, column: usize| f64::from(values[(column * inputs + i % inputs) * 27 + i / inputs]);
        error = worst(error, product_error(&got, [27 * inputs, outputs], &row_inputs, &of));
    }
    Ok(Error(error))
}

/// What an attention has, beside its variant: each combination is a kernel of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Head dimension.
    pub d: usize,
    /// With a bias.
    pub bias: bool,
    /// With log-sums.
    pub log_sum: bool,
}

/// Tests a variant of the attention.
pub(super) fn attention(cx: &mut Stream, variant: AttentionVariant, form: Form) -> Result<Error> {
    let Form { d, .. } = form;
    let mut error = 0.0;
    for [heads, n_q, n_k] in [[1, 9, 35], [2, 517, 261]] {
        let (q, k) = (noise_from(1, heads * n_q * d), noise_from(2, heads * n_k * d));
        // One column of ones: the sum of the weights, which is 1 in every row.
        let mut v = noise_from(3, heads * n_k * d);
        v.iter_mut().step_by(d).for_each(|v| *v = 1.0);
        let bias = noise_from(4, n_k);
        let columns = n_k.next_multiple_of(4);
        let mut transposed = vec![0.0; heads * d * columns];
        for (i, value) in k.iter().enumerate() {
            transposed[(i / (n_k * d) * d + i % d) * columns + i / d % n_k] = *value;
        }
        let tensors = [
            cx.upload("test", &q, &[heads, n_q, d])?,
            cx.upload("test", &transposed, &[heads, d, columns])?,
            cx.upload("test", &v, &[heads, n_k, d])?,
            cx.upload("test", &bias, &[n_k])?,
        ];
        let log_sum = cx.empty("test", &[heads, n_q], ElementType::F32)?;
        let scale = 1.0 / (d as f32).sqrt();
        let table = AttentionBias { tensor: &tensors[3], head_stride: 0, query_stride: 0, offset: 0 };
        let call = Attention {
            q: &tensors[0],
            k: &tensors[1],
            v: &tensors[2],
            scale,
            bias: form.bias.then_some(table),
            log_sum: form.log_sum.then_some(&log_sum),
        };
        let got = attention_with(cx, variant, &call)?;
        let got = cx.read(&got)?;
        let sums = if form.log_sum { cx.read(&log_sum)? } else { Vec::new() };
        let ones = got.iter().step_by(d).map(|v| f64::from(*v));
        error = worst(error, relative(ones, std::iter::repeat_n(1.0, heads * n_q)));
        let [mut some, mut want] = [const { Vec::new() }; 2];
        let [mut some_sums, mut want_sums] = [const { Vec::new() }; 2];
        for (head, query) in
            (0..heads).flat_map(|head| (0..n_q).filter(|query| is_sampled(*query, n_q)).map(move |query| (head, query)))
        {
            let row = &q[(head * n_q + query) * d..][..d];
            let score = |key: usize| {
                let k = &k[(head * n_k + key) * d..][..d];
                let dot: f64 = row.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                dot * f64::from(scale) + if form.bias { f64::from(bias[key]) } else { 0.0 }
            };
            // No score is large, so no largest one is subtracted.
            let weights: Vec<f64> = (0..n_k).map(|key| score(key).exp()).collect();
            let sum: f64 = weights.iter().sum();
            some.extend(got[(query * heads + head) * d..][..d].iter().map(|v| f64::from(*v)));
            want.extend((0..d).map(|i| {
                let v = |key: usize| f64::from(v[(head * n_k + key) * d + i]);
                (0..n_k).map(|key| weights[key] * v(key)).sum::<f64>() / sum
            }));
            some_sums.extend(sums.get(head * n_q + query).map(|sum| f64::from(*sum)));
            want_sums.push(sum.ln());
        }
        error = worst(error, relative(some.into_iter(), want.into_iter()));
        error = worst(error, relative(some_sums.into_iter(), want_sums.into_iter()));
    }
    Ok(Error(error))
}

/// One line of a report.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The kernel and its operands.
    pub kernel: String,
    /// The variant.
    pub variant: String,
    /// Largest relative error; `None` if the kernel did not run.
    pub error: Option<f64>,
    /// Seconds of the test: nearly all of it is compilation.
    pub seconds: f64,
    /// What is wrong; `None` if the variant is right.
    pub fault: Option<String>,
}

/// Tests every variant of the heavy kernels, and reports each.
///
/// # Errors
/// The device is lost, or a test was cancelled. What a variant does wrong is a finding.
pub fn examine(cx: &mut Stream, report: &mut dyn FnMut(&Finding)) -> Result<()> {
    let gpu = cx.gpu().clone();
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for variant in Variant::available(&gpu) {
            let name = variant.to_string();
            one(cx, format!("matmul {dtype}"), &name, report, &|cx| product(cx, variant, dtype))?;
            one(cx, format!("conv {dtype}"), &name, report, &|cx| convolution(cx, variant, dtype))?;
        }
    }
    // Of packed types, the variants that the program would choose from.
    for dtype in packed_types() {
        for variant in Variant::candidates(&gpu) {
            one(cx, format!("matmul {dtype}"), &variant.to_string(), report, &|cx| product(cx, variant, dtype))?;
        }
    }
    for d in [32, 64, 128] {
        for variant in AttentionVariant::available(&gpu) {
            for (bias, log_sum) in [(false, false), (false, true), (true, false)] {
                let form = Form { d, bias, log_sum };
                one(cx, form.name(), &variant.to_string(), report, &|cx| attention(cx, variant, form))?;
            }
        }
    }
    Ok(())
}

/// Every type of weights that stays packed.
pub(super) fn packed_types() -> impl Iterator<Item = DType> {
    let blocks = Packing::ALL.into_iter().map(DType::Packed);
    blocks.chain([DType::F8E4M3, DType::F8E5M2, DType::I8])
}

impl Form {
    /// The name of the kernel.
    pub(super) fn name(self) -> String {
        let with = |is: bool, text| if is { text } else { "" };
        format!("attention {}{}{}", self.d, with(self.bias, " biased"), with(self.log_sum, " log-sums"))
    }
}

fn one(
    cx: &mut Stream,
    kernel: String,
    variant: &str,
    report: &mut dyn FnMut(&Finding),
    test: &dyn Fn(&mut Stream) -> Result<Error>,
) -> Result<()> {
    let start = Instant::now();
    let result = cx.in_one_go(test);
    let seconds = start.elapsed().as_secs_f64();
    let (error, fault) = match result {
        Ok(error) => (Some(error.0), error.fault()),
        Err(fatal @ (GpuError::Lost(_) | GpuError::Cancelled)) => return Err(fatal),
        Err(error) => (None, Some(error.to_string())),
    };
    report(&Finding { kernel, variant: variant.into(), error, seconds, fault });
    Ok(())
}

/// Whether an adapter computes at all: a product with the variant that the fixed rule names. The
/// answer is remembered with the device's choices.
///
/// # Errors
/// No variant of a plain product is right.
pub fn works(gpu: &Gpu) -> Result<()> {
    let mut cx = Stream::new(gpu, crate::gpu::StreamOptions::default());
    super::matmul::passing(&mut cx, DType::F32).map(drop)
}

#[cfg(test)]
mod tests;
