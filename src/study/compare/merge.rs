//! Joins parts of a comparison from different machines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::folder::{SHEET_KINDS, copy};
use super::settings::Difference;
use super::shard::{cases, numbers};
use super::{Folder, Part, Row, Settings, StudyError};

/// Several parts, joined to one comparison.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The conditions that all parts have in common.
    pub settings: Settings,
    /// All rows, in the order of the listed prompts and seeds.
    pub rows: Vec<Row>,
    /// Warnings for the user: missing parts, or parts from different GPUs.
    pub warnings: Vec<String>,
    /// The contact sheets of the parts.
    sheets: Vec<Sheet>,
}

/// A contact sheet of a part, and its number in the whole.
#[derive(Clone, Debug)]
struct Sheet {
    part: Folder,
    /// The prompt's number in the part.
    from: usize,
    /// The prompt's number in the whole.
    to: usize,
    seed: u64,
}

/// One folder that was read.
struct Read {
    folder: Folder,
    settings: Settings,
    rows: Vec<Row>,
}

/// Joins the comparisons in these folders. The folders may have shards of one comparison, or
/// comparisons of different prompts or seeds under the same conditions. Only the GPUs may differ,
/// because every prompt and seed has a baseline of its own.
///
/// # Errors
/// [`StudyError::Io`] or [`StudyError::Json`] for a folder without a comparison;
/// [`StudyError::Request`] if settings differ or two parts have the same prompt and seed.
pub fn merge(folders: &[PathBuf]) -> Result<Merged, StudyError> {
    let read = |path: &PathBuf| {
        let folder = Folder::new(path);
        let (settings, rows) = folder.read()?;
        Ok(Read { folder, settings, rows })
    };
    let parts: Vec<Read> = folders.iter().map(read).collect::<Result<_, StudyError>>()?;
    let first = parts.first().ok_or_else(|| StudyError::Request("there are no parts to merge".into()))?;
    parts.iter().try_for_each(|part| check_alike(first, part))?;
    check_apart(&parts)?;
    let shards: Vec<&Part> = parts.iter().filter_map(|part| part.settings.part.as_ref()).collect();
    let listed = shards.first().map(|part| part.prompts.as_slice()).unwrap_or_default();
    let had = parts.iter().flat_map(|part| &part.rows).map(|row| row.prompt.as_str());
    let numbers = numbers(listed.iter().map(String::as_str).chain(had));
    let mut settings = Settings { part: None, ..first.settings.clone() };
    let mut warnings = Vec::new();
    settings.adapter = joined(parts.iter().map(|part| part.settings.adapter.as_str()));
    settings.driver = joined(parts.iter().map(|part| part.settings.driver.as_str()));
    if parts.iter().any(|part| part.settings.adapter != first.settings.adapter) {
        let adapters = &settings.adapter;
        warnings.push(format!("the parts ran on different GPUs ({adapters}), whose times and memory are mixed"));
    }
    if let Some(part) = shards.first() {
        warnings.extend(missing(part, parts.iter().flat_map(|part| &part.rows)));
    }
    let sheets = parts.iter().flat_map(|part| sheets(part, &numbers)).collect();
    let mut rows: Vec<Row> = parts.iter().flat_map(|part| part.rows.iter().cloned()).collect();
    // The sort is stable, so the order of the runs on a prompt and seed is kept.
    rows.sort_by_key(|row| (numbers[row.prompt.as_str()], row.seed));
    Ok(Merged { settings, rows, warnings, sheets })
}

impl Merged {
    /// Writes the settings, rows, table, figures and contact sheets, like a comparison on one
    /// machine.
    ///
    /// # Errors
    /// [`StudyError::Request`] if the folder has another comparison; [`StudyError::Io`] or
    /// [`StudyError::Media`] if a file cannot be read or written.
    pub fn write(&self, folder: &Folder) -> Result<(), StudyError> {
        if folder.has_rows() {
            let message = "the output folder holds a comparison: name another folder for the merged one";
            return Err(StudyError::Request(message.into()));
        }
        folder.begin(&self.settings, &self.rows)?;
        for sheet in &self.sheets {
            for kind in SHEET_KINDS {
                let from = sheet.part.sheet(sheet.from, sheet.seed, kind);
                // A part may lack sheets.
                if from.is_file() {
                    copy(&from, &folder.sheet(sheet.to, sheet.seed, kind))?;
                }
            }
        }
        folder.write_report(&self.settings, &self.rows)
    }
}

/// Checks that two parts have the same conditions.
fn check_alike(first: &Read, other: &Read) -> Result<(), StudyError> {
    let place = |part: &Read| part.folder.path().display().to_string();
    // The GPU and the number of the part may differ.
    let comparable = |part: &Read| {
        let mut settings = part.settings.clone();
        (settings.adapter, settings.driver) = (String::new(), String::new());
        settings.part = None;
        settings
    };
    let (own, others) = (comparable(first), comparable(other));
    if own.strategies != others.strategies {
        return Err(StudyError::Request(format!(
            "{} and {} compare different strategies or settings of them ({}): tune once, copy the settings.json \
             into the folder of each part, and make the parts with --resume",
            place(first),
            place(other),
            different_entry(&own, &others)
        )));
    }
    if let Some(Difference { name, values: [own, others] }) = own.first_difference(&others)? {
        return Err(StudyError::Request(format!(
            "{} and {} cannot be merged: the {name} is {own} there and {others} here",
            place(first),
            place(other)
        )));
    }
    match (&first.settings.part, &other.settings.part) {
        (Some(own), Some(others))
            if (&own.prompts, own.seeds, own.shard.count())
                == (&others.prompts, others.seeds, others.shard.count()) =>
        {
            Ok(())
        }
        (None, None) => Ok(()),
        _ => Err(StudyError::Request(format!(
            "{} and {} are not parts of the same whole: they were cut from other prompts or seeds, or into another \
             number of parts",
            place(first),
            place(other)
        ))),
    }
}

/// The name of the first strategy that differs.
fn different_entry(own: &Settings, others: &Settings) -> String {
    let longest = own.strategies.len().max(others.strategies.len());
    let different = (0..longest).find(|i| own.strategies.get(*i) != others.strategies.get(*i));
    let entry = different.and_then(|i| own.strategies.get(i).or_else(|| others.strategies.get(i)));
    entry.map_or(String::new(), |entry| match entry.target {
        Some(target) => format!("{} at {target}x", entry.name),
        None => entry.name.clone(),
    })
}

/// Checks that no two parts have the same prompt and seed.
fn check_apart(parts: &[Read]) -> Result<(), StudyError> {
    let mut owners: BTreeMap<(&str, u64), &Read> = BTreeMap::new();
    for part in parts {
        let own: BTreeSet<(&str, u64)> = part.rows.iter().map(|row| (row.prompt.as_str(), row.seed)).collect();
        for case in own {
            if let Some(other) = owners.insert(case, part) {
                return Err(StudyError::Request(format!(
                    "{} and {} both have \"{}\", seed {}",
                    other.folder.path().display(),
                    part.folder.path().display(),
                    case.0,
                    case.1
                )));
            }
        }
    }
    Ok(())
}

/// A message about the cases of the whole that have no rows. `None` if all cases have rows.
fn missing<'a>(part: &Part, rows: impl Iterator<Item = &'a Row>) -> Option<String> {
    let had: BTreeSet<(&str, u64)> = rows.map(|row| (row.prompt.as_str(), row.seed)).collect();
    let all = cases(&part.prompts, part.seeds, &[], None);
    let missing: Vec<usize> =
        (0..all.len()).filter(|i| !had.contains(&(all[*i].prompt.as_str(), all[*i].seed))).collect();
    let count = part.shard.count();
    let shards: BTreeSet<String> = missing.iter().map(|place| format!("{}/{count}", place % count + 1)).collect();
    (!missing.is_empty()).then(|| {
        let shards: Vec<String> = shards.into_iter().collect();
        format!("{} of {} runs are missing, of the parts {}", missing.len(), all.len(), shards.join(", "))
    })
}

/// The contact sheets that a part may have.
fn sheets(part: &Read, whole: &BTreeMap<&str, usize>) -> Vec<Sheet> {
    let listed = part.settings.part.as_ref().map(|part| part.prompts.as_slice()).unwrap_or_default();
    let had = part.rows.iter().map(|row| row.prompt.as_str());
    let own = numbers(listed.iter().map(String::as_str).chain(had));
    let cases: BTreeSet<(&str, u64)> = part.rows.iter().map(|row| (row.prompt.as_str(), row.seed)).collect();
    let sheet = |(prompt, seed): (&str, u64)| {
        let (part, from, to) = (part.folder.clone(), own[prompt], whole[prompt]);
        Sheet { part, from, to, seed }
    };
    cases.into_iter().map(sheet).collect()
}

/// Joins the different values, each once.
fn joined<'a>(values: impl Iterator<Item = &'a str>) -> String {
    let different: BTreeSet<&str> = values.collect();
    different.into_iter().collect::<Vec<_>>().join(" + ")
}

#[cfg(test)]
mod tests;
