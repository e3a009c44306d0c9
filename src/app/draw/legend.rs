//! Legends: what colours mean, with numbers and units.

use egui::{Color32, Mesh, Rect, Ui, pos2, vec2};

use crate::media::Colormap;

use crate::app::draw::theme::{self, Palette};

/// What the colours of values mean.
pub struct Legend<'a> {
    /// The colours.
    pub map: Colormap,
    /// The quantity, with its unit.
    pub text: String,
    /// Values at both ends of the colours.
    pub range: [f32; 2],
    /// The value in the middle of the colours, if it has a meaning of its own.
    pub middle: Option<f32>,
    /// Formats a value.
    pub format: Box<dyn Fn(f32) -> String + 'a>,
}

/// Height of a legend in one line, in points.
pub const LINE: f32 = 18.0;
/// Widest colour bar of a legend in one line, with the values at its ends.
const WIDEST: f32 = 240.0;

impl Legend<'_> {
    /// Draws the legend in one line: the colour bar, and the text right of it as far as there is
    /// room. A tip has the text in full.
    pub fn line(&self, ui: &mut Ui, rect: Rect) {
        let width = (rect.width() * 0.5).clamp(rect.width().min(120.0), WIDEST.min(rect.width()));
        let strip = Rect::from_min_size(rect.min, vec2(width, LINE));
        self.strip(ui, strip);
        let rest = Rect::from_min_max(pos2(strip.right() + 10.0, rect.top()), pos2(rect.right(), rect.top() + LINE));
        if rest.width() > 30.0 {
            let mut right = ui.new_child(
                egui::UiBuilder::new().max_rect(rest).layout(egui::Layout::left_to_right(egui::Align::Center)),
            );
            right.add(egui::Label::new(self.small(ui)).truncate());
        }
        let all = ui.interact(rect, ui.scope_id().with(("legend", &self.text)), egui::Sense::hover());
        all.on_hover_text(&self.text);
    }

    /// Draws the legend in a column: the text, wrapped, below the colour bar.
    pub fn column(&self, ui: &mut Ui) {
        let (strip, _) = ui.allocate_exact_size(vec2(ui.available_width(), LINE), egui::Sense::hover());
        self.strip(ui, strip);
        ui.add(egui::Label::new(self.small(ui)).wrap());
    }

    fn small(&self, ui: &Ui) -> egui::RichText {
        egui::RichText::new(&self.text).size(11.5).color(Palette::of(ui).weak)
    }

    /// Draws the colour bar with the values at its ends and in its middle.
    fn strip(&self, ui: &Ui, rect: Rect) {
        let palette = Palette::of(ui);
        let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()).expand(1.0));
        let font = egui::FontId::proportional(11.5);
        let written = |value: f32| painter.layout_no_wrap(plain_zero((self.format)(value)), font.clone(), palette.text);
        let [low, high] = self.range.map(written);
        let (from, to) = (rect.left() + low.size().x + 6.0, rect.right() - high.size().x - 6.0);
        let strip = Rect::from_x_y_ranges(from..=to.max(from), rect.center().y - 5.0..=rect.center().y + 5.0);
        if strip.width() > 10.0 {
            gradient(&painter, strip, self.map);
        }
        if let Some(middle) = self.middle.filter(|_| strip.width() > 60.0) {
            let x = strip.center().x;
            painter.vline(x, strip.y_range().expand(2.0), egui::Stroke::new(1.0, palette.text));
            // The middle of diverging colours is pale in both themes.
            let text = painter.layout_no_wrap(plain_zero((self.format)(middle)), font.clone(), Color32::BLACK);
            painter.galley(pos2(x + 3.0, strip.center().y - text.size().y / 2.0), text, Color32::BLACK);
        }
        let y = rect.center().y;
        painter.galley(pos2(rect.left(), y - low.size().y / 2.0), low, palette.text);
        painter.galley(pos2(strip.right() + 6.0, y - high.size().y / 2.0), high, palette.text);
    }
}

/// Removes the sign of numbers that round to zero.
fn plain_zero(number: String) -> String {
    match number.strip_prefix('-') {
        Some(rest) if !rest.contains(|c: char| c.is_ascii_digit() && c != '0') => rest.into(),
        _ => number,
    }
}

fn gradient(painter: &egui::Painter, strip: Rect, map: Colormap) {
    const PARTS: u32 = 48;
    let mut mesh = Mesh::default();
    for i in 0..=PARTS {
        let t = i as f32 / PARTS as f32;
        let x = strip.left() + strip.width() * t;
        let color = theme::mapped(map, t);
        mesh.colored_vertex(pos2(x, strip.top()), color);
        mesh.colored_vertex(pos2(x, strip.bottom()), color);
        if i > 0 {
            let at = 2 * i;
            mesh.add_triangle(at - 2, at - 1, at);
            mesh.add_triangle(at - 1, at, at + 1);
        }
    }
    painter.add(mesh);
}

/// Draws a swatch with a word. `mark` draws what tells it apart without colour.
pub fn swatch(ui: &mut Ui, color: Color32, text: &str, mark: impl FnOnce(&mut Mesh, Rect)) {
    let (rect, _) = ui.allocate_exact_size(vec2(14.0, 14.0), egui::Sense::hover());
    ui.painter().rect_filled(rect, 2.0, color);
    let mut mesh = Mesh::default();
    mark(&mut mesh, rect);
    ui.painter().add(mesh);
    let weak = Palette::of(ui).weak;
    ui.label(egui::RichText::new(text).size(11.5).color(weak));
}

#[cfg(test)]
mod tests {
    use super::plain_zero;

    #[test]
    fn zeros_have_no_sign() {
        for (number, plain) in [("-0.00", "0.00"), ("-0 %", "0 %"), ("-0.01", "-0.01"), ("0.5", "0.5"), ("-12", "-12")]
        {
            assert_eq!(plain_zero(number.into()), plain);
        }
    }
}
