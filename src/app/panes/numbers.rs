//! Pane "Numbers": what is reused, what it saves, what it costs, and where the GPU's time goes.

use std::collections::BTreeMap;

use egui::{Align2, FontId, RichText, Sense, Ui, pos2, vec2};

use crate::app::actions::Actions;
use crate::app::data::job::Job;
use crate::app::data::likeness::Comparison;
use crate::app::data::runs::{self, Run};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette, bytes, decibels, row, seconds, section};
use crate::app::panes::{Pane, Place};

/// The pane.
#[derive(Default)]
pub struct NumbersPane;

impl Pane for NumbersPane {
    fn key(&self) -> &'static str {
        "numbers"
    }

    fn title(&self) -> &'static str {
        "Numbers"
    }

    fn place(&self) -> Place {
        Place::Right
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, _: &mut Actions) {
        let Some(run) = shared.runs.current() else {
            theme::empty(ui, "No numbers yet", "They come with the first step of a run.");
            return;
        };
        let baseline = shared.runs.reference_of(run);
        egui::ScrollArea::vertical().id_salt("numbers").auto_shrink(false).show(ui, |ui| {
            theme::beside_scroll_bar(ui);
            ui.spacing_mut().item_spacing.y = 3.0;
            headline(ui, run, baseline);
            ui.add_space(4.0);
            progress(ui, run, &shared.job);
            savings(ui, run, baseline);
            fidelity(ui, shared, run);
            memory(ui, run);
            kernels(ui, run);
        });
    }
}

fn headline(ui: &mut Ui, run: &Run, baseline: Option<&Run>) {
    let saving = run.saving(baseline);
    let palette = Palette::of(ui);
    let gain =
        |speedup: Option<f64>| if speedup.is_some_and(|speedup| speedup >= 1.05) { palette.good } else { palette.text };
    ui.horizontal(|ui| {
        let width = (ui.available_width() - 16.0) / 3.0;
        big(
            ui,
            width,
            &format!("{:.0} %", run.capture.hit_rate() * 100.0),
            "hit rate",
            "Share of block executions avoided",
            palette.text,
        );
        let measured = saving.map_or("-".into(), |saving| format!("{:.2}x", saving.speedup));
        let against = if baseline.is_some() {
            "Denoising time of the baseline divided by that of this run, both without the compiling of kernels"
        } else {
            "Measured against this run's own full steps; run \"off\" and make it the baseline for an exact figure"
        };
        big(ui, width, &measured, "measured", against, gain(saving.map(|saving| saving.speedup)));
        let flops = run.capture.flop_speedup().map_or("-".into(), |speedup| format!("{speedup:.2}x"));
        big(
            ui,
            width,
            &flops,
            "by FLOPs",
            "Work without reuse divided by work with it",
            gain(run.capture.flop_speedup()),
        );
    });
}

/// A large number with its name below.
fn big(ui: &mut Ui, width: f32, value: &str, name: &str, tip: &str, color: egui::Color32) {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(width, 44.0), Sense::hover());
    let size = if width < 70.0 { 17.0 } else { 21.0 };
    ui.painter().text(rect.left_top(), Align2::LEFT_TOP, value, FontId::proportional(size), color);
    ui.painter().text(rect.left_bottom(), Align2::LEFT_BOTTOM, name, FontId::proportional(11.5), palette.weak);
    theme::named(&response, egui::accesskit::Role::Label, format!("{name}: {value}"));
    response.on_hover_text(tip);
}

fn progress(ui: &mut Ui, run: &Run, job: &Job) {
    let (done, steps) = (run.capture.steps.len(), run.capture.run.steps());
    if run.live {
        let share = done as f32 / steps.max(1) as f32;
        let bar = ui.add(egui::ProgressBar::new(share).desired_height(8.0).corner_radius(4.0));
        theme::named(&bar, egui::accesskit::Role::ProgressIndicator, format!("Denoising: step {done} of {steps}"));
        row(ui, "step", format!("{done} of {steps}"));
        if steps > 0 && done == steps {
            row(ui, "now", job.doing());
        } else {
            row(ui, "to go (ETA)", run.eta().map_or("...".into(), seconds));
        }
    } else {
        row(ui, "steps", if done == steps { steps.to_string() } else { format!("{done} of {steps}: ended early") });
    }
}

fn savings(ui: &mut Ui, run: &Run, baseline: Option<&Run>) {
    section(ui, "TIME");
    if baseline.is_some_and(|baseline| !run.times_like(baseline)) {
        let text = "The baseline was timed in another session or on another GPU: its time is not compared.";
        ui.label(RichText::new(text).color(Palette::of(ui).weak));
    }
    if let Some(saving) = run.saving(baseline) {
        let (name, value) = if saving.seconds >= 0.0 { ("saved", saving.seconds) } else { ("lost", -saving.seconds) };
        row(ui, name, seconds(value));
    }
    row(ui, "denoising", seconds(run.denoise_seconds()));
    if let Some(outcome) = &run.capture.outcome
        && outcome.error.is_none()
    {
        let times = &outcome.seconds;
        row(ui, "loading", seconds(times.load));
        row(ui, "text", seconds(times.text));
        row(ui, "decoding", seconds(times.decode));
        row(ui, "in all", seconds(times.total));
    }
}

fn fidelity(ui: &mut Ui, shared: &Shared, run: &Run) {
    section(ui, "LIKENESS TO THE BASELINE");
    let text = match shared.comparison(run) {
        Some(Comparison::Found(likeness)) => {
            row(ui, "PSNR", decibels(likeness.psnr));
            row(ui, "SSIM", format!("{:.3}", likeness.ssim));
            return;
        }
        Some(Comparison::Asked) => "Comparing...".into(),
        Some(Comparison::Cannot) => "The clips cannot be compared.".into(),
        None => no_likeness(shared, run),
    };
    ui.label(RichText::new(text).color(Palette::of(ui).weak));
}

/// Why the clips are not compared yet.
fn no_likeness(shared: &Shared, run: &Run) -> String {
    let Some(baseline) = shared.runs.baseline() else {
        return "Run \"Off\" with the same prompt and seed, and choose it as the baseline under Runs.".into();
    };
    if baseline.id == run.id {
        return "This run is the baseline.".into();
    }
    if let Some(what) = runs::differs(baseline, run) {
        return format!("The baseline is of another job: its {what} differs. Run \"Off\" with this run's settings.");
    }
    let without = |run: &Run| !run.live && run.capture.clip.is_none();
    match (without(baseline), without(run)) {
        (true, _) => "The baseline ended without a clip.".into(),
        (_, true) => "This run ended without a clip.".into(),
        // Another pair is compared first.
        _ if baseline.capture.clip.is_some() && run.capture.clip.is_some() => "Comparing...".into(),
        _ => "When both clips are done.".into(),
    }
}

fn memory(ui: &mut Ui, run: &Run) {
    let Some(last) = run.capture.steps.last() else { return };
    section(ui, "GPU MEMORY");
    let deltas = run.capture.steps.iter().map(|step| step.delta_memory).max().unwrap_or(0);
    row(ui, "in use", bytes(last.memory));
    row(ui, "stored deltas", if deltas == 0 { "none".into() } else { bytes(deltas) });
    if let Some(outcome) = run.capture.outcome.as_ref().filter(|outcome| outcome.peak_memory > 0) {
        row(ui, "highest", bytes(outcome.peak_memory));
    }
}

fn kernels(ui: &mut Ui, run: &Run) {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for kernel in run.capture.steps.iter().flat_map(|step| &step.kernels) {
        let sum = sums.entry(&kernel.kernel).or_default();
        *sum = (sum.0 + kernel.seconds, sum.1 + kernel.flops);
    }
    let total: f64 = sums.values().map(|sum| sum.0).sum();
    if total <= 0.0 {
        return;
    }
    section(ui, "GPU TIME BY KERNEL");
    let mut sorted: Vec<_> = sums.into_iter().collect();
    sorted.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let most = sorted.first().map_or(1.0, |first| first.1.0);
    for (name, (time, flops)) in sorted.into_iter().take(12) {
        let palette = Palette::of(ui);
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 28.0), Sense::hover());
        let font = FontId::proportional(11.5);
        let share = format!("{:.0} %", time / total * 100.0);
        ui.painter().text(rect.left_top(), Align2::LEFT_TOP, name, font.clone(), palette.text);
        ui.painter().text(rect.right_top(), Align2::RIGHT_TOP, &share, font, palette.weak);
        let width = rect.width() * (time / most) as f32;
        let bar = egui::Rect::from_min_size(pos2(rect.left(), rect.bottom() - 9.0), vec2(width.max(1.0), 6.0));
        ui.painter().rect_filled(bar, 2.0, palette.accent);
        let rate = flops / time.max(1e-12) / 1e9;
        theme::named(&response, egui::accesskit::Role::Meter, format!("{name}: {share}"));
        response.on_hover_text(format!("{name}: {}, {rate:.1} GFLOP/s", seconds(time)));
    }
}
