//! Room `app`: the window. It draws captures, live or recorded, and edits the next request; it knows the engine, never the GPU.
//!
//! ```text
//! panes ── Action ──> App ── request ──> link ── engine's thread, files, dialogs
//!   ^── State <── observe ── Told <────────┘        (wakes the window)
//! ```
//! One file a pane: `preview` (with `compare`), `map`, `numbers`, `steps`, `strategy`, `log` (and the list of runs), `top_bar`.

mod bars;
mod data;
mod dialogs;
mod draw;
mod layout;
mod link;
mod panes;
mod screenshot;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::caching::{PublishedTea, StrategyConfig};
use crate::engine::{Capture, ClipSettings, Facts, GenerateRequest, clip_settings_of};

use bars::{hints, status_bar, top_bar};
use data::form::{Form, Prediction};
use data::scores;
use data::state::{Action, Comparison, FactsKey, Level, Prefs, State, Undo, View, Wish, pair};
use dialogs::files;
use dialogs::quit::Leaving;
use draw::theme;
use layout::Layout;
use link::pace::Pace;
use link::{Learned, Link, Told};

pub use dialogs::{Choose, Chosen, Dialog, Purpose, system as system_dialogs};
pub use link::OpenEngine;
pub use screenshot::{Screenshot, screenshot};

/// What the window starts with.
#[derive(Clone)]
pub struct Options {
    /// Opens the device and starts the engine, when the first job comes.
    pub open_engine: OpenEngine,
    /// Who is asked for files: [`system_dialogs`].
    pub choose: Choose,
    /// The model that ships with the program.
    pub demo_model: Option<PathBuf>,
    /// A capture to show.
    pub capture: Option<PathBuf>,
    /// A capture shown where none is named, so that the window is alive before anything ran.
    pub demo_capture: Option<PathBuf>,
}

/// Opens the window and stays until it is closed.
///
/// # Errors
/// No window can be opened.
pub fn run(options: Options) -> anyhow::Result<()> {
    let mut setup = eframe::egui_wgpu::WgpuSetup::without_display_handle();
    if let eframe::egui_wgpu::WgpuSetup::CreateNew(new) = &mut setup {
        // Not OpenGL: what can generate has Vulkan, Metal or DirectX 12, and that draws the window too.
        new.instance_descriptor.backends = eframe::wgpu::Backends::PRIMARY;
    }
    let viewport = egui::ViewportBuilder::default()
        .with_title("ditscope")
        .with_app_id("ditscope")
        .with_inner_size([1440.0, 900.0])
        .with_min_inner_size([640.0, 420.0])
        .with_drag_and_drop(true);
    let native = eframe::NativeOptions {
        viewport,
        // Flat colours need none, and where the CPU draws it costs a third of a frame.
        dithering: false,
        wgpu_options: eframe::egui_wgpu::WgpuConfiguration { wgpu_setup: setup, ..Default::default() },
        ..Default::default()
    };
    eframe::run_native("ditscope", native, Box::new(move |cc| Ok(Box::new(App::new(cc, options)))))
        .map_err(|error| anyhow::anyhow!("the window could not be opened: {error}"))
}

const FORM_KEY: &str = "form v1";
const VIEW_KEY: &str = "view v1";
const PREFS_KEY: &str = "prefs v1";

/// The window.
pub struct App {
    state: State,
    layout: Layout,
    /// In place of it while the window is small.
    compact: Layout,
    small: bool,
    link: Link,
    leaving: Leaving,
    /// Whether facts were asked for that are still to come.
    facts_asked: bool,
    pace: Pace,
    predicted: Option<(Form, bool)>,
    /// Theme and zoom as they were set last.
    applied: Option<(egui::ThemePreference, f32)>,
}

impl App {
    /// The window as it was left, or as it is at first.
    pub fn new(cc: &eframe::CreationContext<'_>, options: Options) -> Self {
        theme::install(&cc.egui_ctx);
        let stored = |key: &str| cc.storage.and_then(|storage| storage.get_string(key));
        let read = |key: &str| stored(key).unwrap_or_default();
        let layout =
            serde_json::from_str::<Layout>(&read(layout::KEY)).ok().filter(Layout::is_valid).unwrap_or_default();
        let mut state = State {
            form: serde_json::from_str::<Form>(&read(FORM_KEY)).unwrap_or_default(),
            view: serde_json::from_str::<View>(&read(VIEW_KEY)).unwrap_or_default(),
            prefs: serde_json::from_str::<Prefs>(&read(PREFS_KEY)).unwrap_or_default(),
            // As the list of recent models has it, so that it is in no list twice.
            demo_model: options.demo_model.map(|path| std::fs::canonicalize(&path).unwrap_or(path)),
            ..State::default()
        };
        state.form.mend();
        state.prefs.zoom = if state.prefs.zoom.is_finite() { state.prefs.zoom.clamp(0.5, 3.0) } else { 1.0 };
        let link = Link::new(cc.egui_ctx.clone(), options.open_engine, options.choose);
        let mut app = Self {
            state,
            layout,
            compact: Layout::compact(),
            small: false,
            link,
            leaving: Leaving::No,
            facts_asked: false,
            pace: Pace::from_environment(),
            predicted: None,
            applied: None,
        };
        app.choose_first_model();
        if let Some(path) = options.capture {
            app.link.load(path);
            app.state.prefs.hints_seen = true;
        } else if let Some(path) = options.demo_capture {
            app.show_demo(&path);
        }
        app
    }

    /// The model of last time if it is still there, else the demo model.
    fn choose_first_model(&mut self) {
        let before = self.state.form.model.clone();
        if before.is_dir() {
            return;
        }
        let demo = self.state.demo_model.clone();
        if !before.as_os_str().is_empty() {
            let instead = if demo.is_some() { ": the built-in model is in use" } else { "" };
            let text = format!("The model {} is not there any more{instead}.", before.display());
            self.state.log.add(Level::Warning, text);
        }
        match demo {
            Some(demo) => self.use_model(demo),
            None => self.state.log.add(Level::Note, "Choose a model folder at the top left, or open a capture."),
        }
    }

    fn show_demo(&mut self, path: &Path) {
        // A missing or unreadable demo is no user's concern: the window just starts empty.
        if let Ok(loaded) = crate::engine::capture::file::open(path) {
            self.state.runs.add(loaded.capture, false, Some(path.into()));
            self.state.view.playing = true;
            self.state
                .log
                .add(Level::Note, "This is a recorded run of the built-in model. Press Generate to make your own.");
        }
    }

    fn use_model(&mut self, folder: PathBuf) {
        match clip_settings_of(&folder) {
            Ok(defaults) => {
                if !self.state.form.model.as_os_str().is_empty() {
                    let form = Box::new(self.state.form.clone());
                    self.state.undo = Some(Undo::Form { what: "use another model", form });
                }
                self.state.form.use_model(folder.clone(), &defaults);
                self.state.forget_model();
                self.state.prefs.remember_model(&folder);
            }
            Err(error) => self.state.log.add(Level::Error, error.to_string()),
        }
    }

    fn add_loaded(&mut self, path: PathBuf, capture: Capture, damage: Option<String>) {
        if let Some(damage) = damage {
            let name = path.display();
            self.state.log.add(Level::Warning, format!("{name} is shown as far as it can be read: {damage}"));
        }
        for warning in capture.warnings.clone() {
            self.state.log.add(Level::Warning, warning);
        }
        self.state.prefs.remember_capture(&path);
        self.state.runs.add(capture, false, Some(path));
        self.forget_selection();
    }

    /// Puts the settings of the run on show into the form, where the form's model is none of this machine's.
    fn take_over_run(&mut self) {
        let Some(run) = self.state.runs.current() else { return };
        let info = &run.capture.run;
        let form = &mut self.state.form;
        form.prompt.clone_from(&info.prompt);
        form.negative_prompt.clone_from(&info.negative_prompt);
        // The shift is left to the model, as the form does.
        form.clip = ClipSettings { num_inference_steps: info.requested_steps(), flow_shift: None, ..info.clip };
        form.reset_strategies();
        form.use_strategy(info.strategy.clone());
        if let (true, Some(cost)) = (form.model.as_os_str().is_empty(), info.cost.clone()) {
            // The sizes of deltas and weights are not in a capture.
            let facts = Facts {
                blocks: info.blocks,
                token_grid: info.token_grid,
                delta_bytes: 0,
                sigmas: info.sigmas.clone(),
                scheduler: info.scheduler.clone(),
                flow_shift: info.flow_shift(),
                model_id: info.model_id.clone(),
                vae_id: String::new(),
                gpu_memory: 0,
                published_tea: PublishedTea::default(),
                cost,
            };
            self.state.facts = Some(Ok(facts));
        }
        form.mend();
    }

    fn forget_selection(&mut self) {
        let view = &mut self.state.view;
        (view.step, view.selection, view.frame, view.plan, view.pinned) = (None, None, 0, false, None);
    }

    fn told(&mut self, told: Told) {
        let log = &mut self.state.log;
        match told {
            Told::Opened(engine) => self.opened(engine),
            Told::Event(event, records) => self.event(*event, records),
            Told::Ended(number) if self.link.uses(number) => self.broken(),
            Told::Ended(_) => {}
            Told::Learned(learned) => {
                self.facts_asked = false;
                // An answer for the model before tells nothing about this one.
                if learned.of.model() == self.state.form.model {
                    self.learned(*learned);
                }
            }
            Told::Likeness(of, likeness) => {
                self.state.likeness.insert(of, likeness.map_or(Comparison::Cannot, Comparison::Found));
            }
            Told::Loaded(path, Ok(loaded)) => self.add_loaded(path, loaded.capture, loaded.damage),
            Told::Loaded(_, Err(error)) | Told::Failed(error) => log.add(Level::Error, error),
            Told::Mask(run, bits) => {
                self.state.runs.keep_mask(run);
                self.state.runs.paint(run, Some(bits));
                self.state.brush.on = true;
                log.add(Level::Note, "The mask is in use: block scores are worked out anew from it.");
            }
            Told::Model(path) => self.use_model(path),
            Told::Strategy(strategy) => {
                self.state.form.use_strategy(strategy);
                self.state.form.mend();
                // Its name may have got a number.
                let name = self.state.form.strategy().name();
                log.add(Level::Note, format!("The next run uses the strategy \"{name}\"."));
            }
            Told::Saved(run, path) => {
                log.add(Level::Note, format!("Saved {}", path.display()));
                self.state.prefs.remember_capture(&path);
                self.state.runs.saved(run, path);
            }
            Told::ClipSaved(run, path) => {
                log.add(Level::Note, format!("Saved {}", path.display()));
                self.state.runs.clip_saved(run);
            }
            Told::Done(text) => log.add(Level::Note, text),
        }
    }

    /// Takes over what is known of the form's model; what is wrong with it is told once.
    fn learned(&mut self, Learned { of, facts, known }: Learned) {
        let State { log, facts: facts_before, known: before, facts_of, .. } = &mut self.state;
        let told = before.as_ref().and_then(|known| known.profile.as_ref().err());
        if let Some(Err(why)) = known.as_ref().map(|known| &known.profile)
            && told != Some(why)
        {
            log.add(Level::Warning, format!("The model's profile cannot be used: {why}"));
        }
        if let Err(why) = &facts
            && !matches!(facts_before, Some(Err(before)) if before == why)
        {
            log.add(Level::Warning, why.clone());
        }
        (*facts_before, *before, *facts_of) = (Some(facts), known, Some(of));
        // Speed-up and memory hang on them.
        self.predicted = None;
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Generate if !self.state.job.busy() => self.generate(),
            Action::Generate => {}
            Action::Pause | Action::Resume => self.pause(action == Action::Pause),
            Action::Cancel => self.cancel(),
            Action::OpenCapture => self.link.choose_capture(),
            Action::Open(path) => self.link.load(path),
            Action::ChooseModel => self.link.choose_model(),
            Action::UseModel(path) => self.use_model(path),
            Action::ReadModel => self.state.forget_model(),
            Action::SaveCapture | Action::SaveClip | Action::SaveMap => self.save(&action),
            Action::SavePicture(pane) => self.state.shots.want(pane),
            Action::SaveFigure(which) => self.save_figure(which),
            Action::ChooseMask => {
                if let Some(run) = self.state.runs.current() {
                    self.link.choose_mask(run.id, run.capture.run.token_grid);
                }
            }
            Action::OpenMask(path) => self.open_mask(path),
            Action::SaveMask => self.save_mask(),
            Action::SaveStrategy => self.save_strategy(),
            Action::ExportProfile => self.export_profile(),
            Action::ChooseStrategy => self.link.choose_strategy(),
            Action::OpenStrategy(path) => self.link.load_strategy(path),
            Action::Undo => self.undo(),
            Action::ResetLayout => (self.layout, self.compact) = (Layout::default(), Layout::compact()),
        }
    }

    fn undo(&mut self) {
        match self.state.undo.take() {
            Some(Undo::Run(closed)) => {
                self.state.runs.reopen(*closed);
                self.forget_selection();
            }
            Some(Undo::Plan(plan)) => self.state.form.use_strategy(plan),
            Some(Undo::Form { form, .. }) => {
                if form.model != self.state.form.model {
                    self.state.forget_model();
                }
                self.state.form.take_back(*form);
            }
            None => {}
        }
    }

    fn shortcuts(&mut self, ctx: &egui::Context) {
        let job = &self.state.job;
        let (busy, wish) = (job.busy(), job.wish());
        let has_run = self.state.runs.current().is_some();
        let pressed = |keys| ctx.input_mut(|input| input.consume_shortcut(&keys));
        for (keys, action, enabled) in [
            (top_bar::GENERATE, Action::Generate, !busy),
            (top_bar::OPEN, Action::OpenCapture, true),
            (top_bar::SAVE, Action::SaveCapture, has_run && !busy),
            (top_bar::PAUSE, if wish == Wish::Pause { Action::Resume } else { Action::Pause }, busy),
            (top_bar::CANCEL, Action::Cancel, busy),
        ] {
            if pressed(keys) && enabled {
                // What is being written counts: a field without the focus takes its text over in this frame, before the action.
                if action == Action::Generate {
                    ctx.memory_mut(|memory| memory.focused().into_iter().for_each(|id| memory.surrender_focus(id)));
                }
                self.state.ask(action);
            }
        }
    }

    /// Theme and zoom follow the preferences; the zoom keys change the preferences.
    fn apply_prefs(&mut self, ctx: &egui::Context) {
        let prefs = &mut self.state.prefs;
        match self.applied {
            Some((_, zoom)) if zoom == prefs.zoom && (ctx.zoom_factor() - zoom).abs() > 1e-3 => {
                prefs.zoom = ctx.zoom_factor()
            }
            _ => {}
        }
        let wanted = (prefs.theme, prefs.zoom);
        // While the zoom slider is dragged the window would move under the pointer.
        let dragging = ctx.input(|input| input.pointer.any_down());
        if self.applied != Some(wanted) && !(dragging && self.applied.is_some_and(|(theme, _)| theme == prefs.theme)) {
            ctx.set_theme(prefs.theme);
            ctx.set_zoom_factor(prefs.zoom);
            self.applied = Some(wanted);
        }
    }

    /// Asks how alike clips are to the baseline's: one pair at a time, that on show first.
    fn compare(&mut self) {
        let State { runs, likeness, .. } = &mut self.state;
        if likeness.values().any(|known| *known == Comparison::Asked) {
            return;
        }
        let pairs =
            runs.current().into_iter().chain(runs.iter()).filter_map(|run| Some((runs.reference_of(run)?, run)));
        let mut ready = pairs.filter(|(baseline, run)| baseline.capture.clip.is_some() && run.capture.clip.is_some());
        if let Some((baseline, run)) = ready.find(|(baseline, run)| !likeness.contains_key(&pair(baseline, run))) {
            let of = pair(baseline, run);
            self.link.compare(of, baseline.capture.clone(), run.capture.clone());
            likeness.insert(of, Comparison::Asked);
        }
    }

    /// Of a run without guidance there is no branch of the negative prompt to show, and no button to leave it.
    fn leave_missing_branch(&mut self) {
        let guided = self.state.runs.current().is_none_or(|run| run.capture.run.guided());
        self.state.view.uncond &= guided;
    }

    /// Works on the scores while the map shows them.
    fn score(&mut self, ctx: &egui::Context) {
        let State { runs, scores, scores_of_baseline, view, .. } = &mut self.state;
        let Some(run) = runs.current().filter(|_| view.colouring.is_score()) else { return };
        let mut more = scores.advance(run, run, view.uncond);
        if let (true, Some((baseline, _))) = (view.subtract, runs.comparable()) {
            more |= scores_of_baseline.advance(baseline, scores::masked(baseline, run), view.uncond);
        }
        if more {
            ctx.request_repaint();
        }
    }

    /// Asks for facts where the model or size changed, and predicts where anything did.
    fn predict(&mut self) {
        let form = &self.state.form;
        let key = FactsKey::of(form);
        // One question at a time: while a slider moves the answers would overtake each other.
        let reading = self.state.reading();
        if !form.model.as_os_str().is_empty() && !self.facts_asked && self.state.facts_of.as_ref() != Some(&key) {
            let known = self.state.known.clone().filter(|known| known.profile.is_ok() && !reading);
            // Plans are for the steps asked for, whatever "Fewer steps" would make of them.
            let request = GenerateRequest { strategy: StrategyConfig::off(), ..form.request() };
            self.link.facts(key, request, known);
            self.facts_asked = true;
        }
        let form = &self.state.form;
        let facts = self.state.facts.as_ref().and_then(|facts| facts.as_ref().ok());
        let known = facts.is_some();
        if self.predicted.as_ref().is_some_and(|(of, knew)| of == form && *knew == known) && !known_changed(&self.state)
        {
            return;
        }
        let evidence = self.state.known.as_ref().map(|known| known.evidence.clone());
        // Before the answer has come, plans would be for other steps, and calibrations of another model.
        if let (true, Some(evidence)) = (known && self.state.facts_of.is_some() && !reading, &evidence) {
            self.state.form.calibrate(evidence);
        }
        let (form, facts) = (&self.state.form, self.state.facts.as_ref().and_then(|facts| facts.as_ref().ok()));
        let evidence = evidence.as_deref().filter(|_| !reading);
        self.state.prediction = Prediction::of(form, facts, evidence, self.state.blocks());
        self.predicted = Some((form.clone(), known));
    }
}

/// Whether the prediction is for another number of blocks than the model has.
fn known_changed(state: &State) -> bool {
    state.prediction.plans.first().is_some_and(|plan| !plan.cond.fits(state.blocks()))
}

/// Least size of all panes together, in points: a smaller window shows them as tabs.
const LEAST: egui::Vec2 = egui::vec2(760.0, 600.0);

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        while let Some(told) = self.link.next() {
            self.told(told);
        }
        self.state.saving = self.link.saving();
        self.leave_missing_branch();
        self.dropped(ctx);
        self.closing(ctx);
        self.shortcuts(ctx);
        self.predict();
        self.compare();
        self.score(ctx);
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.panel_fill.to_normalized_gamma_f32()
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.pace.frame(std::time::Instant::now(), self.state.job.busy());
        self.apply_prefs(ui.ctx());
        let palette = theme::Palette::of(ui);
        let bar = egui::Frame::new().fill(palette.pane).inner_margin(egui::Margin::symmetric(10, 7));
        egui::Panel::top("top bar").frame(bar).show(ui, |ui| {
            let layout = if self.small { &mut self.compact } else { &mut self.layout };
            top_bar::ui(ui, &mut self.state, layout);
        });
        let status = egui::Frame::new().fill(palette.pane).inner_margin(egui::Margin::symmetric(10, 3));
        egui::Panel::bottom("status bar").frame(status).show(ui, |ui| status_bar::ui(ui, &mut self.state));
        // Between the panes is what the frame is cleared with: filling it would draw every pixel twice.
        let window = egui::Frame::new().inner_margin(4.0);
        egui::CentralPanel::default().frame(window).show(ui, |ui| {
            hints::ui(ui, &mut self.state);
            self.small = ui.available_width() < LEAST.x || ui.available_height() < LEAST.y;
            let layout = if self.small { &mut self.compact } else { &mut self.layout };
            layout.ui(ui, &mut self.state);
        });
        files::drop_target(ui);
        self.quit(ui.ctx());
        for action in std::mem::take(&mut self.state.actions) {
            self.act(action);
        }
        self.state.shots.take(ui.ctx(), self.link.picture_saver());
        if self.pace.continuous {
            ui.ctx().request_repaint();
        }
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        let mut put = |key: &str, value: Result<String, serde_json::Error>| {
            // What cannot be written is forgotten: the window then starts as at first.
            if let Ok(value) = value {
                storage.set_string(key, value);
            }
        };
        put(layout::KEY, serde_json::to_string(&self.layout));
        put(FORM_KEY, serde_json::to_string(&self.state.form));
        put(VIEW_KEY, serde_json::to_string(&self.state.view));
        put(PREFS_KEY, serde_json::to_string(&self.state.prefs));
    }
}
