//! The data of the window. Nothing in this folder draws.

pub mod change;
pub mod form;
pub mod history;
pub mod job;
pub mod likeness;
pub mod log;
pub mod model;
pub mod plan_edit;
pub mod prediction;
pub mod prefs;
pub mod run_table;
pub mod runs;
pub mod selection;
pub mod shared;
pub mod strategy_file;
pub mod study;
