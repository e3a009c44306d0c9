//! Tests with synthetic runs whose result is known.

use super::*;
use crate::ops::testing::random;
use crate::profiling::mask::painted;
use crate::sampling::ClipSettings;

const STEPS: usize = 8;
const BLOCKS: usize = 6;
const GRID: [usize; 3] = [3, 8, 10];

fn setup() -> Setup {
    Setup {
        model: ModelId { id: "demo".into(), hash: "abc".into(), blocks: BLOCKS },
        settings: RunSettings {
            clip: ClipSettings {
                width: 160,
                height: 128,
                num_frames: 9,
                num_inference_steps: STEPS,
                guidance_scale: 4.0,
                flow_shift: Some(3.0),
                ..ClipSettings::default()
            },
            scheduler: "unipc".into(),
        },
        token_grid: GRID,
        queries: Queries::Exact,
        rule: TauRule::Otsu,
    }
}

fn estimate() -> Estimate {
    let inside = |token: usize| (2..6).contains(&(token / 10 % 8)) && (3..7).contains(&(token % 10));
    painted((0..240).map(inside).collect(), GRID).unwrap()
}

/// Blocks 1 and 4 attend to the foreground, all other blocks to the background, all with noise.
fn map(seed: u64, block: usize) -> Vec<f32> {
    let towards = if matches!(block, 1 | 4) { 0.35 } else { -0.1 };
    let grain = random(seed, 240);
    estimate().mask.bits().iter().zip(grain).map(|(bit, g)| 1.0 + if *bit { towards } else { 0.0 } + 0.6 * g).collect()
}

/// A recording of two prompts, two seeds and two branches.
pub(crate) fn recorded() -> (Profile, KeptMaps) {
    let mut recorder = Recorder::new(setup()).unwrap();
    let mut noise = 0;
    for (prompt, seed) in [("a cat", 1), ("a cat", 2), ("a dog", 1), ("a dog", 2)] {
        recorder.begin(prompt, seed, estimate()).unwrap();
        for step in 0..STEPS {
            for block in 0..BLOCKS {
                for branch in [Branch::Cond, Branch::Uncond] {
                    noise += 1;
                    recorder.received(step, block, branch, &map(noise, block)).unwrap();
                }
                if step > 0 {
                    recorder.delta_change(step, block, 0.1 * (block + 1) as f64).unwrap();
                }
            }
            if step > 0 {
                recorder.prediction_l1(step, 1.0 / step as f64).unwrap();
                recorder.residual_change(step, 0.25).unwrap();
            }
        }
        recorder.end().unwrap();
    }
    recorder.finish().unwrap()
}

#[test]
fn the_blocks_that_attend_to_the_foreground_are_found() {
    let (profile, kept) = recorded();
    assert_eq!(profile.partition.foreground, [1, 4]);
    assert_eq!(profile.partition.background, [0, 2, 3, 5]);
    assert_eq!((profile.prompts.len(), profile.seeds.len(), profile.branches.len()), (2, 2, 2));
    assert!(profile.block_lift[1] > 1.5 && profile.block_lift[0] < 1.0, "{:?}", profile.block_lift);
    assert_eq!(profile.delta_change[0][0], None);
    assert!((profile.delta_change[3][4].unwrap() - 0.5).abs() < 1e-6);
    assert_eq!((profile.prediction_l1[0], profile.prediction_l1[4]), (None, Some(0.25)));
    assert_eq!(profile.residual_change[7], Some(0.25));
    let Stability { steps, prompts, seeds, branches } = profile.stability;
    for agreement in [steps, prompts, seeds, branches] {
        assert_eq!(agreement.jaccard, Some(1.0));
        assert!(agreement.spearman.unwrap() > 0.2 && agreement.kendall.unwrap() > 0.1, "{agreement:?}");
    }
    assert!(profile.scores.lift.spread[0][0].unwrap() > 0.0);
    assert_eq!(kept.maps.len(), BLOCKS * figure_steps(STEPS).len());
    assert_eq!(kept.mask.iter().filter(|bit| **bit).count(), 16);
    assert_eq!(Profile::from_json(profile.to_json().unwrap().as_bytes()).unwrap(), profile);
}

#[test]
fn what_cannot_be_scored_is_said() {
    let mut recorder = Recorder::new(setup()).unwrap();
    recorder.begin("a cat", 1, estimate()).unwrap();
    recorder.received(0, 0, Branch::Cond, &map(1, 0)).unwrap();
    recorder.end().unwrap();
    assert!(matches!(recorder.finish(), Err(ProfilingError::Nothing(_))), "blocks without scores");
    let mut recorder = Recorder::new(setup()).unwrap();
    assert!(recorder.received(0, 0, Branch::Cond, &map(1, 0)).is_err(), "outside a run");
    assert!(recorder.end().is_err());
    recorder.begin("a cat", 1, estimate()).unwrap();
    for (step, block, tokens) in [(STEPS, 0, 240), (0, BLOCKS, 240), (0, 0, 239)] {
        assert!(recorder.received(step, block, Branch::Cond, &vec![1.0; tokens]).is_err());
    }
    assert!(recorder.begin("a cat", 1, painted(vec![true; 8], [2, 2, 2]).unwrap()).is_err(), "another grid");
    assert!(Recorder::new(Setup { token_grid: [0, 2, 2], ..setup() }).is_err());
}

#[test]
fn sampled_maps_are_compared_with_exact_ones() {
    let mut recorder = Recorder::new(setup()).unwrap();
    recorder.compare_sampled(&[1.0, 2.0, 3.0], &[1.1, 1.9, 3.5]);
    recorder.compare_sampled(&[1.0, 2.0, 3.0], &[3.0, 3.0, 3.0]);
    assert_eq!(recorder.agreement.get(), Some(1.0));
}

#[test]
fn figures_show_the_papers_steps() {
    assert_eq!(figure_steps(50), [0, 10, 20, 30, 40, 49]);
    assert_eq!(figure_steps(1), [0]);
    assert_eq!(figure_steps(4), [0, 1, 2, 3]);
}
