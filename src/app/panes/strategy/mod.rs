//! Pane "Strategy": which features are reused, with what settings, and what that is expected to do.

pub mod custom;
pub mod target;

use egui::{ComboBox, DragValue, RichText, Sense, Slider, SliderClamping, Ui, vec2};

use crate::caching::setting::{Choice, Kind};
use crate::caching::{Cell, Evidence, Needs, SettingInfo, Shape, Value, block_list};

use crate::app::data::state::{Level, State, Undo};
use crate::app::draw::theme::{self, Palette, row, section};
use crate::app::panes::map::{Pixels, draw_kind};
use crate::app::panes::strategy::custom::typed;
use crate::app::panes::strategy::target::Expected;

/// Draws the pane.
pub fn ui(ui: &mut Ui, state: &mut State) {
    egui::ScrollArea::both().id_salt("strategy").auto_shrink(false).show(ui, |ui| {
        theme::beside_scroll_bar(ui);
        ui.spacing_mut().slider_width = (ui.available_width() - 150.0).clamp(60.0, 220.0);
        choice(ui, state);
        let strategy = state.form.strategy();
        if strategy.own_plan().is_some() {
            custom::plan_ui(ui, state);
        } else if strategy.about().needs == Needs::Profile && !strategy.is_calibrated() {
            settings(ui, state);
            target::missing_profile(ui, state);
        } else {
            ui.add_space(4.0);
            settings(ui, state);
            calibration(ui, state);
        }
        prediction(ui, state);
        custom::files_ui(ui, state);
        measure(ui, state);
    });
}

/// A button for every strategy, and what the chosen one does.
fn choice(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    let mut chosen = None;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(4.0, 4.0);
        for listed in &state.form.strategies {
            let (config, id) = (&listed.config, listed.config.id());
            let button = ui.selectable_label(id == state.form.chosen, config.label());
            if button.on_hover_text(config.about().summary).clicked() {
                chosen = Some(id);
            }
        }
    });
    if let Some(id) = chosen {
        state.form.choose(&id);
    }
    ui.label(RichText::new(state.form.strategy().about().summary).color(palette.weak));
}

/// The settings of the chosen strategy.
fn settings(ui: &mut Ui, state: &mut State) {
    let shape = Shape { steps: state.form.clip.num_inference_steps, blocks: state.blocks() };
    let Some(listed) = state.form.listed_mut() else { return };
    let mut changed = None;
    egui::Grid::new("strategy settings").num_columns(2).spacing([10.0, 4.0]).show(ui, |ui| {
        for setting in listed.config.settings(shape).into_iter().filter(|setting| setting.shown) {
            if let Some(value) = edit(ui, &setting) {
                changed = Some((setting.key, value));
            }
        }
    });
    if let Some((key, value)) = changed {
        // A value that the rule refuses changes nothing.
        listed.config.set(shape, key, value).ok();
        // Settings that ask for another calibration than the user's get the model's.
        listed.own_calibration &= listed.config.is_calibrated();
    }
    if let Some(note) = state.form.strategy().note() {
        ui.label(RichText::new(note).color(Palette::of(ui).weak));
    }
}

/// A setting with its label; the value that the user chose, if one was chosen.
fn edit(ui: &mut Ui, setting: &SettingInfo) -> Option<Value> {
    let chosen = presets(ui, setting);
    let label = ui.label(setting.label).on_hover_text(setting.help);
    // Only the user's hand is held to the range: a file's value stays as it is.
    let edited = match (&setting.kind, &setting.value) {
        (Kind::Count(range), Value::Count(value)) => {
            let mut value = *value;
            let slider = Slider::new(&mut value, range.clone()).clamping(SliderClamping::Edits);
            let response = ui.add(slider).labelled_by(label.id).on_hover_text(setting.help);
            response.changed().then_some(Value::Count(value))
        }
        (Kind::Real(range), Value::Real(value)) => {
            let mut value = *value;
            let slider = Slider::new(&mut value, range.clone()).clamping(SliderClamping::Edits);
            let slider = match setting.unit {
                "dB" => slider.suffix(" dB").fixed_decimals(1),
                "x" => slider.suffix("x").fixed_decimals(2),
                _ => slider.min_decimals(2).max_decimals(3),
            };
            let response = ui.add(slider).labelled_by(label.id).on_hover_text(setting.help);
            response.changed().then_some(Value::Real(value))
        }
        (Kind::Flag, Value::Flag(value)) => {
            let mut value = *value;
            let response = ui.checkbox(&mut value, "").labelled_by(label.id).on_hover_text(setting.help);
            response.changed().then_some(Value::Flag(value))
        }
        (Kind::Choice(choices), Value::Choice(key)) => one_of(ui, choices, key, &label).map(Value::Choice),
        (Kind::Blocks(blocks), Value::Blocks(list)) => {
            let parse = |text: &str| block_list::parse(text, *blocks).ok();
            let tip = format!("Write numbers and ranges below {blocks}, such as 0-5,9");
            let text = block_list::print(list);
            typed(ui, &text, parse, "none; for example 0-5,9", &tip, label.id).map(Value::Blocks)
        }
        _ => None,
    };
    ui.end_row();
    edited.or(chosen)
}

/// Buttons for the values that a setting proposes.
fn presets(ui: &mut Ui, setting: &SettingInfo) -> Option<Value> {
    let Value::Real(now) = setting.value else { return None };
    if setting.presets.is_empty() {
        return None;
    }
    let mut chosen = None;
    ui.label("");
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for each in setting.presets {
            let on = (now - each).abs() < 1e-6;
            if ui.selectable_label(on, format!("{each}{}", setting.unit)).clicked() && !on {
                chosen = Some(Value::Real(*each));
            }
        }
    });
    ui.end_row();
    chosen
}

/// Choices that fit beside their label; more of them become a list that opens.
const MOST_SIDE_BY_SIDE: usize = 4;

/// One of some words; the key that the user chose, if one was chosen.
fn one_of(ui: &mut Ui, choices: &[Choice], now: &str, label: &egui::Response) -> Option<&'static str> {
    let mut chosen = None;
    let mut button = |ui: &mut Ui, choice: &Choice| {
        let on = choice.key == now;
        if ui.selectable_label(on, choice.label).on_hover_text(choice.help).clicked() && !on {
            chosen = Some(choice.key);
        }
    };
    if choices.len() <= MOST_SIDE_BY_SIDE {
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            choices.iter().for_each(|choice| button(ui, choice));
        });
    } else {
        let shown = choices.iter().find(|choice| choice.key == now).map_or("", |choice| choice.label);
        let list = ComboBox::from_id_salt(label.id).selected_text(shown);
        let opened = list.show_ui(ui, |ui| choices.iter().for_each(|choice| button(ui, choice)));
        opened.response.labelled_by(label.id);
    }
    chosen
}

/// Where the calibration of the chosen strategy comes from: the model's profile, or a run of the user's.
fn calibration(ui: &mut Ui, state: &mut State) {
    let profiled = state.has_profile();
    let measured = state.runs.current().and_then(|run| run.capture.calibration());
    let shape = Shape { steps: state.form.clip.num_inference_steps, blocks: state.blocks() };
    let Some(listed) = state.form.listed_mut() else { return };
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
            let button = ui.add_enabled(measured.is_some(), egui::Button::new("Calibrate from the run on show"));
            let button =
                button.on_disabled_hover_text("Needs a finished run without reuse that measured block changes");
            if let (true, Some(measured)) = (button.clicked(), measured) {
                let evidence = Evidence::new(measured.sigmas.clone(), shape.blocks).with_calibration(measured);
                listed.config.uncalibrate();
                listed.own_calibration = listed.config.calibrate(&evidence).is_ok() && listed.config.is_calibrated();
            }
        }
        let tip = "The calibration that the model's profile holds";
        if listed.own_calibration && profiled && ui.button("Use the profile's").on_hover_text(tip).clicked() {
            listed.config.uncalibrate();
            listed.own_calibration = false;
        }
    });
}

fn prediction(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    section(ui, "EXPECTED");
    if state.prediction.trouble.is_some() && state.waits_for_profile() {
        ui.label(RichText::new("Reading the model's profile...").color(palette.weak));
        return;
    }
    if let Some(text) = state.trouble() {
        ui.label(RichText::new(text).color(palette.warn));
        return;
    }
    let known = !state.prediction.plans.is_empty();
    if known {
        plan_strip(ui, state);
        let (speedup, hits) = (state.prediction.flop_speedup, state.prediction.hit_rate);
        row(ui, "speed-up by FLOPs", speedup.map_or("no model yet".into(), |speedup| format!("{speedup:.2}x")));
        row(ui, "hit rate", format!("{:.0} %", hits * 100.0));
    } else {
        let text = "This strategy decides while it runs; the map shows what it did.";
        ui.label(RichText::new(text).color(palette.weak));
    }
    if let Some(memory) = state.prediction.delta_memory {
        row(ui, "memory for deltas", if memory == 0 { "none".into() } else { theme::bytes(memory) });
    }
    if let Some(memory) = state.prediction.gpu_memory {
        gpu_memory(ui, memory, state.adapter.as_ref().and_then(|adapter| adapter.memory));
    }
    if known {
        let psnr = match target::expected(state) {
            Expected::Identical => "identical".into(),
            Expected::Psnr(psnr) => format!("{psnr:.1} dB"),
            Expected::NotMeasured => "not measured".into(),
        };
        row(ui, "PSNR to the full run", psnr);
    }
}

/// What the whole job takes, and whether the adapter has it, once that is known.
fn gpu_memory(ui: &mut Ui, needed: u64, there: Option<u64>) {
    let mut value = RichText::new(theme::bytes(needed));
    let mut tip = "Weights, activations and deltas: an estimate from above".to_owned();
    if let Some(there) = there.filter(|there| needed > *there) {
        value = value.color(Palette::of(ui).warn);
        tip = format!("The adapter has {}: a smaller size or fewer frames take less", theme::bytes(there));
    }
    row(ui, "GPU memory at most", value).on_hover_text(tip);
}

/// One tick a step: computed, partly reused, reused.
fn plan_strip(ui: &mut Ui, state: &State) {
    let palette = Palette::of(ui);
    let (plans, blocks) = (&state.prediction.plans, state.blocks());
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 22.0), Sense::hover());
    let width = rect.width() / plans.len().max(1) as f32;
    let (pixels, mut mesh) = (Pixels::of(ui, width), egui::Mesh::default());
    let mut computed = 0;
    for (step, plan) in plans.iter().enumerate() {
        let cells = plan.cond.cells(blocks);
        let reused = cells.iter().filter(|cell| **cell == Cell::Reused).count();
        computed += usize::from(reused == 0);
        let cell = match reused {
            0 if cells.contains(&Cell::Stored) => Cell::Stored,
            0 => Cell::Computed,
            _ => Cell::Reused,
        };
        let left = rect.left() + step as f32 * width;
        let tick = pixels.inside(egui::Rect::from_x_y_ranges(left..=left + width, rect.y_range()));
        draw_kind(&mut mesh, &palette, tick, cell, 1.0);
    }
    ui.painter().add(mesh);
    let text = format!("{computed} of {} steps compute every block", plans.len());
    theme::named(&response, egui::accesskit::Role::Image, format!("Plan: {text}"));
    response.on_hover_text(&text);
    ui.label(RichText::new(text).size(11.5).color(palette.weak));
}

fn measure(ui: &mut Ui, state: &mut State) {
    section(ui, "MEASURE");
    ui.checkbox(&mut state.form.attention, "Attention")
        .on_hover_text("What every block attends to, from 256 queries a head, and a mask of the foreground");
    ui.checkbox(&mut state.form.changes, "Block changes")
        .on_hover_text("How every block changes from step to step; keeps two more deltas of each");
    ui.checkbox(&mut state.form.times, "GPU times")
        .on_hover_text("Of every block and kernel; waits for the GPU after each, which costs some speed");
    section(ui, "GUIDANCE");
    ui.horizontal(|ui| {
        let label = ui.label("scale");
        let scale = DragValue::new(&mut state.form.clip.guidance_scale).range(1.0..=20.0).speed(0.1).fixed_decimals(1);
        ui.add(scale).labelled_by(label.id).on_hover_text("1 for none: then only the prompt's branch runs");
    });
    let label = ui.label("Negative prompt");
    let field = egui::TextEdit::multiline(&mut state.form.negative_prompt).desired_rows(2).desired_width(f32::INFINITY);
    ui.add(field.hint_text("what not to show")).labelled_by(label.id);
    if ui
        .button("Default settings")
        .on_hover_text("Every strategy back to good settings for this number of steps")
        .clicked()
    {
        state.undo = Some(Undo::Form { what: "default settings", form: Box::new(state.form.clone()) });
        state.form.reset_strategies();
        state.log.add(Level::Note, "All strategies have their default settings again.");
    }
}
