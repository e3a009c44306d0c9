//! Cells of the map: the colour and the mark of what a block did.

use egui::{Color32, Mesh, Rect, Ui, pos2};

use crate::app::draw::theme::{self, Palette};
use crate::caching::Cell;

/// Rounds cells to whole pixels. Such edges need no smoothing, which would draw ten triangles for
/// each edge.
pub struct Pixels {
    per_point: f32,
    /// The gap between two columns, in points.
    gap: f32,
}

impl Pixels {
    /// The rounding for columns of a width in points.
    pub fn of(ui: &Ui, width: f32) -> Self {
        Self { per_point: ui.pixels_per_point(), gap: if width > 3.0 { 1.0 } else { 0.0 } }
    }

    /// The part of a cell that is drawn.
    pub fn inside(&self, cell: Rect) -> Rect {
        let round = |x: f32| (x * self.per_point).round() / self.per_point;
        let (min, max) = (cell.min, cell.max);
        Rect::from_min_max(pos2(round(min.x), round(min.y)), pos2(round(max.x) - self.gap, round(max.y) - 1.0))
    }
}

/// Draws what a block did. `strength` (0 to 1) is the strength of its colour.
pub fn draw_kind(mesh: &mut Mesh, palette: &Palette, rect: Rect, cell: Cell, strength: f32) {
    mesh.add_colored_rect(rect, theme::mix(palette.well, cell_color(palette, cell), strength));
    cell_mark(mesh, palette, rect, cell);
}

/// The colour of what a block did.
pub fn cell_color(palette: &Palette, cell: Cell) -> Color32 {
    match cell {
        Cell::Computed => palette.computed,
        Cell::Stored => palette.stored,
        Cell::Reused => palette.reused,
    }
}

/// Draws the mark that tells the kinds apart without colour: a reused cell is thin, a stored one
/// has a bar below.
pub fn cell_mark(mesh: &mut Mesh, palette: &Palette, rect: Rect, cell: Cell) {
    let [whole, bar, hole] = [1.0, 0.22, 0.28].map(|share| (rect.height() * share).round().max(2.0));
    let part = |from: f32, height: f32| {
        Rect::from_min_max(pos2(rect.left(), rect.top() + from), pos2(rect.right(), rect.top() + from + height))
    };
    match cell {
        Cell::Computed => {}
        Cell::Stored => mesh.add_colored_rect(part(whole - bar, bar), palette.text),
        Cell::Reused => {
            mesh.add_colored_rect(part(0.0, hole), palette.well);
            mesh.add_colored_rect(part(whole - hole, hole), palette.well);
        }
    }
}
