//! A pane that only this test knows: everything else in the window takes it from the catalogue.

use std::path::Path;
use std::sync::Arc;

use eframe::egui_wgpu::WgpuSetup;
use egui::{Key, Ui, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::{SETUP, Stored, fill, options, wait};
use crate::app::actions::Actions;
use crate::app::data::selection::Selection;
use crate::app::data::shared::Shared;
use crate::app::dialogs::{Chosen, Dialog, Purpose};
use crate::app::layout::{self, Layout};
use crate::app::panes::map::MapPane;
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::preview::PreviewPane;
use crate::app::panes::preview::view::Compare;
use crate::app::panes::{News, Pane, Place, catalogue};
use crate::app::save::{Content, Saveable};
use crate::app::{App, Options, pane_key};

/// Counts what happens to it.
#[derive(Default)]
struct Counter {
    clicks: usize,
    opened: usize,
}

static COUNT: Saveable = Saveable {
    label: "Save the count...",
    title: "Save the count",
    name: "count.txt",
    kinds: &[("Text", &["txt"])],
    available: |shared| shared.form.clip.seed > 0,
    make: |source| {
        let clicks = source.panes.get::<Counter>().ok_or("There is no counter.")?.clicks;
        Ok(Content::new(move |path: &Path| std::fs::write(path, clicks.to_string())))
    },
};

impl Pane for Counter {
    fn key(&self) -> &'static str {
        "counter"
    }

    fn title(&self) -> &'static str {
        "Counter"
    }

    fn place(&self) -> Place {
        Place::Left
    }

    fn saves(&self) -> Vec<&'static Saveable> {
        vec![&COUNT]
    }

    fn settings(&self) -> Option<String> {
        Some(self.clicks.to_string())
    }

    fn restore(&mut self, settings: &str) {
        self.clicks = settings.parse().unwrap_or_default();
    }

    fn notice(&mut self, news: News) {
        self.opened += usize::from(matches!(news, News::RunOpened { .. }));
    }

    fn ui(&mut self, ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
        let (before, seed) = (self.clicks, shared.form.clip.seed);
        if ui.button(format!("{before} clicks, seed {seed}")).clicked() {
            self.clicks += 1;
            actions.form(move |form| form.clip.seed = seed + 10);
        }
    }
}

#[test]
fn a_pane_needs_no_more_than_its_line_in_the_catalogue() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_owned();
    let choose = move |dialog: Dialog| -> Chosen {
        let Purpose::Save(name) = dialog.purpose else { panic!("{dialog:?}") };
        Box::pin(std::future::ready(Some(place.join(name))))
    };
    let options = Options { choose: Arc::new(choose), ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1360.0, 860.0))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    let app = harness.state_mut();
    fill(app, true);
    // What the line in the catalogue does.
    app.panes.add(Box::<Counter>::default());
    // A layout that was stored before there was this pane has it as a tab at its place.
    let stored = serde_json::to_string(&Layout::wide(&catalogue())).unwrap();
    app.layout = Layout::stored(&stored, &app.panes).unwrap();
    app.compact = Layout::compact(&app.panes);
    harness.run_steps(2);

    // Its tab, its state, and its actions.
    harness.get_by_label("Counter").click();
    harness.run_steps(2);
    harness.get_by_label("0 clicks, seed 0").click();
    harness.run_steps(2);
    harness.get_by_label("1 clicks, seed 10").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.form.clip.seed, 20);
    harness.state_mut().show_opened_run(false);
    assert_eq!(harness.state().panes.get::<Counter>().unwrap().opened, 1);

    // Its menu saves what it offers.
    harness.get_by_label("Menu of the pane Counter").click();
    harness.run_steps(2);
    assert!(harness.query_by_label("Save picture of the pane (PNG)...").is_some());
    harness.get_by_label("Save the count...").click();
    wait(&mut harness, |shared| shared.log.iter().any(|line| line.text.contains("count.txt")));
    assert_eq!(std::fs::read_to_string(folder.path().join("count.txt")).unwrap(), "2");

    // The View menu closes it.
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    harness.get_by_label("View").click();
    harness.run_steps(2);
    harness.get_by_role_and_label(egui::accesskit::Role::CheckBox, "Counter").click();
    harness.run_steps(2);
    assert!(!harness.state().layout.is_open("counter"));

    // Its settings and its place last.
    let mut storage = Stored::default();
    eframe::App::save(harness.state_mut(), &mut storage);
    let mut again = Counter::default();
    again.restore(&storage.0[&pane_key("counter")]);
    assert_eq!(again.clicks, 2);
    let panes = &harness.state().panes;
    assert!(!Layout::stored(&storage.0[layout::KEY], panes).unwrap().is_open("counter"));
    assert!(Layout::compact(panes).is_open("counter"));
}

/// Older programs stored the settings of all panes together.
#[test]
fn settings_of_older_programs_are_read() {
    let text = r#"{"minus_pinned": true, "paid": false, "through_steps": true, "looping": false, "uncond": true,
        "colouring": "Lift", "plan": false, "subtract": true, "opacity": 0.25, "outline": false, "compare": "Split",
        "split": 0.75}"#;
    let mut panes = catalogue();
    panes.iter_mut().for_each(|pane| pane.restore(text));
    let view = &panes.get::<PreviewPane>().unwrap().view;
    assert_eq!((view.minus_pinned, view.through_steps, view.looping), (true, true, false));
    assert_eq!((view.opacity, view.outline, view.compare, view.split), (0.25, false, Compare::Split, 0.75));
    let map = &panes.get::<MapPane>().unwrap().settings;
    assert_eq!((map.colouring, map.plan, map.subtract), (Colouring::Lift, false, true));
    assert!(serde_json::from_str::<Selection>(text).unwrap().uncond);
}
