//! The form's model: choosing it, the facts about it, and what they predict.

use std::path::PathBuf;

use super::data::change::Undo;
use super::data::form::Form;
use super::data::log::Level;
use super::data::model::ModelQuery;
use super::data::prediction::Prediction;
use super::{App, Shared};
use crate::caching::{PublishedTea, StrategyConfig};
use crate::engine::{ClipSettings, GenerateRequest, RequestInfo, clip_settings_of, negative_prompt_of};

/// The form that a prediction is for.
pub struct Predicted {
    form: Form,
    /// Whether the facts about the model were known.
    known: bool,
}

impl App {
    /// Chooses the model of last time if it is still there, else the demo model.
    pub(super) fn choose_first_model(&mut self) {
        let before = self.shared.form.model.clone();
        if before.is_dir() {
            return;
        }
        let demo = self.shared.demo_model.clone();
        if !before.as_os_str().is_empty() {
            let instead = if demo.is_some() { ": the built-in model is in use" } else { "" };
            let text = format!("The model {} is not there any more{instead}.", before.display());
            self.shared.log.add(Level::Warning, text);
        }
        match demo {
            Some(demo) => self.use_model(demo),
            None => self.shared.log.add(Level::Note, "Choose a model folder at the top left, or open a capture."),
        }
    }

    /// Uses the model in a folder.
    pub(super) fn use_model(&mut self, folder: PathBuf) {
        match clip_settings_of(&folder) {
            Ok(defaults) => {
                // A model that cannot run leaves the one in use in its place.
                let in_use = self.shared.model.facts().is_some() && self.shared.form.model != folder;
                let prompt = self.shared.form.prompt.as_str();
                let found = GenerateRequest::of_model(&folder, prompt).map_err(|error| error.to_string());
                let found = found.and_then(|request| RequestInfo::of(&request).map_err(|error| error.to_string()));
                if let (true, Err(why)) = (in_use, found) {
                    let text = format!("{} is not used: {why}. The model before stays.", folder.display());
                    return self.shared.log.add(Level::Error, text);
                }
                if !self.shared.form.model.as_os_str().is_empty() {
                    let form = Box::new(self.shared.form.clone());
                    self.shared.undo = Some(Undo::Form { what: "use another model", form });
                }
                let own = negative_prompt_of(&self.shared.form.model);
                self.shared.form.use_model(folder.clone(), &defaults);
                // Words of the user stay. The default of the model before does not.
                if self.shared.form.negative_prompt == own || self.shared.form.negative_prompt.is_empty() {
                    self.shared.form.negative_prompt = negative_prompt_of(&folder);
                }
                self.shared.forget_model();
                self.shared.prefs.remember_model(&folder);
            }
            Err(error) => self.shared.log.add(Level::Error, error.to_string()),
        }
    }

    /// Puts the settings of the run on show into the form, for a picture of the window.
    pub(super) fn take_over_run(&mut self) {
        let Some(run) = self.shared.runs.current() else { return };
        let info = &run.capture.run;
        let form = &mut self.shared.form;
        form.prompt.clone_from(&info.prompt);
        form.negative_prompt.clone_from(&info.negative_prompt);
        // The form leaves the shift to the model.
        form.clip = ClipSettings { num_inference_steps: info.requested_steps(), flow_shift: None, ..info.clip };
        form.reset_strategies();
        form.use_strategy(info.strategy.clone());
        if let (true, Some(cost)) = (form.model.as_os_str().is_empty(), info.cost.clone()) {
            // The sizes of deltas and weights are not in a capture.
            let facts = RequestInfo {
                blocks: info.blocks,
                token_grid: info.token_grid,
                delta_bytes: 0,
                sigmas: info.sigmas.clone(),
                scheduler: info.scheduler.clone(),
                flow_shift: info.flow_shift(),
                model_id: info.model_id.clone(),
                former_ids: Vec::new(),
                vae_id: String::new(),
                gpu_memory: 0,
                published_tea: PublishedTea::default(),
                cost,
            };
            self.shared.model.facts = Some(Ok(facts));
        }
        form.mend();
    }

    /// Asks for facts about the model if its settings changed, and predicts if anything changed.
    pub(super) fn predict(&mut self) {
        let Shared { form, model, .. } = &self.shared;
        let query = ModelQuery::of(form);
        // One question at a time: while a slider moves, answers would overtake each other.
        let reading = self.shared.reading();
        if !form.model.as_os_str().is_empty() && !self.facts_asked && model.query.as_ref() != Some(&query) {
            let known = model.evidence.clone().filter(|evidence| evidence.profile.is_ok() && !reading);
            // Plans are for the steps of the form, also if the strategy makes fewer of them.
            let request = GenerateRequest { strategy: StrategyConfig::off(), ..form.request() };
            let learnt = self.shared.learnt.clone().filter(|_| self.shared.prefs.learning);
            self.link.ask_model(query, request, known, learnt);
            self.facts_asked = true;
        }
        let known = model.facts().is_some();
        let same = self.predicted.as_ref().is_some_and(|of| of.form == *form && of.known == known);
        if same && !other_blocks(&self.shared) {
            return;
        }
        let evidence = model.evidence.as_ref().map(|evidence| evidence.evidence.clone());
        // Before the model has been read, plans would be for other steps, and calibrations from
        // another model.
        if let (true, Some(evidence)) = (known && model.query.is_some() && !reading, &evidence) {
            self.shared.form.calibrate(evidence);
        }
        let Shared { form, model, .. } = &self.shared;
        let evidence = evidence.as_deref().filter(|_| !reading);
        let prediction = Prediction::of(form, model.facts(), evidence, self.shared.blocks());
        self.predicted = Some(Predicted { form: form.clone(), known });
        self.shared.prediction = prediction;
    }
}

/// Whether the prediction is for another number of blocks than the model has.
fn other_blocks(shared: &Shared) -> bool {
    shared.prediction.plans.first().is_some_and(|plan| !plan.cond.fits(shared.blocks()))
}
