//! Room `study`: lists of runs that answer a question about a model. A profile says what its blocks
//! do ([`ProfileStudy`]); a comparison says what strategies cost and keep ([`CompareStudy`]).
//!
//! ```text
//! Session(engine, cancel, listener) ──> study.run(&session) ──> result
//!                    │                        │
//!                    └── Cancel::cancel()     └──> StudyEvent: Progress, Warning, Profiled, Compared
//! ```
//! A study runs on the caller's engine and on the caller's thread, one job at a time. It can be
//! cancelled from any thread at any time. Everything that was measured before that is kept.

mod cancel;
pub mod compare;
mod error;
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
pub use model_profile::{evidence_of, find_profile, profile_place};
pub use profile::ProfileStudy;
pub use progress::{Progress, Size};
pub use session::{Finished, Session, StudyEvent};
