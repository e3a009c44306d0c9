//! Where a study runs: an engine, a listener, and the token that ends it.

use std::cell::RefCell;

use crossbeam_channel::select;

use crate::engine::{Capture, Engine, EngineError, Event, GenerateRequest, Generated, StepDone};
use crate::media::{Clip, MediaError};
use crate::metrics::{FloatFrames, MetricsError};
use crate::profiling::profile::Profile;

use super::compare::Compared;
use super::progress::Tracker;
use super::{Cancel, Progress, Size, StudyError};

/// What a study reports while it runs. Its result is what its `run` returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum StudyEvent {
    /// A step or a run is done, or a phase began.
    Progress(Progress),
    /// Something that the user should know.
    Warning(String),
    /// A partial result: a profile of the runs so far, without calibration.
    Profiled(Box<Profile>),
    /// A partial result: all strategies were run on one prompt and seed.
    Compared(Box<Compared>),
}

/// A finished job, and what it left behind.
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
    /// A size or a rate that no file can hold.
    pub fn clip(&self) -> Result<Clip, MediaError> {
        self.generated.clip()
    }

    /// The frames as they left the VAE, for metrics.
    ///
    /// # Errors
    /// Values that are no numbers.
    pub fn frames(&self) -> Result<FloatFrames, MetricsError> {
        FloatFrames::from_signed(self.generated.width, self.generated.height, &self.generated.frames)
    }
}

/// An engine that a study may use, a listener for its events, and the token that cancels it.
///
/// Nobody else may read the engine's events or ask it for jobs while a study runs.
pub struct Session<'a> {
    engine: &'a Engine,
    cancel: &'a Cancel,
    listener: RefCell<Box<dyn FnMut(StudyEvent) + 'a>>,
    tracker: RefCell<Tracker>,
    /// The token of the queue's item that runs now.
    item: RefCell<Cancel>,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Session").field("engine", self.engine).finish_non_exhaustive()
    }
}

impl<'a> Session<'a> {
    /// A session on an engine that is idle. `listener` hears every event on the thread of the
    /// study.
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

    /// Runs a job to its end; `step` sees every step. `size` is what the job counts in the study's
    /// progress.
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
        // The engine only knows that the job was cancelled, not which token asked for it.
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
    /// [`StudyError::Cancelled`] or [`StudyError::Skipped`], if somebody asked for it.
    pub(super) fn check_cancelled(&self) -> Result<(), StudyError> {
        if self.cancel.is_cancelled() {
            return Err(StudyError::Cancelled);
        }
        if self.item.borrow().is_cancelled() { Err(StudyError::Skipped) } else { Ok(()) }
    }

    /// Names what happens now.
    pub(super) fn phase(&self, phase: &str) {
        if self.tracker.borrow().phase_name() != phase {
            self.tracker.borrow_mut().phase(phase);
            self.tell_progress();
        }
    }

    /// Adds runs to what is left to do.
    pub(super) fn expect(&self, more: Size) {
        self.tracker.borrow_mut().expect(more);
    }

    /// Replaces what is left to do.
    pub(super) fn set_left(&self, left: Size) {
        self.tracker.borrow_mut().set_left(left);
    }

    /// Runs jobs under the token of a queue's item.
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
