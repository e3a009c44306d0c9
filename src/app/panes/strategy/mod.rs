//! Pane "Strategy": which features are reused, with what settings, and the expected effect.

mod expected;
mod own_plan;
mod settings;

use egui::{DragValue, RichText, Ui, vec2};

use crate::app::actions::{Action, Actions};
use crate::app::data::form::Listed;
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette, section};
use crate::app::panes::{Pane, Place};
use crate::caching::{Group, Needs};

/// The pane.
#[derive(Default)]
pub struct StrategyPane;

impl Pane for StrategyPane {
    fn key(&self) -> &'static str {
        "strategy"
    }

    fn title(&self) -> &'static str {
        "Strategy"
    }

    fn place(&self) -> Place {
        Place::Left
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        egui::ScrollArea::both().id_salt("strategy").auto_shrink(false).show(ui, |ui| {
            theme::beside_scroll_bar(ui);
            ui.spacing_mut().slider_width = (ui.available_width() - 150.0).clamp(60.0, 220.0);
            choice(ui, shared, actions);
            section(ui, "SETTINGS");
            let strategy = shared.form.strategy();
            if strategy.own_plan().is_some() {
                own_plan::ui(ui, shared, actions);
            } else if strategy.about().needs == Needs::Profile && !strategy.is_calibrated() {
                settings::ui(ui, shared, actions);
                missing_profile(ui, shared, actions);
            } else {
                ui.add_space(4.0);
                settings::ui(ui, shared, actions);
                calibration(ui, shared, actions);
            }
            ui.separator();
            expected::ui(ui, shared);
            ui.separator();
            measure(ui, shared, actions);
            guidance(ui, shared, actions);
            ui.separator();
            section(ui, "FILES");
            own_plan::files(ui, shared, actions);
        });
    }
}

/// Draws a button for every strategy, and a sentence about the chosen one.
fn choice(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    // The planner and Off are for everyone; rules of others have a heading.
    for groups in [&[Group::Target, Group::Off][..], &[Group::Published], &[Group::Control], &[Group::Own]] {
        let of_groups = |listed: &&Listed| groups.contains(&listed.config.about().group);
        let mut listed = shared.form.strategies.iter().filter(of_groups).peekable();
        if listed.peek().is_none() {
            continue;
        }
        if let [only] = groups {
            section(ui, &only.heading().to_uppercase());
        }
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(4.0, 4.0);
            // The planner before Off, whatever the order of the catalogue.
            let mut listed: Vec<&Listed> = listed.collect();
            listed.sort_by_key(|each| groups.iter().position(|group| *group == each.config.about().group));
            for Listed { config, .. } in listed {
                let id = config.id();
                let button = ui.selectable_label(id == shared.form.chosen, config.label());
                if button.on_hover_text(config.about().summary).clicked() {
                    actions.form(move |form| form.choose(&id));
                }
            }
        });
    }
    ui.add_space(2.0);
    ui.label(RichText::new(shared.form.strategy().about().summary).color(Palette::of(ui).weak));
}

/// Draws why a strategy that needs a profile cannot work, and what to do.
fn missing_profile(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let palette = Palette::of(ui);
    if shared.form.model.as_os_str().is_empty() {
        ui.label(RichText::new("Choose a model first: plans are made from its profile.").color(palette.weak));
        return;
    }
    if shared.reading() {
        ui.label(RichText::new("Reading the model...").color(palette.weak));
        return;
    }
    let folder = shared.form.model.display();
    let profile = shared.model.evidence.as_ref().map(|evidence| &evidence.profile);
    let text = match (&shared.model.facts, profile) {
        (Some(Err(why)), _) => why.clone(),
        (_, Some(Err(why))) => format!("The model's profile cannot be used: {why}"),
        _ => format!(
            "This model has no profile, so nothing can be planned. Make one in the pane Profile, or with \
             `ditscope profile --model \"{folder}\" -o \"{folder}/profile.json\"`."
        ),
    };
    ui.label(RichText::new(text).color(palette.warn));
    // For files that came or changed since the model was read.
    if ui.button("Read again").on_hover_text("Reads the model and its profile anew").clicked() {
        actions.ask(Action::ReadModel);
    }
}

/// Draws where the calibration of the chosen strategy comes from: the model's profile, or a run of
/// the user's.
fn calibration(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let profiled = shared.model.has_profile();
    let Some(listed) = shared.form.listed() else { return };
    if listed.config.about().needs != Needs::Calibration {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        ui.label(match (listed.config.is_calibrated(), listed.own_calibration) {
            (false, _) => "not calibrated",
            (true, true) => "calibrated from a run",
            (true, false) if profiled => "calibrated by the model's profile",
            (true, false) => "calibrated as published for the model",
        });
        if listed.config.learns_from_a_run() {
            let measured = shared.runs.current().and_then(|run| run.capture.calibration());
            let button = ui.add_enabled(measured.is_some(), egui::Button::new("Calibrate from the run on show"));
            let button =
                button.on_disabled_hover_text("Needs a finished run without reuse that measured block changes");
            if let (true, Some(measured)) = (button.clicked(), measured) {
                let blocks = shared.blocks();
                actions.form(move |form| form.calibrate_from_run(measured, blocks));
            }
        }
        let tip = "The calibration that the model's profile holds";
        if listed.own_calibration && profiled && ui.button("Use the profile's").on_hover_text(tip).clicked() {
            actions.form(|form| form.forget_own_calibration());
        }
    });
}

fn measure(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    section(ui, "MEASURE");
    let form = &shared.form;
    let check = |ui: &mut Ui, mut on: bool, text: &str, tip: &str| {
        ui.checkbox(&mut on, text).on_hover_text(tip).changed().then_some(on)
    };
    let tip = "What every block attends to, from 256 queries a head, and a mask of the foreground";
    if let Some(on) = check(ui, form.attention, "Attention", tip) {
        actions.form(move |form| form.attention = on);
    }
    let tip = "How every block changes from step to step; keeps two more deltas of each";
    if let Some(on) = check(ui, form.changes, "Block changes", tip) {
        actions.form(move |form| form.changes = on);
    }
    let tip = "Of every block and kernel; waits for the GPU after each, which costs some speed";
    if let Some(on) = check(ui, form.times, "GPU times", tip) {
        actions.form(move |form| form.times = on);
    }
}

fn guidance(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    section(ui, "GUIDANCE");
    ui.horizontal(|ui| {
        let label = ui.label("scale");
        let mut scale = shared.form.clip.guidance_scale;
        let value = DragValue::new(&mut scale).range(1.0..=20.0).speed(0.1).fixed_decimals(1);
        let response = ui.add(value).labelled_by(label.id);
        if response.on_hover_text("1 for none: then only the prompt's branch runs").changed() {
            actions.form(move |form| form.clip.guidance_scale = scale);
        }
    });
    let label = ui.label("Negative prompt");
    let mut text = shared.form.negative_prompt.clone();
    let field = egui::TextEdit::multiline(&mut text).desired_rows(2).desired_width(f32::INFINITY);
    if ui.add(field.hint_text("what not to show")).labelled_by(label.id).changed() {
        actions.form(move |form| form.negative_prompt = text);
    }
    let tip = "Every strategy back to good settings for this number of steps";
    if ui.button("Default settings").on_hover_text(tip).clicked() {
        actions.ask(Action::DefaultSettings);
    }
}
