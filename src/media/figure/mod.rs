//! Figures: heatmaps, grids of maps and plots as SVG, and the same SVG as PNG.
//!
//! Every figure names its axes and colours, with units. Colour scales are perceptually uniform.
//! Colour is never the only sign: series also differ in marker and dash, classes of rows have a
//! letter, and missing values are crossed out.

mod canvas;
mod color;
mod heatmap;
mod plot;
mod ticks;

pub use canvas::Svg;
pub(super) use canvas::text_line;
pub use color::ColorScale;
pub use heatmap::{Heatmap, MapGrid, MapPanel};
pub use plot::{Plot, Series};

#[cfg(test)]
mod tests;
