//! The settings of the chosen strategy: a form that is made from the rule's own list of settings.

use egui::{ComboBox, RichText, Slider, SliderClamping, Ui};

use crate::app::actions::Actions;
use crate::app::data::shared::Shared;
use crate::app::draw::theme::Palette;
use crate::caching::setting::{Choice, Kind};
use crate::caching::{SettingInfo, Value, block_list};

/// Draws the settings of the chosen strategy.
pub fn ui(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let (strategy, shape) = (shared.form.strategy(), shared.shape());
    egui::Grid::new("strategy settings").num_columns(2).spacing([10.0, 4.0]).show(ui, |ui| {
        for setting in strategy.settings(shape).into_iter().filter(|setting| setting.shown) {
            if let Some(value) = edit(ui, &setting) {
                let key = setting.key;
                actions.form(move |form| form.set_setting(shape, key, value));
            }
        }
    });
    if let Some(note) = strategy.note() {
        ui.label(RichText::new(note).color(Palette::of(ui).weak));
    }
}

/// Draws a setting with its label. Returns the value that the user chose, if any.
fn edit(ui: &mut Ui, setting: &SettingInfo) -> Option<Value> {
    let chosen = presets(ui, setting);
    let label = ui.label(setting.label).on_hover_text(setting.help);
    // The range limits what the user chooses. A value from a file stays as it is.
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

/// Draws buttons for the values that a setting proposes.
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

/// The most choices beside their label. More choices are in a list that opens.
const MOST_SIDE_BY_SIDE: usize = 4;

/// Draws a choice between words. Returns the key that the user chose, if any.
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

/// Draws a text field whose text stays as typed until it is valid. Returns the new value when the
/// text was changed and is valid.
pub fn typed<T>(
    ui: &mut Ui,
    now: &str,
    parse: impl Fn(&str) -> Option<T>,
    hint: &str,
    what_to_write: &str,
    label: egui::Id,
) -> Option<T> {
    let id = ui.scope_id().with(("typed", hint));
    let mut text = ui.data(|data| data.get_temp(id)).unwrap_or_else(|| now.to_owned());
    let wrong = parse(&text).is_none();
    let field = egui::TextEdit::singleline(&mut text)
        .hint_text(hint)
        .desired_width(150.0)
        .text_color_opt(wrong.then_some(Palette::of(ui).bad));
    let response = ui.add(field).labelled_by(label);
    let parsed = response.changed().then(|| parse(&text)).flatten();
    if response.has_focus() {
        ui.data_mut(|data| data.insert_temp(id, text));
    } else {
        ui.data_mut(|data| data.remove::<String>(id));
    }
    if wrong {
        response.on_hover_text(what_to_write);
    }
    parsed
}
