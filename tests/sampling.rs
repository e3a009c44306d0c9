//! Compares schedules, solvers and noise with diffusers and torch (goldens:
//! `tests/golden/{scheduler,noise}.{py,json}`).
//!
//! The tests catch these mutations:
//!
//! - UniPC: the sign of the lambda ratio, another estimate of x0, x0 recomputed from the corrected
//!   sample, a history that is not shifted, order two at the last step, no corrector at step 1,
//!   another number for the predictor's one half, a wrong sign or factorial in the phi functions.
//! - Grids: another end, another epsilon, one shift instead of two for Euler.
//! - Noise: no special rule for the last block, angles with a relative error of 1e-6, exchanged
//!   uniforms of a pair.

use std::path::Path;

use ditscope::sampling::{CpuSampler, Euler, Grid, Schedule, Scheduler, SolverOrder, UniPc, noise};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Golden {
    latents: Vec<f32>,
    target: Vec<f32>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    shift: f64,
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
    /// The sample after each step, computed by diffusers.
    float32: Vec<Vec<f32>>,
    /// The same in double precision.
    float64: Vec<Vec<f32>>,
}

fn scheduler(case: &Case) -> Box<dyn Scheduler> {
    let schedule = |grid| Schedule::new(grid, case.timesteps.len(), case.shift).unwrap();
    match case.scheduler.as_str() {
        "unipc1" => Box::new(UniPc::new(schedule(Grid::Diffusers), SolverOrder::One).unwrap()),
        "unipc2" => Box::new(UniPc::new(schedule(Grid::Diffusers), SolverOrder::Two).unwrap()),
        _ => Box::new(Euler::new(schedule(Grid::FlowMatchEuler))),
    }
}

/// The velocity of the curved flow in the golden's script.
fn velocity(sample: &[f32], target: &[f32], sigma: f32) -> Vec<f32> {
    let sigma = f64::from(sigma);
    let at = |x: f64, a: f64| ((x - a) * (1.0 + 0.5 * sigma) + 0.1 * x * x) as f32;
    sample.iter().zip(target).map(|(&x, &a)| at(f64::from(x), f64::from(a))).collect()
}

/// The largest difference divided by the largest value.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0.0_f32, |largest, b| largest.max(b.abs()));
    a.iter().zip(b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

#[test]
fn schedules_equal_diffusers() {
    for case in golden::<Golden>("scheduler.json").cases {
        let scheduler = scheduler(&case);
        assert_eq!(scheduler.sigmas(), case.sigmas, "{} shift {}", case.scheduler, case.shift);
        assert_eq!(scheduler.timesteps(), case.timesteps, "{} shift {}", case.scheduler, case.shift);
    }
}

#[test]
fn step_traces_equal_diffusers() {
    let golden: Golden = golden("scheduler.json");
    for case in &golden.cases {
        let scheduler = scheduler(case);
        let mut sampler = CpuSampler::new(scheduler.as_ref(), &golden.latents);
        for (i, (float32, float64)) in case.float32.iter().zip(&case.float64).enumerate() {
            let velocity = velocity(sampler.sample(), &golden.target, scheduler.sigmas()[i]);
            sampler.step(&velocity).unwrap();
            let sample = sampler.sample();
            assert!(sample.iter().all(|x| x.is_finite()));
            let (exact, same) = (distance(sample, float64), distance(sample, float32));
            let what = format!("{} step {i} of {}: {exact:e} {same:e}", case.scheduler, case.float32.len());
            assert!(exact < 1e-6, "{what}");
            assert!(same < 1e-5, "{what}");
        }
    }
}

#[derive(Deserialize)]
struct Noise {
    seed: u64,
    n: usize,
    first: Vec<f32>,
    last: Vec<f32>,
}

#[test]
fn noise_equals_torch() {
    for case in golden::<Vec<Noise>>("noise.json") {
        let noise = noise::randn(case.seed, case.n);
        assert_eq!(noise.len(), case.n);
        let ends = noise.iter().zip(&case.first).chain(noise.iter().rev().zip(case.last.iter().rev()));
        for (ours, theirs) in ends {
            assert!((ours - theirs).abs() < 1e-6, "seed {} n {}: {ours} {theirs}", case.seed, case.n);
        }
    }
}
