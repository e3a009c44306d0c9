//! The bars around the panes.

pub mod hints;
mod menus;
pub mod status_bar;
pub mod top_bar;
