//! The application of actions: the one place where panes and bars change the window.

use super::actions::Action;
use super::data::change::Undo;
use super::data::history::KeptRun;
use super::data::log::Level;
use super::save::{Saveable, Source};
use super::{App, Layout};

impl App {
    /// Applies the actions of the frame: changes first, then commands.
    pub(super) fn apply(&mut self, ctx: &egui::Context) {
        let actions = std::mem::take(&mut self.actions);
        if !actions.changes.is_empty() || !actions.commands.is_empty() {
            // The next frame shows the result.
            ctx.request_repaint();
        }
        for change in actions.changes {
            self.shared.change(change);
        }
        for command in actions.commands {
            self.command(command);
        }
    }

    fn command(&mut self, command: Action) {
        match command {
            Action::Generate if !self.shared.job.busy() => self.generate(),
            Action::Generate => {}
            Action::Pause => self.pause(true),
            Action::Resume => self.pause(false),
            Action::Cancel => self.cancel(),
            Action::StartStudy(order) => self.start_study(*order),
            Action::MoveQueued { id, place } => {
                if let Some(comparison) = &self.shared.studies.comparison {
                    comparison.queue.move_to(id, place);
                }
            }
            Action::CancelQueued(id) => {
                if let Some(comparison) = &self.shared.studies.comparison {
                    comparison.queue.cancel(id);
                }
            }
            Action::ChooseCapture => self.link.choose_capture(),
            Action::OpenCapture(path) => self.link.load(path),
            Action::ChooseModel => self.link.choose_model(),
            Action::UseModel(path) => self.use_model(path),
            Action::ListGpus => self.link.ask_gpus(),
            Action::ReadModel => self.shared.forget_model(),
            Action::ChooseMask => {
                if let Some(run) = self.shared.runs.current() {
                    self.link.choose_mask(run.id, run.capture.run.token_grid);
                }
            }
            Action::OpenMask(path) => match self.shared.runs.current() {
                Some(run) => self.link.load_mask(path, run.id, run.capture.run.token_grid),
                None => {
                    let text = "Open a capture or generate first: a mask belongs to a run.";
                    self.shared.log.add(Level::Note, text);
                }
            },
            Action::ChooseStrategy => self.link.choose_strategy(),
            Action::OpenStrategy(path) => self.link.load_strategy(path),
            Action::Save(saveable) => self.save_file(saveable),
            Action::SavePicture(pane) => self.pictures.want(pane),
            Action::DescribeRun(id) => self.describe_run(id),
            Action::ClearHistory => {
                self.shared.runs.forget_kept();
                let files = std::mem::take(&mut self.shared.history).into_iter().map(|kept| kept.path).collect();
                self.link.remove_kept(files);
            }
            Action::CloseRun(id) => {
                self.shared.undo = self.shared.runs.close(id).map(|closed| Undo::Run(Box::new(closed)));
            }
            Action::RemovePlan => {
                if let Some(plan) = self.shared.form.remove_plan() {
                    self.shared.undo = Some(Undo::Plan(plan));
                }
            }
            Action::DefaultSettings => {
                let form = Box::new(self.shared.form.clone());
                self.shared.undo = Some(Undo::Form { what: "default settings", form });
                self.shared.form.reset_strategies();
                self.shared.log.add(Level::Note, "All strategies have their default settings again.");
            }
            Action::Undo => self.undo(),
            Action::ReadNotice(index) => self.shared.log.read(index),
            Action::ReadAllNotices => self.shared.log.read_all(),
            Action::ResetLayout => {
                (self.layout, self.compact) = (Layout::wide(&self.panes), Layout::compact(&self.panes));
            }
        }
    }

    /// Writes the name and note of a run to the summary of its file.
    fn describe_run(&mut self, id: u64) {
        let Some(run) = self.shared.runs.get(id) else { return };
        let summary = KeptRun::of(run);
        if let Some(kept) = self.shared.history.iter_mut().find(|kept| run.is_in(&kept.path)) {
            *kept = KeptRun { path: kept.path.clone(), bytes: kept.bytes, ..summary };
            self.link.describe_kept(kept.clone());
        }
    }

    fn save_file(&mut self, saveable: &Saveable) {
        if !(saveable.available)(&self.shared) {
            return;
        }
        match (saveable.make)(Source { shared: &self.shared, panes: &self.panes }) {
            Ok(content) => self.link.save(saveable, content),
            Err(why) => self.shared.log.add(Level::Warning, why),
        }
    }

    fn undo(&mut self) {
        match self.shared.undo.take() {
            Some(Undo::Run(closed)) => {
                self.shared.runs.reopen(*closed);
                self.show_opened_run(false);
            }
            Some(Undo::Plan(plan)) => self.shared.form.use_strategy(plan),
            Some(Undo::Form { form, .. }) => {
                if form.model != self.shared.form.model {
                    self.shared.forget_model();
                }
                self.shared.form.take_back(*form);
            }
            None => {}
        }
    }
}
