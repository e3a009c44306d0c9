//! Runs the programs of `examples/`, which Cargo builds together with the tests.

use std::path::Path;
use std::process::Command;

/// Runs an example in the root of the repository, where the demo model is, and gives its output.
fn run(name: &str, args: &[&str]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_ditscope")).with_file_name("examples").join(name);
    let program = program.with_extension(std::env::consts::EXE_EXTENSION);
    let output = Command::new(&program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_clip_is_generated() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("cat.mp4");
    let said = run("generate", &[clip.to_str().unwrap(), "2"]);
    assert!(said.contains("step 2 of 2") && clip.is_file(), "{said}");
}

#[test]
fn a_profile_becomes_a_plan() {
    let said = run("profile_and_plan", &["4"]);
    let plan = said.lines().rev().nth(1).unwrap_or_default();
    assert_eq!((plan.len(), plan.matches('#').count()), (4, 2), "{said}");
}

#[test]
fn a_rule_of_ones_own_runs() {
    assert!(run("own_rule", &["4"]).contains("s of denoising"));
}

#[test]
fn a_device_of_ones_own_computes() {
    assert!(run("own_device", &["2"]).contains("17 frames of 64x64"));
}
