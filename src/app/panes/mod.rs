//! The panes: a file or a folder each.

pub mod log;
pub mod map;
pub mod numbers;
pub mod preview;
pub mod runs;
pub mod steps;
pub mod strategy;
