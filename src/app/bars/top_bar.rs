//! The bar on top: menus, prompt, seed, steps, size, and the buttons that start and stop a job.

use std::time::Duration;

use egui::accesskit::Role;
use egui::{Button, DragValue, Key, KeyboardShortcut, Modifiers, RichText, Ui};

use super::{help, menus};
use crate::app::actions::{Action, Actions};
use crate::app::data::job::{Job, Wanted};
use crate::app::data::shared::Shared;
use crate::app::draw::theme::{self, Palette};
use crate::app::layout::Layout;
use crate::app::panes::Panes;
use crate::engine::{ClipSettings, limits};

/// Starts a job.
pub const GENERATE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Enter);
/// Opens a capture.
pub const OPEN: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::O);
/// Saves the capture on show.
pub const SAVE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::S);
/// Pauses a job, or lets it go on.
pub const PAUSE: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::P);
/// Ends a job.
pub const CANCEL: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Period);

/// Least width, in points, of a bar in one row: below it the numbers have a row of their own.
const ONE_ROW: f32 = 1050.0;

/// Draws the bar. Widgets are drawn from left to right, so that Tab goes the same way.
pub fn ui(ui: &mut Ui, shared: &Shared, actions: &mut Actions, panes: &Panes, layout: &mut Layout) {
    let one_row = ui.available_width() >= ONE_ROW;
    ui.horizontal(|ui| {
        menus::file(ui, shared, actions);
        menus::view(ui, shared, actions, panes, layout);
        help::menu(ui);
        menus::model(ui, shared, actions);
        // The prompt takes the room that the controls right of it leave. Their width is that of the
        // frame before.
        let id = ui.scope_id().with(("width right of the prompt", shared.job.busy()));
        let known = ui.data(|data| data.get_temp::<f32>(id));
        let room = ui.available_width() - known.unwrap_or(540.0) - 2.0 * ui.spacing().item_spacing.x;
        prompt(ui, shared, actions, room.max(60.0));
        let right = ui.horizontal(|ui| {
            examples(ui, shared, actions);
            if one_row {
                numbers(ui, shared, actions);
            }
            buttons(ui, shared, actions);
        });
        let width = right.response.rect.width();
        if known.is_none_or(|known| (known - width).abs() > 0.5) {
            ui.data_mut(|data| data.insert_temp(id, width));
            ui.ctx().request_repaint();
        }
    });
    if !one_row {
        ui.horizontal_wrapped(|ui| numbers(ui, shared, actions));
    }
}

fn numbers(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    for number in [seed, steps, size] {
        number(ui, shared, actions);
    }
}

/// Prompts of the list that the demo model is tried on.
const EXAMPLES: &str = include_str!("../../../assets/prompts/eval.txt");
/// Number of prompts in the menu.
const MOST_EXAMPLES: usize = 14;

/// A menu of prompts that the demo model can follow.
fn examples(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    if shared.demo_model.as_ref() != Some(&shared.form.model) {
        return;
    }
    let menu = ui.menu_button("Examples", |ui| {
        ui.label("The built-in model knows a few objects, backgrounds and motions.");
        for line in EXAMPLES.lines().filter(|line| !line.trim().is_empty()).take(MOST_EXAMPLES) {
            if ui.button(line).clicked() {
                actions.form(move |form| form.prompt = line.into());
            }
        }
    });
    menu.response.on_hover_text("Prompts that the built-in model can follow");
}

fn prompt(ui: &mut Ui, shared: &Shared, actions: &mut Actions, width: f32) {
    let mut text = shared.form.prompt.clone();
    let field = egui::TextEdit::singleline(&mut text).hint_text("What to show").desired_width(width);
    let response = ui.add(field);
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(Role::TextInput, true, "Prompt");
        info.current_text_value = Some(text.clone());
        info
    });
    if response.changed() {
        actions.form(move |form| form.prompt = text);
    }
    if response.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter)) && !shared.job.busy() {
        actions.ask(Action::Generate);
    }
}

/// A number that counts once it has been written to its end: on the way to 30 it is not 3.
fn typed(value: DragValue<'_>) -> DragValue<'_> {
    value.update_while_editing(false)
}

fn seed(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let mut seed = shared.form.clip.seed;
    let response = ui.add(typed(DragValue::new(&mut seed)).prefix("seed ").speed(1.0));
    if response.on_hover_text("The same seed and settings give the same clip").changed() {
        actions.form(move |form| form.clip.seed = seed);
    }
}

fn steps(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let mut steps = shared.form.clip.num_inference_steps;
    let response = ui.add(typed(DragValue::new(&mut steps)).prefix("steps ").range(1..=limits::MOST_STEPS));
    if response.on_hover_text("Denoising steps").changed() {
        actions.form(move |form| form.clip.num_inference_steps = steps);
    }
}

/// Width, height and frames that the menu offers.
const SIZES: [(usize, usize, usize); 5] =
    [(64, 64, 17), (128, 128, 17), (832, 480, 33), (832, 480, 81), (1280, 720, 81)];

fn size(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let mut clip = shared.form.clip;
    let text = format!("{} x {}, {} frames", clip.width, clip.height, clip.num_frames);
    let response = ui.menu_button(&text, |ui| {
        for (width, height, num_frames) in SIZES {
            if ui.button(format!("{width} x {height}, {num_frames} frames")).clicked() {
                clip = ClipSettings { width, height, num_frames, ..clip };
            }
        }
        ui.separator();
        egui::Grid::new("size").num_columns(2).show(ui, |ui| {
            for (side, name) in [(&mut clip.width, "width"), (&mut clip.height, "height")] {
                let label = ui.label(name);
                let sides = limits::SMALLEST_SIDE..=limits::LARGEST_SIDE;
                ui.add(typed(DragValue::new(side)).range(sides).speed(16.0).suffix(" px")).labelled_by(label.id);
                ui.end_row();
            }
            let label = ui.label("frames");
            let frames = typed(DragValue::new(&mut clip.num_frames)).range(1..=limits::MOST_FRAMES).speed(4.0);
            ui.add(frames).labelled_by(label.id);
            ui.end_row();
        });
    });
    theme::named(&response.response, Role::Button, format!("Size: {text}"));
    let ClipSettings { width, height, num_frames, .. } = clip;
    if ((width, height), num_frames) != (shared.form.clip.size(), shared.form.clip.num_frames) {
        actions.form(move |form| form.clip = ClipSettings { width, height, num_frames, ..form.clip });
    }
}

/// The stage of the job, with its seconds: it shows that a long stage goes on.
fn stage(job: &Job) -> String {
    match job.seconds() {
        Some(seconds) => format!("{} {seconds} s", job.doing()),
        None => job.doing().into(),
    }
}

/// The buttons that start and stop a job. Cancel stands at the right end, where Generate stood.
fn buttons(ui: &mut Ui, shared: &Shared, actions: &mut Actions) {
    let palette = Palette::of(ui);
    if !shared.job.busy() {
        let text = RichText::new("Generate").strong().color(palette.on_accent);
        let ready = shared.ready();
        let button = ui.add_enabled(ready.is_ok(), Button::new(text).fill(palette.accent));
        let button = button.on_disabled_hover_text(ready.err().unwrap_or_default());
        if button.on_hover_text(ui.ctx().format_shortcut(&GENERATE)).clicked() {
            actions.ask(Action::Generate);
        }
        return;
    }
    ui.label(RichText::new(stage(&shared.job)).color(palette.weak));
    let wanted = shared.job.wanted();
    let (text, action) = if wanted == Wanted::Pause { ("Resume", Action::Resume) } else { ("Pause", Action::Pause) };
    let running = matches!(shared.job, Job::Running { .. }) && wanted != Wanted::Cancel;
    if ui.add_enabled(running, Button::new(text)).clicked() {
        actions.ask(action);
    }
    let cancel = ui.add_enabled(wanted != Wanted::Cancel, Button::new("Cancel"));
    // A double click on Generate must not cancel.
    if cancel.clicked() && !cancel.double_clicked() {
        actions.ask(Action::Cancel);
    }
    if let Some(time) = shared.job.elapsed() {
        // The next repaint is due at the next full second: nothing else may happen for long.
        ui.ctx().request_repaint_after(Duration::from_secs(1) - Duration::from_nanos(time.subsec_nanos().into()));
    }
}
