//! Holds the folders of the window to their order: data stands below everything, drawing knows data
//! only, and neither knows panes.

use std::path::Path;

/// Other modules of the window that a folder's sources name, besides those that it may know.
fn strangers(folder: &str, may_know: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app").join(folder)];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        if path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        // Unit tests may use the samples of the window's tests.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for rest in line.split("crate::app::").skip(1) {
                let module: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if !may_know.contains(&module.as_str()) {
                    found.push(format!("{}: {module}", path.display()));
                }
            }
        }
    }
    found
}

#[test]
fn data_and_drawing_know_no_panes() {
    assert_eq!(strangers("data", &["data"]), Vec::<String>::new());
    assert_eq!(strangers("draw", &["data", "draw"]), Vec::<String>::new());
}
