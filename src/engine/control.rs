//! Pause, resume and cancel, shared between a job's thread and whoever steers it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Run,
    Pause,
    Cancel,
    /// Cancel, and every later job too.
    ShutDown,
}

/// What the user wants of the running job.
#[derive(Debug, Default)]
pub struct Control {
    wish: Mutex<Wish>,
    changed: Condvar,
    /// How long jobs were held by pauses, all of them together.
    held: Mutex<Duration>,
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
    /// Holds the job before its next submit.
    pub fn pause(&self) {
        self.change(|wish| if wish == Wish::Run { Wish::Pause } else { wish });
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.change(|wish| if wish == Wish::Pause { Wish::Run } else { wish });
    }

    /// Ends the job before its next submit.
    pub fn cancel(&self) {
        self.change(|wish| if wish == Wish::ShutDown { wish } else { Wish::Cancel });
    }

    pub(super) fn shut_down(&self) {
        self.change(|_| Wish::ShutDown);
    }

    /// A new job starts: what was wished of the last one is forgotten.
    pub(super) fn begin(&self) {
        self.change(|wish| if wish == Wish::ShutDown { wish } else { Wish::Run });
    }

    /// Blocks while paused; whether the job may go on.
    pub(super) fn may_go_on(&self) -> bool {
        let start = Instant::now();
        let (wish, paused) = (self.lock(), |wish: &mut Wish| *wish == Wish::Pause);
        if *wish != Wish::Pause {
            return *wish == Wish::Run;
        }
        let wish = *self.changed.wait_while(wish, paused).unwrap_or_else(PoisonError::into_inner);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) += start.elapsed();
        wish == Wish::Run
    }

    fn held(&self) -> Duration {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, next: impl FnOnce(Wish) -> Wish) {
        let mut wish = self.lock();
        *wish = next(*wish);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Wish> {
        // The wish is a plain value: whole after any panic.
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_new_job_forgets_a_cancel_but_not_a_shut_down() {
        let control = Control::default();
        control.cancel();
        assert!(!control.may_go_on());
        control.begin();
        assert!(control.may_go_on());
        control.shut_down();
        control.begin();
        control.resume();
        assert!(!control.may_go_on());
    }
}
