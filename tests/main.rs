//! The integration tests: one crate, because each test crate links wgpu and egui anew.
//!
//! A file in this folder is a module, and `cargo test --release --test integration engine::` runs
//! the tests of `engine.rs`. A file that is not named here is never compiled, so
//! [`every_file_is_a_module`] refuses it.

mod cli;
mod common;
mod engine;
mod examples;
mod family;
mod faults;
mod fuzz;
mod golden;
mod interruptions;
mod masks;
mod metrics;
mod own_rule;
mod pages;
mod parity;
mod rooms;
mod sampling;
mod shaders;
mod tokenizer;
mod vae;
mod window;
mod words;
mod workflow;

#[test]
fn every_file_is_a_module() {
    let this = include_str!("main.rs");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in std::fs::read_dir(folder).expect("folder of tests") {
        let path = entry.expect("entry").path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            assert!(this.contains(&format!("\nmod {name};\n")), "tests/main.rs lacks `mod {name};`");
        }
    }
}
