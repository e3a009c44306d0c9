use super::*;
use crate::ops::testing::*;

/// The CPU twin: `[t, h, w, c]` by `[out, in, taps]` in f64, zero outside.
fn conv_cpu(x: &[f32], extents: [usize; 3], w: &[f32], [outputs, inputs]: [usize; 2], geometry: &Conv) -> Vec<f64> {
    let [_, height, width] = extents;
    let big = geometry.virtual_input(extents);
    let output = geometry.output(extents).unwrap();
    let [kt, kh, kw] = geometry.kernel;
    let scale = if geometry.upsample { 2 } else { 1 };
    let padded = inputs.next_multiple_of(4);
    let source = |at: usize, k: usize, axis: usize| {
        let place = (at * geometry.stride[axis] + k).checked_sub(geometry.before[axis])?;
        (place < big[axis]).then_some(if axis == 0 { place } else { place / scale })
    };
    let mut y = Vec::new();
    for (t, h, x_) in itertools(output) {
        for o in 0..outputs {
            let mut sum = 0.0;
            for (a, b, c) in itertools([kt, kh, kw]) {
                let (Some(it), Some(ih), Some(iw)) = (source(t, a, 0), source(h, b, 1), source(x_, c, 2)) else {
                    continue;
                };
                for i in 0..inputs {
                    let value = x[((it * height + ih) * width + iw) * padded + i];
                    let weight = w[((o * inputs + i) * kt * kh + a * kh + b) * kw + c];
                    sum += f64::from(value) * f64::from(weight);
                }
            }
            y.push(sum);
        }
    }
    y
}

/// All index triples, last fastest.
fn itertools([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

/// Rows of `n` values padded with zeros to a multiple of 4.
fn padded(values: impl IntoIterator<Item = f32>, n: usize) -> Vec<f32> {
    let values: Vec<f32> = values.into_iter().collect();
    let mut out = Vec::new();
    for row in values.chunks(n) {
        out.extend_from_slice(row);
        out.resize(out.len().next_multiple_of(n.next_multiple_of(4)), 0.0);
    }
    out
}

struct Case {
    geometry: Conv,
    extents: [usize; 3],
    channels: [usize; 2],
}

const DOWN: Conv = Conv { stride: [1, 2, 2], before: [0; 3], after: [0, 1, 1], ..Conv::PLANE };
const UP: Conv = Conv { upsample: true, ..Conv::PLANE };
const TIME: Conv = Conv { kernel: [3, 1, 1], before: [2, 0, 0], ..Conv::POINT };
const TIME_DOWN: Conv = Conv { kernel: [3, 1, 1], stride: [2, 1, 1], ..Conv::POINT };

fn cases() -> Vec<Case> {
    let case = |geometry, extents, channels| Case { geometry, extents, channels };
    vec![
        case(Conv::causal(0), [1, 5, 7], [4, 4]),
        case(Conv::causal(1), [2, 3, 9], [3, 8]),
        case(Conv::causal(2), [4, 6, 5], [12, 16]),
        case(Conv::causal(2), [3, 1, 1], [16, 12]),
        case(Conv::causal(0), [2, 9, 8], [16, 40]),
        case(Conv::PLANE, [2, 3, 3], [20, 36]),
        case(DOWN, [3, 8, 6], [8, 8]),
        case(DOWN, [1, 5, 7], [5, 6]),
        case(UP, [2, 3, 5], [24, 12]),
        case(UP, [1, 4, 1], [4, 32]),
        case(TIME, [3, 2, 5], [8, 8]),
        case(TIME_DOWN, [5, 3, 3], [8, 20]),
        case(Conv::POINT, [2, 3, 11], [10, 3]),
    ]
}

fn weights(gpu: &Gpu, case: &Case, seed: u64) -> (Weight, Vec<f32>, Vec<f32>) {
    let [inputs, outputs] = case.channels;
    let taps: usize = case.geometry.kernel.iter().product();
    let values = random(seed, outputs * inputs * taps);
    let bias = random(seed + 1, outputs);
    let host = HostWeight::from_f32(&values);
    let weight = case.geometry.weight(gpu, "w", &host, [outputs, inputs], 0..outputs, Some(&bias)).expect("weight");
    (weight, values, bias)
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn check(cx: &mut Stream, case: &Case, variant: Variant, seed: u64) {
    let [inputs, outputs] = case.channels;
    let (weight, values, bias) = weights(&cx.gpu().clone(), case, seed);
    let [t, h, w] = case.extents;
    let x = padded(random(seed + 2, t * h * w * inputs), inputs);
    let tensor = cx.upload("x", &x, &[t, h, w, inputs.next_multiple_of(4)]).unwrap();
    let sums = conv_cpu(&x, case.extents, &values, [outputs, inputs], &case.geometry);
    let want = sums.iter().enumerate().map(|(i, sum)| silu(sum + f64::from(bias[i % outputs])) as f32);
    let want = padded(want, outputs);
    let got = conv_with(cx, variant, &tensor, &weight, &case.geometry, Activation::Silu, Target::New).unwrap();
    let what = format!("{variant:?} {:?} {:?} {:?}", case.geometry, case.extents, case.channels);
    assert_close(&cx.read(&got).unwrap(), &want, 2e-6, &what);
    // Into every second frame, and added to the first result.
    let [ot, oh, ow] = case.geometry.output(case.extents).unwrap();
    let n = outputs.next_multiple_of(4);
    let wide = cx.zeros("wide", &[2 * ot, oh, ow, n], ElementType::F32).unwrap();
    let frames = Target::Frames { tensor: &wide, stride: 2, offset: 1 };
    conv_with(cx, variant, &tensor, &weight, &case.geometry, Activation::Silu, frames).unwrap();
    conv_with(cx, variant, &tensor, &weight, &case.geometry, Activation::Silu, Target::AddTo(&got)).unwrap();
    let mut spread = vec![0.0; 2 * want.len()];
    for (frame, values) in want.chunks(oh * ow * n).enumerate() {
        let at = (2 * frame + 1) * oh * ow * n;
        spread[at..at + values.len()].copy_from_slice(values);
    }
    assert_close(&cx.read(&wide).unwrap(), &spread, 2e-6, &what);
    let twice: Vec<f32> = want.iter().map(|v| 2.0 * v).collect();
    assert_close(&cx.read(&got).unwrap(), &twice, 2e-6, &what);
}

/// A variant that compiles quickly, on devices with and without subgroups.
fn quick_variant(gpu: &Gpu) -> Variant {
    let rows = Variant::Rows { rows: 4, columns4: 2 };
    if Variant::available(gpu).contains(&rows) { rows } else { Variant::Tile { rows: 4 } }
}

#[test]
fn every_geometry_is_right() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    for (i, case) in cases().iter().enumerate() {
        check(&mut cx, case, quick_variant(&gpu), 10 * i as u64);
    }
}

#[test]
fn every_variant_is_right() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    // One compilation for each variant, because the large ones take seconds.
    let case = Case { geometry: Conv::causal(1), extents: [3, 5, 7], channels: [6, 39] };
    let (weight, values, _) = weights(&gpu, &case, 1);
    let x = padded(random(2, 3 * 5 * 7 * 6), 6);
    let tensor = cx.upload("x", &x, &[3, 5, 7, 8]).unwrap();
    let sums = conv_cpu(&x, case.extents, &values, [39, 6], &case.geometry);
    let weight = Weight { bias: None, ..weight };
    let want = padded(sums.into_iter().map(|sum| sum as f32), 39);
    for variant in Variant::available(&gpu) {
        let got = conv_with(&mut cx, variant, &tensor, &weight, &case.geometry, Activation::None, Target::New);
        assert_close(&cx.read(&got.unwrap()).unwrap(), &want, 2e-6, &format!("{variant:?}"));
    }
}

#[test]
fn the_base_tier_is_right() {
    let (gpu, _turn) = base_gpu();
    let mut cx = stream(&gpu);
    for (i, case) in cases().iter().enumerate() {
        check(&mut cx, case, Variant::Tile { rows: 4 }, 10 * i as u64);
    }
}

/// Small bindings and a small time budget split dispatches inside frames and between them, and make
/// views start anywhere.
#[test]
fn splits_are_seamless() {
    let (_, _turn) = gpu();
    let gpu = narrow_gpu(12 << 10);
    let budget = std::time::Duration::from_micros(30);
    let mut cx = Stream::new(&gpu, crate::gpu::StreamOptions::default().with_budget(budget));
    let case = Case { geometry: Conv::causal(2), extents: [9, 9, 7], channels: [12, 8] };
    check(&mut cx, &case, quick_variant(&gpu), 1);
    let case = Case { geometry: TIME_DOWN, extents: [9, 5, 7], channels: [12, 8] };
    check(&mut cx, &case, quick_variant(&gpu), 2);
    let case = Case { geometry: Conv::causal(2), extents: [3, 30, 20], channels: [12, 8] };
    let (weight, ..) = weights(&gpu, &case, 3);
    let x = cx.zeros("x", &[3, 30, 20, 12], ElementType::F32).unwrap();
    let error = conv(&mut cx, &x, &weight, &case.geometry, Activation::None, Target::New).unwrap_err();
    assert!(matches!(error, GpuError::BindingTooLarge { .. }), "{error}");
}

#[test]
fn misfits_are_errors() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let case = Case { geometry: Conv::causal(0), extents: [1, 4, 4], channels: [4, 4] };
    let (weight, ..) = weights(&gpu, &case, 1);
    let mut run = |shape: &[usize], geometry: &Conv, target: Target| {
        let x = cx.zeros("x", shape, ElementType::F32).unwrap();
        conv(&mut cx, &x, &weight, geometry, Activation::None, target).is_err()
    };
    assert!(run(&[1, 4, 8], &case.geometry, Target::New), "no video");
    assert!(run(&[1, 4, 4, 8], &case.geometry, Target::New), "other channels");
    assert!(run(&[1, 0, 4, 4], &case.geometry, Target::New), "no pixels");
    let valid = Conv { before: [0; 3], ..case.geometry };
    assert!(run(&[2, 4, 4, 4], &valid, Target::New), "smaller than the kernel");
    let small = stream(&gpu).zeros("small", &[1, 4, 3, 4], ElementType::F32).unwrap();
    assert!(run(&[1, 4, 4, 4], &case.geometry, Target::AddTo(&small)), "residual of another shape");
    let one = stream(&gpu).zeros("one", &[1, 4, 4, 4], ElementType::F32).unwrap();
    let beyond = Target::Frames { tensor: &one, stride: 2, offset: 1 };
    assert!(run(&[1, 4, 4, 4], &case.geometry, beyond), "frame beyond the target");
    let host = HostWeight::from_f32(&[0.0; 4 * 4 * 27]);
    assert!(case.geometry.weight(&gpu, "w", &host, [4, 5], 0..4, None).is_err(), "too few elements");
    assert!(case.geometry.weight(&gpu, "w", &host, [4, 4], 1..5, None).is_err(), "channels beyond the last");
}
