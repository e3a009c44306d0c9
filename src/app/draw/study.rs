//! What the panes of studies share: the list of prompts, and the progress with its button.

use egui::accesskit::Role;
use egui::{RichText, TextEdit, Ui};

use crate::app::data::job::{Job, Wanted};
use crate::app::data::study::RunningStudy;
use crate::app::draw::theme::{self, Palette};

/// Prompts of a study at most.
const MOST_PROMPTS: usize = 1000;

/// A field for prompts, one a line.
pub fn prompts_ui(ui: &mut Ui, name: &str, prompts: &mut String) {
    ui.label(RichText::new("Prompts, one a line").size(11.5).color(Palette::of(ui).weak));
    let field = TextEdit::multiline(prompts).desired_rows(4).desired_width(f32::INFINITY);
    let response = ui.add(field);
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(Role::MultilineTextInput, true, name);
        info.current_text_value = Some(prompts.clone());
        info
    });
}

/// The prompts in a field. The error is a text for the user.
pub fn prompts_of(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let prompts: Vec<String> = lines.map(str::to_owned).collect();
    match prompts.len() {
        0 => Err("Write a prompt first.".into()),
        count if count > MOST_PROMPTS => Err(format!("{count} prompts are too many: at most {MOST_PROMPTS}.")),
        _ => Ok(prompts),
    }
}

/// How far a study is, and the button that ends it. Returns whether the button was clicked.
pub fn progress(ui: &mut Ui, running: &RunningStudy, job: &Job) -> bool {
    let progress = &running.progress;
    let share = progress.steps_done as f32 / progress.steps.max(1) as f32;
    let bar = ui.add(egui::ProgressBar::new(share).desired_height(8.0).corner_radius(4.0));
    let text = format!("step {} of {}", progress.steps_done, progress.steps);
    theme::named(&bar, Role::ProgressIndicator, format!("Study: {text}"));
    theme::row(ui, "now", progress.phase.as_str());
    theme::row(ui, "run", format!("{} of {}", (progress.runs_done + 1).min(progress.runs), progress.runs));
    theme::row(ui, "step", format!("{} of {}", progress.steps_done, progress.steps));
    theme::row(ui, "to go (estimate)", progress.seconds_left.map_or("...".into(), theme::seconds));
    let cancelling = job.wanted() == Wanted::Cancel;
    ui.add_enabled(!cancelling, egui::Button::new("Cancel the study")).clicked()
}
