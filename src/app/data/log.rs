//! Messages for the user.

use std::collections::VecDeque;

/// The importance of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For information.
    Note,
    /// Worth knowing.
    Warning,
    /// Something did not work.
    Error,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its importance.
    pub level: Level,
    /// Its text.
    pub text: String,
}

/// The newest messages.
#[derive(Clone, Debug, Default)]
pub struct Log(VecDeque<Line>);

impl Log {
    /// Number of messages that are kept.
    const MOST: usize = 500;

    /// Adds a message.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(Line { level, text: text.into() });
    }

    /// All messages, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.0.iter()
    }
}
