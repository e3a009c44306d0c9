//! Messages from other threads, and questions to them.

use std::path::PathBuf;

use super::data::likeness::{ClipPair, Comparison};
use super::data::log::Level;
use super::data::model::{ModelAnswer, ModelStatus};
use super::link::Message;
use super::panes::News;
use super::save::Saved;
use super::{App, Shared};
use crate::caching::Known;
use crate::engine::Capture;

impl App {
    /// Takes over a message.
    pub(super) fn receive(&mut self, message: Message) {
        let log = &mut self.shared.log;
        match message {
            Message::Opened(engine) => self.opened(engine),
            Message::Gpus(gpus) => {
                self.shared.gpus = Some(gpus.unwrap_or_else(|why| {
                    self.shared.log.add(Level::Error, why);
                    Vec::new()
                }));
            }
            Message::Event { event, records } => self.event(*event, records),
            Message::Study(news) => self.study_news(news),
            Message::Ended(number) if self.link.uses(number) => self.broken(),
            Message::Ended(_) => {}
            Message::Model(answer) => {
                self.facts_asked = false;
                // The answer may be about the model that was in use before.
                if answer.query.model() == self.shared.form.model {
                    self.take_answer(*answer);
                }
            }
            Message::Compared { pair, likeness } => {
                self.shared.likeness.insert(pair, likeness.map_or(Comparison::Cannot, Comparison::Found));
            }
            Message::Loaded { path, loaded } => self.add_loaded(path, loaded.capture, loaded.damage),
            Message::Failed(error) => log.add(Level::Error, error),
            Message::Mask { run, bits } => {
                self.shared.runs.keep_mask(run);
                self.shared.runs.paint(run, Some(bits));
                self.panes.notice(News::MaskOpened);
                self.shared.log.add(Level::Note, "The mask is in use: block scores are worked out anew from it.");
            }
            // The next plan is made from it.
            Message::Learnt if self.shared.form.strategy().known().is_some_and(|known| known != Known::Profile) => {
                self.shared.forget_model();
            }
            Message::Learnt => {}
            Message::ModelChosen(path) => self.use_model(path),
            Message::History(history) => self.shared.history = history,
            Message::Kept { run, kept } => {
                self.shared.runs.describe(run, |run| run.kept = Some(kept.path.clone()));
                self.shared.history.insert(0, *kept);
            }
            Message::AskPath(question) => self.path_question = Some(*question),
            Message::Strategy(strategy) => {
                self.shared.form.use_strategy(strategy);
                self.shared.form.mend();
                // Its name may have got a number.
                let name = self.shared.form.strategy().name();
                self.shared.log.add(Level::Note, format!("The next run uses the strategy \"{name}\"."));
            }
            Message::Saved { what, path } => {
                log.add(Level::Note, format!("Saved {}", path.display()));
                match what {
                    Saved::Capture(run) => {
                        self.shared.prefs.remember_capture(&path);
                        self.shared.runs.saved(run, path);
                    }
                    Saved::Clip(run) => self.shared.runs.clip_saved(run),
                    Saved::Other => {}
                }
            }
        }
    }

    /// Takes over what is known about the form's model. Each fault is told once.
    fn take_answer(&mut self, ModelAnswer { query, facts, evidence }: ModelAnswer) {
        let Shared { log, model, .. } = &mut self.shared;
        let told = model.evidence.as_ref().and_then(|evidence| evidence.profile.as_ref().err());
        if let Some(Err(why)) = evidence.as_ref().map(|evidence| &evidence.profile)
            && told != Some(why)
        {
            log.add(Level::Warning, format!("The model's profile cannot be used: {why}"));
        }
        if let Err(why) = &facts
            && !matches!(&model.facts, Some(Err(before)) if before == why)
        {
            log.add(Level::Warning, why.clone());
        }
        *model = ModelStatus { facts: Some(facts), evidence, query: Some(query) };
        // Speed-up and memory depend on them.
        self.predicted = None;
    }

    /// Shows a capture that was read. `damage` says why a part is missing.
    pub(super) fn add_loaded(&mut self, path: PathBuf, capture: Capture, damage: Option<String>) {
        if let Some(damage) = damage {
            let name = path.display();
            self.shared.log.add(Level::Warning, format!("{name} is shown as far as it can be read: {damage}"));
        }
        for warning in capture.warnings.clone() {
            self.shared.log.add(Level::Warning, warning);
        }
        let kept = self.shared.history.iter().find(|kept| kept.path == path).cloned();
        if kept.is_none() {
            self.shared.prefs.remember_capture(&path);
        }
        let id = self.shared.runs.add(capture, false, Some(path));
        if let Some(kept) = kept {
            self.shared
                .runs
                .describe(id, |run| (run.name, run.note, run.kept) = (kept.name, kept.note, Some(kept.path)));
        }
        self.show_opened_run(false);
    }

    /// Asks for the likeness of clips to the baseline's: one pair at a time, the pair on show
    /// first.
    pub(super) fn compare(&mut self) {
        let Shared { runs, likeness, .. } = &mut self.shared;
        if likeness.values().any(|known| *known == Comparison::Asked) {
            return;
        }
        let pairs =
            runs.current().into_iter().chain(runs.iter()).filter_map(|run| Some((runs.reference_of(run)?, run)));
        let mut ready = pairs.filter(|(baseline, run)| baseline.capture.clip.is_some() && run.capture.clip.is_some());
        if let Some((baseline, run)) =
            ready.find(|(baseline, run)| !likeness.contains_key(&ClipPair::of(baseline, run)))
        {
            let of = ClipPair::of(baseline, run);
            self.link.compare(of, baseline.capture.clone(), run.capture.clone());
            likeness.insert(of, Comparison::Asked);
        }
    }
}
