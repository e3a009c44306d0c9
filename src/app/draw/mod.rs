//! Colours, small widgets and drawing that panes share.

pub mod cell;
pub mod fonts;
pub mod legend;
pub mod study;
pub mod textures;
pub mod theme;
