//! Leaving the window. The user is asked first if something would be lost.

use egui::{Context, Id, Modal, ViewportCommand};

use crate::app::App;
use crate::app::data::change::Undo;
use crate::app::data::job::Job;
use crate::app::data::shared::Shared;
use crate::app::draw::theme;

/// The user is asked if at least so many seconds of denoising would be lost.
const WORTH_ASKING: f64 = 60.0;

/// The state of leaving the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// The user does not leave.
    #[default]
    No,
    /// The user is asked.
    Asked,
    /// The user leaves.
    Yes,
}

/// Lists what closing the window would lose, for the user.
fn lost(shared: &Shared) -> Option<String> {
    let running = matches!(shared.job, Job::Running { .. });
    // A closed run could come back by undo: it is lost only now.
    let closed = match &shared.undo {
        Some(Undo::Run(closed)) => Some(closed.run()),
        _ => None,
    };
    let unsaved = || shared.runs.iter().chain(closed).filter(|run| run.unsaved());
    let seconds: f64 = unsaved().map(|run| run.denoise_seconds()).sum();
    let mut told = Vec::new();
    if running {
        told.push("A clip is being generated.".to_owned());
    }
    if matches!(shared.job, Job::Study { .. }) {
        told.push("A study is running.".to_owned());
    }
    if shared.saving > 0 {
        told.push("A file is being written.".to_owned());
    }
    if seconds >= WORTH_ASKING {
        let runs = match unsaved().count() {
            1 => "One run is".into(),
            count => format!("{count} runs are"),
        };
        let time = theme::seconds(seconds);
        told.push(format!("{runs} not saved: {time} of denoising. File > Save capture keeps the run on show."));
    }
    (!told.is_empty()).then(|| told.join(" "))
}

impl App {
    /// Keeps the window open for the question if closing it would lose something. This also works
    /// for a hidden window, which draws nothing.
    pub(in crate::app) fn closing(&mut self, ctx: &Context) {
        let closing = ctx.input(|input| input.viewport().close_requested());
        if closing && self.leaving != Leaving::Yes && lost(&self.shared).is_some() {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            self.leaving = Leaving::Asked;
        }
    }

    /// Draws the question.
    pub(in crate::app) fn quit(&mut self, ctx: &Context) {
        if self.leaving != Leaving::Asked {
            return;
        }
        let Some(lost) = lost(&self.shared) else {
            // Nothing would be lost any more.
            self.leaving = Leaving::No;
            return;
        };
        let modal = Modal::new(Id::unique("quit")).show(ctx, |ui| {
            ui.set_width(340.0);
            ui.heading("Quit?");
            ui.label(lost);
            ui.add_space(8.0);
            ui.horizontal(|ui| {
                if ui.button("Quit without saving").clicked() {
                    self.leaving = Leaving::Yes;
                    ui.ctx().send_viewport_cmd(ViewportCommand::Close);
                }
                ui.button("Stay").clicked()
            })
            .inner
        });
        if modal.inner || modal.should_close() {
            self.leaving = Leaving::No;
        }
    }
}
