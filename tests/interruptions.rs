//! Runs that are ended from outside. A signal ends a command in order, and keeps what is measured.
//! After `kill -9` no final file is damaged, and captures open up to the last finished step.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{ditscope, generate, model};
use ditscope::engine::capture::file;

/// Number of kills in the test command. `DITSCOPE_KILLS` sets another number.
const KILLS: u64 = 4;

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// Sends a signal, by its name.
fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// Waits until something is so, at most a minute.
#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} has not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a command by a signal when something is so. Returns what the command said.
#[track_caller]
fn interrupted(command: Command, name: &str, what: &str, is_so: impl FnMut() -> bool) -> String {
    let child = start(command);
    wait_until(what, is_so);
    signal(&child, name);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("cancelled"), "{said}");
    said
}

fn steps(path: &Path) -> usize {
    file::open(path).map_or(0, |loaded| loaded.capture.steps.len())
}

#[test]
fn a_signal_keeps_the_capture() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let [clip, capture] = ["clip.gif", "run.capture"].map(|name| folder.path().join(name));
    let partial = folder.path().join("run.capture.partial");
    let mut command = generate(model(), &clip, &["--steps", "500"]);
    command.arg("--capture").arg(&capture);
    let said = interrupted(command, "INT", "a step", || steps(&partial) > 0);
    assert!(said.contains("run.capture"), "{said}");
    let loaded = file::open(&capture).expect("the capture opens");
    assert!(loaded.damage.is_none() && !loaded.capture.steps.is_empty());
    assert!(loaded.capture.outcome.is_some_and(|outcome| outcome.error.is_some()));
    assert!(!clip.exists() && !partial.exists());
}

/// A run that was interrupted goes on to the same clip, without and with reuse, after a signal and
/// after a kill.
#[test]
fn a_run_goes_on_to_the_same_clip() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    for (name, strategy) in [("INT", "off"), ("KILL", "uniform:every=3,warm-up=2,last=0")] {
        let options = ["--steps", "60", "--strategy", strategy];
        let whole = generate(model(), &at("whole.gif"), &options).output().expect("the program starts");
        assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
        let [capture, partial] = ["run.capture", "run.capture.partial"].map(at);
        let mut command = generate(model(), &at("clip.gif"), &options);
        command.arg("--resumable").arg("--capture").arg(&capture);
        let mut child = start(command);
        wait_until("some steps", || steps(&partial) > 6);
        signal(&child, name);
        child.wait().expect("it ends");
        let place = if capture.exists() { &capture } else { &partial };
        let done = steps(place);
        assert!(done > 6 && done < 60 && !at("clip.gif").exists(), "{done} steps");
        let mut command = ditscope(&["generate", "--resume"]);
        let other = command.arg(place).args(["--seed", "5"]).output().expect("the program starts");
        assert_eq!(other.status.code(), Some(2), "another seed is another clip");
        assert!(String::from_utf8_lossy(&other.stderr).contains("another seed"));
        let again = ditscope(&["generate", "--resume"]).arg(place).output().expect("the program starts");
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(pixels(&at("clip.gif")), pixels(&at("whole.gif")), "{name}, {strategy}");
        assert_eq!(steps(&capture), 60);
        fs::remove_file(at("clip.gif")).expect("removed");
        fs::remove_file(&capture).expect("removed");
    }
}

/// A GIF without its settings, which hold times and names.
fn pixels(clip: &Path) -> Vec<u8> {
    let mut decoder = gif::DecodeOptions::new().read_info(fs::File::open(clip).expect("a clip")).expect("a GIF");
    let mut all = Vec::new();
    while let Some(frame) = decoder.read_next_frame().expect("a frame") {
        all.extend_from_slice(&frame.buffer);
    }
    all
}

#[test]
fn a_signal_keeps_the_finished_runs_of_a_profile() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let prompts = folder.path().join("prompts.txt");
    fs::write(&prompts, (0..200).map(|number| format!("cat {number}\n")).collect::<String>()).expect("written");
    let [profile, partial] = ["p.json", "p.json.partial"].map(|name| folder.path().join(name));
    let mut command = ditscope(&["profile", "--size", "48x32", "--frames", "5", "--steps", "3", "--no-tuning"]);
    command.arg("--model").arg(model()).arg("--prompts").arg(&prompts).arg("-o").arg(&profile);
    let said = interrupted(command, "TERM", "a run", || partial.exists());
    assert!(said.contains("the runs until then are in") && !profile.exists(), "{said}");
    let read = ditscope(&["inspect", partial.to_str().expect("UTF-8")]).output().expect("the program starts");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}

/// Kills runs at random moments: every third one while it starts, the others at a step, or while
/// the files are written. `DITSCOPE_KILLS=100 cargo test --release --test integration
/// interruptions::killed` kills a hundred.
#[test]
fn killed_runs_leave_no_damaged_file() {
    const STEPS: usize = 40;
    let kills = std::env::var("DITSCOPE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::tempdir().expect("temporary folder");
    let [clip, capture] = ["clip.gif", "run.capture"].map(|name| folder.path().join(name));
    let partial = folder.path().join("run.capture.partial");
    let (mut finished, mut opened, mut inside) = (0, 0, 0);
    for kill in 0..kills {
        for path in [&clip, &capture, &partial] {
            fs::remove_file(path).ok();
        }
        let mut command = generate(model(), &clip, &["--steps", &STEPS.to_string()]);
        command.arg("--capture").arg(&capture);
        let mut child = start(command);
        let random = kill * 7919 % 97;
        let mut delay = Duration::from_millis(random * 10);
        if kill % 3 > 0 {
            let step = 1 + random as usize * STEPS / 97;
            wait_until("a step", || steps(&partial) >= step || child.try_wait().is_ok_and(|ended| ended.is_some()));
            delay /= 50;
        }
        let begun = Instant::now();
        while begun.elapsed() < delay && child.try_wait().expect("a process").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().ok();
        child.wait().expect("it ends");
        if clip.exists() {
            finished += 1;
            assert!(fs::read(&clip).expect("a clip").ends_with(b";"), "kill {kill}: the clip is cut");
        }
        if capture.exists() {
            assert!(
                file::open(&capture).is_ok_and(|loaded| loaded.damage.is_none()),
                "kill {kill}: the capture is cut"
            );
        }
        // A capture of which the first record is not written yet holds nothing.
        if fs::metadata(&partial).is_ok_and(|file| file.len() > 4096) {
            let loaded = file::open(&partial).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
            let numbers: Vec<usize> = loaded.capture.steps.iter().map(|step| step.step).collect();
            assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "kill {kill}");
            opened += 1;
            inside += usize::from((1..STEPS).contains(&numbers.len()));
        }
    }
    println!("{kills} kills, {inside} of them between steps: {finished} clips finished, {opened} captures opened");
    assert!(inside > 0, "no run was killed between two steps");
}
