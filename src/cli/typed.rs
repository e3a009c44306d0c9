//! Commands as they were typed. Files remember them, so that an interrupted command can go on.

use std::any::TypeId;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args};

/// Stands before an argument that has no name.
pub(super) const REST: &str = "--";

/// The options of a command as it was typed, one `--NAME=VALUE` each, without those in `left_out`;
/// then, after [`REST`], the arguments without a name. Paths are absolute, so that the options hold
/// in every working folder. Empty if a value is not Unicode.
pub(super) fn options<A: Args>(matches: &ArgMatches, left_out: &[&str]) -> Vec<String> {
    let command = A::augment_args(clap::Command::new("command"));
    let typed = |arg: &&Arg| {
        let id = arg.get_id().as_str();
        !left_out.contains(&id) && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let (named, unnamed): (Vec<&Arg>, Vec<&Arg>) =
        command.get_arguments().filter(typed).partition(|arg| arg.get_long().is_some());
    let named = named.into_iter().map(|arg| option(arg, matches));
    let mut all: Vec<String> = named.collect::<Option<_>>().unwrap_or_default();
    let rest: Option<Vec<Vec<String>>> = unnamed.into_iter().map(|arg| values(arg, matches)).collect();
    match rest {
        Some(rest) if !rest.is_empty() => all.extend(std::iter::once(REST.to_owned()).chain(rest.concat())),
        Some(_) => {}
        None => all.clear(),
    }
    all
}

fn option(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let name = arg.get_long()?;
    match arg.get_action() {
        ArgAction::SetTrue => Some(format!("--{name}")),
        _ => Some(format!("--{name}={}", values(arg, matches)?.join(","))),
    }
}

fn values(arg: &Arg, matches: &ArgMatches) -> Option<Vec<String>> {
    let is_path = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
    let text = |value: &OsStr| {
        let absolute = is_path.then(|| std::path::absolute(value).ok()).flatten();
        absolute.map_or_else(|| value.to_owned(), PathBuf::into_os_string).into_string().ok()
    };
    matches.get_raw(arg.get_id().as_str())?.map(text).collect()
}
