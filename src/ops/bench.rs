//! Speeds of kernels, for `ditscope bench`: every variant on the shapes of real models, and the
//! device's peak.

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, Gpu, Kernel, Result, Stream, Tensor, fold_groups};
use crate::weights::{DType, Packing};

use super::attention::attention_choice;
use super::conv::conv_choice;
use super::matmul::product_choice;
use super::sample::sample;
use super::tune::{Choice, Named, seconds};
use super::{
    Activation, Attention, AttentionVariant, Conv, HostWeight, Target, Then, Variant, Weight, attention_with,
    conv_variants, conv_with, matmul_with,
};

/// The highest speed of a device, as measured.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Peak {
    /// Multiply-adds in f32, in 10^9 floating-point operations a second.
    pub gflops: f64,
    /// Bytes read and written by a copy, in 10^9 a second.
    pub gigabytes: f64,
}

/// The speed of one variant on one shape.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct KernelSpeed {
    /// Family, operands and shape.
    pub kernel: String,
    /// The model that has this shape.
    pub model: &'static str,
    /// The variant.
    pub variant: String,
    /// Seconds of one call.
    pub seconds: f64,
    /// 10^9 floating-point operations a second.
    pub gflops: f64,
    /// `gflops` as a fraction of the device's peak.
    pub peak_fraction: f64,
    /// Whether the program uses this variant for the shape.
    pub chosen: bool,
}

/// Models whose shapes are measured.
const DEMO: &str = "demo";
const WAN: &str = "Wan2.1-1.3B";
const OTHER: &str = "other models";

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
enum Case {
    /// Rows, inner extent, columns.
    Matmul(DType, [usize; 3]),
    /// Heads, tokens, head dimension.
    Attention([usize; 3]),
    /// Height and width, input and output channels of a causal 3 x 3 x 3 convolution of 4 frames.
    Conv([usize; 4]),
}

/// The shapes of the heavy operations of the demo model and of Wan2.1-1.3B. On a CPU the larger
/// model has fewer tokens and heads.
fn cases(gpu: &Gpu) -> Vec<(&'static str, Case)> {
    let (tokens, attended, heads, side) = if gpu.caps().cpu { (128, 4000, 2, 16) } else { (4096, 4096, 12, 104) };
    let matmul = |m, k, n| Case::Matmul(DType::F16, [m, k, n]);
    vec![
        (DEMO, matmul(80, 192, 576)),
        (DEMO, matmul(80, 192, 768)),
        (DEMO, matmul(80, 768, 192)),
        (WAN, matmul(tokens, 1536, 4608)),
        (WAN, matmul(tokens, 1536, 1536)),
        (WAN, matmul(tokens, 8960, 1536)),
        (WAN, Case::Matmul(DType::BF16, [tokens, 1536, 8960])),
        (WAN, Case::Matmul(DType::Packed(Packing::Q8_0), [tokens, 1536, 8960])),
        (WAN, Case::Matmul(DType::Packed(Packing::Q4K), [tokens, 1536, 8960])),
        (DEMO, Case::Attention([6, 80, 32])),
        (DEMO, Case::Attention([6, 1000, 32])),
        (DEMO, Case::Attention([heads, attended, 32])),
        (OTHER, Case::Attention([heads, 1000, 64])),
        (OTHER, Case::Attention([heads, attended, 64])),
        (WAN, Case::Attention([heads, 1000, 128])),
        (WAN, Case::Attention([heads, attended, 128])),
        (DEMO, Case::Conv([64, 64, 8, 8])),
        (DEMO, Case::Conv([32, 32, 16, 16])),
        (DEMO, Case::Conv([8, 8, 80, 80])),
        (WAN, Case::Conv([side * 60 / 104, side, 96, 96])),
    ]
}

arguments! {
    /// Arguments of `peak_fma.wgsl`.
    PeakFma => ["peak_fma"];
    params PeakFmaParams {
        turns: u32,
        factor: f32,
        summand: f32,
    }
    tensors {
        output @ 1: ReadWrite F32,
    }
}

arguments! {
    /// Arguments of `peak_copy.wgsl`.
    PeakCopy => ["peak_copy"];
    params PeakCopyParams {
        count4: u32,
    }
    tensors {
        x @ 1: Read F32,
        y_out @ 2: ReadWrite F32,
    }
}

/// Measures the device's peak.
///
/// # Errors
/// An error of the GPU.
pub fn peak(cx: &mut Stream) -> Result<Peak> {
    Ok(Peak { gflops: peak_gflops(cx)?, gigabytes: peak_gigabytes(cx)? })
}

fn peak_gflops(cx: &mut Stream) -> Result<f64> {
    /// Operations of a turn in `peak_fma.wgsl`: 3 chains of vectors of four, unrolled 8 times, with
    /// a multiplication and an addition each.
    const FLOPS: f64 = 3.0 * 4.0 * 8.0 * 2.0;
    let (groups, turns) = if cx.gpu().caps().cpu { (512_u32, 256_u32) } else { (16_384, 1024) };
    let threads = groups as usize * 64;
    let out = cx.empty("sums", &[threads, 4], ElementType::F32)?;
    let params = PeakFmaParams { turns, factor: 0.999, summand: 0.001 };
    let flops = FLOPS * f64::from(turns) * threads as f64;
    let seconds = seconds(cx, &mut |cx| {
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("peak_fma"),
            arguments: &PeakFma { params, output: &out },
            groups: [groups, 1, 1],
            flops,
        })
    })?;
    Ok(flops / seconds / 1e9)
}

fn peak_gigabytes(cx: &mut Stream) -> Result<f64> {
    let bytes = cx.gpu().caps().max_binding.min(64 << 20);
    let count = bytes as usize / 4;
    let (from, to) = (cx.zeros("from", &[count], ElementType::F32)?, cx.empty("to", &[count], ElementType::F32)?);
    let seconds = seconds(cx, &mut |cx| {
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("peak_copy"),
            arguments: &PeakCopy { params: PeakCopyParams { count4: count as u32 / 4 }, x: &from, y_out: &to },
            groups: fold_groups((count / 4).div_ceil(64)),
            flops: count as f64,
        })
    })?;
    Ok(2.0 * bytes as f64 / seconds / 1e9)
}

/// Measures every variant of the heavy kernels, and reports them, one shape after the other. The
/// fastest variant of a shape is remembered, unless a choice was made before.
///
/// # Errors
/// An error of the GPU.
pub fn kernels(cx: &mut Stream, peak: &Peak, report: &mut dyn FnMut(&[KernelSpeed])) -> Result<()> {
    for (model, case) in cases(&cx.gpu().clone()) {
        let speeds = match case {
            Case::Matmul(dtype, extents) => matmul_speeds(cx, dtype, extents)?,
            Case::Attention(extents) => attention_speeds(cx, extents)?,
            Case::Conv(extents) => conv_speeds(cx, extents)?,
        };
        let speeds: Vec<KernelSpeed> = speeds
            .into_iter()
            .map(|speed| KernelSpeed { model, peak_fraction: speed.gflops / peak.gflops, ..speed })
            .collect();
        report(&speeds);
    }
    Ok(())
}

fn matmul_speeds(cx: &mut Stream, dtype: DType, [m, k, n]: [usize; 3]) -> Result<Vec<KernelSpeed>> {
    let gpu = cx.gpu().clone();
    let x = random(cx, &[m, k])?;
    let (source, _) = sample(dtype, [n, k]);
    let w = Weight::linear(&gpu, "w", &source, [n, k], None)?;
    let variants = Variant::available_for(&gpu, dtype);
    let tried = without_tiles(&gpu, &variants, |variant| matches!(variant, Variant::Tile { .. }));
    let candidates = Variant::candidates(&gpu);
    let choice = product_choice(&variants, &candidates, m, w.whole()?);
    let name = format!("matmul {dtype} {m} x {k} x {n}");
    speeds(cx, &name, &tried, &choice, |cx, variant| {
        matmul_with(cx, variant, &x, &w, Activation::None, Then::Store).map(drop)
    })
}

fn attention_speeds(cx: &mut Stream, [heads, n, d]: [usize; 3]) -> Result<Vec<KernelSpeed>> {
    let gpu = cx.gpu().clone();
    let (q, k, v) = (random(cx, &[heads, n, d])?, random(cx, &[heads, d, n])?, random(cx, &[heads, n, d])?);
    // The transformer asks for the log-sum too.
    let log_sum = cx.empty("log-sum", &[heads, n], ElementType::F32)?;
    let call = Attention { q: &q, k: &k, v: &v, scale: 1.0 / (d as f32).sqrt(), bias: None, log_sum: Some(&log_sum) };
    let variants = AttentionVariant::available(&gpu);
    let tried = without_tiles(&gpu, &variants, |variant| matches!(variant, AttentionVariant::Tile { .. }));
    let candidates = AttentionVariant::candidates(&gpu);
    let choice = attention_choice(&variants, &candidates, &call)?;
    let name = format!("attention {heads} x {n} x {d}");
    speeds(cx, &name, &tried, &choice, |cx, variant| attention_with(cx, variant, &call).map(drop))
}

fn conv_speeds(cx: &mut Stream, [height, width, inputs, outputs]: [usize; 4]) -> Result<Vec<KernelSpeed>> {
    /// Frames of the output. The input has two more as context.
    const FRAMES: usize = 4;
    let gpu = cx.gpu().clone();
    let geometry = Conv::causal(2);
    let values: Vec<u8> =
        noise(27 * inputs * outputs).iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let source = HostWeight::floats(values.into(), DType::F16);
    let w = geometry.weight(&gpu, "w", &source, [outputs, inputs], 0..outputs, None)?;
    let x = random(cx, &[FRAMES + 2, height, width, inputs])?;
    let variants = conv_variants(&gpu, w.n());
    let tried = without_tiles(&gpu, &variants, |variant| matches!(variant, Variant::Tile { .. }));
    let choice = conv_choice(&variants, &x, &w, &geometry)?;
    let name = format!("conv F16 {FRAMES} x {height} x {width}, {inputs} to {outputs}");
    speeds(cx, &name, &tried, &choice, |cx, variant| {
        conv_with(cx, variant, &x, &w, &geometry, Activation::None, Target::New).map(drop)
    })
}

/// The variants to measure. On a CPU with subgroups tiles are left out, because they are hopelessly
/// slow there and take seconds to compile.
fn without_tiles<V: Copy>(gpu: &Gpu, variants: &[V], is_tile: impl Fn(V) -> bool) -> Vec<V> {
    let others: Vec<V> = variants.iter().copied().filter(|variant| !is_tile(*variant)).collect();
    if gpu.caps().cpu && !others.is_empty() { others } else { variants.to_vec() }
}

/// Measures variants, and chooses the fastest unless a choice was made before. If choices cannot be
/// remembered, the fixed rule chooses.
fn speeds<V: Named>(
    cx: &mut Stream,
    kernel: &str,
    tried: &[V],
    choice: &Choice<V>,
    run: impl Fn(&mut Stream, V) -> Result<()>,
) -> Result<Vec<KernelSpeed>> {
    let mut measured = Vec::with_capacity(tried.len());
    for &variant in tried {
        if !choice.passes(cx, variant)? {
            continue;
        }
        measured.push((variant, seconds(cx, &mut |cx| run(cx, variant))?));
    }
    let rule = choice.first_passing(cx)?;
    let chosen = choice.settle(cx.gpu(), rule, &measured);
    let speed = |(variant, seconds): (V, f64)| KernelSpeed {
        kernel: kernel.into(),
        model: DEMO,
        variant: variant.name(),
        seconds,
        gflops: choice.flops / seconds / 1e9,
        peak_fraction: 0.0,
        chosen: variant == chosen,
    };
    Ok(measured.into_iter().map(speed).collect())
}

fn random(cx: &mut Stream, shape: &[usize]) -> Result<Tensor> {
    cx.upload("random", &noise(shape.iter().product()), shape)
}

/// Values in [-1, 1) that no compiler or cache can guess: the upper bits of a linear congruential
/// generator with Knuth's MMIX constants.
fn noise(count: usize) -> Vec<f32> {
    noise_from(1, count)
}

/// As [`noise`], with other values for another seed.
pub(super) fn noise_from(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing;

    /// The peak bounds every kernel, within the noise of a busy machine.
    #[test]
    fn peaks_are_finite_and_above_a_product() {
        let (gpu, _turns) = testing::alone();
        let mut cx = testing::stream(&gpu);
        let peak = peak(&mut cx).unwrap();
        assert!(peak.gflops.is_finite() && peak.gigabytes.is_finite(), "{peak:?}");
        let speeds = matmul_speeds(&mut cx, DType::BF16, [16, 64, 64]).unwrap();
        assert!(speeds.iter().filter(|speed| speed.chosen).count() == 1, "{speeds:?}");
        assert!(
            speeds.iter().all(|speed| speed.gflops > 0.0 && speed.gflops < 2.0 * peak.gflops),
            "{speeds:?} {peak:?}"
        );
    }

    /// Measures every packed type against bf16, in one run. The figures are in docs/kernels.md.
    #[test]
    #[ignore = "a measurement"]
    fn packed_types_against_bf16() {
        let (gpu, _turns) = testing::alone();
        let mut cx = testing::stream(&gpu);
        let m = if gpu.caps().cpu { 128 } else { 4096 };
        for extents in [[m, 1536, 1536], [m, 1536, 8960]] {
            let mut best = |dtype| {
                let speeds = matmul_speeds(&mut cx, dtype, extents).unwrap();
                speeds.into_iter().max_by(|a, b| a.gflops.total_cmp(&b.gflops)).unwrap()
            };
            let reference = best(DType::BF16);
            println!("{extents:?} BF16 {:.1} GFLOP/s by {}", reference.gflops, reference.variant);
            for dtype in super::super::selftest::packed_types() {
                let speed = best(dtype);
                let ratio = speed.gflops / reference.gflops;
                println!("{extents:?} {dtype} {:.1} GFLOP/s by {}, {ratio:.2}", speed.gflops, speed.variant);
            }
        }
    }
}
