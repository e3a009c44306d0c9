//! The experiment on one prompt and seed.
//!
//! A short run first does the work that happens only once: encoding the prompt, loading the model
//! and compiling kernels. Then all strategies run between two runs of the baseline. The difference
//! of the two baselines is the noise floor, and the strategies are measured against their mean.
//!
//! Every second case runs in reverse order. If a machine becomes slower or faster during a case, no
//! strategy has an advantage from its position.

use std::collections::BTreeSet;

use crate::caching::StrategyConfig;
use crate::engine::{GenerateRequest, Seconds};
use crate::metrics::{self, Fidelity, FloatFrames};

use super::{Case, Compared, Entry, OFF_AGAIN, Row};
use crate::study::session::Finished;
use crate::study::{Session, Size, StudyError};

/// The size of a run of a strategy, for a request of `steps` steps.
pub(super) fn size(entry: &Entry, steps: usize) -> Size {
    let own = entry.config.steps(steps);
    let speedup = entry.target.unwrap_or(1.0) * own as f64 / steps.max(1) as f64;
    Size::run(own, speedup)
}

/// The size of the short run before the baseline.
pub(super) fn warm_up_size() -> Size {
    Size::run(1, 1.0)
}

/// Runs all strategies of a comparison on a session's engine.
pub(super) struct Experiment<'a, 's> {
    session: &'a Session<'s>,
    request: &'a GenerateRequest,
    entries: &'a [Entry],
    /// The second run of the baseline.
    again: Entry,
    /// Warnings that were already reported. Each is reported once.
    warned: BTreeSet<String>,
}

/// The first run of the baseline, and its frames, with which other clips are compared.
struct Baseline {
    run: Finished,
    frames: FloatFrames,
}

impl<'a, 's> Experiment<'a, 's> {
    pub fn new(session: &'a Session<'s>, request: &'a GenerateRequest, entries: &'a [Entry]) -> Self {
        let again = Entry { name: OFF_AGAIN.into(), target: None, expected: None, config: StrategyConfig::off() };
        Self { session, request, entries, again, warned: BTreeSet::new() }
    }

    /// Runs all strategies on one prompt and seed.
    pub fn run(&mut self, case: &Case) -> Result<Compared, StudyError> {
        let steps = self.request.clip.num_inference_steps;
        self.warm_up(case)?;
        let run = self.job(case, &StrategyConfig::off(), Size::run(steps, 1.0))?;
        let baseline = Baseline { frames: run.frames()?, run };
        let backwards = (case.number as u64 + case.seed) % 2 == 1;
        let mut order: Vec<Entry> = self.entries.to_vec();
        if backwards {
            order.reverse();
        }
        order.push(self.again.clone());
        let (mut rows, mut times, mut clips) = (Vec::new(), Vec::new(), Vec::new());
        let mut after = baseline.run.generated.seconds;
        for entry in &order {
            let run = self.job(case, &entry.config, size(entry, steps))?;
            after = run.generated.seconds;
            run.capture.warnings.iter().for_each(|warning| self.warn(entry, warning));
            clips.push(run.clip()?);
            match run.frames().and_then(|frames| metrics::compare(&baseline.frames, &frames)) {
                Ok(fidelity) => {
                    rows.push(row(case, entry, &run, &fidelity)?);
                    times.push(run.generated.seconds);
                }
                // The results of the other strategies do not depend on this one.
                Err(error) => self.leave_out(case, entry, &StudyError::from(error)),
            }
        }
        set_speedups(&mut rows, &times, &baseline.run.generated.seconds, &after);
        // The sheet does not show the second baseline.
        clips.pop();
        if backwards {
            clips.reverse();
        }
        clips.insert(0, baseline.run.clip()?);
        Ok(Compared { case: case.clone(), rows, clips })
    }

    fn job(&self, case: &Case, strategy: &StrategyConfig, size: Size) -> Result<Finished, StudyError> {
        let strategy = strategy.clone();
        let request = GenerateRequest { strategy, ..self.request.with_prompt(&case.prompt, case.seed) };
        self.session.run(request, size, |_| {})
    }

    fn warm_up(&self, case: &Case) -> Result<Finished, StudyError> {
        let strategy = StrategyConfig::off();
        let mut request = GenerateRequest { strategy, ..self.request.with_prompt(&case.prompt, case.seed) };
        request.clip.num_inference_steps = 1;
        self.session.run(request, warm_up_size(), |_| {})
    }

    fn leave_out(&mut self, case: &Case, entry: &Entry, error: &StudyError) {
        let target = entry.target.map_or(String::new(), |target| format!(" at {target}x"));
        self.warn(entry, &format!("left out{target} for \"{}\", seed {}: {error}", case.prompt, case.seed));
    }

    fn warn(&mut self, entry: &Entry, warning: &str) {
        let warning = format!("{}: {warning}", entry.name);
        if self.warned.insert(warning.clone()) {
            self.session.warn(warning);
        }
    }
}

/// A row without its times.
fn row(case: &Case, entry: &Entry, run: &Finished, fidelity: &Fidelity) -> Result<Row, StudyError> {
    let no_cost = || StudyError::Failed("a run without its cost".into());
    Ok(Row {
        strategy: entry.name.clone(),
        target: entry.target,
        prompt: case.prompt.clone(),
        seed: case.seed,
        flop_speedup: run.capture.flop_speedup().ok_or_else(no_cost)?,
        denoise_speedup: 1.0,
        total_speedup: 1.0,
        hit_rate: run.capture.hit_rate(),
        peak_memory: run.generated.peak_memory,
        delta_memory: run.capture.steps.iter().map(|step| step.delta_memory).max().unwrap_or(0),
        fidelity: fidelity.into(),
    })
}

/// Sets the speed-ups by the clock, from the times of the rows and of the baselines before and
/// after them.
fn set_speedups(rows: &mut [Row], times: &[Seconds], before: &Seconds, after: &Seconds) {
    let whole = |seconds: &Seconds| seconds.denoise + seconds.decode;
    let mean = (0.5 * (before.denoise + after.denoise), 0.5 * (whole(before) + whole(after)));
    for (row, seconds) in rows.iter_mut().zip(times) {
        // The second baseline is compared only with the first. A mean that includes the second
        // baseline would understate the noise.
        let full = if row.strategy == OFF_AGAIN { (before.denoise, whole(before)) } else { mean };
        (row.denoise_speedup, row.total_speedup) = (full.0 / seconds.denoise, full.1 / whole(seconds));
    }
}
