//! Pane "Strategy": which features are reused, with what settings, and what that is expected to do.

pub mod custom;
pub mod target;

use egui::{DragValue, RichText, Sense, Slider, SliderClamping, Ui, vec2};

use crate::caching::{
    Carry, Cell, DbCache, DeltaDit, DiCache, EasyCache, Intervals, Lists, MagCache, ProfilingSettings, StepSchedule,
    StrategyConfig,
};
use crate::profiling::partition::{parse_blocks, print_blocks};

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
        let blocks = state.blocks();
        let steps = state.form.clip.num_inference_steps;
        if let StrategyConfig::Profiling(_) = state.form.strategy() {
            profile_blocks(ui, state);
        }
        let chosen = state.form.chosen;
        if target::is_planner(state.form.strategy()) {
            target::ui(ui, state);
        } else if custom::is_own(state.form.strategy()) {
            custom::plan_ui(ui, state);
        } else if let Some(strategy) = state.form.strategies.get_mut(chosen) {
            ui.add_space(4.0);
            let before = strategy.clone();
            settings(ui, strategy, steps, blocks);
            match (&before, &*strategy) {
                (
                    StrategyConfig::TeaCache { coefficients: Some(_), .. },
                    StrategyConfig::TeaCache { coefficients: None, .. },
                ) => state.form.own_coefficients = false,
                (StrategyConfig::Profiling(before), StrategyConfig::Profiling(now)) if before.blocks != now.blocks => {
                    state.form.own_blocks = true;
                }
                _ => {}
            }
            calibrate(ui, state);
        }
        prediction(ui, state);
        custom::files_ui(ui, state);
        measure(ui, state);
    });
}

/// What a strategy does, in a line.
fn what(strategy: &StrategyConfig) -> (&str, &'static str) {
    match strategy {
        StrategyConfig::Off => ("Off", "Every block computes in every step."),
        StrategyConfig::Profiling(_) => {
            ("ProfilingDiT", "Blocks that attend to the background are reused between computed steps.")
        }
        StrategyConfig::Uniform(_) => ("Uniform", "All blocks are reused between computed steps."),
        StrategyConfig::TeaCache { .. } => ("TeaCache", "Reuses while the time embedding has changed little."),
        StrategyConfig::MagCache(_) => ("MagCache", "Reuses while the residual's magnitude has changed little."),
        StrategyConfig::EasyCache(_) => ("EasyCache", "Reuses while the output is expected to have changed little."),
        StrategyConfig::DbCache(_) => {
            ("DBCache", "The first blocks run; the middle is reused while they changed little.")
        }
        StrategyConfig::DiCache(_) => ("DiCache", "A probe of few blocks decides on the rest."),
        StrategyConfig::DeltaDit(_) => ("Delta-DiT", "Rear blocks are reused early, front blocks late."),
        StrategyConfig::FewerSteps { .. } => {
            ("Fewer steps", "No reuse, fewer steps: the control that others have to beat.")
        }
        StrategyConfig::Plan { title, .. } if title == target::TITLE => {
            ("Target", "The least loss at a speed-up, or the most speed-up at a likeness, from the model's profile.")
        }
        StrategyConfig::Plan { title, .. } => (title, "A plan of your own: edit it in the map."),
    }
}

fn choice(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    let mut chosen = state.form.chosen;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(4.0, 4.0);
        let planned = StrategyConfig::Plan { title: target::TITLE.into(), plans: Vec::new() };
        let (name, tip) = what(&planned);
        let on = target::is_planner(state.form.strategy());
        if ui.selectable_label(on, name).on_hover_text(tip).clicked() && !on {
            target::choose(state);
            chosen = state.form.chosen;
        }
        for (index, strategy) in state.form.strategies.iter().enumerate() {
            if target::is_planner(strategy) {
                continue;
            }
            let (name, tip) = what(strategy);
            if ui.selectable_label(index == chosen, name).on_hover_text(tip).clicked() {
                chosen = index;
            }
        }
    });
    state.form.chosen = chosen;
    ui.label(RichText::new(what(state.form.strategy()).1).color(palette.weak));
}

/// A labelled slider for a whole number. Only the user's hand is held to the range: a file's value stays as it is.
fn whole(ui: &mut Ui, name: &str, value: &mut usize, range: std::ops::RangeInclusive<usize>, tip: &str) {
    let label = ui.label(name).on_hover_text(tip);
    ui.add(Slider::new(value, range).clamping(SliderClamping::Edits)).labelled_by(label.id).on_hover_text(tip);
    ui.end_row();
}

/// A labelled slider. Only the user's hand is held to the range.
fn real(ui: &mut Ui, name: &str, value: &mut f64, range: std::ops::RangeInclusive<f64>, tip: &str) {
    let label = ui.label(name).on_hover_text(tip);
    let slider = Slider::new(value, range).clamping(SliderClamping::Edits).min_decimals(2).max_decimals(3);
    ui.add(slider).labelled_by(label.id).on_hover_text(tip);
    ui.end_row();
}

fn settings(ui: &mut Ui, strategy: &mut StrategyConfig, steps: usize, blocks: usize) {
    egui::Grid::new("strategy settings").num_columns(2).spacing([10.0, 4.0]).show(ui, |ui| match strategy {
        // A plan has no settings, but a name.
        StrategyConfig::Off | StrategyConfig::Plan { .. } => {}
        StrategyConfig::Profiling(settings) => profiling(ui, settings, steps, blocks),
        StrategyConfig::Uniform(schedule) => self::schedule(ui, schedule, steps),
        StrategyConfig::TeaCache { threshold: value, ret_steps, coefficients } => {
            threshold(ui, value, "The accumulated change at which a step is computed again");
            // Those of one signal mean nothing for the other.
            if signal(ui, ret_steps) {
                *coefficients = None;
            }
        }
        StrategyConfig::MagCache(settings) => mag_cache(ui, settings),
        StrategyConfig::EasyCache(settings) => easy_cache(ui, settings, steps),
        StrategyConfig::DbCache(settings) => db_cache(ui, settings, steps, blocks),
        StrategyConfig::DiCache(settings) => di_cache(ui, settings, blocks),
        StrategyConfig::DeltaDit(settings) => delta_dit(ui, settings, steps),
        StrategyConfig::FewerSteps { steps: fewer } => {
            whole(ui, "steps", fewer, 1..=steps, "Denoising steps in place of the number above");
        }
    });
}

/// The slider that most dynamic strategies hang on.
fn threshold(ui: &mut Ui, value: &mut f64, tip: &str) {
    real(ui, "threshold", value, 0.0..=0.5, tip);
}

/// What TeaCache measures; whether that changed.
fn signal(ui: &mut Ui, ret_steps: &mut bool) -> bool {
    ui.label("signal");
    let tip = "The method's \"ret steps\" variant: five computed steps first";
    let changed = ui.checkbox(ret_steps, "time projection").on_hover_text(tip).changed();
    ui.end_row();
    changed
}

fn mag_cache(ui: &mut Ui, settings: &mut MagCache) {
    threshold(ui, &mut settings.threshold, "Accumulated error at which a step is computed again");
    whole(ui, "most in a row", &mut settings.max_skips, 1..=20, "K: skips in a row at most");
    let tip = "R: share of the steps at the start that is computed";
    real(ui, "computed first", &mut settings.retention, 0.0..=1.0, tip);
}

fn easy_cache(ui: &mut Ui, settings: &mut EasyCache, steps: usize) {
    threshold(ui, &mut settings.threshold, "Accumulated relative change that computes again");
    whole(ui, "first steps", &mut settings.first, 0..=steps, "Steps at the start that are computed");
    whole(ui, "last steps", &mut settings.last, 0..=steps, "Steps at the end that are computed");
}

fn db_cache(ui: &mut Ui, settings: &mut DbCache, steps: usize, blocks: usize) {
    let most = blocks.max(2) - 1;
    threshold(ui, &mut settings.threshold, "Change of the first blocks below which the middle is reused");
    whole(ui, "front blocks", &mut settings.front, 1..=most, "Fn: blocks at the front that always run");
    whole(ui, "back blocks", &mut settings.back, 0..=most, "Bn: blocks at the back that always run");
    whole(ui, "warm-up", &mut settings.warm_up, 0..=steps, "Steps at the start that are computed");
    whole(ui, "most in a row", &mut settings.max_skips, 0..=steps, "Reused steps in a row; 0 for no limit");
}

fn di_cache(ui: &mut Ui, settings: &mut DiCache, blocks: usize) {
    threshold(ui, &mut settings.threshold, "Accumulated change of the probe that computes again");
    whole(ui, "probe blocks", &mut settings.probe, 1..=blocks.max(2) - 1, "Blocks that always run");
    let tip = "Share of the steps at the start that is computed";
    real(ui, "computed first", &mut settings.retention, 0.0..=1.0, tip);
}

fn delta_dit(ui: &mut Ui, settings: &mut DeltaDit, steps: usize) {
    real(ui, "share", &mut settings.share, 0.0..=1.0, "Share of the blocks that is reused");
    let tip = "Share of the steps after which front blocks are reused";
    real(ui, "boundary", &mut settings.boundary, 0.0..=1.0, tip);
    schedule(ui, &mut settings.schedule, steps);
}

fn profiling(ui: &mut Ui, settings: &mut ProfilingSettings, steps: usize, blocks: usize) {
    if let Some(list) = settings.blocks.first_mut() {
        let label =
            ui.label("cached").on_hover_text("Background blocks: the B buttons of the map, or a list such as 0-5,9");
        block_list(ui, list, blocks, label.id);
        ui.end_row();
    }
    schedule(ui, &mut settings.schedule, steps);
    ui.label("delta").on_hover_text("How a stored delta is carried to later steps");
    ui.horizontal(|ui| {
        ui.selectable_value(&mut settings.carry, Carry::Hold, "hold").on_hover_text("As it is (the paper)");
        ui.selectable_value(&mut settings.carry, Carry::Extrapolate, "extrapolate").on_hover_text("From the last two");
        if matches!(settings.carry, Carry::Scale(_)) {
            let _ = ui.selectable_label(true, "scale").on_hover_text("Times how much the residual grows, as measured");
        }
    });
    ui.end_row();
    if settings.blocks.len() > 1 {
        ui.label("lists");
        ui.horizontal(|ui| {
            ui.selectable_value(&mut settings.lists, Lists::One, "first");
            ui.selectable_value(&mut settings.lists, Lists::Split, "split");
            ui.selectable_value(&mut settings.lists, Lists::Alternate, "alternate");
        });
        ui.end_row();
    }
}

/// The way back from the user's own blocks to those of the model's profile.
fn profile_blocks(ui: &mut Ui, state: &mut State) {
    let Some(Ok(profiled)) = state.profiled.as_ref().filter(|_| state.form.own_blocks) else { return };
    let tip = format!(
        "Blocks {}: those that attended to the background when the model was profiled",
        print_blocks(&profiled.background)
    );
    if ui.button("Cache the profile's background blocks").on_hover_text(tip).clicked() {
        // They come with the next frame of the window.
        state.form.own_blocks = false;
        ui.ctx().request_repaint();
    }
}

/// The list as editable text.
fn block_list(ui: &mut Ui, list: &mut Vec<usize>, blocks: usize, label: egui::Id) {
    let parse = |text: &str| parse_blocks(text, blocks).ok();
    let tip = format!("Write numbers and ranges below {blocks}, such as 0-5,9");
    if let Some(parsed) = typed(ui, &print_blocks(list), parse, "none; for example 0-5,9", &tip, label) {
        *list = parsed;
    }
}

fn schedule(ui: &mut Ui, schedule: &mut StepSchedule, steps: usize) {
    whole(ui, "warm-up", &mut schedule.warm_up, 0..=steps, "s0: the steps up to this one are computed");
    whole(ui, "last steps", &mut schedule.last, 0..=steps, "Steps at the end that are computed");
    ui.label("intervals").on_hover_text("Steps from a computed one to the next");
    let (mut max, mut min, rounding) = match schedule.intervals {
        Intervals::Decreasing { max, min, rounding } | Intervals::Increasing { max, min, rounding } => {
            (max, min, rounding)
        }
        Intervals::Uniform(every) => (every as f64, every as f64, Default::default()),
        Intervals::Explicit(_) => (2.0, 2.0, Default::default()),
    };
    let mut kind = match schedule.intervals {
        Intervals::Decreasing { .. } => 0,
        Intervals::Increasing { .. } => 1,
        Intervals::Uniform(_) => 2,
        Intervals::Explicit(_) => 3,
    };
    let before = kind;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        ui.selectable_value(&mut kind, 0, "falling").on_hover_text("From Tmax to Tmin (the paper)");
        ui.selectable_value(&mut kind, 1, "rising").on_hover_text("From Tmin to Tmax");
        ui.selectable_value(&mut kind, 2, "equal").on_hover_text("Always the same");
    });
    ui.end_row();
    let longest = steps.max(2) as f64;
    match kind {
        0 | 1 => {
            real(ui, "Tmax", &mut max, 1.0..=longest, "Longest interval, in steps");
            real(ui, "Tmin", &mut min, 1.0..=longest, "Shortest interval, in steps");
            if kind != before || (max, min) != (bounds(&schedule.intervals)) {
                min = min.min(max);
                schedule.intervals = if kind == 0 {
                    Intervals::Decreasing { max, min, rounding }
                } else {
                    Intervals::Increasing { max, min, rounding }
                };
            }
        }
        2 => {
            let mut every = (max.round() as usize).max(1);
            whole(ui, "every", &mut every, 1..=steps.max(2), "Steps from a computed one to the next");
            schedule.intervals = Intervals::Uniform(every);
        }
        _ => {}
    }
}

fn bounds(intervals: &Intervals) -> (f64, f64) {
    match *intervals {
        Intervals::Decreasing { max, min, .. } | Intervals::Increasing { max, min, .. } => (max, min),
        _ => (f64::NAN, f64::NAN),
    }
}

/// Where MagCache's ratios come from: the model's profile, or a run of the user's.
fn calibrate(ui: &mut Ui, state: &mut State) {
    let measured = measured_ratios(state);
    let profiled = matches!(state.profiled, Some(Ok(_)));
    let form = &mut state.form;
    let Some(StrategyConfig::MagCache(settings)) = form.strategies.get_mut(form.chosen) else { return };
    ui.horizontal_wrapped(|ui| {
        let source = match (settings.ratios.is_empty(), form.own_ratios) {
            (true, _) => "not calibrated",
            (false, true) => "calibrated from a run",
            (false, false) => "calibrated by the model's profile",
        };
        ui.label(source);
        let button = ui.add_enabled(measured.is_some(), egui::Button::new("Calibrate from the run on show"));
        let button = button.on_disabled_hover_text("Needs a finished run without reuse that measured block changes");
        if let (true, Some(measured)) = (button.clicked(), measured) {
            (settings.ratios, form.own_ratios) = (measured, true);
        }
        let tip = "The calibration that the model's profile holds";
        if form.own_ratios && profiled && ui.button("Use the profile's").on_hover_text(tip).clicked() {
            form.own_ratios = false;
        }
    });
}

/// MagCache's calibration from the current run: a finished one in which nothing was reused.
fn measured_ratios(state: &State) -> Option<Vec<f64>> {
    let run = state.runs.current()?;
    let complete = run.capture.steps.len() == run.capture.run.steps() && run.capture.hit_rate() == 0.0;
    let ratios: Vec<f64> = run.capture.steps.iter().skip(1).map(|step| step.magnitude_ratio).collect::<Option<_>>()?;
    (complete && !ratios.is_empty()).then(|| std::iter::once(1.0).chain(ratios).collect())
}

fn prediction(ui: &mut Ui, state: &mut State) {
    let palette = Palette::of(ui);
    section(ui, "EXPECTED");
    if state.prediction.error.is_some() && state.waits_for_profile() {
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
