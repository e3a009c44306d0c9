//! Pause, resume and cancel. A job's thread and its callers share this state.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The caller's wish for the current job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Run,
    Pause,
    Cancel,
    /// Cancels this job and every later job.
    ShutDown,
}

/// Controls the running job, or the next job if none is running.
#[derive(Debug, Default)]
pub struct Control {
    wanted: Mutex<Wanted>,
    changed: Condvar,
    /// The total time of all pauses.
    held: Mutex<Duration>,
}

#[derive(Debug, Default)]
struct Wanted {
    wish: Wish,
    /// Number of jobs that run or wait. Without a job there is nothing to pause or to cancel.
    jobs: usize,
}

/// Measures a job's time without its pauses.
#[derive(Debug)]
pub(super) struct Stopwatch<'a> {
    control: &'a Control,
    start: Instant,
    held: Duration,
}

impl<'a> Stopwatch<'a> {
    pub fn start(control: &'a Control) -> Self {
        Self { control, start: Instant::now(), held: control.held() }
    }

    pub fn seconds(&self) -> f64 {
        self.start.elapsed().saturating_sub(self.control.held().saturating_sub(self.held)).as_secs_f64()
    }
}

impl Control {
    /// Pauses the job before its next submit or before it loads its next tensor.
    pub fn pause(&self) {
        self.wish(|wish| if wish == Wish::Run { Wish::Pause } else { wish });
    }

    /// Continues after a pause.
    pub fn resume(&self) {
        self.wish(|wish| if wish == Wish::Pause { Wish::Run } else { wish });
    }

    /// Ends the job before its next submit or before it loads its next tensor.
    pub fn cancel(&self) {
        self.wish(|wish| if wish == Wish::ShutDown { wish } else { Wish::Cancel });
    }

    pub(super) fn shut_down(&self) {
        self.change(|wanted| wanted.wish = Wish::ShutDown);
    }

    /// Announces a job. From now on it can be paused and cancelled, even if its thread has not
    /// received it yet.
    pub(super) fn expect(&self) {
        self.change(|wanted| wanted.jobs += 1);
    }

    /// Ends a job. Its wishes do not apply to the next job.
    pub(super) fn ended(&self) {
        self.change(|wanted| {
            wanted.jobs -= 1;
            if wanted.wish != Wish::ShutDown {
                wanted.wish = Wish::Run;
            }
        });
    }

    /// Blocks during a pause. Returns whether the job may continue.
    pub(super) fn may_go_on(&self) -> bool {
        let start = Instant::now();
        let (wanted, paused) = (self.lock(), |wanted: &mut Wanted| wanted.wish == Wish::Pause);
        if wanted.wish != Wish::Pause {
            return wanted.wish == Wish::Run;
        }
        let wish = self.changed.wait_while(wanted, paused).unwrap_or_else(PoisonError::into_inner).wish;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) += start.elapsed();
        wish == Wish::Run
    }

    fn held(&self) -> Duration {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, next: impl FnOnce(Wish) -> Wish) {
        self.change(|wanted| {
            if wanted.jobs > 0 {
                wanted.wish = next(wanted.wish);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // The lock protects plain values, which are valid after any panic.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_pause_holds_until_resumed_or_cancelled() {
        for (wake, goes_on) in [(Control::resume as fn(&Control), true), (Control::cancel, false)] {
            let control = Arc::new(Control::default());
            control.expect();
            control.pause();
            let waiting = control.clone();
            let thread = std::thread::spawn(move || waiting.may_go_on());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!thread.is_finished());
            wake(&control);
            assert_eq!(thread.join().unwrap(), goes_on);
            assert!(control.held() > Duration::ZERO);
        }
    }

    #[test]
    fn pauses_do_not_count() {
        let control = Control::default();
        *control.held.lock().unwrap() = Duration::from_secs(5);
        let watch = Stopwatch::start(&control);
        std::thread::sleep(Duration::from_millis(2));
        assert!(watch.seconds() > 0.0);
        *control.held.lock().unwrap() += Duration::from_secs(3600);
        assert_eq!(watch.seconds(), 0.0);
    }

    #[test]
    fn a_wish_is_for_one_job_and_a_shut_down_for_all() {
        let control = Control::default();
        control.cancel();
        control.expect();
        assert!(control.may_go_on(), "there was nothing to cancel");
        control.expect();
        control.cancel();
        assert!(!control.may_go_on());
        control.ended();
        assert!(control.may_go_on(), "the next in line is another job");
        control.shut_down();
        control.ended();
        control.expect();
        control.resume();
        assert!(!control.may_go_on());
    }
}
