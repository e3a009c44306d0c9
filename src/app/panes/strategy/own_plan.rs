//! The user's own plans: their names, their length, and their files.

use egui::{Button, Ui};

use super::settings::typed;
use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::data::strategy_file::LONGEST_NAME;
use crate::app::save;
use crate::caching::Plan;

/// Draws name and length of the chosen plan.
pub fn ui(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let form = &shared.form;
    let Some(Plan { title, plans, .. }) = form.strategy().own_plan() else { return };
    let made_for = plans.len();
    let listed = || form.strategies.iter().map(|listed| &listed.config);
    let others: Vec<&str> = listed().filter(|each| each.id() != form.chosen).map(|each| each.name()).collect();
    let free = |name: &str| {
        let name = name.trim();
        let good = !name.is_empty() && name.chars().count() <= LONGEST_NAME;
        (good && others.iter().all(|other| *other != name)).then(|| name.to_owned())
    };
    let place = listed().position(|each| each.id() == form.chosen);
    // Each plan has ids of its own, so that text typed for one plan does not appear for another.
    egui::Grid::new(("own plan", place)).num_columns(2).spacing([10.0, 4.0]).show(ui, |ui| {
        let label = ui.label("name");
        let tip = format!("Write a name of at most {LONGEST_NAME} letters that no other strategy has");
        if let Some(name) = typed(ui, title, free, "a name", &tip, label.id) {
            actions.form(move |form| form.rename_plan(name));
        }
        ui.end_row();
        ui.label("made for");
        ui.label(format!("{made_for} steps"));
        ui.end_row();
    });
    ui.horizontal_wrapped(|ui| {
        let fits = made_for == form.clip.num_inference_steps;
        if !fits && made_for > 0 && ui.button(format!("Use {made_for} steps")).clicked() {
            actions.form(move |form| form.clip.num_inference_steps = made_for);
        }
        if ui.button("Remove this plan").clicked() {
            actions.ask(Action::RemovePlan);
        }
    });
}

/// Draws the buttons that save and open strategies.
pub fn files(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let tip = "The strategy with its settings as JSON, for here and for `ditscope generate --strategy FILE.json`";
        if ui.button("Save strategy...").on_hover_text(tip).clicked() {
            actions.ask(Action::Save(&save::STRATEGY));
        }
        if ui.button("Open strategy...").on_hover_text("One that was saved here or by `ditscope plan`").clicked() {
            actions.ask(Action::ChooseStrategy);
        }
        let export = ui.add_enabled((save::PROFILE.available)(shared), Button::new("Export profile..."));
        let tip = "The model's profile with these blocks as its background, for `--profile FILE --strategy profiling`";
        let why_not = "Needs a model with a profile, and blocks that are reused";
        if export.on_hover_text(tip).on_disabled_hover_text(why_not).clicked() {
            actions.ask(Action::Save(&save::PROFILE));
        }
    });
}
