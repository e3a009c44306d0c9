//! The running job: what starts, pauses and ends it, and the events of the engine.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::app::data::history::KeptRun;
use crate::app::data::job::{Adapter, Job, Wanted};
use crate::app::data::log::Level;
use crate::caching::RunMeasurement;
use crate::engine::{Engine, EngineError, Event, Record};
use crate::study::LearntFile;

impl App {
    pub(in crate::app) fn generate(&mut self) {
        // Changes of this frame count.
        self.predict();
        if let Err(why) = self.shared.ready() {
            return self.shared.log.add(Level::Note, why);
        }
        let (strategy, prompt) = (self.shared.form.strategy().name(), &self.shared.form.prompt);
        self.shared.log.add(Level::Note, format!("Generating \"{prompt}\" with {strategy}."));
        self.choose_gpu();
        match self.link.generate(self.shared.form.request()) {
            Ok(Some(started)) => self.started(started),
            Ok(None) => self.shared.job = Job::Opening,
            Err(error) => {
                self.link.close_engine();
                self.fail(error);
            }
        }
    }

    /// Takes over the GPU of the preferences, before a job starts.
    pub(in crate::app) fn choose_gpu(&mut self) {
        if self.link.use_gpu(self.shared.prefs.gpu.as_deref()) {
            self.shared.adapter = None;
        }
    }

    pub(in crate::app) fn pause(&mut self, pause: bool) {
        let Job::Running { wanted, since, paused, .. } = &mut self.shared.job else { return };
        let Some(engine) = self.link.engine() else { return };
        match (pause, *wanted) {
            (_, Wanted::Cancel) => {}
            (true, _) => {
                engine.control().pause();
                *wanted = Wanted::Pause;
                paused.get_or_insert_with(Instant::now);
            }
            (false, _) => {
                self.pace.ask("resume");
                engine.control().resume();
                *wanted = Wanted::Run;
                *since += paused.take().map_or(Duration::ZERO, |paused| paused.elapsed());
            }
        }
    }

    pub(in crate::app) fn cancel(&mut self) {
        match &mut self.shared.job {
            Job::Idle => {}
            // The device is opened anyway, for the next job.
            Job::Opening => {
                self.link.forget_pending();
                self.shared.job = Job::Idle;
                self.shared.log.add(Level::Note, "Cancelled.");
            }
            Job::Study { cancelling, .. } => {
                *cancelling = true;
                if let Some(running) = &self.shared.studies.running {
                    running.cancel.cancel();
                }
            }
            Job::Running { wanted, .. } => {
                *wanted = Wanted::Cancel;
                self.pace.ask("cancel");
                if let Some(engine) = self.link.engine() {
                    engine.control().cancel();
                }
            }
        }
    }

    pub(in crate::app) fn opened(&mut self, engine: Result<(Engine, Vec<String>), String>) {
        let (engine, warnings) = match engine {
            Ok(opened) => opened,
            Err(error) => {
                let text = format!("The GPU could not be opened: {error}. See `ditscope devices` for what there is.");
                return if self.link.not_opened() {
                    self.fail(text)
                } else {
                    self.shared.log.add(Level::Warning, text)
                };
            }
        };
        for warning in warnings {
            self.shared.log.add(Level::Warning, warning);
        }
        self.shared.adapter = Some(Adapter { name: engine.adapter().into(), memory: engine.memory() });
        match self.link.opened(engine) {
            Ok(Some(started)) => self.started(started),
            Ok(None) => {}
            Err(error) => self.fail(error),
        }
    }

    pub(in crate::app) fn fail(&mut self, error: String) {
        self.shared.job = Job::Idle;
        self.shared.log.add(Level::Error, error);
    }

    pub(in crate::app) fn event(&mut self, event: Event, records: Vec<Record>) {
        let Job::Running { run, stage, since, paused, .. } = &mut self.shared.job else { return };
        match &event {
            Event::Started(_) => *run = Some(self.shared.runs.start()),
            Event::Stage(now) => {
                (*stage, *since) = (Some(*now), Instant::now());
                *paused = paused.map(|_| *since);
            }
            Event::Warning(text) => self.shared.log.add(Level::Warning, text.clone()),
            Event::Step(_) | Event::Finished(_) | Event::Failed(_) => self.pace.answered(),
            Event::Mask(_) => {}
        }
        let run = *run;
        if let Some(id) = run {
            self.shared.runs.observe(id, records);
        }
        match event {
            Event::Started(_) => self.show_opened_run(true),
            Event::Finished(generated) => {
                self.learn(run, generated.measured);
                self.finished(run);
            }
            Event::Failed(error) => self.failed(run, &error),
            _ => {}
        }
    }

    /// Keeps what a run told of its model.
    fn learn(&self, run: Option<u64>, measured: Option<RunMeasurement>) {
        let folder = self.shared.learnt.as_ref().filter(|_| self.shared.prefs.learning);
        let run = run.and_then(|id| self.shared.runs.get(id));
        if let (Some(folder), Some(run), Some(measured)) = (folder, run, measured) {
            self.link.learn(LearntFile::within(folder, &run.capture.run.model_id), measured);
        }
    }

    fn finished(&mut self, run: Option<u64>) {
        self.shared.job = Job::Idle;
        let Some(id) = run else { return };
        self.shared.runs.end(id);
        if let (Some(folder), Some(run)) = (self.shared.history_folder.clone(), self.shared.runs.get(id)) {
            self.link.keep(folder, id, KeptRun::of(run), run.capture.clone());
        }
        let text = if self.shared.runs.promote(id) {
            "Done. This run is the baseline now: choose a strategy and generate again."
        } else {
            "Done."
        };
        self.shared.log.add(Level::Note, text);
    }

    fn failed(&mut self, run: Option<u64>, error: &EngineError) {
        self.shared.job = Job::Idle;
        if let Some(id) = run {
            self.shared.runs.end(id);
        }
        match error {
            EngineError::Cancelled => {
                // A run without a step shows nothing.
                let empty = |id: &u64| self.shared.runs.get(*id).is_some_and(|run| run.capture.steps.is_empty());
                if let Some(id) = run.filter(empty) {
                    self.shared.runs.close(id);
                }
                let some = run.is_some_and(|id| self.shared.runs.get(id).is_some());
                let text =
                    if some { "Cancelled. What was done until then is in the list of runs." } else { "Cancelled." };
                self.shared.log.add(Level::Note, text);
            }
            EngineError::Gpu(_) => {
                self.link.close_engine();
                self.shared.log.add(Level::Error, format!("{error}. The GPU is opened anew with the next run."));
            }
            other => self.shared.log.add(Level::Error, other.to_string()),
        }
    }

    /// Handles the end of an engine whose thread panicked.
    pub(in crate::app) fn broken(&mut self) {
        self.link.close_engine();
        if let Job::Running { run: Some(id), .. } = self.shared.job {
            self.shared.runs.end(id);
        }
        self.link.study_ended();
        self.shared.studies.running = None;
        let text = "The engine broke: that is a bug of this program, and the terminal says more. The run so far is kept; the next one starts the engine anew.";
        self.fail(text.into());
    }
}
