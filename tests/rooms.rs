//! Checks the sources against the table of rooms in ARCHITECTURE.md, which says who may know whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

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
    let rows: Vec<(String, String)> = text.lines().filter_map(row).collect();
    let words = |knows: &str| knows.split(|c: char| !c.is_ascii_lowercase()).map(str::to_owned).collect();
    let is_room = |word: &String| rows.iter().any(|(room, _)| room == word);
    rows.iter()
        .map(|(room, knows)| (room.clone(), BTreeSet::into_iter(words(knows)).filter(is_room).collect()))
        .collect()
}

/// Finds every `crate::ROOM` below a folder, in code but not in comments.
fn known(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in std::fs::read_dir(folder).expect("source folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            known(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("source file");
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for part in line.split("crate::").skip(1) {
                    let room: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                    found.entry(room).or_default().insert(path.display().to_string());
                }
            }
        }
    }
}

#[test]
fn rooms_know_only_what_they_may() {
    let (source, rooms) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), rooms());
    for (room, allowed) in &rooms {
        let mut found = BTreeMap::new();
        known(&source.join(room), &mut found);
        for (other, files) in found {
            let fine = other == *room || allowed.contains(&other) || !rooms.iter().any(|(known, _)| *known == other);
            assert!(fine, "room {room} knows {other}, which ARCHITECTURE.md does not allow: {files:?}");
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
