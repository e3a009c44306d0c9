//! The running job: what starts, holds and ends it, and what the engine tells of it.

use std::time::{Duration, Instant};

use crate::engine::{Engine, EngineError, Event, Record};

use crate::app::App;
use crate::app::data::state::{Adapter, Job, Level, Wish};

impl App {
    pub(in crate::app) fn generate(&mut self) {
        // What was changed in this frame counts.
        self.predict();
        if let Err(why) = self.state.ready() {
            return self.state.log.add(Level::Note, why);
        }
        let (strategy, prompt) = (self.state.form.strategy().name(), &self.state.form.prompt);
        self.state.log.add(Level::Note, format!("Generating \"{prompt}\" with {strategy}."));
        match self.link.generate(self.state.form.request()) {
            Ok(true) => self.begin(),
            Ok(false) => self.state.job = Job::Opening,
            Err(error) => {
                self.link.close_engine();
                self.fail(error);
            }
        }
    }

    pub(in crate::app) fn pause(&mut self, pause: bool) {
        let Job::Running { wish, since, held, .. } = &mut self.state.job else { return };
        let Some(engine) = self.link.engine() else { return };
        match (pause, *wish) {
            (_, Wish::Cancel) => {}
            (true, _) => {
                engine.control().pause();
                *wish = Wish::Pause;
                held.get_or_insert_with(Instant::now);
            }
            (false, _) => {
                self.pace.ask("resume");
                engine.control().resume();
                *wish = Wish::GoOn;
                *since += held.take().map_or(Duration::ZERO, |held| held.elapsed());
            }
        }
    }

    pub(in crate::app) fn cancel(&mut self) {
        match &mut self.state.job {
            Job::Idle => {}
            // The device goes on opening, for the next job.
            Job::Opening => {
                self.link.forget_pending();
                self.state.job = Job::Idle;
                self.state.log.add(Level::Note, "Cancelled.");
            }
            Job::Running { wish, .. } => {
                *wish = Wish::Cancel;
                self.pace.ask("cancel");
                if let Some(engine) = self.link.engine() {
                    engine.control().cancel();
                }
            }
        }
    }

    pub(in crate::app) fn opened(&mut self, engine: Result<Engine, String>) {
        let engine = match engine {
            Ok(engine) => engine,
            Err(error) => {
                let text = format!("The GPU could not be opened: {error}. See `ditscope devices` for what there is.");
                return if self.link.not_opened() { self.fail(text) } else { self.state.log.add(Level::Warning, text) };
            }
        };
        self.state.adapter = Some(Adapter { name: engine.adapter().into(), memory: engine.memory() });
        match self.link.opened(engine) {
            Ok(true) => self.begin(),
            Ok(false) => {}
            Err(error) => self.fail(error),
        }
    }

    fn begin(&mut self) {
        self.state.job = Job::begun();
    }

    pub(in crate::app) fn fail(&mut self, error: String) {
        self.state.job = Job::Idle;
        self.state.log.add(Level::Error, error);
    }

    pub(in crate::app) fn event(&mut self, event: Event, records: Vec<Record>) {
        let Job::Running { run, stage, since, held, .. } = &mut self.state.job else { return };
        match &event {
            Event::Started(_) => *run = Some(self.state.runs.start()),
            Event::Stage(now) => {
                (*stage, *since) = (Some(*now), Instant::now());
                *held = held.map(|_| *since);
            }
            Event::Warning(text) => self.state.log.add(Level::Warning, text.clone()),
            Event::Step(_) | Event::Finished(_) | Event::Failed(_) => self.pace.answered(),
            Event::Mask(_) => {}
        }
        let run = *run;
        if let Some(id) = run {
            self.state.runs.observe(id, records);
        }
        match event {
            Event::Started(_) => {
                self.forget_selection();
                // What is made is to be seen moving.
                self.state.view.playing = true;
            }
            Event::Finished(_) => self.finished(run),
            Event::Failed(error) => self.failed(run, &error),
            _ => {}
        }
    }

    fn finished(&mut self, run: Option<u64>) {
        self.state.job = Job::Idle;
        let Some(id) = run else { return };
        self.state.runs.end(id);
        let text = if self.state.runs.promote(id) {
            "Done. This run is the baseline now: choose a strategy and generate again."
        } else {
            "Done."
        };
        self.state.log.add(Level::Note, text);
    }

    fn failed(&mut self, run: Option<u64>, error: &EngineError) {
        self.state.job = Job::Idle;
        if let Some(id) = run {
            self.state.runs.end(id);
        }
        match error {
            EngineError::Cancelled => {
                let text = if run.is_some() { "Cancelled. What was done until then is kept." } else { "Cancelled." };
                self.state.log.add(Level::Note, text);
            }
            EngineError::Gpu(_) => {
                self.link.close_engine();
                self.state.log.add(Level::Error, format!("{error}. The GPU is opened anew with the next run."));
            }
            other => self.state.log.add(Level::Error, other.to_string()),
        }
    }

    /// The engine's thread has ended by a bug of the program's.
    pub(in crate::app) fn broken(&mut self) {
        self.link.close_engine();
        if let Job::Running { run: Some(id), .. } = self.state.job {
            self.state.runs.end(id);
        }
        let text = "The engine broke: that is a bug of this program, and the terminal says more. The run so far is kept; the next one starts the engine anew.";
        self.fail(text.into());
    }
}
