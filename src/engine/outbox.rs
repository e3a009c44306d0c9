//! Sends the events of a job to its listener.
//!
//! Events wait in a queue until they are read. Steps are large, because they have latents, previews
//! and attention maps. While [`UNREAD`] events are unread, the job therefore waits before it adds a
//! step, so a slow listener gets every step.
//!
//! If the listener reads nothing for [`PATIENCE`], the job continues and drops its steps until the
//! listener reads again. All other events are few and are always kept. A job therefore ends even if
//! its events are not read, and `Finished` is never lost.

use std::cell::Cell;
use std::time::Duration;

use crossbeam_channel::Sender;

use super::control::Stopwatch;
use super::{Control, EngineError, Event};

/// Number of unread events at which a job waits before it adds a step.
pub(super) const UNREAD: usize = 64;
/// Time that a job waits for a listener.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interval at which a waiting job checks whether events were read.
const POLL: Duration = Duration::from_millis(2);

/// The events of one job on their way to the listener.
pub(super) struct Outbox<'a> {
    to: &'a Sender<Event>,
    control: &'a Control,
    patience: Duration,
    /// Whether the job stopped waiting for the listener.
    given_up: Cell<bool>,
    /// Number of dropped steps.
    dropped: Cell<usize>,
}

impl<'a> Outbox<'a> {
    /// The outbox of a new job.
    pub fn new(to: &'a Sender<Event>, control: &'a Control) -> Self {
        Self { to, control, patience: PATIENCE, given_up: Cell::new(false), dropped: Cell::new(0) }
    }

    /// Sends an event.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] if the job was cancelled while it waited, or the engine was
    /// dropped.
    pub fn send(&self, event: Event) -> Result<(), EngineError> {
        if matches!(event, Event::Step(_)) && !self.has_room()? {
            self.dropped.set(self.dropped.get() + 1);
            return Ok(());
        }
        self.to.send(event).map_err(|_| EngineError::Cancelled)
    }

    /// Sends a warning if steps were dropped.
    ///
    /// # Errors
    /// The errors of [`Outbox::send`].
    pub fn end(&self) -> Result<(), EngineError> {
        match self.dropped.get() {
            0 => Ok(()),
            count => self.send(Event::Warning(format!(
                "{count} steps are missing in what was recorded: nobody read the job's events in time."
            ))),
        }
    }

    /// Waits for a slow listener. Returns whether there is room for a step.
    fn has_room(&self) -> Result<bool, EngineError> {
        let watch = Stopwatch::start(self.control);
        while self.to.len() >= UNREAD {
            if self.given_up.get() || watch.seconds() >= self.patience.as_secs_f64() {
                self.given_up.set(true);
                return Ok(false);
            }
            if !self.control.may_go_on() {
                return Err(EngineError::Cancelled);
            }
            std::thread::sleep(POLL);
        }
        self.given_up.set(false);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{StepDone, StepRecord};
    use crossbeam_channel::unbounded;

    fn step() -> Event {
        let done = StepDone { steps: 99, record: StepRecord::default(), latents: Vec::new(), residual: None };
        Event::Step(Box::new(done))
    }

    #[test]
    fn steps_that_nobody_reads_are_dropped_and_all_else_is_kept() {
        let (control, (to, events)) = (Control::default(), unbounded());
        control.expect();
        let outbox = Outbox { patience: Duration::from_millis(20), ..Outbox::new(&to, &control) };
        (0..UNREAD + 3).for_each(|_| outbox.send(step()).unwrap());
        outbox.send(Event::Warning("kept".into())).unwrap();
        assert_eq!(events.len(), UNREAD + 1);
        let read: Vec<Event> = (0..10).map(|_| events.recv().unwrap()).collect();
        assert!(matches!(read[0], Event::Step(_)));
        outbox.send(step()).unwrap();
        outbox.end().unwrap();
        let last = events.try_iter().last();
        assert!(matches!(&last, Some(Event::Warning(text)) if text.starts_with("3 steps")), "{last:?}");
    }

    #[test]
    fn a_slow_listener_gets_every_step() {
        let (control, (to, events)) = (Control::default(), unbounded());
        control.expect();
        let reader = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            events.iter().count()
        });
        let outbox = Outbox::new(&to, &control);
        (0..3 * UNREAD).for_each(|_| outbox.send(step()).unwrap());
        outbox.end().unwrap();
        drop(to);
        assert_eq!(reader.join().unwrap(), 3 * UNREAD);
    }

    #[test]
    fn a_waiting_job_can_be_cancelled() {
        let (control, (to, _events)) = (Control::default(), unbounded());
        control.expect();
        let outbox = Outbox::new(&to, &control);
        (0..UNREAD).for_each(|_| outbox.send(step()).unwrap());
        control.cancel();
        assert!(matches!(outbox.send(step()), Err(EngineError::Cancelled)));
    }
}
