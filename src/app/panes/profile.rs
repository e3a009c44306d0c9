//! Pane "Profile": makes a profile of the form's model.

use egui::{DragValue, RichText, Ui};

use crate::app::actions::{Action, Actions};
use crate::app::data::shared::Shared;
use crate::app::data::study::StudyKind;
use crate::app::draw::study::{progress, prompts_of, prompts_ui};
use crate::app::draw::theme::{self, Palette};
use crate::app::link::study::StudyOrder;
use crate::app::panes::{Pane, Place};
use crate::profiling::profile::Queries;
use crate::study::{ProfileStudy, profile_place};

/// The prompts that a profile is made on unless the user writes others.
const PROMPTS: &str = include_str!("../../../assets/prompts/profile.txt");
/// Prompts of that list that are suggested: with them a profile of the demo model takes minutes.
const SUGGESTED: usize = 4;
/// Queries a head, where a sample is enough.
const SAMPLED: usize = 256;
/// Seeds of a prompt at most.
const MOST_SEEDS: u64 = 100;

/// The pane. It keeps what the user wrote.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ProfilePane {
    /// The prompts, one a line.
    prompts: String,
    seeds: u64,
    /// Measure a sample of the attention queries, which takes less time and memory.
    sampled: bool,
}

impl Default for ProfilePane {
    fn default() -> Self {
        let prompts = PROMPTS.lines().take(SUGGESTED).collect::<Vec<_>>().join("\n");
        Self { prompts, seeds: 1, sampled: false }
    }
}

impl Pane for ProfilePane {
    fn key(&self) -> &'static str {
        "profile"
    }

    fn title(&self) -> &'static str {
        "Profile"
    }

    fn place(&self) -> Place {
        Place::Left
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        egui::ScrollArea::vertical().id_salt("profile").auto_shrink(false).show(ui, |ui| {
            theme::beside_scroll_bar(ui);
            let weak = Palette::of(ui).weak;
            let what = "A profile says what the model's blocks attend to and what plans keep. It makes the \
                        planner's plans better and surer, and some strategies need it.";
            ui.label(RichText::new(what).color(weak));
            ui.add_space(4.0);
            ui.label(status(shared));
            if let Some(running) = shared.studies.running(StudyKind::Profile) {
                if progress(ui, running, &shared.job) {
                    actions.ask(Action::Cancel);
                }
                return;
            }
            self.settings_ui(ui, shared);
            let study = self.study(shared);
            let text = if shared.model.has_profile() { "Replace the profile" } else { "Make a profile" };
            let button = ui.add_enabled(study.is_ok() && !shared.job.busy(), egui::Button::new(text));
            match study {
                Ok(study) => {
                    let count = study.size();
                    ui.label(RichText::new(format!("{} runs, {} steps", count.runs, count.steps)).color(weak));
                    if button.clicked() {
                        actions.ask(Action::StartStudy(Box::new(StudyOrder::Profile(study))));
                    }
                }
                Err(why) => drop(ui.label(RichText::new(why).color(weak))),
            }
        });
    }

    fn settings(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    fn restore(&mut self, settings: &str) {
        if let Ok(stored) = serde_json::from_str::<Self>(settings) {
            *self = Self { seeds: stored.seeds.clamp(1, MOST_SEEDS), ..stored };
        }
    }
}

impl ProfilePane {
    fn settings_ui(&mut self, ui: &mut Ui, shared: &Shared) {
        prompts_ui(ui, "Prompts of the profile", &mut self.prompts);
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("seeds");
            let seeds = DragValue::new(&mut self.seeds).range(1..=MOST_SEEDS);
            ui.add(seeds).labelled_by(label.id).on_hover_text("Seeds of each prompt, from 0");
            let sampled = ui.checkbox(&mut self.sampled, format!("{SAMPLED} queries a head"));
            sampled.on_hover_text("Measures a sample of the attention in place of all of it: for large clips");
        });
        let clip = &shared.form.clip;
        let text = format!(
            "{} x {}, {} frames, {} steps: as in the bar above",
            clip.width, clip.height, clip.num_frames, clip.num_inference_steps
        );
        ui.label(RichText::new(text).color(Palette::of(ui).weak));
    }

    /// The study for the form's model; why there can be none.
    fn study(&self, shared: &Shared) -> Result<ProfileStudy, String> {
        let form = &shared.form;
        if form.model.as_os_str().is_empty() {
            return Err("Choose a model first.".into());
        }
        if let Some(Err(why)) = &shared.model.facts {
            return Err(why.clone());
        }
        let prompts = prompts_of(&self.prompts)?;
        Ok(ProfileStudy {
            seeds: self.seeds,
            queries: if self.sampled { Queries::Sampled(SAMPLED) } else { Queries::Exact },
            output: Some(profile_place(&form.model)),
            ..ProfileStudy::new(form.request(), prompts)
        })
    }
}

/// Whether the model has a profile.
fn status(shared: &Shared) -> String {
    match shared.model.evidence.as_ref().map(|evidence| &evidence.profile) {
        _ if shared.form.model.as_os_str().is_empty() => "No model is chosen.".into(),
        Some(Ok(true)) => "The model has a profile that fits. It stays in use until a new one is whole.".into(),
        Some(Err(why)) => format!("The model's profile cannot be used: {why}"),
        Some(Ok(false)) => "The model has no profile.".into(),
        None => "Reading the model...".into(),
    }
}
