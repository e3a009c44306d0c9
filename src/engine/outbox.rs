//! Sends the events of a job to its listener.
//!
//! Events wait in a queue until they are read. Steps are large, because they have latents, previews
//! and attention maps. While [`UNREAD`] events are unread, the job therefore waits before it adds a
//! step, so a slow listener gets every step.
//!
//! If the listener reads nothing for [`PATIENCE`], the job continues and drops its steps until the
//! listener reads again. All other events are few and are always kept. A job therefore ends even if
//! its events are not read, and `Finished` is never lost.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::control::Stopwatch;
use super::{BlockRecord, Capture, Control, EngineError, Event, StepRecord};

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
    sent: RefCell<Sent>,
}

/// What a job has reported, so that a job that starts again on a new device reports nothing twice.
#[derive(Default)]
struct Sent {
    /// The run, and what a replay needs of its steps.
    done: Capture,
    started: bool,
    /// Whether the listener gets the states of steps.
    with_states: bool,
    warnings: Vec<String>,
    /// Masks that were reported, and those of them that came again.
    masks: usize,
    masks_again: usize,
}

impl Sent {
    /// Notes an event. Returns it if it is new.
    fn note(&mut self, mut event: Event) -> Option<Event> {
        let is_new = match &mut event {
            Event::Started(run) => {
                let first = !std::mem::replace(&mut self.started, true);
                if first {
                    self.done.run.clone_from(run);
                }
                first
            }
            Event::Step(step) => {
                let first = step.record.step >= self.done.steps.len();
                if first {
                    self.done.steps.push(kept(&mut step.record, self.with_states));
                }
                first
            }
            Event::Warning(text) => {
                let first = !self.warnings.contains(text);
                if first {
                    self.warnings.push(text.clone());
                }
                first
            }
            Event::Mask(_) => {
                self.masks_again += 1;
                let first = self.masks_again > self.masks;
                self.masks = self.masks.max(self.masks_again);
                first
            }
            _ => true,
        };
        is_new.then_some(event)
    }
}

/// What the replay of a step needs of its record: the plan, the state, and the attention that masks
/// are made from. The record loses its state unless it goes out `with_state`.
fn kept(record: &mut StepRecord, with_state: bool) -> StepRecord {
    let paid = |block: &BlockRecord| {
        let (cell, paid) = (block.cell, block.paid.clone());
        BlockRecord { cell, paid, change: None, received: None, seconds: None }
    };
    StepRecord {
        step: record.step,
        plan: record.plan.clone(),
        cond: record.cond.iter().map(paid).collect(),
        state: if with_state { record.state.clone() } else { record.state.take() },
        ..StepRecord::default()
    }
}

impl<'a> Outbox<'a> {
    /// The outbox of a new job. Steps are sent without their states unless `with_states`.
    pub fn new(to: &'a Sender<Event>, control: &'a Control, with_states: bool) -> Self {
        let sent = RefCell::new(Sent { with_states, ..Sent::default() });
        Self { to, control, patience: PATIENCE, given_up: Cell::new(false), dropped: Cell::new(0), sent }
    }

    /// The job begins again. Returns the steps that it has reported; what it reports a second time
    /// is not sent.
    pub fn again(&self) -> Capture {
        let mut sent = self.sent.borrow_mut();
        sent.masks_again = 0;
        sent.done.clone()
    }

    /// Number of steps that were reported.
    pub fn steps(&self) -> usize {
        self.sent.borrow().done.steps.len()
    }

    /// Sends an event, unless the job has sent it before.
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] if the job was cancelled while it waited, or the engine was
    /// dropped.
    pub fn send(&self, event: Event) -> Result<(), EngineError> {
        let Some(event) = self.sent.borrow_mut().note(event) else { return Ok(()) };
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
    use crate::caching::Cell;
    use crate::engine::{MaskRecord, StepDone, StepState};
    use crossbeam_channel::unbounded;

    fn step(step: usize) -> Event {
        let record = StepRecord { step, ..StepRecord::default() };
        let done = StepDone { steps: 999, record, latents: Vec::new(), residual: None };
        Event::Step(Box::new(done))
    }

    #[test]
    fn steps_that_nobody_reads_are_dropped_and_all_else_is_kept() {
        let (control, (to, events)) = (Control::default(), unbounded());
        control.expect();
        let outbox = Outbox { patience: Duration::from_millis(20), ..Outbox::new(&to, &control, false) };
        (0..UNREAD + 3).for_each(|number| outbox.send(step(number)).unwrap());
        outbox.send(Event::Warning("kept".into())).unwrap();
        assert_eq!(events.len(), UNREAD + 1);
        let read: Vec<Event> = (0..10).map(|_| events.recv().unwrap()).collect();
        assert!(matches!(read[0], Event::Step(_)));
        outbox.send(step(UNREAD + 3)).unwrap();
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
        let outbox = Outbox::new(&to, &control, false);
        (0..3 * UNREAD).for_each(|number| outbox.send(step(number)).unwrap());
        outbox.end().unwrap();
        drop(to);
        assert_eq!(reader.join().unwrap(), 3 * UNREAD);
    }

    #[test]
    fn a_waiting_job_can_be_cancelled() {
        let (control, (to, _events)) = (Control::default(), unbounded());
        control.expect();
        let outbox = Outbox::new(&to, &control, false);
        (0..UNREAD).for_each(|number| outbox.send(step(number)).unwrap());
        control.cancel();
        assert!(matches!(outbox.send(step(UNREAD)), Err(EngineError::Cancelled)));
    }

    /// Of a step only what its replay reads stays in memory, and the listener gets no state that it
    /// did not ask for.
    #[test]
    fn little_is_kept_of_a_step() {
        let (paid, received) = (Some(vec![1.0]), Some(vec![2.0]));
        let block = BlockRecord { cell: Cell::Computed, change: None, received, paid, seconds: None };
        let state = Some(StepState { velocity: vec![3.0], ..StepState::default() });
        let whole = StepRecord { cond: vec![block], memory: 4, state: state.clone(), ..StepRecord::default() };
        for with_state in [false, true] {
            let mut sent = whole.clone();
            let kept = kept(&mut sent, with_state);
            assert_eq!((&kept.state, kept.memory, &kept.cond[0].paid), (&state, 0, &Some(vec![1.0])));
            assert_eq!(kept.cond[0].received, None);
            assert_eq!(sent, StepRecord { state: state.clone().filter(|_| with_state), ..whole.clone() });
        }
    }

    #[test]
    fn a_job_that_begins_again_reports_nothing_twice() {
        let (control, (to, events)) = (Control::default(), unbounded());
        control.expect();
        let outbox = Outbox::new(&to, &control, false);
        let report = |steps: usize| {
            outbox.send(Event::Started(Box::default())).unwrap();
            outbox.send(Event::Warning("slow".into())).unwrap();
            (0..steps).for_each(|number| outbox.send(step(number)).unwrap());
            outbox.send(Event::Mask(MaskRecord::default())).unwrap();
        };
        report(2);
        assert_eq!(outbox.again().steps.len(), 2);
        report(3);
        assert_eq!(events.len(), 6, "the start, a warning, three steps, a mask");
    }
}
