use super::*;
use crate::gpu::{GpuOptions, StreamOptions};
use crate::ops::HostWeight;
use crate::ops::sample::sample;
use crate::ops::selftest::packed_types;
use crate::ops::testing::*;

/// The CPU twin: `activation(x w scale + bias)`, in f64.
fn product_twin(x: &[f32], w: &[f32], bias: Option<&[f32]>, n: usize, scale: f64, activation: Activation) -> Vec<f64> {
    let k = w.len() / n;
    let mut out = Vec::new();
    for row in x.chunks(k) {
        for column in 0..n {
            let sum: f64 = (0..k).map(|i| f64::from(row[i]) * f64::from(w[column * k + i])).sum();
            let y = sum * scale + bias.map_or(0.0, |bias| f64::from(bias[column]));
            out.push(match activation {
                Activation::None => y,
                Activation::Gelu => 0.5 * y * (1.0 + (0.797_884_560_802_865_4 * (y + 0.044_715 * y.powi(3))).tanh()),
                Activation::Silu => y / (1.0 + (-y).exp()),
            });
        }
    }
    out
}

/// Every activation and every operation after a product, with and without bias. m and n are no
/// multiples of any tile.
fn check(cx: &mut Stream, variant: Variant, dtype: DType) {
    let [m, k, n] = [37, usize::next_multiple_of(20, dtype.block().0), 76];
    let gpu = cx.gpu().clone();
    let (x, values) = random_tensor(cx, 1, &[m, k]);
    let (host, weights) = sample(dtype, [n, k]);
    let host = host.scaled(0.5);
    let bias_values = random(3, n);
    let (factors, f) = random_tensor(cx, 4, &[m, n]);
    let (gates, g) = random_tensor(cx, 5, &[3, n]);
    for bias in [None, Some(bias_values.as_slice())] {
        let w = Weight::linear(&gpu, "w", &host, [n, k], bias).unwrap();
        for activation in [Activation::None, Activation::Gelu, Activation::Silu] {
            let want = product_twin(&values, &weights, bias, n, 0.5, activation);
            let (residual, r) = random_tensor(cx, 6, &[m, n]);
            let mut compare = |then: Then, what: &str, want: &mut dyn Iterator<Item = f64>| {
                let got = matmul_with(cx, variant, &x, &w, activation, then).unwrap();
                let want: Vec<f32> = want.map(|v| v as f32).collect();
                let what = format!("{variant} {dtype} {activation:?} {what}, bias {}", bias.is_some());
                assert_close(&cx.read(&got).unwrap(), &want, 2e-6, &what);
            };
            compare(Then::Store, "stored", &mut want.iter().copied());
            let times = &mut want.iter().zip(&f).map(|(y, f)| y * f64::from(*f));
            compare(Then::Times(&factors), "times", times);
            let sums = &mut want.iter().zip(&r).map(|(y, r)| y + f64::from(*r));
            compare(Then::AddTo(&residual), "added", sums);
        }
        let want = product_twin(&values, &weights, bias, n, 0.5, Activation::None);
        let (residual, r) = random_tensor(cx, 7, &[m, n]);
        let then = Then::AddGated { residual: &residual, gates: &gates, row: 2 };
        let got = matmul_with(cx, variant, &x, &w, Activation::None, then).unwrap();
        let gate = |i: usize| f64::from(g[2 * n + i % n]);
        let sums = want.iter().zip(&r).enumerate().map(|(i, (y, r))| (gate(i) * y + f64::from(*r)) as f32);
        assert_close(&cx.read(&got).unwrap(), &sums.collect::<Vec<_>>(), 2e-6, &format!("{variant} gated"));
    }
}

#[test]
fn products_agree_with_the_twin() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    // Tiles compile slowly on CPU drivers, so the test below checks only one of them.
    for variant in Variant::available(&gpu).into_iter().filter(|variant| !matches!(variant, Variant::Tile { .. })) {
        check(&mut cx, variant, DType::BF16);
    }
    check(&mut cx, Variant::candidates(&gpu)[0], DType::F16);
    check(&mut cx, Variant::candidates(&gpu)[0], DType::F32);
}

#[test]
fn products_by_tiles_agree_with_the_twin() {
    let (gpu, _turn) = base_gpu();
    check(&mut stream(&gpu), Variant::Tile { rows: 4 }, DType::F32);
}

/// Products that exceed a binding or a submit are computed in parts, with the same bits.
#[test]
fn rows_are_split_at_the_limits() {
    let (_, _turn) = gpu();
    let [m, k, n] = [150, 64, 36];
    let product = |max_binding, budget| {
        let gpu = narrow_gpu(max_binding);
        let mut cx = Stream::new(&gpu, StreamOptions::default().with_budget(budget));
        let (x, _) = random_tensor(&mut cx, 1, &[3, m / 3, k]);
        let host = HostWeight::from_f32(&random(2, n * k));
        let w = Weight::linear(&gpu, "w", &host, [n, k], Some(&random(3, n))).unwrap();
        let [factors, residual] = [4, 5].map(|seed| random_tensor(&mut cx, seed, &[3, m / 3, n]).0);
        let (gates, _) = random_tensor(&mut cx, 6, &[3, n]);
        let gated = Then::AddGated { residual: &residual, gates: &gates, row: 2 };
        [Then::Store, Then::Times(&factors), Then::AddTo(&residual), gated].map(|then| {
            let variant = Variant::candidates(&gpu)[0];
            let product = matmul_with(&mut cx, variant, &x, &w, Activation::None, then).unwrap();
            cx.read(&product).unwrap()
        })
    };
    let whole = product(None, StreamOptions::default().budget);
    // The weights take 9,216 bytes, 32 rows of x 8,192.
    assert_eq!(product(Some(9_216), StreamOptions::default().budget), whole, "bindings");
    assert_eq!(product(None, std::time::Duration::ZERO), whole, "submits");
}

/// Measured choices give the result of the fixed rule up to rounding, and the next process
/// makes the same choices.
#[test]
fn tuned_products_are_right_and_stay_the_same() {
    let (_, _turn) = gpu();
    let folder = tempfile::tempdir().unwrap();
    let choices = Some(folder.path().join("kernels.json"));
    let mut results = Vec::new();
    for choices in [None, choices.clone(), choices] {
        let gpu = Gpu::open(&GpuOptions { choices, checked_shaders: true, ..Default::default() }).unwrap();
        let mut cx = stream(&gpu);
        let (x, _) = random_tensor(&mut cx, 1, &[96, 256]);
        let w = Weight::linear(&gpu, "w", &HostWeight::from_f32(&random(2, 256 * 256)), [256, 256], None).unwrap();
        let got = matmul(&mut cx, &x, &w, Activation::None, Then::Store).unwrap();
        results.push(cx.read(&got).unwrap());
    }
    // A CPU without subgroups has a single candidate.
    let candidates = Variant::candidates(&Gpu::open(&GpuOptions::default()).unwrap());
    assert_eq!(folder.path().join("kernels.json").is_file(), candidates.len() > 1, "a choice was made");
    assert_close(&results[1], &results[0], 1e-6, "tuned against the rule");
    assert_eq!(results[1], results[2], "two processes");
}

/// Every packed type is unpacked in the shader to the values of the reference on the CPU, within a
/// unit in the last place. The product with the identity matrix is the weight itself.
#[test]
fn packed_weights_are_unpacked_exactly() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    for dtype in packed_types() {
        let (k, n) = (2 * dtype.block().0.max(8), 12);
        let (host, values) = sample(dtype, [n, k]);
        let w = Weight::linear(&gpu, "w", &host, [n, k], None).unwrap();
        let identity: Vec<f32> = (0..k * k).map(|i| f32::from(i % (k + 1) == 0)).collect();
        let x = cx.upload("x", &identity, &[k, k]).unwrap();
        let got = matmul_with(&mut cx, Variant::candidates(&gpu)[0], &x, &w, Activation::None, Then::Store).unwrap();
        let got = cx.read(&got).unwrap();
        assert!(values.iter().filter(|value| **value != 0.0).count() > values.len() / 2, "{dtype}");
        for (i, value) in got.iter().enumerate() {
            let want = values[i % n * k + i / n];
            let ulp = (f32::from_bits(want.abs().to_bits() + 1) - want.abs()).max(f32::MIN_POSITIVE);
            assert!((value - want).abs() <= ulp, "{dtype} at row {}, column {}: {value} {want}", i / n, i % n);
        }
    }
}

/// Products with packed weights have the error of f32 sums, in every kernel.
#[test]
fn packed_products_agree_with_the_twin() {
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    for dtype in packed_types() {
        let error = selftest::product(&mut cx, Variant::candidates(&gpu)[0], dtype).unwrap();
        assert!(error.0 < 1e-6, "{dtype}: {error:?}");
    }
    let dtype = DType::Packed(crate::weights::Packing::Q5K);
    let all = Variant::available_for(&gpu, dtype);
    for variant in [Variant::Subgroup { row_groups: 1, lane_columns: 2 }, Variant::Tile { rows: 4 }] {
        if all.contains(&variant) {
            check(&mut cx, variant, dtype);
        }
    }
}

/// A weight whose columns are stored in several types gives the columns of each.
#[test]
fn columns_of_several_types_lie_side_by_side() {
    use crate::weights::Packing;
    let (gpu, _turn) = gpu();
    let mut cx = stream(&gpu);
    let (m, k, rows) = (19, 256, [8, 12, 4]);
    let n: usize = rows.iter().sum();
    let types = [DType::Packed(Packing::Q4K), DType::Packed(Packing::Q6K), DType::F16];
    let (hosts, values): (Vec<_>, Vec<_>) = types.iter().zip(rows).map(|(dtype, n)| sample(*dtype, [n, k])).unzip();
    let (x, inputs) = random_tensor(&mut cx, 1, &[m, k]);
    let (bias, (residual, r), (gates, g)) =
        (random(3, n), random_tensor(&mut cx, 4, &[m, n]), random_tensor(&mut cx, 5, &[2, n]));
    let w = Weight::joined(&gpu, "w", &hosts, &rows, k, Some(&bias)).unwrap();
    assert_eq!((w.k(), w.n(), w.bytes()), (k, n, (8 * 148 + 12 * 210 + 4 * 512) as u64));
    let then = Then::AddGated { residual: &residual, gates: &gates, row: 1 };
    let got = matmul(&mut cx, &x, &w, Activation::None, then).unwrap();
    let product = product_twin(&inputs, &values.concat(), Some(&bias), n, 1.0, Activation::None);
    let gated = product.iter().zip(&r).enumerate();
    let want: Vec<f32> = gated.map(|(i, (y, r))| (f64::from(g[n + i % n]) * y + f64::from(*r)) as f32).collect();
    assert_close(&cx.read(&got).unwrap(), &want, 2e-6, "joined");
    let odd = Weight::joined(&gpu, "w", &hosts[..2], &[6, 12], k, None).unwrap_err();
    assert!(odd.to_string().contains("joins"), "{odd}");
    let short = HostWeight { bytes: vec![0; 144].into(), ..hosts[0].clone() };
    assert!(Weight::linear(&gpu, "w", &short, [8, k], None).is_err());
}
