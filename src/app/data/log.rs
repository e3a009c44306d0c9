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

/// The newest messages, and the errors among them that the user has not read.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: VecDeque<Line>,
    unread: Vec<String>,
}

impl Log {
    /// Number of messages that are kept.
    const MOST: usize = 500;

    /// Adds a message.
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        let text = text.into();
        if self.lines.len() == Self::MOST {
            self.lines.pop_front();
        }
        if level == Level::Error {
            // The same error twice is one notice.
            self.unread.retain(|other| *other != text);
            self.unread.push(text.clone());
        }
        self.lines.push_back(Line { level, text });
    }

    /// Errors that the user has not read, oldest first.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Takes note that the user has read an error, by its place among those that were not read.
    pub fn read(&mut self, index: usize) {
        if index < self.unread.len() {
            self.unread.remove(index);
        }
    }

    /// Takes note that the user has read all errors.
    pub fn read_all(&mut self) {
        self.unread.clear();
    }

    /// All messages, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_until_they_are_read() {
        let mut log = Log::default();
        for (level, text) in
            [(Level::Note, "a"), (Level::Error, "b"), (Level::Warning, "c"), (Level::Error, "d"), (Level::Error, "b")]
        {
            log.add(level, text);
        }
        assert_eq!(log.unread(), ["d", "b"], "each once, the newest last");
        log.read(0);
        log.read(7);
        assert_eq!((log.unread(), log.iter().count()), (&["b".to_owned()][..], 5));
        log.read_all();
        assert!(log.unread().is_empty());
    }
}
