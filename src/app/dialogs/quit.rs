//! Leaving the window: what would be lost is asked about first.

use egui::{Context, Id, Modal, ViewportCommand};

use crate::app::App;
use crate::app::data::state::{Job, State, Undo};
use crate::app::draw::theme;

/// Seconds of denoising that are worth a question: less is made again soon.
const WORTH_ASKING: f64 = 60.0;

/// Where leaving stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// Nobody wants to.
    #[default]
    No,
    /// The user is asked.
    Asked,
    /// The user wants to.
    Yes,
}

/// What closing the window loses, in plain words.
fn lost(state: &State) -> Option<String> {
    let running = matches!(state.job, Job::Running { .. });
    // One that was closed is lost only now: until here it could come back.
    let closed = match &state.undo {
        Some(Undo::Run(closed)) => Some(closed.run()),
        _ => None,
    };
    let unsaved = || state.runs.iter().chain(closed).filter(|run| run.unsaved());
    let seconds: f64 = unsaved().map(|run| run.denoise_seconds()).sum();
    let mut told = Vec::new();
    if running {
        told.push("A clip is being generated.".to_owned());
    }
    if state.saving > 0 {
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
    /// Keeps the window where closing it would lose something, for the question. Also of a window that is hidden, which draws nothing.
    pub(in crate::app) fn closing(&mut self, ctx: &Context) {
        let closing = ctx.input(|input| input.viewport().close_requested());
        if closing && self.leaving != Leaving::Yes && lost(&self.state).is_some() {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            self.leaving = Leaving::Asked;
        }
    }

    /// Asks whether to leave.
    pub(in crate::app) fn quit(&mut self, ctx: &Context) {
        if self.leaving != Leaving::Asked {
            return;
        }
        let Some(lost) = lost(&self.state) else {
            // It is written or saved, or was short and is done.
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
