//! The bars around the panes.

pub mod hints;
pub mod status_bar;
pub mod top_bar;
