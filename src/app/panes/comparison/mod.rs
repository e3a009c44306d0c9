//! Pane "Compare": runs strategies over prompts and seeds at speed-ups, and shows what they cost
//! and keep.

mod queue;
mod results;
mod table;

use egui::{DragValue, RichText, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::data::study::StudyKind;
use crate::app::draw::study::{progress, prompts_of, prompts_ui};
use crate::app::draw::textures::Textures;
use crate::app::draw::theme::{self, Palette};
use crate::app::link::study::StudyOrder;
use crate::app::panes::{Pane, Place};
use crate::app::save::{self, Saveable};
use crate::caching::catalogue;
use crate::study::compare::CompareRequest;

use results::Results;
use table::Order;

/// The prompts that are compared unless the user writes others: none that profiles are made on.
const PROMPTS: &str = include_str!("../../../../assets/prompts/eval.txt");
/// Prompts of that list that are suggested.
const SUGGESTED: usize = 2;
/// The prompt for trial runs: one that no list has.
const TUNING_PROMPT: &str = "a dog walking left in the snow";
/// Seeds of a prompt at most.
const MOST_SEEDS: u64 = 100;
/// Speed-ups at most.
const MOST_SPEEDUPS: usize = 16;

/// What the pane shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum View {
    /// What is compared, and the progress.
    #[default]
    Setup,
    /// What is done and what comes next.
    Queue,
    /// Means of every strategy.
    Table,
    /// Speed against fidelity.
    Plot,
    /// Clips side by side.
    Sheets,
}

impl View {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Setup, "Setup"),
        (Self::Queue, "Queue"),
        (Self::Table, "Table"),
        (Self::Plot, "Plot"),
        (Self::Sheets, "Sheets"),
    ];
}

/// The settings that the user wrote. They last from one start of the window to the next.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Setup {
    view: View,
    /// Keys of the rules that are compared.
    strategies: Vec<String>,
    /// Speed-ups, separated by commas; empty for settings as they are.
    speedups: String,
    /// The prompts, one a line.
    prompts: String,
    seeds: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            view: View::Setup,
            strategies: ["planner", "uniform", "fewer-steps"].map(str::to_owned).into(),
            speedups: "1.5, 2, 3".into(),
            prompts: PROMPTS.lines().take(SUGGESTED).collect::<Vec<_>>().join("\n"),
            seeds: 1,
        }
    }
}

/// The pane.
#[derive(Default)]
pub struct ComparisonPane {
    setup: Setup,
    order: Order,
    results: Results,
    textures: Textures<&'static str, String>,
}

impl Pane for ComparisonPane {
    fn key(&self) -> &'static str {
        "comparison"
    }

    fn title(&self) -> &'static str {
        "Compare"
    }

    fn place(&self) -> Place {
        Place::BelowMiddle
    }

    fn saves(&self) -> Vec<&'static Saveable> {
        vec![&save::COMPARISON_CSV, &save::COMPARISON_FOLDER]
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        ui.horizontal_wrapped(|ui| {
            for (view, name) in View::ALL {
                ui.selectable_value(&mut self.setup.view, view, name);
            }
            for (saveable, text) in
                [(&save::COMPARISON_CSV, "Export CSV..."), (&save::COMPARISON_FOLDER, "Export report...")]
            {
                let button = egui::Button::new(text).small();
                if ui.add_enabled((saveable.available)(shared), button).clicked() {
                    actions.ask(Action::Save(saveable));
                }
            }
        });
        if self.setup.view == View::Setup {
            return self.setup_ui(ui, shared, actions);
        }
        let Some(comparison) = &shared.studies.comparison else {
            return theme::empty(
                ui,
                "Nothing is compared yet",
                "Choose strategies and prompts under Setup, and start.",
            );
        };
        match self.setup.view {
            View::Setup => {}
            View::Queue => queue::ui(ui, &comparison.queue, actions),
            View::Table => table::ui(ui, comparison, &mut self.order),
            View::Plot => self.results.plot(ui, comparison),
            View::Sheets => self.results.sheets(ui, comparison, &mut self.textures),
        }
    }

    fn settings(&self) -> Option<String> {
        serde_json::to_string(&self.setup).ok()
    }

    fn restore(&mut self, settings: &str) {
        if let Ok(stored) = serde_json::from_str::<Setup>(settings) {
            self.setup = Setup { seeds: stored.seeds.clamp(1, MOST_SEEDS), ..stored };
        }
    }
}

impl ComparisonPane {
    fn setup_ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        egui::ScrollArea::vertical().id_salt("comparison setup").auto_shrink(false).show(ui, |ui| {
            theme::beside_scroll_bar(ui);
            if let Some(running) = shared.studies.running(StudyKind::Comparison) {
                if progress(ui, running, &shared.job) {
                    actions.ask(Action::Cancel);
                }
                return;
            }
            self.strategies_ui(ui);
            self.numbers_ui(ui);
            prompts_ui(ui, "Prompts of the comparison", &mut self.setup.prompts);
            let asked = self.setup.request(shared);
            let enabled = asked.is_ok() && !shared.job.busy();
            let button = ui.add_enabled(enabled, egui::Button::new("Start the comparison"));
            match asked {
                Ok(asked) if button.clicked() => {
                    actions.ask(Action::StartStudy(Box::new(StudyOrder::Comparison(asked))));
                }
                Ok(_) => {}
                Err(why) => drop(ui.label(RichText::new(why).color(Palette::of(ui).weak))),
            }
        });
    }

    fn strategies_ui(&mut self, ui: &mut Ui) {
        ui.label(RichText::new("Strategies").size(11.5).color(Palette::of(ui).weak));
        let chosen = &mut self.setup.strategies;
        ui.horizontal_wrapped(|ui| {
            // A run without reuse is the baseline of every comparison.
            for entry in catalogue::offered().filter(|entry| !entry.defaults(1).is_off()) {
                let about = entry.about();
                let mut on = chosen.iter().any(|key| key == about.key);
                if ui.checkbox(&mut on, about.label).on_hover_text(about.summary).changed() {
                    chosen.retain(|key| key != about.key);
                    if on {
                        chosen.push(about.key.into());
                    }
                }
            }
        });
    }

    fn numbers_ui(&mut self, ui: &mut Ui) {
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("speed-ups");
            let field = egui::TextEdit::singleline(&mut self.setup.speedups).desired_width(120.0);
            let tip =
                "Each strategy is tuned to these speed-ups by FLOPs. Without any, settings are taken as they are.";
            ui.add(field).labelled_by(label.id).on_hover_text(tip);
            let label = ui.label("seeds");
            let seeds = DragValue::new(&mut self.setup.seeds).range(1..=MOST_SEEDS);
            ui.add(seeds).labelled_by(label.id).on_hover_text("Seeds of each prompt, from 0");
        });
    }
}

impl Setup {
    /// The comparison for the form's model; why there can be none.
    fn request(&self, shared: &Shared) -> Result<CompareRequest, String> {
        let form = &shared.form;
        if form.model.as_os_str().is_empty() {
            return Err("Choose a model first.".into());
        }
        let facts = match &shared.model.facts {
            Some(Ok(facts)) => facts,
            Some(Err(why)) => return Err(why.clone()),
            None => return Err("Reading the model...".into()),
        };
        let known = |key: &&String| catalogue::find(key).is_some();
        let strategies: Vec<String> = self.strategies.iter().filter(known).cloned().collect();
        if strategies.is_empty() {
            return Err("Choose a strategy.".into());
        }
        let asked = CompareRequest {
            request: form.request(),
            prompts: prompts_of(&self.prompts)?,
            seeds: self.seeds,
            strategies,
            speedups: speedups(&self.speedups)?,
            tuning_prompt: TUNING_PROMPT.into(),
            shard: None,
            learnt: shared.model.learnt(),
        };
        let evidence = shared.model.evidence.as_ref().ok_or("Reading the model...")?;
        asked.check_with(facts, &evidence.evidence).map_err(|error| format!("{}.", error.full()))?;
        Ok(asked)
    }
}

/// Speed-ups from a text. The error is a text for the user.
fn speedups(text: &str) -> Result<Vec<f64>, String> {
    let parts = text.split([',', ';', ' ']).map(str::trim).filter(|part| !part.is_empty());
    let numbers: Option<Vec<f64>> =
        parts.map(|part| part.trim_end_matches('x').parse().ok().filter(|speedup: &f64| speedup.is_finite())).collect();
    match numbers {
        Some(numbers) if numbers.len() <= MOST_SPEEDUPS => Ok(numbers),
        Some(_) => Err(format!("At most {MOST_SPEEDUPS} speed-ups.")),
        None => Err("Write speed-ups as numbers, for example 1.5, 2, 3.".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speedups_are_read_as_people_write_them() {
        assert_eq!(speedups("1.5, 2x;3"), Ok(vec![1.5, 2.0, 3.0]));
        assert_eq!(speedups(""), Ok(Vec::new()));
        assert!(speedups("fast").is_err() && speedups("nan").is_err() && speedups(&"2,".repeat(17)).is_err());
    }
}
