//! Colours, spacing and small shared widgets. Text colours keep WCAG AA contrast (4.5 : 1) on every
//! surface they appear on.

use egui::{Color32, CornerRadius, FontFamily, FontId, Margin, Stroke, TextStyle, Theme, Vec2, Visuals};

use crate::media::Colormap;

/// Colours by their meaning.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// The window behind the panes.
    pub window: Color32,
    /// A pane.
    pub pane: Color32,
    /// Areas inside a pane: fields, empty cells.
    pub well: Color32,
    /// Lines between things.
    pub line: Color32,
    /// Text.
    pub text: Color32,
    /// Less important text.
    pub weak: Color32,
    /// The next thing to do, and selected things.
    pub accent: Color32,
    /// Text on `accent`.
    pub on_accent: Color32,
    /// A saving.
    pub good: Color32,
    /// A warning.
    pub warn: Color32,
    /// An error.
    pub bad: Color32,
    /// Computed blocks and steps.
    pub computed: Color32,
    /// Computed, and kept for reuse.
    pub stored: Color32,
    /// Reused.
    pub reused: Color32,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

/// The dark theme.
pub const DARK: Palette = Palette {
    window: rgb(0x0e1014),
    pane: rgb(0x171a20),
    well: rgb(0x0f1116),
    line: rgb(0x2b303a),
    text: rgb(0xe8eaee),
    weak: rgb(0xa9b1bd),
    accent: rgb(0x5cb8ff),
    on_accent: rgb(0x06131f),
    good: rgb(0x6fd08c),
    warn: rgb(0xf2b84b),
    bad: rgb(0xff8577),
    computed: rgb(0x4d5766),
    stored: rgb(0x5cb8ff),
    reused: rgb(0x6fd08c),
};

/// The light theme.
pub const LIGHT: Palette = Palette {
    window: rgb(0xe3e7ec),
    pane: rgb(0xfbfcfd),
    well: rgb(0xeef1f5),
    line: rgb(0xcbd2db),
    text: rgb(0x171b22),
    weak: rgb(0x4e5867),
    accent: rgb(0x0a5fae),
    on_accent: rgb(0xffffff),
    good: rgb(0x176b36),
    warn: rgb(0x855300),
    bad: rgb(0xb3261e),
    computed: rgb(0x9aa5b4),
    stored: rgb(0x2f80cf),
    reused: rgb(0x3a9a5c),
};

impl Palette {
    /// The palette of the theme in use.
    pub fn of(ui: &egui::Ui) -> Self {
        if ui.visuals().dark_mode { DARK } else { LIGHT }
    }

    fn visuals(self, dark: bool) -> Visuals {
        let mut visuals = if dark { Visuals::dark() } else { Visuals::light() };
        visuals.panel_fill = self.window;
        visuals.window_fill = self.pane;
        visuals.window_stroke = Stroke::new(1.0, self.line);
        visuals.extreme_bg_color = self.well;
        visuals.text_edit_bg_color = Some(self.well);
        visuals.faint_bg_color = self.well;
        visuals.code_bg_color = self.well;
        visuals.weak_text_color = Some(self.weak);
        visuals.warn_fg_color = self.warn;
        visuals.error_fg_color = self.bad;
        visuals.hyperlink_color = self.accent;
        visuals.selection.bg_fill = self.accent;
        visuals.selection.stroke = Stroke::new(1.0, self.on_accent);
        let round = CornerRadius::same(4);
        let widgets = &mut visuals.widgets;
        for (state, fill) in [
            (&mut widgets.noninteractive, self.pane),
            (&mut widgets.inactive, mix(self.pane, self.text, 0.08)),
            (&mut widgets.hovered, mix(self.pane, self.text, 0.16)),
            (&mut widgets.active, mix(self.pane, self.text, 0.22)),
            (&mut widgets.open, mix(self.pane, self.text, 0.12)),
        ] {
            state.bg_fill = fill;
            state.weak_bg_fill = fill;
            state.corner_radius = round;
            state.fg_stroke = Stroke::new(1.0, self.text);
            state.bg_stroke = Stroke::new(1.0, self.line);
            state.expansion = 0.0;
        }
        // Sliders' rails and checkboxes must stand out from the pane (3 : 1 is for graphics).
        visuals.widgets.inactive.bg_fill = mix(self.pane, self.text, 0.18);
        visuals.widgets.hovered.bg_stroke = Stroke::new(1.0, self.accent);
        visuals.widgets.active.bg_stroke = Stroke::new(1.5, self.accent);
        visuals.slider_trailing_fill = true;
        visuals
    }
}

/// Mixes a `share` of `b` into `a`.
pub fn mix(a: Color32, b: Color32, share: f32) -> Color32 {
    let channel = |a: u8, b: u8| (f32::from(a) * (1.0 - share) + f32::from(b) * share).round() as u8;
    Color32::from_rgb(channel(a.r(), b.r()), channel(a.g(), b.g()), channel(a.b(), b.b()))
}

/// A colour of a colour map at `t` (0 to 1).
pub fn mapped(map: Colormap, t: f32) -> Color32 {
    let [r, g, b] = map.color(t);
    Color32::from_rgb(r, g, b)
}

/// Gives the context both themes, the sizes of fonts, and spacing.
pub fn install(ctx: &egui::Context) {
    ctx.set_visuals_of(Theme::Dark, DARK.visuals(true));
    ctx.set_visuals_of(Theme::Light, LIGHT.visuals(false));
    ctx.all_styles_mut(|style| {
        let size = |points| FontId::new(points, FontFamily::Proportional);
        style.text_styles = [
            (TextStyle::Small, size(11.5)),
            (TextStyle::Body, size(13.5)),
            (TextStyle::Button, size(13.5)),
            (TextStyle::Heading, size(20.0)),
            (TextStyle::Monospace, FontId::new(12.5, FontFamily::Monospace)),
        ]
        .into();
        style.spacing.item_spacing = Vec2::new(8.0, 6.0);
        style.spacing.button_padding = Vec2::new(8.0, 3.0);
        style.spacing.interact_size = Vec2::new(28.0, 24.0);
        style.spacing.window_margin = Margin::same(10);
        style.spacing.slider_width = 110.0;
        style.spacing.tooltip_width = 420.0;
        style.interaction.selectable_labels = false;
    });
}

/// Leaves room for the scroll bar, which floats over the content.
pub fn beside_scroll_bar(ui: &mut egui::Ui) {
    ui.set_max_width(ui.available_width() - 10.0);
}

/// A heading inside a pane.
pub fn section(ui: &mut egui::Ui, text: &str) {
    ui.add_space(4.0);
    let weak = Palette::of(ui).weak;
    ui.label(egui::RichText::new(text).size(11.5).strong().color(weak));
}

/// A name, and its value at the right end.
pub fn row(ui: &mut egui::Ui, name: &str, value: impl Into<egui::WidgetText>) -> egui::Response {
    let weak = Palette::of(ui).weak;
    let right = egui::Layout::right_to_left(egui::Align::Center);
    let content = |ui: &mut egui::Ui| {
        ui.label(egui::RichText::new(name).color(weak));
        ui.with_layout(right, |ui| ui.label(value));
    };
    // Rows of numbers need less height than rows of buttons.
    let tight = |ui: &mut egui::Ui| {
        ui.spacing_mut().interact_size.y = ROW;
        ui.horizontal(content).response
    };
    ui.scope(tight).inner
}

/// Height of a row of numbers, in points.
const ROW: f32 = 18.0;

/// Draws what a pane says while it has nothing to show: a title, and what to do.
pub fn empty(ui: &mut egui::Ui, title: &str, what_to_do: &str) {
    let palette = Palette::of(ui);
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() * 0.3).clamp(8.0, 120.0));
        ui.label(egui::RichText::new(title).size(15.0).color(palette.text));
        ui.label(egui::RichText::new(what_to_do).color(palette.weak));
    });
}

/// Gives a widget an accessible name.
pub fn named(response: &egui::Response, role: egui::accesskit::Role, name: impl Into<String>) {
    let name = name.into();
    response.widget_info(|| egui::WidgetInfo::labeled(role, true, &name));
}

/// `1.2 GiB`.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    let (unit, name) = match count {
        c if c >= 1e9 => (1_073_741_824.0, "GiB"),
        c if c >= 1e6 => (1_048_576.0, "MiB"),
        _ => (1024.0, "KiB"),
    };
    format!("{:.1} {name}", count / unit)
}

/// `31.4 dB`; equal clips are `identical`.
pub fn decibels(psnr: f64) -> String {
    if psnr.is_finite() { format!("{psnr:.1} dB") } else { "identical".into() }
}

/// `850 ms`, `4.2 s`, `3 min 20 s`; a dash for nothing.
pub fn seconds(value: f64) -> String {
    match value {
        v if v <= 0.0 => "-".into(), // nothing was timed; the sum of nothing is -0
        v if v < 0.0095 => format!("{:.1} ms", v * 1e3),
        v if v < 0.9995 => format!("{:.0} ms", v * 1e3),
        v if v < 60.0 => format!("{v:.1} s"),
        v if v < 3600.0 => format!("{} min {} s", (v / 60.0) as u64, (v % 60.0) as u64),
        v => format!("{} h {} min", (v / 3600.0) as u64, (v % 3600.0 / 60.0) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance (WCAG 2).
    fn luminance(color: Color32) -> f32 {
        let linear = |byte: u8| {
            let value = f32::from(byte) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(color.r()) + 0.7152 * linear(color.g()) + 0.0722 * linear(color.b())
    }

    fn contrast(a: Color32, b: Color32) -> f32 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_can_be_read() {
        for palette in [DARK, LIGHT] {
            let button = mix(palette.pane, palette.text, 0.22);
            for surface in [palette.window, palette.pane, palette.well] {
                for text in [palette.text, palette.weak, palette.accent, palette.good, palette.warn, palette.bad] {
                    assert!(contrast(text, surface) >= 4.5, "{text:?} on {surface:?}: {}", contrast(text, surface));
                }
            }
            assert!(contrast(palette.text, button) >= 4.5);
            assert!(contrast(palette.on_accent, palette.accent) >= 4.5);
            for graphic in [palette.stored, palette.reused] {
                assert!(contrast(graphic, palette.pane) >= 3.0, "{graphic:?}");
            }
        }
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(
            (bytes(3 << 30), bytes(512), seconds(0.0042)),
            ("3.0 GiB".into(), "0.5 KiB".into(), "4.2 ms".into())
        );
        assert_eq!(
            (seconds(0.25), seconds(200.0), seconds(7320.0)),
            ("250 ms".into(), "3 min 20 s".into(), "2 h 2 min".into())
        );
        assert_eq!(seconds(std::iter::empty::<f64>().sum()), "-");
    }
}
