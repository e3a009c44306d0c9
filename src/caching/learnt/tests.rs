use super::*;

fn sigmas(steps: usize) -> Vec<f64> {
    (0..=steps).map(|step| 1.0 - step as f64 / steps as f64).collect()
}

/// A run whose residuals turn with the noise level, and a rough part that no other step tells of.
fn run(steps: usize) -> RunMeasurement {
    let mut recorder = RunRecorder::default();
    for step in 0..steps {
        let level = 1.0 - step as f64 / steps as f64;
        let mut residual = vec![0.0f32; 3 + steps];
        residual[..3].copy_from_slice(&[3.0 * level.cos() as f32, 3.0 * level.sin() as f32, level as f32]);
        residual[3 + step] = 0.05;
        let velocity: Vec<f32> = residual.iter().map(|value| 0.1 * value).collect();
        recorder.add(level, &residual, &velocity);
    }
    let (levels, products, gain) = recorder.finish();
    RunMeasurement { levels, products, gain, size: [64, 64, 17], guidance_scale: 4.0, scheduler: "unipc".into() }
}

fn learnt(runs: Vec<RunMeasurement>) -> Learnt {
    let mut learnt = Learnt::default();
    runs.into_iter().for_each(|run| learnt.add(run));
    learnt
}

#[test]
fn a_full_run_is_taken_as_it_was_measured() {
    let full = run(12);
    assert!(full.is_sound() && (full.gain - 0.01).abs() < 1e-6, "{}", full.gain);
    let known = learnt(vec![full.clone()]).calibration(&sigmas(12)).unwrap();
    for (found, measured) in known.gram.iter().flatten().zip(full.gram().iter().flatten()) {
        assert!((found - measured).abs() < 1e-9, "{found} {measured}");
    }
}

/// What 12 steps told is used for 9 and for 20.
#[test]
fn measurements_carry_over_to_other_steps() {
    let full = learnt(vec![run(12)]);
    for steps in [9, 20] {
        let known = full.calibration(&sigmas(steps)).unwrap();
        let truth = run(steps).gram();
        for (found, truth) in known.gram.iter().flatten().zip(truth.iter().flatten()) {
            assert!((found - truth).abs() < 0.03 * 9.0, "{found} {truth}");
        }
    }
}

/// Of two schedules, the job's own holds as it was measured.
#[test]
fn the_own_schedule_comes_first() {
    let own = run(12);
    let runs = [own.clone(), run(20), run(20)];
    let known = learnt(runs.to_vec()).calibration(&sigmas(12)).unwrap();
    assert!((known.gram[2][7] - own.gram()[2][7]).abs() < 1e-9);
}

#[test]
fn runs_are_bounded() {
    assert_eq!(Learnt::default().calibration(&sigmas(12)), None);
    let mut steps = 3..;
    let known = learnt(steps.by_ref().take(MOST_RUNS + 2).map(run).collect());
    assert_eq!((known.runs().len(), known.runs()[0].levels.len()), (MOST_RUNS, 5));
}

/// A file may claim anything.
#[test]
fn unsound_measurements_are_left_out() {
    let sound = run(12);
    let spoilt: [fn(&mut RunMeasurement); 8] = [
        |run| run.levels.clear(),
        |run| run.levels[1] = 2.0,
        |run| run.levels[2] = run.levels[1],
        |run| run.products.clear(),
        |run| run.products[0] = f32::NAN,
        |run| run.products[0] = -1.0,
        |run| run.products[1] = 1e9,
        |run| run.gain = 0.0,
    ];
    for spoils in spoilt {
        let mut run = sound.clone();
        spoils(&mut run);
        let mut learnt = Learnt::default();
        learnt.add(run.clone());
        let mut read = Learnt { runs: vec![run] };
        read.retain_sound();
        assert!(learnt.runs().is_empty() && read.runs().is_empty());
    }
}
