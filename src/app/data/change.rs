//! Changes of the shared data, and what undo needs.

use crate::app::data::form::Form;
use crate::app::data::log::Level;
use crate::app::data::prefs::Prefs;
use crate::app::data::runs::{Closed, Runs};
use crate::app::data::selection::Selection;
use crate::caching::StrategyConfig;

/// A change of one part of the shared data.
pub enum Change {
    /// Changes the form.
    Form(Box<dyn FnOnce(&mut Form)>),
    /// Changes the runs.
    Runs(Box<dyn FnOnce(&mut Runs)>),
    /// Changes the selection.
    Selection(Box<dyn FnOnce(&mut Selection)>),
    /// Changes the preferences.
    Prefs(Box<dyn FnOnce(&mut Prefs)>),
    /// Adds a message to the log.
    Log(Level, String),
}

/// The last action that can be undone, with what it threw away.
#[derive(Clone, Debug)]
pub enum Undo {
    /// A run was closed.
    Run(Box<Closed>),
    /// A plan of the user's was removed.
    Plan(StrategyConfig),
    /// Settings were replaced.
    Form {
        /// The action in words.
        what: &'static str,
        /// All settings as they were before.
        form: Box<Form>,
    },
}

impl Undo {
    /// The action in words.
    pub fn name(&self) -> String {
        match self {
            Self::Run(closed) => format!("close {}", closed.run().title()),
            Self::Plan(plan) => format!("remove \"{}\"", plan.name()),
            Self::Form { what, .. } => (*what).into(),
        }
    }
}
