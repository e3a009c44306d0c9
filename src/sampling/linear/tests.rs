use super::super::{Euler, Grid, Schedule, SolverOrder, UniPc};
use super::*;

fn schedulers() -> Vec<Box<dyn Scheduler>> {
    let schedule = |grid| Schedule::new(grid, 6, 3.0).unwrap();
    vec![
        Box::new(Euler::new(schedule(Grid::FlowMatchEuler))),
        Box::new(UniPc::new(schedule(Grid::Diffusers), SolverOrder::One).unwrap()),
        Box::new(UniPc::new(schedule(Grid::Reference), SolverOrder::Two).unwrap()),
    ]
}

#[test]
fn updates_use_only_buffers_that_exist_and_never_write_their_inputs() {
    for scheduler in schedulers() {
        let buffers = Buffers::new(scheduler.as_ref(), &[], |_| ());
        for i in 0..scheduler.num_inference_steps() {
            for assignment in scheduler.step(i).unwrap().assignments() {
                assert!(buffers.get(assignment.output()).is_some());
                assert!((1..=MAX_TERMS).contains(&assignment.terms().len()));
                for &(input, coefficient) in assignment.terms() {
                    assert!(buffers.get(input).is_some() && input != assignment.output());
                    assert!(coefficient.is_finite());
                }
            }
        }
    }
}

/// On a straight flow (a constant `v = noise - x0`) every solver is exact. Its steps end at x0,
/// and every estimate is x0.
#[test]
fn a_straight_flow_ends_at_its_clean_latents() {
    let (noise, clean) = ([1.5_f32, -0.5, 0.25], [-1.0_f32, 0.75, 2.0]);
    for scheduler in schedulers() {
        let sigma = scheduler.sigmas()[0];
        let start: Vec<f32> = (0..3).map(|j| sigma * noise[j] + (1.0 - sigma) * clean[j]).collect();
        let velocity: Vec<f32> = (0..3).map(|j| noise[j] - clean[j]).collect();
        let mut sampler = CpuSampler::new(scheduler.as_ref(), &start);
        for _ in 0..scheduler.num_inference_steps() {
            let x0 = sampler.step(&velocity).unwrap();
            assert!(x0.iter().zip(clean).all(|(a, b)| (a - b).abs() < 1e-5), "{x0:?}");
        }
        assert!(sampler.sample().iter().zip(clean).all(|(a, b)| (a - b).abs() < 1e-5));
        assert_eq!(sampler.step(&velocity), Err(Error::StepOutOfRange { step: 6, steps: 6 }));
    }
}

/// Saving and restoring only the buffers of `state()` between two steps changes nothing.
#[test]
fn state_is_all_that_a_checkpoint_needs() {
    for scheduler in schedulers() {
        let mut whole = CpuSampler::new(scheduler.as_ref(), &[0.3, -1.2]);
        for i in 0..scheduler.num_inference_steps() {
            let velocity: Vec<f32> = whole.sample().iter().map(|x| x * 0.5 + i as f32).collect();
            let mut resumed = CpuSampler::new(scheduler.as_ref(), &[f32::NAN, f32::NAN]);
            resumed.step = i;
            for &buffer in scheduler.state() {
                resumed.write(buffer, whole.values(buffer).to_vec());
            }
            resumed.step(&velocity).unwrap();
            whole.step(&velocity).unwrap();
            assert_eq!(whole.sample(), resumed.sample());
        }
    }
}

/// Correcting the last steps gives the same sample as taking them with the corrected
/// velocities.
#[test]
fn corrected_steps_are_those_of_the_corrected_velocities() {
    let shares = [0.25, 0.5, 0.75];
    for scheduler in schedulers() {
        let mut corrected = CpuSampler::new(scheduler.as_ref(), &[0.3, -1.2]);
        let mut wanted = CpuSampler::new(scheduler.as_ref(), &[0.3, -1.2]);
        let error = [0.8, -0.4];
        let velocity = |step: usize| [1.0 - 0.1 * step as f32, 0.2 * step as f32];
        for step in 0..4 {
            let share = if step == 0 { 0.0 } else { shares[step - 1] };
            corrected.step(&velocity(step)).unwrap();
            let better: Vec<f32> = velocity(step).iter().zip(error).map(|(v, e)| v + share * e).collect();
            wanted.step(&better).unwrap();
        }
        corrected.correct(&shares, &error).unwrap();
        for step in 4..6 {
            assert!(corrected.sample().iter().zip(wanted.sample()).all(|(a, b)| (a - b).abs() < 1e-5));
            corrected.step(&velocity(step)).unwrap();
            wanted.step(&velocity(step)).unwrap();
        }
        assert!(corrected.correct(&[0.0; 7], &error).is_err());
        assert!(corrected.correct(&shares, &[0.0]).is_err());
    }
}

#[test]
fn a_velocity_of_another_length_is_an_error() {
    let scheduler = &schedulers()[0];
    let mut sampler = CpuSampler::new(scheduler.as_ref(), &[0.0; 4]);
    assert_eq!(sampler.step(&[0.0; 3]), Err(Error::Length { velocity: 3, sample: 4 }));
}
