//! Part of pane "Strategy": the user's own strategies, which have a name, live in files, and become profiles.

use std::path::Path;

use egui::{Button, Ui};

use crate::caching::{Origin, Plan, StrategyConfig};
use crate::profiling::profile::Profile;

use crate::app::data::state::{Action, State, Undo};
use crate::app::draw::theme::Palette;

/// Letters of a name at most.
const LONGEST_NAME: usize = 40;

/// Name and length of the chosen plan.
pub fn plan_ui(ui: &mut Ui, state: &mut State) {
    let form = &mut state.form;
    let Some(Plan { title, plans, .. }) = form.strategy().own_plan().cloned() else { return };
    let made_for = plans.len();
    let (chosen, names) = (form.chosen.clone(), form.strategies.iter().map(|listed| &listed.config));
    let others: Vec<String> = names.filter(|each| each.id() != chosen).map(|each| each.name().into()).collect();
    let free = |name: &str| {
        let name = name.trim();
        let good = !name.is_empty() && name.chars().count() <= LONGEST_NAME;
        (good && others.iter().all(|other| other != name)).then(|| name.to_owned())
    };
    let place = form.strategies.iter().position(|listed| listed.config.id() == chosen);
    // Ids of the plan's own: what is typed for one plan must not become another's.
    egui::Grid::new(("own plan", place)).num_columns(2).spacing([10.0, 4.0]).show(ui, |ui| {
        let label = ui.label("name");
        let tip = format!("Write a name of at most {LONGEST_NAME} letters that no other strategy has");
        if let Some(name) = typed(ui, &title, free, "a name", &tip, label.id) {
            form.rename_plan(name);
        }
        ui.end_row();
        ui.label("made for");
        ui.label(format!("{made_for} steps"));
        ui.end_row();
    });
    ui.horizontal_wrapped(|ui| {
        if made_for != form.clip.num_inference_steps
            && made_for > 0
            && ui.button(format!("Use {made_for} steps")).clicked()
        {
            form.clip.num_inference_steps = made_for;
        }
        if ui.button("Remove this plan").clicked()
            && let Some(removed) = form.remove_plan()
        {
            state.undo = Some(Undo::Plan(removed));
        }
    });
}

/// A field whose text lasts until it means something; what it then means, when it was changed.
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

/// What leaves the window as a file, and what comes back.
pub fn files_ui(ui: &mut Ui, state: &mut State) {
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let tip = "The strategy with its settings as JSON, for here and for `ditscope generate --strategy FILE.json`";
        if ui.button("Save strategy...").on_hover_text(tip).clicked() {
            state.ask(Action::SaveStrategy);
        }
        if ui.button("Open strategy...").on_hover_text("One that was saved here or by `ditscope plan`").clicked() {
            state.ask(Action::ChooseStrategy);
        }
        let blocks = background(state);
        let export = ui.add_enabled(!blocks.is_empty() && state.has_profile(), Button::new("Export profile..."));
        let tip = "The model's profile with these blocks as its background, for `--profile FILE --strategy profiling`";
        let why_not = "Needs a model with a profile, and blocks that are reused";
        if export.on_hover_text(tip).on_disabled_hover_text(why_not).clicked() {
            state.ask(Action::ExportProfile);
        }
    });
}

/// The blocks that the chosen strategy takes for background: those it caches, or that its plan
/// ever reuses.
pub fn background(state: &State) -> Vec<usize> {
    state.form.strategy().background(state.blocks())
}

/// A model's profile with other background blocks, as JSON.
pub fn profile_json(model: &Path, background: Vec<usize>) -> Result<String, String> {
    let told = |error: &dyn std::fmt::Display| format!("The profile cannot be exported: {error}");
    let profile = Profile::read(&model.join("profile.json")).map_err(|error| told(&error))?;
    profile.with_background(background).and_then(|profile| profile.to_json()).map_err(|error| told(&error))
}

/// A name for a strategy's file, whatever its own name is made of.
pub fn file_name(strategy: &StrategyConfig) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '-' };
    format!("{}.json", strategy.name().chars().map(plain).collect::<String>())
}

/// Reads a strategy. A planner's plan becomes one of the user's, named after the file: the form's
/// own planner plans anew for every goal.
pub fn read(path: &Path) -> Result<StrategyConfig, String> {
    let stem = || path.file_stem().map_or_else(|| "opened plan".into(), |stem| stem.to_string_lossy().into_owned());
    let short = |title: &str| title.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect::<String>();
    let strategy = StrategyConfig::read(path).map_err(|error| error.to_string())?;
    if let Some(Plan { title, plans, .. }) = strategy.own_plan() {
        let title = if title.trim().is_empty() { short(&stem()) } else { short(title) };
        return Ok(StrategyConfig::plan(title, Origin::File, plans.clone()));
    }
    match strategy.planned() {
        Some(plans) => Ok(StrategyConfig::plan(short(&stem()), Origin::File, plans.to_vec())),
        None => Ok(strategy),
    }
}
