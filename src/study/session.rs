//! The session of a study: an engine, a listener, and the token that cancels the study.

use std::cell::RefCell;

use crossbeam_channel::select;

use crate::engine::{Capture, Engine, EngineError, Event, GenerateRequest, Generated, StepDone};
use crate::media::{Clip, MediaError};
use crate::metrics::{FloatFrames, MetricsError};
use crate::profiling::profile::Profile;

use super::compare::Compared;
use super::progress::Tracker;
use super::{Cancel, Progress, Size, StudyError};

/// A report of a running study. The final result is the return value of `run`.
#[derive(Debug)]
#[non_exhaustive]
pub enum StudyEvent {
    /// A step or a run has ended, or a phase has begun.
    Progress(Progress),
    /// A warning for the user.
    Warning(String),
    /// A partial result: a profile of the runs so far.
    Profiled(Box<Profile>),
    /// A partial result: the runs of all strategies on one prompt and seed.
    Compared(Box<Compared>),
}

/// A finished job and its records.
#[derive(Debug)]
pub struct Finished {
    /// Clip, latents and times.
    pub generated: Generated,
    /// Steps, plans and maps.
    pub capture: Capture,
}

impl Finished {
    /// The frames as 8-bit RGB.
    ///
    /// # Errors
    /// [`MediaError`] for a size or a frame rate that files cannot have.
    pub fn clip(&self) -> Result<Clip, MediaError> {
        self.generated.clip()
    }

    /// The frames of the VAE without rounding, for metrics.
    ///
    /// # Errors
    /// [`MetricsError::NotFinite`].
    pub fn frames(&self) -> Result<FloatFrames, MetricsError> {
        FloatFrames::from_signed(self.generated.width, self.generated.height, &self.generated.frames)
    }
}

/// An engine that a study may use, a listener for its events, and the token that cancels it.
///
/// While a study runs, other code must not read the engine's events or start jobs on it.
pub struct Session<'a> {
    engine: &'a Engine,
    cancel: &'a Cancel,
    listener: RefCell<Box<dyn FnMut(StudyEvent) + 'a>>,
    tracker: RefCell<Tracker>,
    /// The token of the queue's running item.
    item: RefCell<Cancel>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Session").field("engine", self.engine).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    /// A session on an idle engine. `listener` gets every event on the thread of the study.
    pub fn new(engine: &'a Engine, cancel: &'a Cancel, listener: impl FnMut(StudyEvent) + 'a) -> Self {
        Self {
            engine,
            cancel,
            listener: RefCell::new(Box::new(listener)),
            tracker: RefCell::default(),
            item: RefCell::default(),
        }
    }

    /// The engine that runs the jobs.
    pub fn engine(&self) -> &Engine {
        self.engine
    }

    /// Runs a job to its end and calls `step` for every step. `size` is the job's size in the
    /// study's progress.
    ///
    /// # Errors
    /// [`StudyError::Cancelled`], [`StudyError::Skipped`], or the job's own error.
    pub fn run(
        &self,
        request: GenerateRequest,
        size: Size,
        mut step: impl FnMut(&StepDone),
    ) -> Result<Finished, StudyError> {
        self.check_cancelled()?;
        self.tracker.borrow_mut().begin(size);
        let finished = self.follow(request, |done| {
            step(done);
            self.tracker.borrow_mut().step();
            self.tell_progress();
        });
        self.tracker.borrow_mut().end();
        self.tell_progress();
        // The engine knows that the job was cancelled, but not by which token.
        match finished {
            Err(StudyError::Cancelled) => self.check_cancelled().and(Err(StudyError::Cancelled)),
            other => other,
        }
    }

    /// Starts a job and reads its events until it ends.
    fn follow(&self, request: GenerateRequest, mut step: impl FnMut(&StepDone)) -> Result<Finished, StudyError> {
        let item = self.item.borrow().clone();
        let (events, mut asked) = (self.engine.events(), false);
        self.engine.generate(request)?;
        let mut capture = Capture::default();
        loop {
            let event = if asked {
                events.recv()
            } else {
                select! {
                    recv(events) -> event => event,
                    recv(self.cancel.signal()) -> _ => { asked = true; self.engine.control().cancel(); continue }
                    recv(item.signal()) -> _ => { asked = true; self.engine.control().cancel(); continue }
                }
            };
            let event = event.map_err(|_| EngineError::Stopped)?;
            capture.observe(&event);
            match event {
                Event::Step(done) => step(&done),
                Event::Finished(generated) => return Ok(Finished { generated: *generated, capture }),
                Event::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// # Errors
    /// [`StudyError::Cancelled`] or [`StudyError::Skipped`] if a token was cancelled.
    pub(super) fn check_cancelled(&self) -> Result<(), StudyError> {
        if self.cancel.is_cancelled() {
            return Err(StudyError::Cancelled);
        }
        if self.item.borrow().is_cancelled() { Err(StudyError::Skipped) } else { Ok(()) }
    }

    /// Sets the name of the current phase.
    pub(super) fn phase(&self, phase: &str) {
        if self.tracker.borrow().phase_name() != phase {
            self.tracker.borrow_mut().phase(phase);
            self.tell_progress();
        }
    }

    /// Adds to the work that is left.
    pub(super) fn expect(&self, more: Size) {
        self.tracker.borrow_mut().expect(more);
    }

    /// Replaces the work that is left.
    pub(super) fn set_left(&self, left: Size) {
        self.tracker.borrow_mut().set_left(left);
    }

    /// Sets the token of the queue's running item.
    pub(super) fn set_item(&self, cancel: Cancel) {
        self.item.replace(cancel);
    }

    pub(super) fn warn(&self, text: impl Into<String>) {
        self.tell(StudyEvent::Warning(text.into()));
    }

    pub(super) fn tell(&self, event: StudyEvent) {
        self.listener.borrow_mut()(event);
    }

    fn tell_progress(&self) {
        let progress = self.tracker.borrow().progress();
        self.tell(StudyEvent::Progress(progress));
    }
}
