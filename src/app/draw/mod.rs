//! Colours, small widgets and figures that panes share.

pub mod figures;
pub mod legend;
pub mod theme;
