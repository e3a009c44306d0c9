//! Foreground and background blocks.

use crate::app::data::shared::Shared;

/// The class of a block for ProfilingDiT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The block attends to the foreground.
    Foreground,
    /// The block attends to the background.
    Background,
    /// Neither the model's profile nor the user has said.
    Unknown,
}

impl Class {
    /// The class of a block of the form's model.
    pub fn of(shared: &Shared, block: usize) -> Self {
        match shared.form.cached_blocks() {
            None => Self::Unknown,
            Some(cached) if cached.contains(&block) => Self::Background,
            Some(_) => Self::Foreground,
        }
    }

    /// One letter.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Foreground => "F",
            Self::Background => "B",
            Self::Unknown => "-",
        }
    }

    /// The class in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Foreground => "foreground: computed",
            Self::Background => "background: cached",
            Self::Unknown => "foreground or background: not known without a profile",
        }
    }
}
