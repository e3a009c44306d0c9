//! The bar on top: model, prompt, seed, steps, size, and what starts and stops.

use std::time::Duration;

use egui::accesskit::Role;
use egui::{Button, DragValue, Key, KeyboardShortcut, Modifiers, RichText, Ui};

use crate::engine::{ClipSettings, limits};

use crate::app::data::state::{Action, Job, State, Wish};
use crate::app::draw::theme::{self, Palette};
use crate::app::layout::{Layout, Pane};

/// Starts a generation.
pub const GENERATE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Enter);
/// Opens a capture.
pub const OPEN: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::O);
/// Saves the capture on show.
pub const SAVE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::S);
/// Holds a generation, or goes on.
pub const PAUSE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::P);
/// Ends it.
pub const CANCEL: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Period);

/// Least width, in points, of a bar in one row: below it the numbers have a row of their own.
const ONE_ROW: f32 = 1050.0;

/// Draws the bar.
pub fn ui(ui: &mut Ui, state: &mut State, layout: &mut Layout) {
    let one_row = ui.available_width() >= ONE_ROW;
    ui.horizontal(|ui| {
        file_menu(ui, state);
        view_menu(ui, state, layout);
        model_menu(ui, state);
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            buttons(ui, state);
            if one_row {
                // Right to left.
                for number in [size, steps, seed] {
                    number(ui, state);
                }
            }
            prompt(ui, state);
        });
    });
    if !one_row {
        ui.horizontal_wrapped(|ui| {
            for number in [seed, steps, size] {
                number(ui, state);
            }
        });
    }
}

fn file_menu(ui: &mut Ui, state: &mut State) {
    ui.menu_button("File", |ui| {
        let shortcut = |ui: &Ui, keys: &KeyboardShortcut| ui.ctx().format_shortcut(keys);
        let keys = shortcut(ui, &OPEN);
        if ui.add(Button::new("Open capture...").shortcut_text(keys)).clicked() {
            state.ask(Action::OpenCapture);
        }
        ui.menu_button("Open recent", |ui| {
            if state.prefs.recent.is_empty() {
                ui.label("Captures that were opened or saved appear here.");
            }
            for path in state.prefs.recent.clone() {
                let name = path
                    .file_name()
                    .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
                if ui.button(name).on_hover_text(path.display().to_string()).clicked() {
                    state.ask(Action::Open(path));
                }
            }
        });
        let finished = state.runs.current().is_some_and(|run| !run.live);
        let clip = state.runs.current().is_some_and(|run| run.capture.clip.is_some());
        ui.separator();
        let keys = shortcut(ui, &SAVE);
        if ui.add_enabled(finished, Button::new("Save capture...").shortcut_text(keys)).clicked() {
            state.ask(Action::SaveCapture);
        }
        if ui.add_enabled(clip, Button::new("Save clip...")).clicked() {
            state.ask(Action::SaveClip);
        }
        if ui.add_enabled(state.runs.current().is_some(), Button::new("Export map...")).clicked() {
            state.ask(Action::SaveMap);
        }
        if ui.button("Save picture of the window...").clicked() {
            state.ask(Action::SavePicture(None));
        }
        ui.separator();
        if ui.button("Quit").clicked() {
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
        }
    });
}

fn view_menu(ui: &mut Ui, state: &mut State, layout: &mut Layout) {
    ui.menu_button("View", |ui| {
        for pane in Pane::ALL {
            let mut visible = layout.is_open(pane);
            if ui.checkbox(&mut visible, pane.title()).changed() {
                layout.set_open(pane, visible);
            }
        }
        if ui.button("Reset layout").clicked() {
            state.ask(Action::ResetLayout);
        }
        ui.separator();
        ui.label("Theme");
        ui.horizontal(|ui| state.prefs.theme.buttons(ui));
        ui.separator();
        let label = ui.label("Zoom");
        let zoom = egui::Slider::new(&mut state.prefs.zoom, 0.75..=2.0).step_by(0.05);
        ui.add(zoom.custom_formatter(|value, _| format!("{:.0} %", value * 100.0))).labelled_by(label.id);
        ui.separator();
        keys_table(ui);
        ui.separator();
        if ui.button("Show the hints again").clicked() {
            state.prefs.hints_seen = false;
        }
    });
}

fn keys_table(ui: &mut Ui) {
    ui.label(RichText::new("Keys").strong());
    let weak = Palette::of(ui).weak;
    egui::Grid::new("keys").num_columns(2).show(ui, |ui| {
        let format = |keys: &KeyboardShortcut| ui.ctx().format_shortcut(keys);
        for (keys, what) in [
            (format(&GENERATE), "generate"),
            (format(&PAUSE), "pause, resume"),
            (format(&CANCEL), "cancel"),
            (format(&OPEN), "open a capture"),
            (format(&SAVE), "save the capture"),
            ("K".into(), "play, stop"),
            ("arrows".into(), "move in the map, or the brush"),
            (format(&crate::app::panes::preview::brush::UNDO), "take back the last stroke of the mask"),
            ("space".into(), "switch reuse of the selection; paint the mask"),
        ] {
            ui.label(RichText::new(keys).monospace());
            ui.label(RichText::new(what).color(weak));
            ui.end_row();
        }
    });
}

fn model_menu(ui: &mut Ui, state: &mut State) {
    let recorded = || state.runs.current().map(|run| run.capture.run.model.clone()).filter(|name| !name.is_empty());
    let folder = match state.form.model.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => recorded().unwrap_or_else(|| "no model".into()),
    };
    let response = ui.menu_button(folder.clone(), |ui| {
        let demo = state.demo_model.clone();
        if let Some(demo) = &demo
            && ui.button("Built-in demo model").clicked()
        {
            state.ask(Action::UseModel(demo.clone()));
        }
        for path in state.prefs.models.clone() {
            let name =
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
            if Some(&path) != demo.as_ref() && ui.button(name).on_hover_text(path.display().to_string()).clicked() {
                state.ask(Action::UseModel(path));
            }
        }
        if ui.button("Choose a model folder...").clicked() {
            state.ask(Action::ChooseModel);
        }
    });
    theme::named(&response.response, Role::Button, format!("Model: {folder}"));
    response.response.on_hover_text(state.form.model.display().to_string());
}

fn prompt(ui: &mut Ui, state: &mut State) {
    let width = ui.available_width();
    let field =
        egui::TextEdit::singleline(&mut state.form.prompt).hint_text("What to show").desired_width(width - 12.0);
    let response = ui.add(field);
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(Role::TextInput, true, "Prompt");
        info.current_text_value = Some(state.form.prompt.clone());
        info
    });
    if response.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter)) && !state.job.busy() {
        state.ask(Action::Generate);
    }
}

/// A number that counts once it is written to its end: "30" is not 3 steps on the way.
fn typed(value: DragValue<'_>) -> DragValue<'_> {
    value.update_while_editing(false)
}

fn seed(ui: &mut Ui, state: &mut State) {
    let response = ui.add(typed(DragValue::new(&mut state.form.clip.seed)).prefix("seed ").speed(1.0));
    response.on_hover_text("The same seed and settings give the same clip");
}

fn steps(ui: &mut Ui, state: &mut State) {
    let response = ui.add(
        typed(DragValue::new(&mut state.form.clip.num_inference_steps)).prefix("steps ").range(1..=limits::MOST_STEPS),
    );
    response.on_hover_text("Denoising steps");
}

fn size(ui: &mut Ui, state: &mut State) {
    let (width, height) = state.form.clip.size();
    let text = format!("{width} x {height}, {} frames", state.form.clip.num_frames);
    let response = ui.menu_button(text, |ui| {
        for (width, height, frames) in [(64, 64, 17), (128, 128, 17), (832, 480, 33), (832, 480, 81), (1280, 720, 81)] {
            if ui.button(format!("{width} x {height}, {frames} frames")).clicked() {
                state.form.clip = ClipSettings { width, height, num_frames: frames, ..state.form.clip };
            }
        }
        ui.separator();
        egui::Grid::new("size").num_columns(2).show(ui, |ui| {
            let clip = &mut state.form.clip;
            for (side, name) in [(&mut clip.width, "width"), (&mut clip.height, "height")] {
                let label = ui.label(name);
                let sides = limits::SMALLEST_SIDE..=limits::LARGEST_SIDE;
                ui.add(typed(DragValue::new(side)).range(sides).speed(16.0).suffix(" px")).labelled_by(label.id);
                ui.end_row();
            }
            let label = ui.label("frames");
            let frames = typed(DragValue::new(&mut clip.num_frames)).range(1..=limits::MOST_FRAMES).speed(4.0);
            ui.add(frames).labelled_by(label.id);
            ui.end_row();
        });
    });
    theme::named(
        &response.response,
        Role::Button,
        format!("Size: {width} x {height}, {} frames", state.form.clip.num_frames),
    );
}

/// What the engine does, and for how many seconds: long stages are seen to go on.
fn doing(job: &Job) -> String {
    match job.seconds() {
        Some(seconds) => format!("{} {seconds} s", job.doing()),
        None => job.doing().into(),
    }
}

/// Right to left.
fn buttons(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    if !state.job.busy() {
        let text = RichText::new("Generate").strong().color(palette.on_accent);
        let ready = state.ready();
        let button = ui.add_enabled(ready.is_ok(), Button::new(text).fill(palette.accent));
        let button = button.on_disabled_hover_text(ready.err().unwrap_or_default());
        if button.on_hover_text(ui.ctx().format_shortcut(&GENERATE)).clicked() {
            state.ask(Action::Generate);
        }
        return;
    }
    let wish = state.job.wish();
    let cancel = ui.add_enabled(wish != Wish::Cancel, Button::new("Cancel"));
    // It stands where Generate stood: a double click on that one is no click on this.
    if cancel.clicked() && !cancel.double_clicked() {
        state.ask(Action::Cancel);
    }
    let (text, action) = if wish == Wish::Pause { ("Resume", Action::Resume) } else { ("Pause", Action::Pause) };
    let running = matches!(state.job, Job::Running { .. }) && wish != Wish::Cancel;
    if ui.add_enabled(running, Button::new(text)).clicked() {
        state.ask(action);
    }
    ui.label(RichText::new(doing(&state.job)).color(palette.weak));
    if let Some(time) = state.job.elapsed() {
        // When the next second is full: nothing else may happen for long.
        ui.ctx().request_repaint_after(Duration::from_secs(1) - Duration::from_nanos(time.subsec_nanos().into()));
    }
}
