//! The places of things: the picture first, every block in sight, and what lies over the panes.

use std::path::Path;
use std::sync::Arc;

use eframe::egui_wgpu::WgpuSetup;
use egui::{Event, Modifiers, PointerButton, Pos2, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::sample::{self, Kind};
use super::{SETUP, filled, map, options, preview, wait, window};
use crate::app::actions::Action;
use crate::app::data::log::Level;
use crate::app::dialogs::{Chosen, Dialog};
use crate::app::panes::map::colouring::Colouring;
use crate::app::panes::preview::view::Compare;
use crate::app::{App, Options, first_size, save};

/// The window with a run of a number of blocks on show.
fn with_blocks(size: [f32; 2], blocks: usize) -> Harness<'static, App> {
    let mut harness = filled(size, 1.0, true);
    let mut capture = sample::capture(Kind::Uniform);
    capture.run.blocks = blocks;
    harness.state_mut().shared.runs.add(capture, false, None);
    harness.state_mut().shared.selection.clear();
    harness.run_steps(4);
    harness
}

#[test]
fn the_picture_is_large_and_every_block_is_in_sight() {
    for (size, least, blocks) in
        [([1440.0, 900.0], 420.0, 20), ([1366.0, 768.0], 340.0, 16), ([1920.0, 1080.0], 500.0, 20)]
    {
        let mut harness = with_blocks(size, blocks);
        let picture = harness.get_by_label_contains("Preview of run").rect();
        assert!(picture.height() >= least, "{size:?}: {picture:?}");
        let map = harness.get_by_label_contains("Blocks by steps map").rect();
        assert!(map.height() / blocks as f32 >= 10.0, "{size:?}: {map:?}");
        assert!(harness.query_by_label_contains(&format!("Block {}, ", blocks - 1)).is_some());
        let last = harness.get_by_label_contains(&format!("Block {}, ", blocks - 1)).rect();
        assert!(last.bottom() < size[1] - 50.0, "{size:?}: {last:?}");
        // A marked cell takes nothing from the picture.
        harness.state_mut().shared.selection.select(crate::app::data::selection::MapCell { step: 10, block: 5 });
        harness.run_steps(3);
        assert!(harness.get_by_label_contains("Preview of run").rect().height() >= least);
    }
}

fn double_click(harness: &mut Harness<'_, App>, pos: Pos2) {
    harness.hover_at(pos);
    harness.run_steps(1);
    // All in one frame: frames of the test are too far apart for a double click.
    let event =
        |pressed| Event::PointerButton { pos, button: PointerButton::Primary, pressed, modifiers: Modifiers::NONE };
    harness.input_mut().events.extend([true, false, true, false].map(event));
    harness.run_steps(3);
}

#[test]
fn a_pane_fills_the_window_and_comes_back() {
    let mut harness = with_blocks([1440.0, 900.0], 30);
    let at = |harness: &Harness<'_, App>, name: &str| harness.get_by_label(name).rect().center();
    let tab = at(&harness, "Blocks x steps");
    double_click(&mut harness, tab);
    assert!(harness.query_by_label_contains("Preview of run").is_none());
    let map = harness.get_by_label_contains("Blocks by steps map").rect();
    assert!(map.width() > 1200.0 && map.height() >= 300.0, "{map:?}");
    assert!(harness.query_by_label_contains("Block 29, ").is_some(), "all blocks of Wan2.1 1.3B");
    harness.get_by_label("Back to all panes").click();
    harness.run_steps(2);
    assert!(harness.query_by_label_contains("Preview of run").is_some());
    double_click(&mut harness, tab);
    let name = at(&harness, "Blocks x steps");
    double_click(&mut harness, name);
    assert!(harness.query_by_label_contains("Preview of run").is_some());
    let tab = at(&harness, "Preview");
    double_click(&mut harness, tab);
    let picture = harness.get_by_label_contains("Preview of run").rect();
    assert!(picture.height() > 700.0, "{picture:?}");
    harness.key_press(egui::Key::Escape);
    harness.run_steps(2);
    assert!(harness.query_by_label_contains("Blocks by steps map").is_some());
}

#[test]
fn the_window_fits_the_screen() {
    assert_eq!((first_size(vec2(1366.0, 768.0)), first_size(vec2(1440.0, 900.0))), (None, None));
    for screen in [vec2(1920.0, 1080.0), vec2(3840.0, 2160.0)] {
        let size = first_size(screen).unwrap();
        assert!(size.x >= 1440.0 && size.y >= 900.0 && size.x < screen.x && size.y < screen.y, "{size}");
    }
}

/// Plots show all steps of the run on show, also after a shorter run.
#[test]
fn plots_follow_the_length_of_the_run() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    harness.get_by_label("Steps").click();
    harness.run_steps(3);
    let mut short = sample::capture(Kind::Uniform);
    short.steps.truncate(1);
    short.run.sigmas.truncate(2);
    let long = sample::capture(Kind::Uniform);
    let steps = long.run.steps();
    for capture in [short, long] {
        harness.state_mut().shared.runs.add(capture, false, None);
        harness.state_mut().shared.selection.clear();
        harness.run_steps(3);
    }
    let plot = harness.get_by_label_contains("Time of steps").rect();
    let pos = Pos2::new(plot.right() - 12.0, plot.center().y);
    harness.hover_at(pos);
    harness.run_steps(1);
    for pressed in [true, false] {
        harness.event(Event::PointerButton {
            pos,
            button: PointerButton::Primary,
            pressed,
            modifiers: Modifiers::NONE,
        });
        harness.run_steps(1);
    }
    harness.run_steps(1);
    assert_eq!(harness.state().shared.selection.step, Some(steps - 1));
}

/// The tip of the map is as wide as its lines, whatever the tip before was.
#[test]
fn tips_of_the_map_do_not_keep_their_width() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    map(harness.state_mut()).settings.colouring = Colouring::Change;
    harness.run_steps(2);
    let area = harness.get_by_label_contains("Blocks by steps map").rect();
    let cell = vec2(area.width() / 16.0, area.height() / 8.0);
    let at = |step: f32, block: f32| area.min + vec2(cell.x * (step + 0.5), cell.y * (block + 0.5));
    for (step, block) in [(10.0, 5.0), (9.0, 5.0)] {
        harness.hover_at(at(step, block));
        harness.run_steps(8);
    }
    let lines: Vec<_> = harness.query_all_by_label_contains("relative change of its delta").collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.rect().height() < 26.0), "{lines:?}");
}

#[test]
fn small_differences_reach_the_end_of_the_colours() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    let app = harness.state_mut();
    app.shared.selection.clear();
    preview(app).view.compare = Compare::Difference;
    harness.run_steps(3);
    let state = &harness.state().shared;
    let frames = |id: u64| &state.runs.get(id).unwrap().capture.clip.as_ref().unwrap().frames;
    let bytes = |id: u64| frames(id).iter().flatten().copied().collect::<Vec<u8>>();
    let greatest = bytes(1).iter().zip(bytes(2)).map(|(a, b)| a.abs_diff(b)).max().unwrap();
    assert!(greatest > 0);
    assert!(harness.query_by_label_contains("the colours end at the largest").is_some());
    assert_eq!(preview(harness.state_mut()).greatest(), Some(greatest));
}

/// Strokes belong into the frame that the user sees.
#[test]
fn the_clip_stands_still_while_the_mask_is_painted() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    preview(harness.state_mut()).view.playing = true;
    harness.get_by_label("Paint mask").click();
    harness.run_steps(4);
    let preview = preview(harness.state_mut());
    assert!(preview.brush.on && !preview.view.playing);
}

#[test]
fn errors_stay_until_they_are_read() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    harness.state_mut().shared.log.add(Level::Error, "the disk is full");
    harness.state_mut().shared.log.add(Level::Note, "Saved something else.");
    harness.run_steps(3);
    harness.get_by_label("OK: the disk is full").click();
    harness.run_steps(3);
    assert!(harness.query_by_label("OK: the disk is full").is_none());
    assert!(harness.state().shared.log.unread().is_empty());
}

/// Without a file dialog of the system, the window asks for the path itself.
#[test]
fn files_are_saved_without_a_dialog_of_the_system() {
    let choose = |_: Dialog| -> Chosen { Box::pin(std::future::ready(None)) };
    let options = Options { choose: Arc::new(choose), ..options() };
    let mut harness = Harness::builder()
        .with_size(vec2(1360.0, 860.0))
        .wgpu_setup(WgpuSetup::Existing(SETUP.clone()))
        .build_eframe(|cc| App::new(cc, options));
    super::fill(harness.state_mut(), true);
    harness.run_steps(3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("typed.capture");
    harness.state_mut().actions.ask(Action::Save(&save::CAPTURE));
    let start = std::time::Instant::now();
    while harness.query_by_label("Path").is_none() && start.elapsed().as_secs() < 10 {
        harness.run_steps(1);
    }
    harness.get_by_role_and_label(egui::accesskit::Role::TextInput, "Path").focus();
    harness.run_steps(2);
    harness.key_press_modifiers(Modifiers::COMMAND, egui::Key::A);
    harness.event(Event::Text(path.display().to_string()));
    harness.run_steps(2);
    harness.get_by_label("Save here").click();
    wait(&mut harness, |state| state.log.iter().any(|line| line.text.contains("typed.capture")));
    assert!(Path::new(&path).is_file());
    assert!(harness.query_by_label("Save here").is_none());
}

#[test]
fn themes_have_names() {
    let mut harness = window([1100.0, 700.0], 1.0);
    harness.get_by_label("View").click();
    harness.run_steps(2);
    harness.get_by_label("Light").click();
    harness.run_steps(2);
    assert_eq!(harness.state().shared.prefs.theme, egui::ThemePreference::Light);
}

/// Tab goes from left to right through the bar.
#[test]
fn tab_follows_the_eye() {
    use egui_kittest::kittest::NodeT;
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    harness.get_by_role_and_label(egui::accesskit::Role::TextInput, "Prompt").focus();
    harness.run_steps(2);
    let mut places = Vec::new();
    for _ in 0..4 {
        let focused = harness.root().children_recursive().find(|node| node.accesskit_node().is_focused());
        places.push(focused.map(|node| node.rect().left()).unwrap_or(-1.0));
        harness.key_press(egui::Key::Tab);
        harness.run_steps(2);
    }
    assert!(places[0] > 0.0 && places.is_sorted() && places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
}

#[test]
fn help_has_pages() {
    let mut harness = filled([1440.0, 900.0], 1.0, true);
    for (page, words) in
        [("Keys", "take back the last stroke"), ("Glossary", "One layer of the transformer"), ("About", "ditscope ")]
    {
        harness.get_by_label("Help").click();
        harness.run_steps(2);
        harness.get_by_label(page).click();
        harness.run_steps(3);
        assert!(harness.query_all_by_label_contains(words).next().is_some(), "{page}");
        // A second page replaces the first; it is closed for the next menu.
        harness.ctx.data_mut(|data| data.clear());
        harness.run_steps(2);
    }
}
