//! ARCHITECTURE.md says which room may know which; this holds the sources against it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What each room may know, as in the table of ARCHITECTURE.md.
const MAY_KNOW: [(&str, &[&str]); 12] = [
    ("gpu", &[]),
    ("weights", &[]),
    ("sampling", &[]),
    ("metrics", &[]),
    ("media", &[]),
    ("ops", &["gpu"]),
    ("caching", &["gpu", "ops"]),
    ("model", &["gpu", "ops", "weights"]),
    // Its tests take random values from `ops`.
    ("profiling", &["media", "caching", "ops"]),
    ("engine", &["gpu", "ops", "model", "weights", "sampling", "caching", "profiling"]),
    ("app", &["engine", "caching", "profiling", "media", "metrics"]),
    ("cli", &["app", "engine", "caching", "profiling", "media", "metrics", "sampling", "gpu", "ops", "model"]),
];

/// Every `crate::ROOM` in code (not in comments) below a folder.
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
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rooms: Vec<&str> = MAY_KNOW.iter().map(|(room, _)| *room).collect();
    for (room, allowed) in MAY_KNOW {
        let mut found = BTreeMap::new();
        known(&source.join(room), &mut found);
        for (other, files) in found {
            let fine = other == room || allowed.contains(&other.as_str()) || !rooms.contains(&other.as_str());
            assert!(fine, "room {room} knows {other}, which ARCHITECTURE.md does not allow: {files:?}");
        }
    }
}

#[test]
fn every_room_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for entry in std::fs::read_dir(root.join("src")).expect("src") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            let room = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            assert!(MAY_KNOW.iter().any(|(known, _)| *known == room), "{room} is no known room");
            assert!(text.contains(&format!("| `{room}` |")), "{room} is not in ARCHITECTURE.md");
        }
    }
}
