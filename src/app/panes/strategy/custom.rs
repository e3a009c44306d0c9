//! Part of pane "Strategy": the user's own strategies, which have a name, live in files, and become profiles.

use std::path::Path;

use egui::{Button, Ui};

use crate::caching::{Cell, StrategyConfig};
use crate::profiling::profile::Profile;

use crate::app::data::state::{Action, State, Undo};
use crate::app::draw::theme::Palette;
use crate::app::panes::strategy::target::{TITLE, is_planner};

/// Letters of a name at most.
const LONGEST_NAME: usize = 40;

/// Whether a strategy is a plan of the user's own.
pub fn is_own(strategy: &StrategyConfig) -> bool {
    matches!(strategy, StrategyConfig::Plan { .. }) && !is_planner(strategy)
}

/// Name and length of the chosen plan.
pub fn plan_ui(ui: &mut Ui, state: &mut State) {
    let form = &mut state.form;
    let (chosen, steps) = (form.chosen, form.clip.num_inference_steps);
    let others: Vec<String> =
        form.strategies.iter().enumerate().filter(|(i, _)| *i != chosen).map(|(_, each)| each.name().into()).collect();
    let Some(StrategyConfig::Plan { title, plans }) = form.strategies.get_mut(chosen) else { return };
    let made_for = plans.len();
    let free = |name: &str| {
        let name = name.trim();
        let good = !name.is_empty() && name.chars().count() <= LONGEST_NAME && name != TITLE;
        (good && others.iter().all(|other| other != name)).then(|| name.to_owned())
    };
    // Ids of its own: what is typed for one plan must not become another's.
    egui::Grid::new(("own plan", chosen)).num_columns(2).spacing([10.0, 4.0]).show(ui, |ui| {
        let label = ui.label("name");
        let tip = format!("Write a name of at most {LONGEST_NAME} letters that no other strategy has");
        if let Some(name) = typed(ui, title, free, "a name", &tip, label.id) {
            *title = name;
        }
        ui.end_row();
        ui.label("made for");
        ui.label(format!("{made_for} steps"));
        ui.end_row();
    });
    ui.horizontal_wrapped(|ui| {
        if made_for != steps && made_for > 0 && ui.button(format!("Use {made_for} steps")).clicked() {
            form.clip.num_inference_steps = made_for;
        }
        if ui.button("Remove this plan").clicked() {
            state.undo = Some(Undo::Plan(form.strategies.remove(chosen)));
            form.chosen = 0;
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
        let profiled = matches!(state.profiled, Some(Ok(_)));
        let export = ui.add_enabled(!blocks.is_empty() && profiled, Button::new("Export profile..."));
        let tip = "The model's profile with these blocks as its background, for `--profile FILE --strategy profiling`";
        let why_not = "Needs a model with a profile, and blocks that are reused";
        if export.on_hover_text(tip).on_disabled_hover_text(why_not).clicked() {
            state.ask(Action::ExportProfile);
        }
    });
}

/// The blocks that the chosen strategy takes for background: those it caches, or that its plan ever reuses.
pub fn background(state: &State) -> Vec<usize> {
    match state.form.strategy() {
        StrategyConfig::Profiling(_) => state.form.cached_blocks().to_vec(),
        StrategyConfig::Plan { plans, .. } => {
            let blocks = state.blocks();
            let maps: Vec<Vec<Cell>> = plans.iter().map(|plan| plan.cond.cells(blocks)).collect();
            let reused = |block: &usize| maps.iter().any(|cells| cells.get(*block) == Some(&Cell::Reused));
            (0..blocks).filter(reused).collect()
        }
        _ => Vec::new(),
    }
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

/// Reads a strategy; a plan of the planner's becomes one of the user's, named after the file.
pub fn read(path: &Path) -> Result<StrategyConfig, String> {
    let mut strategy = StrategyConfig::read(path).map_err(|error| error.to_string())?;
    if let StrategyConfig::Plan { title, .. } = &mut strategy {
        title.retain(|c| !c.is_control());
        if title == TITLE || title.trim().is_empty() {
            *title = path.file_stem().map_or_else(|| "opened plan".into(), |stem| stem.to_string_lossy().into_owned());
        }
        if title == TITLE {
            title.push_str("'s plan");
        }
        *title = title.chars().take(LONGEST_NAME).collect();
    }
    Ok(strategy)
}
