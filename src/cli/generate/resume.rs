//! `generate --resume`: the options of the interrupted run, completed by those that are given.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgMatches, CommandFactory};

use crate::engine::Capture;
use crate::engine::capture::file;

use super::super::{Cli, WrongUse, typed};
use super::Args;

/// Name of the command.
pub(super) const NAME: &str = "generate";

/// Options that belong to one call.
const OF_THE_CALL: [&str; 1] = ["resume"];

/// The options of the run, as they were typed.
pub(super) fn options(matches: &ArgMatches) -> Vec<String> {
    typed::options::<Args>(matches, &OF_THE_CALL)
}

/// The capture that a command line names with `--resume`.
fn named(arguments: &[OsString]) -> Option<PathBuf> {
    const OPTION: &str = "--resume";
    let at = arguments.iter().position(|argument| {
        argument == OPTION || argument.to_str().is_some_and(|text| text.starts_with(&format!("{OPTION}=")))
    })?;
    match arguments[at].to_str().and_then(|text| text.split_once('=')) {
        Some((_, path)) => Some(path.into()),
        None => arguments.get(at + 1).map(PathBuf::from),
    }
}

/// The command line `generate --resume CAPTURE ...` with the options that the capture remembers.
/// Options that are given replace those. `None` for any other command line.
///
/// # Errors
/// The capture cannot be read, or remembers no command.
pub(crate) fn completed(arguments: &[OsString]) -> anyhow::Result<Option<ArgMatches>> {
    let Some((_, given)) = arguments.get(1..).and_then(<[OsString]>::split_first).filter(|(name, _)| *name == NAME)
    else {
        return Ok(None);
    };
    let Some(path) = named(given) else { return Ok(None) };
    let remembered = file::open(&path)?.capture.run.command;
    if remembered.is_empty() {
        let message = format!("{} cannot be gone on with: record runs with --resumable", path.display());
        return Err(WrongUse(message).into());
    }
    let parser = Cli::command().mut_subcommand(NAME, |command| command.args_override_self(true));
    let beginning = ["ditscope", NAME].map(OsString::from);
    // The prompt may be given again.
    let alone = beginning.iter().chain(given).cloned();
    let whole = parser.clone().try_get_matches_from(alone).is_ok();
    let rest = remembered.iter().position(|argument| argument == typed::REST).unwrap_or(remembered.len());
    let (options, rest) = remembered.split_at(rest);
    let rest = rest.iter().filter(|_| !whole).map(OsString::from);
    let all =
        beginning.iter().cloned().chain(options.iter().map(OsString::from)).chain(given.iter().cloned()).chain(rest);
    Ok(Some(parser.get_matches_from(all)))
}

/// The interrupted run, and the place to which its file is moved until the run has ended.
pub(super) struct Earlier {
    pub capture: Arc<Capture>,
    /// The partial file, and where it is now.
    moved: Option<[PathBuf; 2]>,
}

impl Earlier {
    /// Reads the run. A partial file makes room for the new one, which has the same name.
    ///
    /// # Errors
    /// The file cannot be read or renamed.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let capture = Arc::new(file::open(path)?.capture);
        let partial = path.extension() == Some(OsStr::new("partial"));
        let moved = partial.then(|| [path.to_owned(), path.with_added_extension("before")]);
        if let Some([from, to]) = &moved {
            std::fs::rename(from, to)?;
        }
        Ok(Self { capture, moved })
    }

    /// Removes what the finished run replaces.
    pub fn remove(mut self) {
        if let Some([_, now]) = self.moved.take() {
            // A file that stays does no harm.
            std::fs::remove_file(now).ok();
        }
    }
}

impl Drop for Earlier {
    /// Gives the file its name back, if the new run has recorded nothing under it.
    fn drop(&mut self) {
        if let Some([before, now]) = self.moved.take().filter(|[before, _]| !before.exists()) {
            // The file can be gone on with under either name.
            std::fs::rename(now, before).ok();
        }
    }
}
