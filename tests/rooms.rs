//! Checks the sources against the table of rooms in ARCHITECTURE.md, which says who may know whom.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;

/// The families of models: every folder below `src/model` is one.
fn families() -> Vec<String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model")).expect("src/model");
    let folders = entries.map(|entry| entry.expect("entry")).filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Every room and the rooms that it may know, in the table's order. The table's last column names
/// them.
fn rooms() -> Vec<(String, BTreeSet<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(path).expect("ARCHITECTURE.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, room, _, knows, _] = cells[..] else { return None };
        Some((room.strip_prefix('`')?.strip_suffix('`')?.to_owned(), knows.to_owned()))
    };
    // Other tables of the page have cells in backticks too.
    let table = text.lines().skip_while(|line| !line.starts_with("| room |"));
    let rows: Vec<(String, String)> = table.take_while(|line| line.starts_with('|')).filter_map(row).collect();
    let words = |knows: &str| knows.split(|c: char| !c.is_ascii_lowercase()).map(str::to_owned).collect();
    let is_room = |word: &String| rows.iter().any(|(room, _)| room == word);
    rows.iter()
        .map(|(room, knows)| (room.clone(), BTreeSet::into_iter(words(knows)).filter(is_room).collect()))
        .collect()
}

/// A path in the crate, without `crate::`: `model::family::Run` as its three names.
type CratePath = Vec<String>;

/// Every path that code (not comments) names after `crate::`. A `use` of several in braces gives
/// each of them.
fn crate_paths(source: &str) -> Vec<CratePath> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut found = Vec::new();
    for part in code.join("\n").split("crate::").skip(1) {
        paths_of(&mut part.chars().peekable(), &[], &mut found);
    }
    found
}

/// Reads one path, or a group of paths in braces, that follows `prefix`.
fn paths_of(text: &mut Peekable<Chars>, prefix: &[String], found: &mut Vec<CratePath>) {
    while text.next_if(|c| c.is_whitespace()).is_some() {}
    if text.next_if_eq(&'{').is_none() {
        let name: String = std::iter::from_fn(|| text.next_if(|c| c.is_alphanumeric() || *c == '_')).collect();
        let path = [prefix, &[name]].concat();
        if text.next_if_eq(&':').is_some() && text.next_if_eq(&':').is_some() {
            paths_of(text, &path, found);
        } else {
            found.push(path);
        }
        return;
    }
    loop {
        while text.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
        if text.next_if_eq(&'}').is_some() || text.peek().is_none() {
            return;
        }
        paths_of(text, prefix, found);
        // What is behind a name: `as other`, or a glob.
        while text.next_if(|c| !matches!(c, ',' | '}')).is_some() {}
    }
}

/// The paths that a folder's sources name, and the files that name them.
fn known(folder: &Path, found: &mut BTreeMap<CratePath, BTreeSet<String>>) {
    for entry in std::fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            known(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("source file");
            for named in crate_paths(&text) {
                found.entry(named).or_default().insert(path.display().to_string());
            }
        }
    }
}

/// What a room names of the crate.
fn named_by(room: &str) -> BTreeMap<CratePath, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    known(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room), &mut found);
    found
}

#[test]
fn the_checker_sees_every_path() {
    let source =
        "use crate::a::b;\nuse crate::{c, d::{self, e as f}, g::*};\n// crate::comment::x\nlet x = crate::h::i();";
    let found: Vec<String> = crate_paths(source).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::b", "c", "d::self", "d::e", "g::", "h::i"]);
    let lines =
        "use crate::{\n    model::{\n        family::Run,\n        wan::files::ModelFiles,\n    },\n    gpu,\n};";
    let found: Vec<String> = crate_paths(lines).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["model::family::Run", "model::wan::files::ModelFiles", "gpu"]);
}

#[test]
fn rooms_know_only_what_they_may() {
    let rooms = rooms();
    for (room, allowed) in &rooms {
        for (path, files) in named_by(room) {
            let other = &path[0];
            let fine = other == room || allowed.contains(other) || !rooms.iter().any(|(known, _)| known == other);
            assert!(fine, "room {room} knows {other}, which ARCHITECTURE.md does not allow: {files:?}");
        }
    }
}

/// Nobody but the room `model` knows a family of models: others go through `model::family`.
#[test]
fn families_are_known_to_their_room_alone() {
    let families = families();
    assert!(families.iter().any(|family| family == "wan"), "{families:?}");
    for (room, _) in rooms().iter().filter(|(room, _)| room != "model") {
        for (path, files) in named_by(room) {
            let family = path[0] == "model" && path.get(1).is_some_and(|name| families.contains(name));
            assert!(!family, "room {room} knows {}: {files:?}", path.join("::"));
        }
    }
}

#[test]
fn rooms_know_only_those_above() {
    let rooms = rooms();
    for (index, (room, allowed)) in rooms.iter().enumerate() {
        let above = |known: &String| rooms[..index].iter().any(|(above, _)| above == known);
        assert!(allowed.iter().all(above), "{room} knows {allowed:?}, not all of which stand above it");
    }
}

#[test]
fn every_room_is_in_the_table() {
    let rooms = rooms();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("src") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            assert!(rooms.iter().any(|(room, _)| *room == name), "{name} is not in ARCHITECTURE.md");
        }
    }
}
