//! The bars around the panes.

pub mod help;
mod menus;
pub mod notices;
pub mod status_bar;
pub mod top_bar;
