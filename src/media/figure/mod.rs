//! Figures: heatmaps, grids of maps and plots as SVG, and the same SVG as PNG.
//!
//! Every figure says what its axes and colours mean, with units. Colour maps are perceptually uniform, and colour never stands
//! alone: series differ in marker and dash as well, classes of rows carry a letter, missing values are crossed out.

mod canvas;
mod color;
mod heatmap;
mod plot;
mod ticks;

pub use canvas::Svg;
pub(super) use canvas::text_line;
pub use color::ColorMap;
pub use heatmap::{Heatmap, MapGrid, MapPanel};
pub use plot::{Plot, Series};

#[cfg(test)]
mod tests;
