use super::*;
use crate::gpu::GpuOptions;
use crate::ops::testing::{alone, random_tensor, stream};
use crate::ops::{HostWeight, matmul};

/// A device with a file of choices in `folder`.
fn device(folder: &std::path::Path) -> Gpu {
    let choices = Some(folder.join("kernels.json"));
    Gpu::open(&GpuOptions { choices, checked_shaders: true, ..Default::default() }).unwrap()
}

/// The rule's variants pass, far below the bound.
#[test]
fn right_variants_pass() {
    let (gpu, _turns) = alone();
    let mut cx = stream(&gpu);
    let variant = Variant::candidates(&gpu)[0];
    for dtype in [DType::F16, DType::F32] {
        assert!(product(&mut cx, variant, dtype).unwrap().0 < 1e-6);
    }
    assert!(convolution(&mut cx, variant, DType::F32).unwrap().0 < 1e-6);
    let form = Form { d: 32, bias: true, log_sum: true };
    assert!(attention(&mut cx, AttentionVariant::candidates(&gpu)[0], form).unwrap().0 < 2e-6);
}

/// Faults as drivers make them: a dropped term, a row too many, a value that is no number.
#[test]
fn injected_faults_are_found_and_avoided() {
    let (_, _turns) = alone();
    let folder = tempfile::tempdir().unwrap();
    let gpu = device(folder.path());
    if gpu.caps().subgroup_min.is_none_or(|size| size < 8) {
        return;
    }
    // The rule on a CPU with subgroups.
    gpu.break_shader("matmul_subgroup", "y_out[i] = y;", "y_out[i ^ 1u] = y;");
    let mut cx = stream(&gpu);
    let wrong = product(&mut cx, Variant::Subgroup { row_groups: 2, lane_columns: 2 }, DType::F32).unwrap();
    assert!(wrong.fault().is_some(), "{wrong:?}");
    // The program goes on with another variant, and the result is right.
    let (x, _) = random_tensor(&mut cx, 1, &[96, 64]);
    let w = Weight::linear(&gpu, "w", &HostWeight::from_f32(&noise_from(2, 64 * 64)), [64, 64], None).unwrap();
    let got = matmul(&mut cx, &x, &w, Activation::None, Then::Store).unwrap();
    let got = cx.read(&got).unwrap();
    let mut right = stream(&Gpu::open(&GpuOptions::default()).unwrap());
    let gpu = right.gpu().clone();
    let (x, _) = random_tensor(&mut right, 1, &[96, 64]);
    let w = Weight::linear(&gpu, "w", &HostWeight::from_f32(&noise_from(2, 64 * 64)), [64, 64], None).unwrap();
    let want = matmul(&mut right, &x, &w, Activation::None, Then::Store).unwrap();
    crate::ops::testing::assert_close(&got, &right.read(&want).unwrap(), 1e-6, "the program's own choice");
    let news = cx.gpu().choices().take_news();
    assert!(news.iter().all(|text| text.contains("matmul F32 by subgroup")) && !news.is_empty(), "{news:?}");
    // The next program knows.
    let next = device(folder.path());
    assert!(!matches!(passing_product(&next), Variant::Subgroup { .. }));
    assert!(next.choices().take_news().is_empty());
}

fn passing_product(gpu: &Gpu) -> Variant {
    super::super::matmul::passing(&mut stream(gpu), DType::F32).unwrap()
}

#[test]
fn a_value_that_is_no_number_is_a_fault() {
    assert!(Error(f64::NAN).fault().is_some() && Error(2e-5).fault().is_some() && Error(9e-6).fault().is_none());
    assert!(worst(f64::NAN, 0.0).is_nan() && worst(0.0, f64::NAN).is_nan() || worst(1.0, 2.0) == 2.0);
    assert!(relative([f64::NAN].into_iter(), [1.0].into_iter()).is_nan());
}
