//! The map as a figure (SVG) and as a table (CSV).

use std::fmt::Write;

use crate::caching::Cell;

use super::cells::Cells;
use super::map::{Colouring, cell_color};
use super::theme::{LIGHT, mapped};

const SIDE: usize = 14;
const LEFT: usize = 40;
const TOP: usize = 26;

fn hex(color: egui::Color32) -> String {
    format!("#{:02x}{:02x}{:02x}", color.r(), color.g(), color.b())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn kind(cell: Cell) -> &'static str {
    match cell {
        Cell::Computed => "computed",
        Cell::Stored => "stored",
        Cell::Reused => "reused",
    }
}

/// A figure on white, with axes and legend.
pub fn svg(cells: &Cells, title: &str) -> String {
    let (width, height) = (LEFT + cells.steps * SIDE + 20, TOP + cells.blocks * SIDE + 64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"15\" font-size=\"12\">{}</text>\n",
        escape(title)
    );
    for block in 0..cells.blocks {
        let y = TOP + block * SIDE;
        writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">b{block}</text>", LEFT - 4, y + 11).ok();
        for step in 0..cells.steps {
            let Some(value) = cells.get(step, block) else { continue };
            let color = match value.value {
                Some(number) => {
                    let (map, t) = cells.scale(number);
                    mapped(map, t)
                }
                None if cells.colouring == Colouring::Reuse => cell_color(&LIGHT, value.cell),
                None => continue,
            };
            // A reused cell is thin, so that grey prints tell it apart.
            let (inset, tall) =
                if value.value.is_none() && value.cell == Cell::Reused { (4, SIDE - 9) } else { (0, SIDE - 1) };
            let (x, w, color) = (LEFT + step * SIDE, SIDE - 1, hex(color));
            writeln!(out, "<rect x=\"{x}\" y=\"{}\" width=\"{w}\" height=\"{tall}\" fill=\"{color}\"/>", y + inset)
                .ok();
        }
    }
    let bottom = TOP + cells.blocks * SIDE;
    for step in (0..cells.steps).step_by(5) {
        let x = LEFT + step * SIDE + SIDE / 2;
        writeln!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{step}</text>", bottom + 12).ok();
    }
    legend(&mut out, cells, bottom + 24);
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String, cells: &Cells, y: usize) {
    if cells.colouring == Colouring::Reuse {
        for (index, cell) in [Cell::Computed, Cell::Stored, Cell::Reused].into_iter().enumerate() {
            let x = LEFT + index * 80;
            writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{}\"/>",
                hex(cell_color(&LIGHT, cell))
            )
            .ok();
            writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", x + 14, y + 9, kind(cell)).ok();
        }
        return;
    }
    for part in 0..64 {
        let color = hex(mapped(cells.map, part as f32 / 63.0));
        writeln!(out, "<rect x=\"{}\" y=\"{y}\" width=\"3\" height=\"10\" fill=\"{color}\"/>", LEFT + part * 2).ok();
    }
    let [low, high] = cells.range.map(|value| cells.colouring.format(value));
    writeln!(out, "<text x=\"{LEFT}\" y=\"{}\">{low}</text>", y + 22).ok();
    writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{high}</text>", LEFT + 128, y + 22).ok();
    writeln!(out, "<text x=\"{}\" y=\"{}\">{}</text>", LEFT + 136, y + 9, escape(cells.colouring.meaning())).ok();
}

/// One line a cell: step, block, what was done, the value.
pub fn csv(cells: &Cells) -> String {
    let mut out = format!("step,block,done,{}\n", cells.colouring.name().to_lowercase());
    for step in 0..cells.steps {
        for block in 0..cells.blocks {
            let Some(value) = cells.get(step, block) else { continue };
            let number = value.value.map_or(String::new(), |number| number.to_string());
            writeln!(out, "{step},{block},{},{number}", kind(value.cell)).ok();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{sample, state::State};

    #[test]
    fn every_cell_is_in_figure_and_table() {
        let mut state = State::default();
        state.runs.add(sample::capture(sample::Kind::Uniform), false, None);
        for colouring in Colouring::ALL {
            state.view.colouring = colouring;
            let cells = Cells::of(&state);
            let known = (0..cells.steps).flat_map(|s| (0..cells.blocks).map(move |b| (s, b)));
            let drawn = known.filter(|(s, b)| {
                cells.get(*s, *b).is_some_and(|cell| cell.value.is_some() || colouring == Colouring::Reuse)
            });
            let figure = svg(&cells, "a < b & \"c\"");
            assert_eq!(figure.matches("height=\"13\"").count() + figure.matches("height=\"5\"").count(), drawn.count());
            assert!(figure.contains("a &lt; b &amp; &quot;c&quot;") && figure.ends_with("</svg>\n"));
            assert_eq!(csv(&cells).lines().count(), 1 + cells.steps * cells.blocks);
        }
    }
}
