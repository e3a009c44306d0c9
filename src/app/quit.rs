//! Leaving the window: what would be lost is asked about first.

use egui::{Context, Id, Modal, ViewportCommand};

use super::App;
use super::state::{Job, State};
use super::theme;

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
    if let Job::Running { .. } = state.job {
        return Some("A clip is being generated.".into());
    }
    let unsaved = || state.runs.iter().filter(|run| run.path.is_none());
    let seconds: f64 = unsaved().map(|run| run.denoise_seconds()).sum();
    let runs = match unsaved().count() {
        1 => "One run is".into(),
        count => format!("{count} runs are"),
    };
    (seconds >= WORTH_ASKING).then(|| {
        format!(
            "{runs} not saved: {} of denoising. File > Save capture keeps the run on show.",
            theme::seconds(seconds)
        )
    })
}

impl App {
    /// Asks before the window closes, where something would be lost.
    pub(super) fn quit(&mut self, ctx: &Context) {
        let lost = lost(&self.state);
        let closing = ctx.input(|input| input.viewport().close_requested());
        if closing && self.leaving != Leaving::Yes && lost.is_some() {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            self.leaving = Leaving::Asked;
        }
        if self.leaving != Leaving::Asked {
            return;
        }
        let modal = Modal::new(Id::unique("quit")).show(ctx, |ui| {
            ui.set_width(340.0);
            ui.heading("Quit?");
            ui.label(lost.unwrap_or_default());
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
