//! Room `study`: studies, which are lists of runs that answer a question about a model.
//! [`ProfileStudy`] profiles the blocks of a model. [`CompareStudy`] measures the speed and the
//! fidelity of strategies.
//!
//! ```text
//! Session(engine, cancel, listener) ──> study.run(&session) ──> result
//!                    │                        │
//!                    └── Cancel::cancel()     └──> StudyEvent (progress, warnings, results)
//! ```
//!
//! A study runs on the caller's engine and thread, one job at a time. Any thread can cancel it at
//! any time. The measurements made before are kept.

mod cancel;
pub mod compare;
mod error;
mod learning;
mod model_profile;
pub mod profile;
mod progress;
pub mod queue;
mod session;
#[cfg(test)]
mod tests;

pub use cancel::Cancel;
pub use compare::CompareStudy;
pub use error::StudyError;
pub use learning::{LearntFile, data_folder};
pub use model_profile::{evidence_of, find_profile, profile_place};
pub use profile::ProfileStudy;
pub use progress::{Progress, Size};
pub use session::{Finished, Session, StudyEvent};
