//! What the model's profile says for the form: read beside the window, and told where it is missing.

use std::path::Path;
use std::sync::Arc;

use egui::{RichText, Ui};

use crate::caching::Evidence;
use crate::engine::Facts;
use crate::profiling::profile::Profile;

use crate::app::data::state::{Action, State};
use crate::app::draw::theme::Palette;

/// What is known of the form's model for its strategies.
#[derive(Clone, Debug)]
pub struct ModelEvidence {
    /// The model's own facts, and what its profile says.
    pub evidence: Arc<Evidence>,
    /// Whether the model has a profile that fits; why its profile does not fit.
    pub profile: Result<bool, String>,
}

impl ModelEvidence {
    /// Reads the profile in a model's folder, if there is one, and searches the planner's plans.
    pub fn of(model: &Path, facts: &Facts) -> Self {
        let path = model.join("profile.json");
        let bare = |profile| Self { evidence: Arc::new(facts.evidence()), profile };
        if !path.is_file() {
            return bare(Ok(false));
        }
        match read(&path, facts) {
            Ok(evidence) => Self { evidence: Arc::new(evidence), profile: Ok(true) },
            Err(why) => bare(Err(format!("{}: {why}", path.display()))),
        }
    }
}

fn read(path: &Path, facts: &Facts) -> Result<Evidence, String> {
    let profile = Profile::read(path).map_err(|error| error.to_string())?;
    profile.check_fits(&facts.model_id, facts.blocks).map_err(|error| error.to_string())?;
    let evidence = profile.evidence(facts.sigmas.clone()).with_published_tea(facts.published_tea);
    // The search takes its time here, and no frame of the window later.
    if evidence.calibration().is_some() {
        evidence.plans().map_err(|error| error.to_string())?;
    }
    Ok(evidence)
}

/// The PSNR to expect of the form's strategy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Expected {
    /// The same clip.
    Identical,
    /// In dB.
    Psnr(f64),
    /// Nobody has measured it.
    NotMeasured,
}

/// The PSNR to expect of the form's strategy. A profile knows it for the planner's plans, nobody
/// knows it for other rules.
pub fn expected(state: &State) -> Expected {
    match state.form.strategy().expected_psnr() {
        Some(psnr) if psnr.is_finite() => Expected::Psnr(psnr),
        Some(_) => Expected::Identical,
        None => Expected::NotMeasured,
    }
}

/// Why a strategy that needs a profile cannot work, and what to do.
pub fn missing_profile(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    if state.form.model.as_os_str().is_empty() {
        ui.label(RichText::new("Choose a model first: plans are made from its profile.").color(palette.weak));
        return;
    }
    if state.reading() {
        ui.label(RichText::new("Reading the model...").color(palette.weak));
        return;
    }
    let folder = state.form.model.display();
    let text = match (&state.facts, state.known.as_ref().map(|known| &known.profile)) {
        (Some(Err(why)), _) => why.clone(),
        (_, Some(Err(why))) => format!("The model's profile cannot be used: {why}"),
        _ => format!(
            "This model has no profile, so nothing can be planned. Make one with \
             `ditscope profile --model \"{folder}\" -o \"{folder}/profile.json\"`."
        ),
    };
    ui.label(RichText::new(text).color(palette.warn));
    // For files that came or changed since the model was read.
    if ui.button("Read again").on_hover_text("Reads the model and its profile anew").clicked() {
        state.ask(Action::ReadModel);
    }
}
