//! Compares the fidelity metrics with scikit-image, the `lpips` package and another implementation
//! of SSIMULACRA2 (goldens of tests/golden/make_metrics.py).

use std::collections::BTreeMap;
use std::path::Path;

use ditscope::metrics::{FloatFrames, Frame, LPIPS_MIN_SIDE, MetricsError, SSIM_WINDOW};
use ditscope::metrics::{compare, lpips, psnr, ssim, ssimulacra2};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use ssimulacra2::{ColorPrimaries, Rgb, TransferCharacteristic, compute_frame_ssimulacra2};

#[derive(Deserialize)]
struct Expected {
    psnr: f64,
    frame_psnr: Vec<Option<f64>>,
    frame_ssim: Vec<f64>,
    frame_lpips: Vec<f64>,
}

struct Case {
    name: String,
    expected: Expected,
    a: FloatFrames,
    b: FloatFrames,
}

fn clip(tensors: &SafeTensors, name: &str) -> FloatFrames {
    let view = tensors.tensor(name).unwrap();
    let [_, height, width, 3] = view.shape()[..] else { panic!("{name}: {:?}", view.shape()) };
    let size = height * width * 3;
    if view.dtype() == Dtype::U8 {
        return FloatFrames::from_bytes(width, height, &view.data().chunks(size).collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(view.dtype(), Dtype::F32, "{name}");
    let values: Vec<f32> = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    FloatFrames::from_unit(width, height, &values.chunks(size).collect::<Vec<_>>()).unwrap()
}

fn cases() -> Vec<Case> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    let bytes = std::fs::read(data.join("metrics.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let expected: BTreeMap<String, Expected> =
        serde_json::from_str(&std::fs::read_to_string(data.join("metrics.json")).unwrap()).unwrap();
    let case = |(name, expected)| {
        let [a, b] = ["a", "b"].map(|side| clip(&tensors, &format!("{name}/{side}")));
        Case { name, expected, a, b }
    };
    let cases: Vec<_> = expected.into_iter().map(case).collect();
    assert_eq!(tensors.len(), 2 * cases.len());
    cases
}

/// Asserts that every value is close to its expected value and that the mean of `actual` is `mean`.
fn assert_near(what: &str, actual: &[f64], expected: &[f64], tolerance: f64, mean: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() <= tolerance, "{what}: {actual}, not {expected}");
    }
    let actual_mean = actual.iter().sum::<f64>() / actual.len() as f64;
    assert!((actual_mean - mean).abs() < 1e-12, "{what}: the mean is {actual_mean}, not {mean}");
}

#[test]
fn as_the_references() {
    for Case { name, expected, a, b } in cases() {
        let found = compare(&a, &b).unwrap();
        assert_near(&format!("{name}: SSIM"), &found.frame_ssim, &expected.frame_ssim, 1e-9, found.ssim);
        assert_near(&format!("{name}: LPIPS"), &found.frame_lpips, &expected.frame_lpips, 2e-7, found.lpips);
        assert!((found.psnr - expected.psnr).abs() < 1e-9, "{name}: PSNR {}, not {}", found.psnr, expected.psnr);
        assert_eq!(found.frame_psnr.len(), expected.frame_psnr.len());
        for (&actual, expected) in found.frame_psnr.iter().zip(expected.frame_psnr) {
            let near = expected.map_or(actual == f64::INFINITY, |expected| (actual - expected).abs() < 1e-9);
            assert!(near, "{name}: PSNR {actual}, not {expected:?}");
        }
    }
}

fn other_ssimulacra2(a: Frame, b: Frame) -> f64 {
    let [a, b] = [a, b].map(|frame| {
        let pixels = frame.values().as_chunks::<3>().0.to_vec();
        let (transfer, primaries) = (TransferCharacteristic::SRGB, ColorPrimaries::BT709);
        Rgb::new(pixels, frame.width(), frame.height(), transfer, primaries).unwrap()
    });
    compute_frame_ssimulacra2(a, b).unwrap()
}

/// The two implementations round differently, and a score depends strongly on small errors. The
/// scores differ by hundredths on a scale of 100.
#[test]
fn ssimulacra2_as_a_second_implementation() {
    for Case { name, a, b, .. } in cases() {
        let found = compare(&a, &b).unwrap();
        let expected: Vec<_> = a.frames().zip(b.frames()).map(|(a, b)| other_ssimulacra2(a, b)).collect();
        assert_near(&name, &found.frame_ssimulacra2, &expected, 0.05, found.ssimulacra2);
    }
}

/// A frame with structure and values in [0, 1].
fn frame(width: usize, height: usize) -> Vec<f32> {
    let wave = |i: usize| 0.5 + 0.5 * (i as f32 * 0.37 + (i / (3 * width)) as f32).sin();
    (0..width * height * 3).map(wave).collect()
}

#[test]
fn equal_clips() {
    let clip = FloatFrames::from_unit(40, 33, &[frame(40, 33), vec![0.0; 3960], vec![1.0; 3960]]).unwrap();
    let found = compare(&clip, &clip).unwrap();
    assert_eq!(found.psnr, f64::INFINITY);
    assert_eq!((found.ssim, found.lpips, found.ssimulacra2), (1.0, 0.0, 100.0));
    let json = serde_json::to_value(&found).unwrap();
    assert!(json["psnr"].is_null() && json["frame_psnr"][2].is_null());
    assert_eq!(json["frame_ssim"].as_array().unwrap().len(), 3);
}

#[test]
fn all_forms_of_frames_are_one() {
    let bytes: Vec<u8> = (0..=255).cycle().take(12 * 11 * 3).collect();
    let unit: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let signed: Vec<f32> = unit.iter().map(|value| value * 2.0 - 1.0).collect();
    let bytes = FloatFrames::from_bytes(12, 11, &[bytes]).unwrap();
    assert_eq!(bytes, FloatFrames::from_unit(12, 11, &[&unit[..]]).unwrap());
    let signed = FloatFrames::from_signed(12, 11, &[signed]).unwrap();
    let pairs = bytes.frames().zip(signed.frames());
    let pairs: Vec<_> = pairs.flat_map(|(a, b)| a.values().iter().zip(b.values())).collect();
    assert!(pairs.len() == 396 && pairs.iter().all(|(a, b)| (*a - *b).abs() < 1e-6));
    let clamped = FloatFrames::from_signed(1, 1, &[[-1.5_f32, 0.0, 7.0]]).unwrap();
    assert_eq!(clamped.frames().next().unwrap().values(), [0.0, 0.5, 1.0]);
}

#[test]
fn wrong_frames_are_errors() {
    let none: [&[f32]; 0] = [];
    assert_eq!(FloatFrames::from_unit(1, 1, &none), Err(MetricsError::NoFrames));
    for (width, height) in [(0, 1), (1, 0), (usize::MAX, 2), (usize::MAX / 2, 2)] {
        assert_eq!(FloatFrames::from_unit(width, height, &none), Err(MetricsError::FrameExtent { width, height }));
    }
    let short = FloatFrames::from_bytes(2, 1, &[&[0; 6][..], &[0; 5][..]]);
    assert_eq!(short, Err(MetricsError::FrameSize { index: 1, expected: 6, actual: 5 }));
    for value in [f32::NAN, f32::INFINITY] {
        let frames = [[0.0; 3], [0.0, value, 0.0]];
        assert_eq!(FloatFrames::from_unit(1, 1, &frames), Err(MetricsError::NotFinite { index: 1 }));
        assert_eq!(FloatFrames::from_signed(1, 1, &frames), Err(MetricsError::NotFinite { index: 1 }));
    }
}

#[test]
fn clips_that_do_not_match_are_errors() {
    let clip =
        |width, height, count| FloatFrames::from_unit(width, height, &vec![frame(width, height); count]).unwrap();
    let [long, short, turned] = [clip(40, 32, 3), clip(40, 32, 2), clip(32, 40, 2)];
    assert_eq!(compare(&long, &short), Err(MetricsError::DifferentLength { a: 3, b: 2 }));
    let differ = Err(MetricsError::DifferentSize { a: [40, 32], b: [32, 40] });
    assert_eq!(compare(&short, &turned).map(drop), differ);
    let (a, b) = (short.frames().next().unwrap(), turned.frames().next().unwrap());
    for result in [psnr(a, b), ssim(a, b), lpips(a, b), ssimulacra2(a, b)] {
        assert_eq!(result.map(drop), differ);
    }
}

/// Each metric accepts frames of its smallest size and refuses smaller frames.
#[test]
fn small_frames() {
    let measure = |metric: fn(Frame, Frame) -> Result<f64, MetricsError>, width, height| {
        let a = FloatFrames::from_unit(width, height, &[frame(width, height)]).unwrap();
        let b = FloatFrames::from_unit(width, height, &[vec![0.5; width * height * 3]]).unwrap();
        metric(a.frames().next().unwrap(), b.frames().next().unwrap())
    };
    for (metric, least) in [(ssim as fn(Frame, Frame) -> _, SSIM_WINDOW), (lpips, LPIPS_MIN_SIDE), (ssimulacra2, 1)] {
        assert!(measure(metric, least, least).unwrap().is_finite());
        assert!(measure(metric, least, 2 * least + 1).unwrap().is_finite());
        for (width, height) in [(least, least - 1), (least - 1, least)].into_iter().filter(|_| least > 1) {
            let error = measure(metric, width, height).unwrap_err();
            assert!(matches!(error, MetricsError::TooSmall { least: said, .. } if said == least), "{error}");
        }
    }
    let message = measure(lpips, 40, 30).unwrap_err().to_string();
    assert_eq!(message, "LPIPS needs frames of at least 31x31 pixels; these are 40x30");
}
