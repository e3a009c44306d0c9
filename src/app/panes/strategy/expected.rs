//! The expected effect of the chosen strategy.

use egui::{RichText, Sense, Ui, vec2};

use crate::app::data::shared::Shared;
use crate::app::draw::cell::{Pixels, draw_kind};
use crate::app::draw::theme::{self, Palette, row, section};
use crate::caching::{CLIP_SPREAD, Cell, Known};

/// Draws what the chosen strategy is expected to do.
pub fn ui(ui: &mut Ui, shared: &Shared) {
    let palette = Palette::of(ui);
    section(ui, "EXPECTED");
    if shared.prediction.trouble.is_some() && shared.waits_for_profile() {
        ui.label(RichText::new("Reading the model's profile...").color(palette.weak));
        return;
    }
    if let Some(text) = shared.trouble() {
        ui.label(RichText::new(text).color(palette.warn));
        return;
    }
    let known = !shared.prediction.plans.is_empty();
    if known {
        plan_strip(ui, shared);
        let (speedup, hits) = (shared.prediction.flop_speedup, shared.prediction.hit_rate);
        row(ui, "speed-up by FLOPs", speedup.map_or("no model yet".into(), |speedup| format!("{speedup:.2}x")));
        row(ui, "hit rate", format!("{:.0} %", hits * 100.0));
    } else {
        let text = "This strategy decides while it runs; the map shows what it did.";
        ui.label(RichText::new(text).color(palette.weak));
    }
    let facts = shared.model.facts().filter(|_| known);
    let guided = shared.form.clip.guided();
    if let Some(time) = facts.and_then(|facts| shared.runs.seconds_of(facts, &shared.prediction.plans, guided)) {
        let tip = "From the speed of the newest run of this model here; without loading and compiling";
        row(ui, "time, about", theme::seconds(time)).on_hover_text(tip);
    }
    if let Some(memory) = shared.prediction.delta_memory {
        row(ui, "memory for deltas", if memory == 0 { "none".into() } else { theme::bytes(memory) });
    }
    if let Some(memory) = shared.prediction.gpu_memory {
        gpu_memory(ui, memory, shared.adapter.as_ref().and_then(|adapter| adapter.memory));
    }
    if known {
        let psnr = shared.form.strategy().expected_psnr();
        let psnr = psnr.map_or_else(|| "not measured".into(), theme::decibels);
        row(ui, "PSNR to the full run", psnr);
        if let Some(known) = shared.form.strategy().known() {
            row(ui, "known from", known.short()).on_hover_text(known_tip(known));
        }
    }
}

/// What a plan is made from, and how sure its PSNR is.
fn known_tip(known: Known) -> String {
    let text = "This PSNR is expected in the mean over prompts; single clips vary by";
    format!("Planned from {}. {text} {CLIP_SPREAD:.0} dB.", known.words())
}

/// Draws the memory of the whole job. It warns if the adapter is known to have less.
fn gpu_memory(ui: &mut Ui, needed: u64, there: Option<u64>) {
    let mut value = RichText::new(theme::bytes(needed));
    let mut tip = "Weights, activations and deltas: an estimate from above".to_owned();
    if let Some(there) = there.filter(|there| needed > *there) {
        value = value.color(Palette::of(ui).warn);
        tip = format!("The adapter has {}: a smaller size or fewer frames take less", theme::bytes(there));
    }
    row(ui, "GPU memory at most", value).on_hover_text(tip);
}

/// Draws the plan as a strip with one tick a step.
fn plan_strip(ui: &mut Ui, shared: &Shared) {
    let palette = Palette::of(ui);
    let (plans, blocks) = (&shared.prediction.plans, shared.blocks());
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
