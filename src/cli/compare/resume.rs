//! The options of a comparison that is resumed: those that the folder remembers, and those that are
//! given again.

use std::ffi::OsString;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::study::compare::Folder;

use super::super::{Cli, WrongUse, typed};
use super::Args;

/// Name of the command.
pub(super) const NAME: &str = "compare";

/// Options that are no part of what is compared.
const OF_THE_CALL: [&str; 4] = ["output", "resume", "tune_only", "merge"];

/// The options of the comparison, as they were typed.
pub(super) fn options(matches: &ArgMatches) -> Vec<String> {
    typed::options::<Args>(matches, &OF_THE_CALL)
}

/// Options that cannot change when a comparison goes on. The conditions of the clips are compared
/// elsewhere.
const FIXED: [&str; 3] = ["--strategies", "--speedups", "--tuning-prompt"];

/// The arguments for going on with the comparison in a folder. Options that are given replace those
/// that the folder remembers.
///
/// # Errors
/// There is no comparison in the folder, or it has other strategies than those given.
pub(super) fn completed(folder: &Folder, given: &[String]) -> anyhow::Result<Args> {
    let remembered = folder.read()?.0.command;
    for name in FIXED {
        let of = |options: &[String]| {
            options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let (there, here) = (of(&remembered), of(given));
        if here.is_some() && here != there {
            let shown = |value: Option<String>| value.map_or("the default".into(), |value| format!("\"{value}\""));
            let message = format!(
                "the comparison in {} has other {}: {} there, {} here; leave the option out to go on",
                folder.path().display(),
                name.trim_start_matches('-').replace('-', " "),
                shown(there),
                shown(here)
            );
            return Err(WrongUse(message).into());
        }
    }
    let beginning = ["ditscope", NAME, "--resume", "--output"].map(OsString::from).into_iter();
    let all = beginning.chain([folder.path().as_os_str().to_owned()]);
    let all = all.chain(remembered.iter().chain(given).map(OsString::from));
    let parser = Cli::command().mut_subcommand(NAME, |command| command.args_override_self(true));
    let wrong =
        |error: clap::Error| WrongUse(format!("the options in {} cannot be read: {error}", folder.path().display()));
    let matches = parser.try_get_matches_from(all).map_err(wrong)?;
    let compare = matches.subcommand_matches(NAME).ok_or_else(|| WrongUse("no comparison".into()))?;
    Ok(Args::from_arg_matches(compare).map_err(wrong)?)
}
