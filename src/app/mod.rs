//! Room `app`: the window. It draws captures, live or recorded, and edits the next request. It
//! knows the engine, never the GPU.
//!
//! ```text
//! panes, bars ── Actions ──> App ── requests ──> link ── engine's thread, files
//!      ^── Shared <── changes ── Messages <────────┘     (wake the window)
//! ```
//! `panes` has a file or folder for each pane, `bars` the bars around them, `dialogs` the questions
//! to the user, `draw` the drawing that panes share, `data` the data, `save` everything that can be
//! saved, `link` the engine and other threads. `panes::Pane` says what a pane is.

mod actions;
mod apply;
mod bars;
mod data;
mod dialogs;
mod display;
mod draw;
mod layout;
mod link;
mod messages;
mod models;
mod panes;
mod save;
mod screenshot;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use actions::{Action, Actions};
use bars::{help, notices, status_bar, top_bar};
use data::form::Form;
use data::job::Wanted;
use data::log::Level;
use data::prefs::Prefs;
use data::selection::Selection;
use data::shared::Shared;
use dialogs::dropped;
use dialogs::quit::Leaving;
use dialogs::typed_path::PathQuestion;
use draw::{fonts, theme};
use layout::Layout;
use link::Link;
use link::pace::Pace;
use models::Predicted;
use panes::{News, Panes, catalogue};
use save::picture::Pictures;

pub use dialogs::{Choose, Chosen, Dialog, Purpose, system as system_dialogs};
pub use display::{Display, display};
pub use link::{ListGpus, OpenEngine};
pub use screenshot::{Screenshot, screenshot};

/// Picks the adapter that draws the window, among those of the window's own instance.
pub type PickAdapter = eframe::egui_wgpu::NativeAdapterSelectorMethod;

/// Options of the window.
#[derive(Clone)]
pub struct Options {
    /// Opens the device and starts the engine. Called when the first job comes.
    pub open_engine: OpenEngine,
    /// Lists the GPUs that the menu offers.
    pub list_gpus: ListGpus,
    /// The GPU to compute on, which counts more than the one of last time.
    pub gpu: Option<String>,
    /// Picks the adapter that draws the window. With `None` the window's toolkit picks.
    pub pick_adapter: Option<PickAdapter>,
    /// Shows file dialogs: [`system_dialogs`].
    pub choose: Choose,
    /// The model that ships with the program.
    pub demo_model: Option<PathBuf>,
    /// A model's folder to use.
    pub model: Option<PathBuf>,
    /// The folder for what runs tell of models. `None` learns nothing.
    pub learnt: Option<PathBuf>,
    /// A capture to show.
    pub capture: Option<PathBuf>,
    /// The folder of runs that last from one session to the next: [`history_folder`]. `None` keeps
    /// none.
    pub history: Option<PathBuf>,
    /// A capture to show if `capture` is `None`, so that the window is alive before anything ran.
    pub demo_capture: Option<PathBuf>,
}

/// The folder in which the window keeps runs, in the user's data folder.
pub fn history_folder() -> Option<PathBuf> {
    eframe::storage_dir("ditscope").map(|folder| folder.join("runs"))
}

/// Opens the window and stays until it is closed.
///
/// # Errors
/// No window can be opened.
pub fn run(options: Options) -> anyhow::Result<()> {
    let mut setup = eframe::egui_wgpu::WgpuSetup::without_display_handle();
    if let eframe::egui_wgpu::WgpuSetup::CreateNew(new) = &mut setup {
        // Without OpenGL: every GPU that can generate has Vulkan, Metal or DirectX 12, which also
        // draw the window.
        let backends = eframe::wgpu::Backends::from_env().unwrap_or(eframe::wgpu::Backends::PRIMARY);
        new.instance_descriptor.backends = backends & eframe::wgpu::Backends::PRIMARY;
        // FXC serves every adapter with DirectX 12, and the window's own shader is small.
        new.instance_descriptor.backend_options.dx12.shader_compiler = eframe::wgpu::Dx12Compiler::Fxc;
        new.native_adapter_selector = options.pick_adapter.clone();
    }
    let viewport = egui::ViewportBuilder::default()
        .with_title("ditscope")
        .with_app_id("ditscope")
        .with_inner_size([1440.0, 900.0])
        .with_min_inner_size([640.0, 420.0])
        .with_drag_and_drop(true);
    let native = eframe::NativeOptions {
        viewport,
        // Flat colours need no dithering. If the CPU draws, dithering costs a third of a frame.
        dithering: false,
        // The window looks for the system's fonts itself, so that none is no end of the program.
        system_font_fallback: false,
        wgpu_options: eframe::egui_wgpu::WgpuConfiguration { wgpu_setup: setup, ..Default::default() },
        event_loop_builder: on_x11(),
        ..Default::default()
    };
    let open = move |cc: &eframe::CreationContext<'_>| -> Box<dyn eframe::App> {
        fonts::install(&cc.egui_ctx);
        Box::new(App::new(cc, options))
    };
    eframe::run_native("ditscope", native, Box::new(move |cc| Ok(open(cc))))
        .map_err(|error| anyhow::anyhow!("the window could not be opened: {error}"))
}

/// Asks for X11 where the environment names a Wayland compositor that does not answer.
fn on_x11() -> Option<eframe::EventLoopBuilderHook> {
    #[cfg(target_os = "linux")]
    if display() == Display::X11 {
        use winit::platform::x11::EventLoopBuilderExtX11;
        return Some(Box::new(|builder| {
            builder.with_x11();
        }));
    }
    None
}

const FORM_KEY: &str = "form v2";
const VIEW_KEY: &str = "view v1";
const PREFS_KEY: &str = "prefs v1";

/// The key under which the settings of a pane are stored.
fn pane_key(pane: &str) -> String {
    format!("pane {pane} v1")
}

/// The window.
pub struct App {
    shared: Shared,
    panes: Panes,
    /// The actions of the current frame.
    actions: Actions,
    layout: Layout,
    /// The layout in use while the window is small.
    compact: Layout,
    small: bool,
    link: Link,
    pictures: Pictures,
    leaving: Leaving,
    /// The question for a path that the system has no dialog for.
    path_question: Option<PathQuestion>,
    /// Whether the window still has to be fitted to the screen: at its first start.
    unfitted: bool,
    /// Whether facts about the model were asked for and have not come yet.
    facts_asked: bool,
    pace: Pace,
    /// The form that the prediction is for.
    predicted: Option<Predicted>,
    /// The preferences that the context has.
    applied: Option<Applied>,
}

/// Preferences that the context has.
#[derive(Clone, Copy, PartialEq)]
struct Applied {
    theme: egui::ThemePreference,
    zoom: f32,
}

impl App {
    /// The window as the user left it, or with its defaults.
    pub fn new(cc: &eframe::CreationContext<'_>, options: Options) -> Self {
        theme::install(&cc.egui_ctx);
        let read = |key: &str| cc.storage.and_then(|storage| storage.get_string(key)).unwrap_or_default();
        let mut panes = catalogue();
        for pane in panes.iter_mut() {
            let own = read(&pane_key(pane.key()));
            // Older programs stored the settings of all panes together.
            pane.restore(&if own.is_empty() { read(VIEW_KEY) } else { own });
        }
        let mut shared = Shared {
            form: serde_json::from_str::<Form>(&read(FORM_KEY)).unwrap_or_default(),
            selection: serde_json::from_str::<Selection>(&read(VIEW_KEY)).unwrap_or_default(),
            prefs: serde_json::from_str::<Prefs>(&read(PREFS_KEY)).unwrap_or_default(),
            // In the form that the list of recent models has, so that the menu does not list it
            // twice.
            demo_model: options.demo_model.map(|path| std::fs::canonicalize(&path).unwrap_or(path)),
            learnt: options.learnt,
            history_folder: options.history,
            ..Shared::default()
        };
        shared.form.mend();
        shared.prefs.zoom = if shared.prefs.zoom.is_finite() { shared.prefs.zoom.clamp(0.5, 3.0) } else { 1.0 };
        if options.gpu.is_some() {
            shared.prefs.gpu = options.gpu;
        }
        let mut app = Self {
            shared,
            layout: Layout::stored(&read(layout::KEY), &panes).unwrap_or_else(|| Layout::wide(&panes)),
            compact: Layout::compact(&panes),
            panes,
            actions: Actions::default(),
            small: false,
            link: Link::new(cc.egui_ctx.clone(), options.open_engine, options.list_gpus, options.choose),
            pictures: Pictures::default(),
            leaving: Leaving::No,
            path_question: None,
            unfitted: cc.storage.is_some() && read(layout::KEY).is_empty(),
            facts_asked: false,
            pace: Pace::from_environment(),
            predicted: None,
            applied: None,
        };
        if let Some(folder) = app.shared.history_folder.clone() {
            app.link.list_kept(folder);
        }
        match options.model {
            Some(model) => app.use_model(model),
            None => app.choose_first_model(),
        }
        if let Some(path) = options.capture {
            app.link.load(path);
            app.shared.prefs.hints_seen = true;
        } else if let Some(path) = options.demo_capture {
            app.show_demo(&path);
        }
        app
    }

    fn show_demo(&mut self, path: &Path) {
        // A missing or unreadable demo does not concern the user: the window starts empty.
        if let Ok(loaded) = crate::engine::capture::file::open(path) {
            self.shared.runs.add(loaded.capture, false, Some(path.into()));
            self.show_opened_run(true);
            let text = "This is a recorded run of the built-in model. Press Generate to make your own.";
            self.shared.log.add(Level::Note, text);
        }
    }

    /// Shows a run that was opened or has started, from its beginning.
    fn show_opened_run(&mut self, play: bool) {
        self.shared.selection.clear();
        self.panes.notice(News::RunOpened { play });
    }

    fn shortcuts(&mut self, ctx: &egui::Context) {
        let job = &self.shared.job;
        let (busy, wanted) = (job.busy(), job.wanted());
        let has_run = self.shared.runs.current().is_some();
        for (keys, action, enabled) in [
            (top_bar::GENERATE, Action::Generate, !busy),
            (top_bar::OPEN, Action::ChooseCapture, true),
            (top_bar::SAVE, Action::Save(&save::CAPTURE), has_run && !busy),
            (top_bar::PAUSE, if wanted == Wanted::Pause { Action::Resume } else { Action::Pause }, busy),
            (top_bar::CANCEL, Action::Cancel, busy),
        ] {
            if ctx.input_mut(|input| input.consume_shortcut(&keys)) && enabled {
                // Text that is being written counts: a field that loses the focus takes it over in
                // this frame.
                if matches!(action, Action::Generate) {
                    ctx.memory_mut(|memory| memory.focused().into_iter().for_each(|id| memory.surrender_focus(id)));
                }
                self.actions.ask(action);
            }
        }
    }

    /// Fits the window to the screen at its first start. Later starts have the size that the user
    /// gave it.
    fn fit_screen(&mut self, ctx: &egui::Context) {
        let Some(screen) = ctx.input(|input| input.viewport().monitor_size).filter(|_| self.unfitted) else { return };
        self.unfitted = false;
        match first_size(screen) {
            Some(size) => {
                ctx.send_viewport_cmd(egui::ViewportCommand::InnerSize(size));
                let corner = ((screen - size) / 2.0).to_pos2();
                ctx.send_viewport_cmd(egui::ViewportCommand::OuterPosition(corner));
            }
            None => ctx.send_viewport_cmd(egui::ViewportCommand::Maximized(true)),
        }
    }

    /// Gives the context the theme and zoom of the preferences. The zoom keys change the
    /// preferences.
    fn apply_prefs(&mut self, ctx: &egui::Context) {
        let prefs = &mut self.shared.prefs;
        match self.applied {
            Some(applied) if applied.zoom == prefs.zoom && (ctx.zoom_factor() - applied.zoom).abs() > 1e-3 => {
                prefs.zoom = ctx.zoom_factor();
            }
            _ => {}
        }
        let wanted = Applied { theme: prefs.theme, zoom: prefs.zoom };
        // The window must not move under the pointer while the zoom slider is dragged.
        let dragging = ctx.input(|input| input.pointer.any_down());
        let same_theme = self.applied.is_some_and(|applied| applied.theme == prefs.theme);
        if self.applied != Some(wanted) && !(dragging && same_theme) {
            ctx.set_theme(prefs.theme);
            ctx.set_zoom_factor(prefs.zoom);
            self.applied = Some(wanted);
        }
    }
}

/// The size of the window at its first start on a screen, in points; `None` to fill the screen.
fn first_size(screen: egui::Vec2) -> Option<egui::Vec2> {
    let large = screen.x >= 1600.0 && screen.y >= 1000.0;
    large.then(|| (screen * 0.86).min(egui::vec2(1920.0, 1200.0)).round())
}

/// The least size of all panes together, in points. A smaller window shows them as tabs.
const LEAST: egui::Vec2 = egui::vec2(760.0, 600.0);

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        while let Some(message) = self.link.next() {
            self.receive(message);
        }
        self.shared.saving = self.link.saving();
        self.shared.leave_missing_branch();
        self.dropped(ctx);
        self.closing(ctx);
        self.shortcuts(ctx);
        self.predict();
        self.compare();
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.panel_fill.to_normalized_gamma_f32()
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.pace.frame(std::time::Instant::now(), self.shared.job.busy());
        self.apply_prefs(ui.ctx());
        self.fit_screen(ui.ctx());
        let palette = theme::Palette::of(ui);
        let Self { shared, panes, actions, layout, compact, small, pictures, .. } = self;
        let bar = egui::Frame::new().fill(palette.pane).inner_margin(egui::Margin::symmetric(10, 7));
        egui::Panel::top("top bar").frame(bar).show(ui, |ui| {
            let layout = if *small { &mut *compact } else { &mut *layout };
            top_bar::ui(ui, shared, actions, panes, layout);
        });
        let status = egui::Frame::new().fill(palette.pane).inner_margin(egui::Margin::symmetric(10, 3));
        egui::Panel::bottom("status bar").frame(status).show(ui, |ui| status_bar::ui(ui, shared, actions));
        // The frame is cleared with the colour between the panes. Filling it again would draw every
        // pixel twice.
        let window = egui::Frame::new().inner_margin(4.0);
        egui::CentralPanel::default().frame(window).show(ui, |ui| {
            *small = ui.available_width() < LEAST.x || ui.available_height() < LEAST.y;
            let layout = if *small { compact } else { layout };
            layout.ui(ui, panes, shared, actions, pictures);
        });
        help::page(ui.ctx(), &self.shared);
        notices::ui(ui, &self.shared, &mut self.actions);
        dropped::drop_target(ui);
        self.quit(ui.ctx());
        self.ask_path(ui.ctx());
        self.apply(ui.ctx());
        self.pictures.take(ui.ctx(), self.link.picture_saver());
        if self.pace.continuous {
            ui.ctx().request_repaint();
        }
    }

    fn save(&mut self, storage: &mut dyn eframe::Storage) {
        // Data that cannot be written is left out: the window then starts with its defaults.
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                storage.set_string(key, value);
            }
        };
        put(layout::KEY, serde_json::to_string(&self.layout).ok());
        put(FORM_KEY, serde_json::to_string(&self.shared.form).ok());
        put(VIEW_KEY, serde_json::to_string(&self.shared.selection).ok());
        put(PREFS_KEY, serde_json::to_string(&self.shared.prefs).ok());
        for pane in self.panes.iter() {
            put(&pane_key(pane.key()), pane.settings());
        }
    }
}
