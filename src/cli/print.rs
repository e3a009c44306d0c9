//! What the commands print. Nothing else in the program writes to the standard streams: clippy
//! refuses `println!` and its kin, because they panic when a reader is gone or a disk is full.
//!
//! Printing never ends a command. A command writes its files, and [`end`] tells afterwards whether
//! everything was printed.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// The first error of the standard output.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line of results.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::print::result(format_args!($($text)*)) };
}

/// Prints a line for people: progress, warnings, errors.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::print::remark(format_args!($($text)*)) };
}

/// Prints a line to the standard output. After an error it prints nothing more.
pub(super) fn result(text: fmt::Arguments) {
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    if failure.is_none() {
        *failure = writeln!(io::stdout().lock(), "{text}").err();
    }
}

/// Prints a line to the standard error. Nobody can be told where this fails.
pub(super) fn remark(text: fmt::Arguments) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// The first error of the standard output.
pub(super) fn end() -> Option<io::Error> {
    let flushed = io::stdout().lock().flush();
    FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take().or(flushed.err())
}
