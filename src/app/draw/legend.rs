//! Legends: what colours mean, with numbers and units.

use egui::{Align2, Color32, Mesh, Rect, Ui, pos2, vec2};

use crate::media::Colormap;

use crate::app::draw::theme::{self, Palette};

/// Draws a colour bar in `rect` (about 34 points high) with the values at its ends and a text.
pub fn bar(ui: &Ui, rect: Rect, map: Colormap, text: &str, [low, high]: [f32; 2], format: &dyn Fn(f32) -> String) {
    let palette = Palette::of(ui);
    let painter = ui.painter().with_clip_rect(rect.intersect(ui.clip_rect()).expand(1.0));
    let font = egui::FontId::proportional(11.5);
    let [low_text, high_text] =
        [low, high].map(|end| painter.layout_no_wrap(plain_zero(format(end)), font.clone(), palette.text));
    let width = rect.width().min(260.0);
    let strip = Rect::from_min_max(
        pos2(rect.left() + low_text.size().x + 6.0, rect.top() + 4.0),
        pos2(rect.left() + width - high_text.size().x - 6.0, rect.top() + 14.0),
    );
    if strip.width() > 10.0 {
        gradient(&painter, strip, map);
    }
    let y = strip.center().y;
    painter.galley(pos2(rect.left(), y - low_text.size().y / 2.0), low_text, palette.text);
    painter.galley(pos2(strip.right() + 6.0, y - high_text.size().y / 2.0), high_text, palette.text);
    painter.text(pos2(rect.left(), rect.top() + 18.0), Align2::LEFT_TOP, text, font, palette.weak);
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
