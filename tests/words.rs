//! Lines of comments are at most 100 columns wide. Code may be wider, up to rustfmt's limit.

use std::path::{Path, PathBuf};

const WIDEST_COMMENT: usize = 100;

/// Folders whose comments are checked. A folder that does not exist is skipped.
const FOLDERS: [&str; 7] = ["src", "shaders", "tests", "training", "scripts", "benches", "examples"];

/// All files below a folder, sorted.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths.into_iter().flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// How comments begin in a file of this name. `None` for files without comments.
fn comment_marker(path: &Path) -> Option<&'static str> {
    match path.extension().map(|extension| extension.to_string_lossy()).as_deref() {
        Some("rs" | "wgsl") => Some("//"),
        Some("py" | "sh" | "toml") => Some("#"),
        // The scripts for the shell have no extension.
        None => Some("#"),
        Some(_) => None,
    }
}

#[test]
fn comments_are_at_most_100_columns_wide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = FOLDERS.iter().flat_map(|folder| files_below(&root.join(folder)));
    let mut wide = Vec::new();
    for path in files.chain([root.join("Cargo.toml")]) {
        let place = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let Some(marker) = comment_marker(&path) else { continue };
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{place}: {error}"));
        let lines = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with(marker));
        let too_wide = lines.filter(|(_, line)| line.chars().count() > WIDEST_COMMENT);
        wide.extend(too_wide.map(|(index, _)| format!("{place}:{}", index + 1)));
    }
    assert!(wide.is_empty(), "comments wider than {WIDEST_COMMENT} columns:\n{}", wide.join("\n"));
}
