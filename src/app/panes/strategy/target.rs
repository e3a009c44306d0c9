//! A speed-up or a likeness asked for, and the planner's answer: from the profile that the model brings, worked out once for every
//! number of computed steps, so that the pane answers while a slider moves.

use std::path::Path;
use std::sync::Arc;

use egui::{RichText, Slider, Ui};

use crate::caching::{Calibration, Planned, Planner, StepPlan, StrategyConfig};
use crate::engine::{Facts, limits};
use crate::profiling::profile::Profile;

use crate::app::data::form::Form;
use crate::app::data::state::{Action, State};
use crate::app::draw::theme::Palette;

/// What the planner's plan is called.
pub const TITLE: &str = "planner";

/// What the user asks the planner for.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Denoising this many times faster.
    Speedup(f64),
    /// At least this PSNR to the clip without reuse, in dB.
    Psnr(f64),
}

impl Default for Goal {
    fn default() -> Self {
        Self::Speedup(2.0)
    }
}

/// What a model's profile says for the steps of a request.
#[derive(Clone, Debug)]
pub struct Profiled {
    /// The best plan for every number of computed steps from 1, and the PSNR to expect of it in dB.
    pub rows: Vec<(Planned, Option<f64>)>,
    /// The measurements, as they are in the profile.
    pub calibration: Calibration,
    /// Blocks that attend to the background.
    pub background: Vec<usize>,
}

/// A profile that fits, none, or why it does not fit.
pub type Known = Option<Result<Arc<Profiled>, String>>;

impl Profiled {
    /// Reads the profile in a model's folder and plans; `None` if the folder holds none.
    pub fn of(model: &Path, facts: &Facts) -> Known {
        let path = model.join("profile.json");
        path.is_file().then(|| Self::read(&path, facts).map(Arc::new))
    }

    fn read(path: &Path, facts: &Facts) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let profile = Profile::read(path).map_err(|error| told(&error))?;
        profile.check_fits(&facts.model_id, facts.blocks).map_err(|error| told(&error))?;
        let calibration = profile.calibration.ok_or_else(|| told(&"it was made without a calibration"))?;
        let here = calibration.resampled(&facts.sigmas).ok_or_else(|| told(&"it does not fit this sampler"))?;
        let planner = Planner::new(&here).map_err(|error| told(&error))?;
        let row = |count| {
            let planned = planner.with_computed(count);
            let psnr = here.expected_psnr(planned.error);
            (planned, psnr)
        };
        let rows = (1..=here.steps()).map(row).collect();
        Ok(Self { rows, calibration, background: profile.partition.background })
    }

    /// The plan for a goal, and the PSNR to expect of it. A full run where nothing less is good enough.
    pub fn choose(&self, goal: Goal) -> Option<&(Planned, Option<f64>)> {
        let steps = self.rows.len();
        let full = steps.checked_sub(1)?;
        let index = match goal {
            Goal::Speedup(speedup) => Planner::budget(steps, speedup.max(1.0)) - 1,
            Goal::Psnr(psnr) => {
                self.rows[..full].iter().position(|(_, found)| found.is_some_and(|found| found >= psnr)).unwrap_or(full)
            }
        };
        self.rows.get(index)
    }

    fn plans(&self, goal: Goal, blocks: usize) -> Option<Vec<StepPlan>> {
        Some(self.choose(goal)?.0.plans(blocks))
    }
}

/// Whether a strategy is the planner's.
pub fn is_planner(strategy: &StrategyConfig) -> bool {
    matches!(strategy, StrategyConfig::Plan { title, .. } if title == TITLE)
}

/// Puts what the model's profile knows into the form: the planner's plan for the goal, background blocks, and calibrations that methods
/// need. Without a profile they have none, but for what the user brought.
pub fn fill(form: &mut Form, profiled: Option<&Profiled>, blocks: usize) {
    if is_planner(form.strategy())
        && let Some(plans) = profiled.and_then(|profiled| profiled.plans(form.goal, blocks))
    {
        form.use_plan(TITLE, plans);
    }
    for strategy in &mut form.strategies {
        match strategy {
            StrategyConfig::TeaCache { ret_steps, coefficients, .. } if !form.own_coefficients => {
                *coefficients = profiled.and_then(|profiled| profiled.calibration.tea_coefficients(*ret_steps));
            }
            StrategyConfig::MagCache(settings) if !form.own_ratios => {
                let known = profiled.map_or(&[][..], |profiled| &profiled.calibration.magnitude_ratios);
                if settings.ratios != known {
                    settings.ratios = known.to_vec();
                }
            }
            StrategyConfig::Profiling(settings) if !form.own_blocks => {
                let known = profiled.map_or(&[][..], |profiled| &profiled.background);
                if settings.blocks.len() != 1 || settings.blocks[0] != known {
                    settings.blocks = vec![known.to_vec()];
                }
            }
            _ => {}
        }
    }
}

/// Chooses the planner. Its plan comes from the profile with the next frame of the window; until then nothing is reused.
pub fn choose(state: &mut State) {
    let blocks = state.blocks();
    let steps = state.form.clip.num_inference_steps.min(limits::MOST_STEPS);
    let plans = match &state.profiled {
        Some(Ok(profiled)) => profiled.plans(state.form.goal, blocks),
        _ => None,
    };
    state.form.use_plan(TITLE, plans.unwrap_or_else(|| vec![StepPlan::compute(blocks); steps]));
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

/// What is to be expected of the form's strategy: of the planner's plans the profile knows it, of others nobody does.
pub fn expected(state: &State) -> Expected {
    let form = &state.form;
    if *form.strategy() == StrategyConfig::Off {
        return Expected::Identical;
    }
    let Some(Ok(profiled)) = state.profiled.as_ref().filter(|_| is_planner(form.strategy())) else {
        return Expected::NotMeasured;
    };
    match profiled.choose(form.goal) {
        Some((planned, _)) if planned.computed.len() == profiled.rows.len() => Expected::Identical,
        Some((_, Some(psnr))) => Expected::Psnr(*psnr),
        _ => Expected::NotMeasured,
    }
}

/// The goal, and what the planner makes of it.
pub fn ui(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    let profiled = match &state.profiled {
        Some(Ok(profiled)) => profiled.clone(),
        Some(Err(why)) => {
            ui.label(RichText::new(format!("The model's profile cannot be used: {why}")).color(palette.warn));
            return read_again(ui, state);
        }
        None => return nothing_known(ui, state),
    };
    let goal = &mut state.form.goal;
    ui.horizontal(|ui| {
        let fast = matches!(goal, Goal::Speedup(_));
        if ui.selectable_label(fast, "speed-up").on_hover_text("The least loss at a speed-up").clicked() && !fast {
            *goal = Goal::Speedup(2.0);
        }
        let tip = "The greatest speed-up that is expected to keep a PSNR to the clip without reuse";
        if ui.selectable_label(!fast, "likeness").on_hover_text(tip).clicked() && fast {
            *goal = Goal::Psnr(30.0);
        }
    });
    match goal {
        Goal::Speedup(speedup) => speedup_ui(ui, speedup, profiled.rows.len()),
        Goal::Psnr(psnr) => {
            let label = ui.label("at least");
            ui.add(Slider::new(psnr, 15.0..=60.0).suffix(" dB").fixed_decimals(1)).labelled_by(label.id);
        }
    }
    if let Some((planned, _)) = profiled.choose(*goal) {
        let text = format!("{} of {} steps computed, the others forecast", planned.computed.len(), profiled.rows.len());
        ui.label(RichText::new(text).color(palette.weak));
    }
}

/// Why there is nothing to plan with.
fn nothing_known(ui: &mut Ui, state: &mut State) {
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
    let text = match &state.facts {
        Some(Err(why)) => why.clone(),
        _ => format!(
            "This model has no profile, so nothing can be planned. Make one with \
             `ditscope profile --model \"{folder}\" -o \"{folder}/profile.json\"`."
        ),
    };
    ui.label(RichText::new(text).color(palette.warn));
    read_again(ui, state);
}

/// For files that came or changed since the model was read.
fn read_again(ui: &mut Ui, state: &mut State) {
    if ui.button("Read again").on_hover_text("Reads the model and its profile anew").clicked() {
        state.ask(Action::ReadModel);
    }
}

fn speedup_ui(ui: &mut Ui, speedup: &mut f64, steps: usize) {
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        for each in [1.5, 2.0, 2.5, 3.0, 4.0] {
            if ui.selectable_label((*speedup - each).abs() < 1e-6, format!("{each}x")).clicked() {
                *speedup = each;
            }
        }
    });
    let label = ui.label("faster by");
    let most = (steps as f64).clamp(2.0, 6.0);
    ui.add(Slider::new(speedup, 1.0..=most).suffix("x").fixed_decimals(2)).labelled_by(label.id);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::{Forecast, MagCache, PlannedStep};

    fn planned(computed: usize, steps: usize) -> Planned {
        let step = |step| match step < computed {
            true => PlannedStep::Compute(None),
            false => PlannedStep::Skip(Forecast::hold()),
        };
        Planned { computed: (0..computed).collect(), steps: (0..steps).map(step).collect(), error: 0.0 }
    }

    fn profiled(steps: usize) -> Profiled {
        let rows = (1..=steps).map(|count| (planned(count, steps), Some(10.0 + count as f64))).collect();
        Profiled { rows, calibration: Calibration::default(), background: Vec::new() }
    }

    #[test]
    fn goals_choose_as_many_steps_as_they_need() {
        let known = profiled(30);
        let computed = |goal| known.choose(goal).unwrap().0.computed.len();
        assert_eq!((computed(Goal::Speedup(2.0)), computed(Goal::Speedup(1.0))), (15, 30));
        assert_eq!((computed(Goal::Speedup(1000.0)), computed(Goal::Speedup(f64::NAN))), (1, 30));
        assert_eq!((computed(Goal::Psnr(25.0)), computed(Goal::Psnr(99.0)), computed(Goal::Psnr(0.0))), (15, 30, 1));
        assert!(profiled(0).choose(Goal::Speedup(2.0)).is_none());
    }

    /// What comes from a profile goes with it; what the user measured stays.
    #[test]
    fn calibrations_are_those_of_the_model() {
        let with = |ratio: f64| {
            let mut known = profiled(3);
            known.calibration.magnitude_ratios = vec![1.0, ratio, ratio];
            known.calibration.tea_embedding = Some([ratio; 5]);
            known.background = vec![0, (10.0 * ratio) as usize];
            known
        };
        let mut form = Form::default();
        let known = |form: &Form| {
            let (StrategyConfig::TeaCache { coefficients, .. }, StrategyConfig::MagCache(settings)) =
                (&form.strategies[3], &form.strategies[4])
            else {
                panic!()
            };
            (coefficients.map(|of| of[0]), settings.ratios.get(1).copied())
        };
        for ratio in [0.9, 0.8] {
            fill(&mut form, Some(&with(ratio)), 8);
            assert_eq!(known(&form), (Some(ratio), Some(ratio)));
            assert_eq!(form.cached_blocks(), [0, (10.0 * ratio) as usize]);
        }
        fill(&mut form, None, 8);
        assert_eq!((known(&form), form.cached_blocks()), ((None, None), &[][..]));
        form.cache_block(3, true);
        fill(&mut form, Some(&with(0.9)), 8);
        assert_eq!(form.cached_blocks(), [3]);
        fill(&mut form, None, 8);
        form.strategies[4] = StrategyConfig::MagCache(MagCache { ratios: vec![1.0, 0.7], ..MagCache::default() });
        form.own_ratios = true;
        fill(&mut form, Some(&with(0.9)), 8);
        assert_eq!(known(&form), (Some(0.9), Some(0.7)));
        form.use_strategy(StrategyConfig::TeaCache { threshold: 0.1, ret_steps: false, coefficients: Some([0.6; 5]) });
        fill(&mut form, Some(&with(0.9)), 8);
        assert_eq!(known(&form), (Some(0.6), Some(0.7)));
    }

    #[test]
    fn the_plan_follows_the_goal_and_its_expectation_is_told() {
        let mut state = State { profiled: Some(Ok(Arc::new(profiled(30)))), ..State::default() };
        assert_eq!(expected(&state), Expected::Identical);
        state.form.clip.num_inference_steps = 30;
        choose(&mut state);
        assert!(is_planner(state.form.strategy()));
        assert_eq!(expected(&state), Expected::Psnr(25.0));
        state.form.goal = Goal::Speedup(3.0);
        fill(&mut state.form, Some(&profiled(30)), 8);
        let StrategyConfig::Plan { plans, .. } = state.form.strategy() else { panic!() };
        assert_eq!(plans.iter().filter(|plan| plan.cond.computed(8) == 8).count(), 10);
        assert_eq!(expected(&state), Expected::Psnr(20.0));
        state.form.goal = Goal::Speedup(1.0);
        assert_eq!(expected(&state), Expected::Identical);
        state.form.chosen = 2;
        assert_eq!(expected(&state), Expected::NotMeasured);
    }
}
