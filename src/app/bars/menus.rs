//! The menus of the top bar.

use std::path::Path;

use egui::accesskit::Role;
use egui::{Button, KeyboardShortcut, RichText, Ui};

use super::top_bar::OPEN;
use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};
use crate::app::layout::Layout;
use crate::app::panes::Panes;
use crate::app::save;

/// The last part of a path, for a menu.
fn short(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The File menu.
pub fn file(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    ui.menu_button("File", |ui| {
        let shortcut = |ui: &Ui, keys: &KeyboardShortcut| ui.ctx().format_shortcut(keys);
        let keys = shortcut(ui, &OPEN);
        if ui.add(Button::new("Open capture...").shortcut_text(keys)).clicked() {
            actions.ask(Action::ChooseCapture);
        }
        ui.menu_button("Open recent", |ui| {
            if shared.prefs.recent.is_empty() {
                ui.label("Captures that were opened or saved appear here.");
            }
            for path in &shared.prefs.recent {
                if ui.button(short(path)).on_hover_text(path.display().to_string()).clicked() {
                    actions.ask(Action::OpenCapture(path.clone()));
                }
            }
        });
        ui.separator();
        for entry in &save::FILE_MENU {
            let mut button = Button::new(entry.text);
            if let Some(keys) = &entry.shortcut {
                button = button.shortcut_text(shortcut(ui, keys));
            }
            if ui.add_enabled((entry.saveable.available)(shared), button).clicked() {
                actions.ask(Action::Save(entry.saveable));
            }
        }
        if ui.button("Save picture of the window...").clicked() {
            actions.ask(Action::SavePicture(None));
        }
        ui.separator();
        if ui.button("Quit").clicked() {
            ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close);
        }
    });
}

/// The View menu.
pub fn view(ui: &mut Ui, shared: &Shared, actions: &mut Actions, panes: &Panes, layout: &mut Layout) {
    ui.menu_button("View", |ui| {
        for pane in panes.iter() {
            let mut open = layout.is_open(pane.key());
            if ui.checkbox(&mut open, pane.title()).changed() {
                layout.set_open(pane.key(), open);
            }
        }
        if ui.button("Reset layout").clicked() {
            actions.ask(Action::ResetLayout);
        }
        gpu(ui, shared, actions);
        ui.separator();
        ui.label("Theme");
        let mut theme = shared.prefs.theme;
        // Words, because the symbols of egui's own buttons need an emoji font.
        ui.horizontal(|ui| {
            for (each, text) in [
                (egui::ThemePreference::System, "System"),
                (egui::ThemePreference::Dark, "Dark"),
                (egui::ThemePreference::Light, "Light"),
            ] {
                ui.selectable_value(&mut theme, each, text);
            }
        });
        if theme != shared.prefs.theme {
            actions.prefs(move |prefs| prefs.theme = theme);
        }
        ui.separator();
        let label = ui.label("Zoom");
        let mut zoom = shared.prefs.zoom;
        let slider = egui::Slider::new(&mut zoom, 0.75..=2.0).step_by(0.05);
        let slider = slider.custom_formatter(|value, _| format!("{:.0} %", value * 100.0));
        if ui.add(slider).labelled_by(label.id).changed() {
            actions.prefs(move |prefs| prefs.zoom = zoom);
        }
        ui.separator();
        let mut learning = shared.prefs.learning;
        let tip = "Keeps what every run tells of its model, and makes plans from it";
        if ui.checkbox(&mut learning, "Learn from runs").on_hover_text(tip).changed() {
            actions.prefs(move |prefs| prefs.learning = learning);
        }
        ui.separator();
        if ui.button("Show the hints again").clicked() {
            actions.prefs(|prefs| prefs.hints_seen = false);
        }
    });
}

/// The menu of GPUs. A choice counts from the next run on.
fn gpu(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let opened = ui.menu_button("GPU", |ui| {
        let chosen = shared.prefs.gpu.as_deref();
        let mut offer = |ui: &mut Ui, text: &str, gpu: Option<&str>| {
            if ui.radio(chosen == gpu, text).clicked() {
                let gpu = gpu.map(str::to_owned);
                actions.prefs(move |prefs| prefs.gpu = gpu);
            }
        };
        offer(ui, "The strongest that works", None);
        let listed = shared.gpus.as_deref().unwrap_or_default();
        for name in listed {
            offer(ui, name, Some(name));
        }
        // A choice of the command line, or of a GPU that is gone.
        if let Some(other) = chosen.filter(|chosen| !listed.iter().any(|name| name == chosen)) {
            offer(ui, other, Some(other));
        }
        ui.label(RichText::new("Runs that start from now on use it.").color(Palette::of(ui).weak));
    });
    if opened.response.clicked() || (opened.inner.is_some() && shared.gpus.is_none()) {
        actions.ask(Action::ListGpus);
    }
}

/// The menu of models.
pub fn model(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let recorded = || shared.runs.current().map(|run| run.capture.run.model.clone()).filter(|name| !name.is_empty());
    let folder = match shared.form.model.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => recorded().unwrap_or_else(|| "no model".into()),
    };
    let response = ui.menu_button(folder.clone(), |ui| {
        if let Some(demo) = &shared.demo_model
            && ui.button("Built-in demo model").clicked()
        {
            actions.ask(Action::UseModel(demo.clone()));
        }
        for path in shared.prefs.models.iter().filter(|path| Some(*path) != shared.demo_model.as_ref()) {
            if ui.button(short(path)).on_hover_text(path.display().to_string()).clicked() {
                actions.ask(Action::UseModel(path.clone()));
            }
        }
        if ui.button("Choose a model folder...").clicked() {
            actions.ask(Action::ChooseModel);
        }
    });
    theme::named(&response.response, Role::Button, format!("Model: {folder}"));
    response.response.on_hover_text(shared.form.model.display().to_string());
}
