//! Runs that last from one session to the next.

use eframe::egui_wgpu::WgpuSetup;
use egui::{Event, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::{SETUP, fill, options, wait};
use crate::app::data::history::KeptRun;
use crate::app::{App, Options};

/// A window that keeps runs in a folder.
fn keeping(folder: &std::path::Path) -> Harness<'static, App> {
    let options = Options { history: Some(folder.into()), ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1600.0, 900.0))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    harness.state_mut().shared.prefs.hints_seen = true;
    harness.run_steps(3);
    harness
}

fn click(harness: &mut Harness<'_, App>, name: &str) {
    harness.get_by_label(name).click();
    harness.run_steps(2);
}

#[test]
fn runs_survive_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("runs");
    let mut harness = keeping(&place);
    fill(harness.state_mut(), true);
    let app = harness.state_mut();
    let run = app.shared.runs.get(2).unwrap();
    app.link.keep(place.clone(), 2, KeptRun::of(run), run.capture.clone());
    wait(&mut harness, |state| state.history.len() == 1 && state.saving == 0);
    assert!(!harness.state().shared.runs.get(2).unwrap().unsaved());
    // A note goes into the file once the field is left.
    harness.get_by_role_and_label(egui::accesskit::Role::TextInput, "note of #2").focus();
    harness.run_steps(2);
    harness.event(Event::Text("sharper".into()));
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::NONE, egui::Key::Tab);
    harness.run_steps(3);
    wait(&mut harness, |state| state.history[0].note == "sharper");
    let written = || {
        std::fs::read_dir(&place)
            .unwrap()
            .flatten()
            .any(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains("sharper")))
    };
    let start = std::time::Instant::now();
    while !written() {
        assert!(start.elapsed().as_secs() < 10, "the note was not written");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(harness);

    let mut harness = keeping(&place);
    wait(&mut harness, |state| state.history.len() == 1);
    click(&mut harness, "Open the kept run uniform");
    wait(&mut harness, |state| state.runs.len() == 1);
    let run = harness.state().shared.runs.current().unwrap();
    assert_eq!((run.note.as_str(), run.unsaved()), ("sharper", false));
    assert!(harness.state().shared.prefs.recent.is_empty(), "kept runs have a list of their own");
    assert!(harness.query_by_label("Open the kept run uniform").is_none(), "an open run has one row");
    click(&mut harness, "History");
    click(&mut harness, "Delete all kept runs");
    wait(&mut harness, |state| state.history.is_empty());
    assert!(harness.state().shared.runs.current().is_some());
}

#[test]
fn the_list_is_sorted_by_a_click_and_plotted() {
    let mut harness = super::filled([1600.0, 900.0], 1.0, true);
    let place = |harness: &Harness<'_, App>, name: &str| harness.get_by_label(name).rect().top();
    assert!(place(&harness, "Show run #2 uniform") < place(&harness, "Show run #1 off"), "newest first");
    click(&mut harness, "Sort runs by #");
    assert!(place(&harness, "Show run #2 uniform") > place(&harness, "Show run #1 off"));
    click(&mut harness, "Sort runs by hit rate");
    assert!(place(&harness, "Show run #2 uniform") < place(&harness, "Show run #1 off"));
    click(&mut harness, "Plot");
    assert!(harness.query_by_label_contains("Speed-up against PSNR: #2 #2 uniform").is_none());
    assert!(harness.query_by_label_contains("Speed-up against PSNR: #2 uniform").is_some());
}
