//! Tests every estimator on a video whose mask is known.

use super::*;
use crate::ops::testing::random;

const CHANNELS: usize = 16;
/// Tokens of 1x2x2 latents in the latents of [`video`].
const GRID: [usize; 3] = [5, 8, 12];

/// Latents of 5 frames of 16x24 with a textured background, noise, and an object of 6x6 latent
/// pixels that moves by 4 pixels per frame. Returns the latents, their extents and the object's
/// mask.
fn video(noise: f32) -> (Vec<f32>, [usize; 4], Mask) {
    let extents = [CHANNELS, 5, 16, 24];
    let inside = |f: usize, y: usize, x: usize| (4..10).contains(&y) && (4 * f..4 * f + 6).contains(&x);
    let texture = random(1, CHANNELS * 16 * 24);
    let object = random(2, CHANNELS);
    let grain = random(3, CHANNELS * 5 * 16 * 24);
    let mut latents = Vec::new();
    for c in 0..CHANNELS {
        for f in 0..5 {
            for y in 0..16 {
                for x in 0..24 {
                    let still = 0.3 * texture[(c * 16 + y) * 24 + x];
                    let value = if inside(f, y, x) { 2.0 * object[c] } else { still };
                    latents.push(value + noise * grain[((c * 5 + f) * 16 + y) * 24 + x]);
                }
            }
        }
    }
    let bits = (0..480).map(|token| inside(token / 96, token / 12 % 8 * 2, token % 12 * 2)).collect();
    (latents, extents, Mask::new(GRID, bits).unwrap())
}

#[test]
fn motion_and_pca_find_a_moving_object() {
    for noise in [0.0, 0.3] {
        let (latents, extents, truth) = video(noise);
        for estimate in [motion(&latents, extents, GRID).unwrap(), pca(&latents, extents, GRID).unwrap()] {
            let iou = estimate.mask.iou(&truth).unwrap();
            println!("{:?}, noise {noise}: IoU {iou:.2}, confidence {:.2}", estimate.estimator, estimate.confidence);
            assert!(iou > 0.55, "{:?}, noise {noise}: IoU {iou}", estimate.estimator);
            assert!(estimate.confidence > 0.3, "{:?}: {}", estimate.estimator, estimate.confidence);
        }
    }
}

/// Models have tokens of other sizes too: a latent each, or several frames.
#[test]
fn tokens_may_have_any_size() {
    let (latents, extents, _) = video(0.1);
    for grid in [[5, 16, 24], [1, 4, 3], [5, 2, 24]] {
        let channels = pooled(&latents, extents, grid).unwrap();
        let means = channels.iter().map(|values| values.iter().sum::<f64>() / values.len() as f64);
        for (mean, values) in means.zip(latents.chunks_exact(5 * 16 * 24)) {
            let whole = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
            assert!((mean - whole).abs() < 1e-9, "{grid:?}");
        }
    }
    // Channel 0; the token at frame 0 to 4, rows 4 to 7, columns 8 to 15.
    let inside = (0..5).flat_map(|f| (4..8).flat_map(move |y| (8..16).map(move |x| (f * 16 + y) * 24 + x)));
    let sum: f64 = inside.map(|index| f64::from(latents[index])).sum();
    assert!((pooled(&latents, extents, [1, 4, 3]).unwrap()[0][4] - sum / 160.0).abs() < 1e-9);
    let fine = motion(&latents, extents, [5, 16, 24]).unwrap();
    let object = |token: usize| {
        (4..10).contains(&(token / 24 % 16)) && (4 * (token / 384)..4 * (token / 384) + 6).contains(&(token % 24))
    };
    let truth = Mask::new([5, 16, 24], (0..5 * 384).map(object).collect()).unwrap();
    assert!(fine.mask.iou(&truth).unwrap() > 0.55);
}

/// Noise and still pictures have no foreground, so the estimators report no confidence.
#[test]
fn noise_and_stills_give_no_confidence() {
    let extents = [CHANNELS, 5, 16, 24];
    let count = extents.iter().product();
    let noise = random(5, count);
    assert!(motion(&noise, extents, GRID).unwrap().confidence < 0.15);
    assert!(pca(&noise, extents, GRID).unwrap().confidence < 0.15);
    let still = vec![1.0; count];
    for estimate in [motion(&still, extents, GRID).unwrap(), pca(&still, extents, GRID).unwrap()] {
        assert_eq!(estimate.confidence, 0.0);
        assert!(estimate.mask.is_trivial());
    }
    let whole_frames = [true, true, false, false];
    assert!(Mask::new([2, 1, 2], whole_frames.to_vec()).unwrap().is_trivial());
    assert!(!Mask::new([1, 2, 2], whole_frames.to_vec()).unwrap().is_trivial());
    let one_frame = motion(&random(6, 16 * 64), [16, 1, 8, 8], [1, 4, 4]).unwrap();
    assert_eq!(one_frame.confidence, 0.0);
}

#[test]
fn the_border_decides_which_class_is_background() {
    let (mut latents, extents, truth) = video(0.1);
    let as_is = pca(&latents, extents, GRID).unwrap();
    latents.iter_mut().for_each(|x| *x = -*x);
    let negative = pca(&latents, extents, GRID).unwrap();
    assert_eq!(as_is.mask, negative.mask);
    assert!(as_is.mask.share() < 0.3 && truth.share() < 0.3);
    let over = as_is.map.iter().zip(as_is.mask.bits()).filter(|(value, bit)| (**value > 0.0) == **bit).count();
    assert_eq!(over, as_is.map.len(), "the map is positive where the mask is foreground");
}

#[test]
fn prompt_maps_are_smoothed_and_cut() {
    let (_, _, truth) = video(0.0);
    let grain = random(9, 480);
    let paid: Vec<f32> =
        truth.bits().iter().zip(grain).map(|(bit, g)| if *bit { 0.3 } else { 0.05 } + 0.03 * g).collect();
    let estimate = prompt(&paid, truth.grid()).unwrap();
    assert!(estimate.mask.iou(&truth).unwrap() > 0.55 && estimate.confidence > 0.3, "{}", estimate.confidence);
    assert!(prompt(&paid[1..], truth.grid()).is_err());
}

/// Pictures of 8 x 6 pixels per token, for every relation between the numbers of pictures and
/// frames.
#[test]
fn pictures_become_the_mask_that_they_show() {
    let (_, _, truth) = video(0.0);
    let [_, rows, columns] = truth.grid();
    let picture = |f: usize| GrayFrame {
        width: columns * 8,
        height: rows * 6,
        values: (0..rows * columns * 48)
            .map(|i| (i / (columns * 8) / 6, i % (columns * 8) / 8))
            .map(|(row, column)| if truth.bits()[(f * rows + row) * columns + column] { 1 } else { 0 })
            .collect(),
    };
    let latent: Vec<GrayFrame> = (0..5).map(picture).collect();
    let video: Vec<GrayFrame> = (0..17).map(|i: usize| picture(i.div_ceil(4))).collect();
    let nine: Vec<GrayFrame> = (0..9).map(|i| picture(i / 2)).collect();
    for pictures in [latent, video, nine] {
        let estimate = file(&pictures, truth.grid()).unwrap();
        assert_eq!(estimate.mask, truth, "{} pictures", pictures.len());
        assert_eq!(estimate.confidence, 1.0);
    }
    let one = file(&[picture(2)], truth.grid()).unwrap();
    assert_eq!(one.mask.bits()[..96], truth.bits()[192..288]);
    assert_eq!(one.mask.bits()[384..], truth.bits()[192..288]);
    let plain = GrayFrame { width: 2, height: 1, values: vec![7, 7] };
    assert!(matches!(file(&[plain], [1, 1, 2]), Err(ProfilingError::NoMask(_))));
    assert!(file(&[], truth.grid()).is_err());
    assert!(file(&[GrayFrame { width: 9, height: 1, values: vec![1] }], truth.grid()).is_err());
}

/// Cells may cut pixels. The shares of all cells still add up to the whole.
#[test]
fn coverage_counts_parts_of_pixels() {
    let picture = GrayFrame { width: 3, height: 2, values: vec![1, 0, 0, 0, 0, 0] };
    let covered = coverage(&picture, [1, 2], |value| value > 0);
    // The pixel has a third of the width and half of the height, so it covers two thirds of half of
    // the left cell.
    assert!((covered[0] - 1.0 / 3.0).abs() < 1e-12 && covered[1] == 0.0, "{covered:?}");
    let fine = coverage(&picture, [5, 7], |value| value > 0);
    assert!((fine.iter().sum::<f64>() / 35.0 - 1.0 / 6.0).abs() < 1e-12);
}

#[test]
fn auto_takes_the_agreement() {
    let grid = [1, 1, 4];
    let estimate = |bits: [u8; 4], confidence| Estimate {
        confidence,
        ..painted(bits.iter().map(|bit| *bit == 1).collect(), grid).unwrap()
    };
    let all =
        [estimate([1, 1, 0, 0], 0.8), estimate([1, 0, 0, 0], 0.5), estimate([0, 0, 1, 0], 0.2), estimate([1; 4], 1.0)];
    let agreed = auto(&all).unwrap();
    assert_eq!(agreed.mask.bits(), [true, true, false, false]);
    // The pairs of the three voters have an IoU of 1/2, 0 and 0.
    assert!((agreed.confidence - 0.5 / 3.0 * 0.5).abs() < 1e-12, "{}", agreed.confidence);
    assert_eq!(auto(&all[..1]).unwrap().confidence, 0.4);
    assert!(auto(&[]).is_none());
    assert!(auto(&[all[0].clone(), painted(vec![true, false], [1, 1, 2]).unwrap()]).is_none());
    assert_eq!(auto(&[estimate([1, 0, 0, 0], 0.0), estimate([1, 1, 0, 0], 0.0)]).unwrap().confidence, 0.0);
}

#[test]
fn iou_and_wrong_sizes() {
    let mask = |bits: [bool; 2]| Mask::new([1, 1, 2], bits.to_vec()).unwrap();
    assert_eq!(mask([true, false]).iou(&mask([true, true])), Some(0.5));
    assert_eq!(mask([false; 2]).iou(&mask([false; 2])), None);
    assert_eq!(mask([true; 2]).iou(&Mask::new([2, 1, 1], vec![true; 2]).unwrap()), None);
    assert!(Mask::new([1, 2, 2], vec![true]).is_err());
    assert!(
        motion(&[0.0; 20], [1, 1, 4, 5], [1, 2, 2]).is_err() && motion(&[0.0; 9], [1, 1, 3, 3], [1, 0, 3]).is_err()
    );
    assert!(pca(&[f32::NAN; 4], [1, 1, 2, 2], [1, 1, 1]).is_err() && pca(&[], [0, 1, 2, 2], [1, 1, 1]).is_err());
}

/// By rounding, twenty shares of a token's pixels add up to a little more than 1.
#[test]
fn a_sharp_mask_is_sure_and_no_more() {
    let values = (0..80 * 80).map(|i| 255 * u8::from(i % 80 < 40)).collect();
    let estimate = file(&[GrayFrame { width: 80, height: 80, values }], [5, 4, 4]).unwrap();
    assert_eq!(estimate.confidence, 1.0);
    assert!(estimate.map.iter().all(|covered| (0.0..=1.0).contains(covered)));
}
