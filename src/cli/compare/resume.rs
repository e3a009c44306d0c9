//! The options of a comparison that is resumed: those that the folder remembers, and those that are
//! given again.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args as _, CommandFactory, FromArgMatches};

use crate::study::compare::Folder;

use super::super::{Cli, WrongUse};
use super::Args;

/// Name of the command.
pub(super) const NAME: &str = "compare";

/// Options that are no part of what is compared.
const OF_THE_CALL: [&str; 4] = ["output", "resume", "tune_only", "merge"];

/// Options that cannot change when a comparison goes on. The conditions of the clips are compared
/// elsewhere.
const FIXED: [&str; 3] = ["--strategies", "--speedups", "--tuning-prompt"];

/// The options of a command as it was typed, one `--NAME=VALUE` each. Paths are absolute, so that
/// the options hold in every working folder. Empty if a value is not Unicode.
pub(super) fn options(matches: &ArgMatches) -> Vec<String> {
    let command = Args::augment_args(clap::Command::new(NAME));
    let typed = |arg: &&clap::Arg| {
        let id = arg.get_id().as_str();
        !OF_THE_CALL.contains(&id) && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let option = |arg: &clap::Arg| {
        let name = arg.get_long()?;
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            return Some(format!("--{name}"));
        }
        let is_path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
        let text = |value: &std::ffi::OsStr| {
            let absolute = is_path.then(|| std::path::absolute(value).ok()).flatten();
            absolute.map_or_else(|| value.to_owned(), PathBuf::into_os_string).into_string().ok()
        };
        let values: Vec<String> = matches.get_raw(arg.get_id().as_str())?.map(text).collect::<Option<_>>()?;
        Some(format!("--{name}={}", values.join(",")))
    };
    command.get_arguments().filter(typed).map(option).collect::<Option<_>>().unwrap_or_default()
}

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
