//! Runs the commands one after another, from profile to plan, clip and comparison, with the demo
//! model and few steps. Each command reads the files of the command before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const SMALL: [&str; 4] = ["--steps", "6", "--frames", "5"];
const FEWER: [&str; 2] = ["--strategy", "fewer-steps:steps=3"];

fn ditscope(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ditscope"));
    command
        .args(arguments)
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .env("XDG_DATA_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/data"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("the program starts")
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = ditscope(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn fails(arguments: &[&str], code: i32, word: &str) {
    let output = ditscope(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(word), "{arguments:?}: {text}");
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_profile_leads_to_plans_clips_and_comparisons() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    let (prompts, profile, report) = (place("prompts.txt"), place("profile.json"), place("report"));
    fs::write(&prompts, "a dog running left on grass\na rocket flying up at night\n").expect("written");
    let list = ["--prompts", text(&prompts)];

    let arguments = ["profile", "-o", text(&profile), "--report", text(&report)];
    let said = succeeds(&[&arguments[..], &list, &SMALL].concat());
    assert!(said.contains("background blocks"), "{said}");
    let read: Value = serde_json::from_slice(&fs::read(&profile).expect("a profile")).expect("JSON");
    assert_eq!(read["calibration"]["gram"].as_array().map(Vec::len), Some(6));
    assert!(fs::read_dir(&report).expect("a report").count() >= 4);
    assert!(succeeds(&["inspect", text(&profile)]).contains("12 blocks"));

    let plan = place("plan.json");
    let said = succeeds(&["plan", "--profile", text(&profile), "--speedup", "2", "-o", text(&plan)]);
    assert!(said.lines().next().is_some_and(|line| line.matches('#').count() == 3), "{said}");
    assert!(said.contains("dB PSNR"), "{said}");
    for target in [["--speedup", "1"], ["--min-psnr", "900"]] {
        let said = succeeds(&[&["plan", "--profile", text(&profile)][..], &target].concat());
        assert!(said.contains("identical") && !said.contains("dB"), "{said}");
    }
    let said = succeeds(&[&["generate", "a cat", "-o", text(&place("few.gif"))][..], &FEWER, &SMALL].concat());
    assert!(said.contains("2.00 times less work"), "fewer steps are less work than was asked for: {said}");

    let (clip, capture) = (place("clip.png"), place("run.capture"));
    let generate = ["generate", "a cat walking on grass", "--json", "-o", text(&clip), "--capture", text(&capture)];
    // The number of steps comes from the plan.
    let said = succeeds(&[&generate[..], &["--strategy", text(&plan), "--frames", "5"]].concat());
    let summary: Value = serde_json::from_str(said.trim()).expect("JSON");
    assert_eq!((&summary["strategy"], &summary["frames"]), (&"planner".into(), &5.into()), "{summary}");
    let page = place("run.html");
    assert!(succeeds(&["inspect", text(&capture), "--html", text(&page)]).contains("planner"));
    let page = fs::read_to_string(&page).expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("Reused blocks"));
    fails(&["inspect", text(&profile), "--html", text(&place("no.html"))], 2, "--html needs a capture");
    let picture = place("window.png");
    succeeds(&["screenshot", text(&capture), "-o", text(&picture), "--size", "800x600"]);
    assert!(fs::metadata(&picture).expect("a picture").len() > 10_000);

    let compared = place("compared");
    let arguments = ["compare", "--profile", text(&profile), "-o", text(&compared)];
    let strategies = ["--strategies", "planner;uniform;fewer-steps;profiling;profiling:list=random,count=9,seed=3"];
    let table = succeeds(&[&arguments[..], &list, &SMALL, &strategies].concat());
    assert!(table.contains("dB") && table.contains("expected)"), "{table}");
    assert!(table.contains("prompts are those that strategies were profiled"), "{table}");
    for row in ["| planner |", "| uniform |", "| fewer-steps |", "| profiling |", "seed=3 |", "| off again |"] {
        assert!(table.contains(row), "{row}: {table}");
    }
    let again = table.lines().find(|line| line.starts_with("| off again")).expect("a row");
    assert!(again.contains("80.0 ± 0.0"), "the baseline does not repeat itself: {again}");
    for file in [
        "report.md",
        "report.html",
        "rows.csv",
        "settings.json",
        "pareto-psnr.svg",
        "pareto-lpips.png",
        "sheets/001-seed0.mp4",
        "sheets/001-seed0.png",
        "sheets/002-seed0.mp4",
    ] {
        assert!(compared.join(file).is_file(), "{file}");
    }
    fails(&[&arguments[..], &list, &SMALL].concat(), 2, "--resume");
    let resumed = [&arguments[..], &["--resume"], &list].concat();
    let same = [&resumed[..], &SMALL, &strategies].concat();
    for again in [&same[..], &["compare", "--resume", "-o", text(&compared)]] {
        assert_eq!(succeeds(again), table, "nothing is left to run, and nothing changes");
    }
    fails(&[&resumed[..], &["--strategies", "uniform"]].concat(), 2, "has other strategies");
    fails(&[&resumed[..], &["--steps", "9", "--frames", "5"]].concat(), 2, "num inference steps: 6 there, 9 here");
}

#[test]
fn impossible_profiles_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let profile = folder.path().join("profile.json");
    let with = |more: &[&'static str]| [&["profile", "-o", text(&profile)][..], more].concat();
    fails(&with(&["--steps", "1"]), 2, "choose 2 to");
    fails(&with(&["--steps", "1000"]), 2, "1000 steps");
    fails(&with(&["--mask", "file:no such place"]), 1, "no such place");
    fails(&with(&["--mask", "guess"]), 2, "guess");
    let white = folder.path().join("white.png");
    let picture = png::Encoder::new(fs::File::create(&white).expect("created"), 8, 8).write_header();
    picture.and_then(|mut picture| picture.write_image_data(&[255; 64])).expect("written");
    let white = format!("file:{}", text(&white));
    fails(&[&with(&["--mask"])[..], &[&white]].concat(), 2, "no frame of the mask has tokens of foreground");
    assert!(!profile.exists());
}

/// Before the first run, `compare` refuses settings that tuning would replace and strategies that
/// cannot be compared.
#[test]
fn impossible_comparisons_are_refused_before_anything_runs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let output = folder.path().join("compared");
    let plan = folder.path().join("plan.json");
    fs::write(&plan, "{\"name\": \"off\"}").expect("written");
    let with = |strategies: &str, speedups: &str, code: i32, word: &str| {
        let tuned = [&["compare", "-o", text(&output), "--strategies", strategies][..], &SMALL].concat();
        let speedups = if speedups.is_empty() { vec![] } else { vec!["--speedups", speedups] };
        fails(&[&tuned[..], &speedups].concat(), code, word);
    };
    with("uniform:every=3", "2", 2, "tuning chooses every");
    with("fewer-steps:steps=3", "2", 2, "tuning chooses steps");
    with("deltadit:share=0.5", "2", 2, "tuning chooses share");
    with("planner:x=1", "", 2, "no setting called x");
    with("uniform turbo", "", 2, "turbo");
    with("uniform;missing.json", "", 1, "missing.json");
    with(text(&plan), "2", 2, "a file says all of its settings");
    with("uniform", "0.5", 2, "a speed-up of 0.5");
    with("dbcache:front=40", "2", 2, "cannot run");
    with("fewer-steps:steps=0", "", 2, "one step at least");
    with("profiling:list=foreground,count=3", "", 2, "count is of background blocks");
    fails(&[&["compare", "-o", text(&output), "--size", "16x16"][..], &SMALL].concat(), 2, "LPIPS needs 31 pixels");
    fails(&["compare", "-o", text(&output), "--shard", "5/4"], 2, "write 3/16");
    fails(&["compare", "-o", text(&output), "--merge", text(&plan)], 1, "settings.json");
    fails(&["compare", "-o", text(&output), "--merge", text(&plan), "--resume"], 2, "cannot be used with");
    assert!(!output.exists());
}
