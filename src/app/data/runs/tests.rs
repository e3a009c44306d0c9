use super::*;
use crate::app::tests::sample;

#[test]
fn roles_follow_the_runs() {
    let mut runs = Runs::default();
    assert!(runs.current().is_none() && runs.shown().is_empty());
    let first = runs.add(sample::capture(sample::Kind::Off), false, None);
    runs.set_baseline(Some(first));
    assert!(runs.shown_baseline().is_none(), "a run is no baseline of itself");
    let second = runs.add(sample::capture(sample::Kind::Uniform), false, None);
    assert_eq!(runs.shown_baseline().map(|run| run.id), Some(first));
    assert_eq!(runs.current().map(|run| run.id), Some(second));
    runs.close(second);
    assert_eq!(runs.current().map(|run| run.id), Some(first));
    runs.close(first);
    assert!(runs.baseline().is_none() && runs.current().is_none());
}

#[test]
fn savings_and_times() {
    let mut runs = Runs::default();
    let off = runs.add(sample::capture(sample::Kind::Off), false, None);
    let uniform = runs.add(sample::capture(sample::Kind::Uniform), false, None);
    let (off, uniform) = (runs.get(off).unwrap(), runs.get(uniform).unwrap());
    let saving = uniform.saving(Some(off)).unwrap();
    assert!(saving.speedup > 1.2 && saving.seconds > 0.0, "{saving:?}");
    let own = uniform.saving(None).unwrap();
    assert!((own.speedup - saving.speedup).abs() < 0.3, "{own:?}");
    assert_eq!((off.eta(), off.saving(None)), (None, None));
    // The time for compiling does not count, on either side.
    let compiling = |run: &Run| changed(run, |capture| capture.steps[0].seconds += 100.0);
    assert!((compiling(uniform).saving(Some(off)).unwrap().speedup - saving.speedup).abs() < 0.2);
    assert!((uniform.saving(Some(&compiling(off))).unwrap().speedup - saving.speedup).abs() < 0.2);
}

fn changed(run: &Run, change: impl FnOnce(&mut Capture)) -> Run {
    let mut run = run.clone();
    change(Arc::make_mut(&mut run.capture));
    run
}

#[test]
fn what_is_to_come_is_estimated() {
    let mut runs = Runs::default();
    let id = runs.add(sample::capture(sample::Kind::Uniform), true, None);
    let whole = runs.get(id).unwrap();
    let upto = |steps| changed(whole, |capture| capture.steps.truncate(steps));
    assert_eq!((upto(0).eta(), upto(1).eta(), whole.eta()), (None, None, Some(0.0)));
    let live = upto(6);
    let eta = live.eta().unwrap();
    assert!(eta > 0.0 && eta < whole.denoise_seconds());
    assert!(changed(&live, |capture| capture.steps[0].seconds += 100.0).eta().unwrap() < 1.1 * eta);
    // Steps that reuse everything take time too.
    let skipped = changed(whole, |capture| {
        capture.steps.truncate(8);
        let hold = capture.run.expected[4].clone();
        assert_eq!(hold.cond.computed(8), 0);
        capture.run.expected[8..].fill(hold);
    });
    assert!(skipped.eta().unwrap() > 0.0);
}

#[test]
fn only_runs_of_one_job_are_measured_against_each_other() {
    let mut runs = Runs::default();
    let off = runs.add(sample::capture(sample::Kind::Off), false, None);
    assert!(runs.promote(off) && !runs.promote(off));
    let mut other = sample::capture(sample::Kind::Off);
    other.run.clip.seed = 7;
    let other = runs.add(other, false, None);
    let referred = |runs: &Runs| runs.current().is_some_and(|run| runs.reference_of(run).is_some());
    assert!(runs.shown_baseline().is_some() && !referred(&runs));
    assert_eq!(differs(runs.get(off).unwrap(), runs.get(other).unwrap()), Some("seed"));
    let uniform = runs.add(sample::capture(sample::Kind::Uniform), false, None);
    assert!(referred(&runs) && !runs.promote(uniform));
    assert!(runs.promote(other) && !referred(&runs), "a new job has a new baseline");
}

#[test]
fn a_closed_run_comes_back_with_its_roles() {
    let mut runs = Runs::default();
    let off = runs.add(sample::capture(sample::Kind::Off), false, None);
    let uniform = runs.add(sample::capture(sample::Kind::Uniform), false, None);
    runs.set_baseline(Some(off));
    let closed = runs.close(off).unwrap();
    assert!(runs.baseline().is_none() && runs.close(off).is_none());
    runs.reopen(closed);
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), [off, uniform]);
    assert_eq!((runs.baseline().map(|run| run.id), runs.current().map(|run| run.id)), (Some(off), Some(off)));
}

/// Seconds of another session or machine say nothing about reuse.
#[test]
fn only_times_of_one_session_are_compared() {
    let mut runs = Runs::default();
    let off = runs.add(sample::capture(sample::Kind::Off), false, None);
    let uniform = runs.add(sample::capture(sample::Kind::Uniform), false, None);
    let speedup = |runs: &Runs, baseline: Option<u64>| {
        runs.get(uniform).unwrap().saving(baseline.and_then(|id| runs.get(id))).map(|saving| saving.speedup)
    };
    let alone = speedup(&runs, None);
    assert_ne!(speedup(&runs, Some(off)), alone);
    runs.describe(off, |run| run.made_here = true);
    assert_eq!(speedup(&runs, Some(off)), alone, "the run's own full steps count");
    runs.describe(uniform, |run| run.made_here = true);
    assert_ne!(speedup(&runs, Some(off)), alone);
}
