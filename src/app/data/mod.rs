//! What the window knows, without drawing.

pub mod form;
pub mod plan_edit;
pub mod runs;
pub mod scores;
pub mod state;
