//! Pictures of the window and of every pane.

use super::sample::{self, Kind};
use super::{SETUP, check, filled, window};
use crate::app::actions::Actions;
use crate::app::data::prediction::Prediction;
use crate::app::data::selection::MapCell;
use crate::app::data::shared::Shared;
use crate::app::draw::theme;
use crate::app::panes::map::MapPane;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::preview::PreviewPane;
use crate::app::panes::preview::view::Compare;
use crate::app::panes::{Panes, catalogue};
use crate::caching::Origin;
use eframe::egui_wgpu::WgpuSetup;
use egui::vec2;
use egui_kittest::Harness;

/// A pane without a window around it.
pub struct Alone {
    pub shared: Shared,
    pub panes: Panes,
    actions: Actions,
}

impl Alone {
    fn map(&mut self) -> &mut MapPane {
        self.panes.get_mut().expect("a map")
    }

    fn preview(&mut self) -> &mut PreviewPane {
        self.panes.get_mut().expect("a preview")
    }
}

/// One pane alone, in both themes.
pub fn pane(name: &str, key: &'static str, size: [f32; 2], change: impl Fn(&mut Alone)) {
    for (theme, dark) in [("dark", true), ("light", false)] {
        themed_pane(&format!("{name}-{theme}"), key, size, dark, &change);
    }
}

fn themed_pane(name: &str, key: &'static str, size: [f32; 2], dark: bool, change: impl Fn(&mut Alone)) {
    let mut app = filled([400.0, 300.0], 1.0, dark);
    app.run_steps(1);
    let shared = std::mem::take(&mut app.state_mut().shared);
    // Textures belong to the window that they were made for: these panes have none yet.
    let mut alone = Alone { shared, panes: catalogue(), actions: Actions::default() };
    change(&mut alone);
    let Alone { shared, panes, .. } = &mut alone;
    let map = panes.get_mut::<MapPane>().expect("a map");
    if map.settings.colouring.is_score()
        && let Some(run) = shared.runs.current()
    {
        while map.scores.advance(run, run, shared.selection.uncond) {}
    }
    shared.prediction = Prediction::of(&shared.form, shared.model.facts(), None, shared.blocks());
    let mut harness = Harness::builder()
        .with_size(vec2(size[0], size[1]))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .with_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light })
        .with_context_setup(theme::install)
        .build_ui_state(
            move |ui, alone: &mut Alone| {
                let fill = theme::Palette::of(ui).pane;
                egui::Frame::new().fill(fill).inner_margin(8.0).show(ui, |ui| {
                    ui.set_min_size(ui.available_size());
                    let Alone { shared, panes, actions } = alone;
                    panes.by_key_mut(key).expect("a pane").ui(ui, shared, actions);
                });
            },
            alone,
        );
    harness.run_steps(4);
    check(name, &mut harness);
}

#[test]
fn pictures_of_the_window() {
    for (name, size, scale, dark) in [
        ("window-dark", [1360.0, 860.0], 1.0, true),
        ("window-light", [1360.0, 860.0], 1.0, false),
        ("window-narrow", [800.0, 640.0], 1.0, true),
        ("window-wide", [1920.0, 1000.0], 1.0, false),
        ("window-200-percent", [800.0, 500.0], 2.0, false),
    ] {
        check(name, &mut filled(size, scale, dark));
    }
    let mut empty = window([1100.0, 700.0], 1.0);
    empty.state_mut().shared.prefs.theme = egui::ThemePreference::Dark;
    empty.run_steps(4);
    check("window-empty", &mut empty);
}

#[test]
fn pictures_of_panes() {
    pane("pane-strategy", "strategy", [300.0, 460.0], |alone| alone.shared.form.choose("profiling"));
    pane("pane-strategy-plan", "strategy", [300.0, 540.0], |alone| {
        let plans = alone.shared.prediction.plans.clone();
        alone.shared.form.use_plan("short walk", Origin::Hand, plans);
    });
    pane("pane-map-reuse", "map", [560.0, 300.0], |_| {});
    pane("pane-map-change", "map", [560.0, 300.0], |alone| alone.map().settings.colouring = Colouring::Change);
    pane("pane-map-minus-baseline", "map", [560.0, 300.0], |alone| {
        let settings = &mut alone.map().settings;
        (settings.colouring, settings.subtract) = (Colouring::Time, true);
    });
    for (name, colouring) in [
        ("pane-map-lift", Colouring::Lift),
        ("pane-map-r-attn", Colouring::Recall),
        ("pane-map-auc", Colouring::Auc),
        ("pane-map-time", Colouring::Time),
    ] {
        pane(name, "map", [620.0, 300.0], |alone| alone.map().settings.colouring = colouring);
    }
    pane("pane-numbers", "numbers", [300.0, 560.0], |_| {});
    pane("pane-steps", "steps", [360.0, 280.0], |_| {});
    pane("pane-log", "log", [500.0, 90.0], |_| {});
    pane("pane-runs", "runs", [760.0, 150.0], |_| {});
    pane("pane-preview", "preview", [460.0, 420.0], |_| {});
    pane("pane-preview-two-cells", "preview", [560.0, 380.0], |alone| {
        alone.shared.selection.pinned = Some(MapCell { step: 3, block: 7 });
    });
    pane("pane-preview-paint", "preview", [560.0, 420.0], |alone| {
        alone.shared.selection.block = None;
        let preview = alone.preview();
        (preview.brush.on, preview.view.through_steps) = (true, true);
    });
    pane("pane-preview-side-by-side", "preview", [560.0, 320.0], |alone| {
        alone.shared.selection.step = None;
        let view = &mut alone.preview().view;
        (view.compare, view.frame) = (Compare::SideBySide, 8);
    });
    pane("pane-preview-four-runs", "preview", [760.0, 360.0], |alone| {
        let state = &mut alone.shared;
        let shown = state.runs.current().unwrap().id;
        for _ in 0..2 {
            let id = state.runs.add(sample::capture(Kind::Uniform), false, None);
            state.runs.put_beside(id, true);
        }
        state.runs.show(shown);
        alone.shared.selection.step = None;
        let view = &mut alone.preview().view;
        (view.compare, view.frame) = (Compare::SideBySide, 8);
    });
    pane("pane-preview-split", "preview", [460.0, 380.0], |alone| {
        alone.shared.selection.step = None;
        let view = &mut alone.preview().view;
        (view.compare, view.frame) = (Compare::Split, 8);
    });
    pane("pane-preview-paid", "preview", [460.0, 420.0], |alone| alone.preview().view.paid = true);
    pane("pane-preview-difference", "preview", [460.0, 380.0], |alone| {
        alone.shared.selection.step = None;
        alone.preview().view.compare = Compare::Difference;
    });
}
