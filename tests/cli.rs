//! Runs the program as a process: exit codes, one clear line on stderr for every failure, and
//! complete files or no files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::common::Golden;
use safetensors::Dtype;
use serde_json::Value;

/// A complete model folder with synthetic weights. All tests share it.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().expect("temporary folder");
        Golden::load("pipeline").materialise(folder.path(), Dtype::F16);
        folder
    });
    made.path()
}

/// A copy of [`model`] that a test may damage.
fn copy_of_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("temporary folder");
    copy(model(), folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("model folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

pub fn ditscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ditscope"));
    // Without the first variable some drivers' loaders write to stderr. The second keeps what runs
    // tell out of the user's own folder.
    command
        .args(arguments)
        .env("XDG_RUNTIME_DIR", std::env::temp_dir())
        .env("XDG_DATA_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/data"));
    command
}

/// The command `ditscope generate` for a small clip of a model, with `output` and `more` arguments.
pub fn generate(model: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = ditscope(&["generate", "a cat walking on grass", "--json", "--no-tuning"]);
    command.arg("--model").arg(model).arg("-o").arg(output).args(more);
    for (option, value) in [("--size", "48x32"), ("--frames", "5"), ("--steps", "2")] {
        if !more.contains(&option) {
            command.args([option, value]);
        }
    }
    command
}

fn run(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

/// Asserts the exit code, one line on stderr that contains all `words`, and an empty stdout.
#[track_caller]
fn fails(command: Command, code: i32, words: &[&str]) {
    let what = format!("{command:?}").chars().take(400).collect::<String>();
    let output = run(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert!(output.stdout.is_empty(), "{what}: {}", String::from_utf8_lossy(&output.stdout));
    let line = stderr.strip_suffix('\n').unwrap_or(&stderr);
    assert!(line.starts_with("error: ") && !line.contains('\n') && line.len() < 1000, "{what}: {stderr}");
    for word in words {
        assert!(line.contains(word), "{what}: \"{word}\" is not in: {line}");
    }
}

/// A command that must fail and leave its output folder empty.
#[track_caller]
fn fails_without_output(model: &Path, more: &[&str], code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().expect("temporary folder");
    fails(generate(model, &folder.path().join("clip.gif"), more), code, words);
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "half-written output");
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("one JSON object on stdout")
}

#[test]
fn every_format_is_written_and_the_summary_tells_all() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let beginnings: [(&str, &[u8]); 4] =
        [("clip.gif", b"GIF89a"), ("clip.png", b"\x89PNG"), ("clip.y4m", b"YUV4MPEG2 "), ("clip.mp4", b"")];
    for (name, beginning) in beginnings {
        let path = folder.path().join(name);
        let summary = json(&run(generate(model(), &path, &["--seed", "3"])));
        assert!(fs::read(&path).expect("output").starts_with(beginning), "{name}");
        assert_eq!(summary["output"], path.to_str().expect("UTF-8"));
        assert_eq!(summary["prompt"], "a cat walking on grass");
        assert_eq!(summary["size"], serde_json::json!([48, 32]));
        assert_eq!((&summary["frames"], &summary["steps"], &summary["seed"]), (&5.into(), &2.into(), &3.into()));
        let fields =
            ["negative_prompt", "model", "guidance_scale", "flow_shift", "scheduler", "strategy", "peak_memory"];
        for field in fields {
            assert!(!summary[field].is_null(), "{field}: {summary}");
        }
        for part in ["load", "text", "denoise", "decode", "total"] {
            assert!(summary["seconds"][part].as_f64().is_some_and(|seconds| seconds >= 0.0), "{part}: {summary}");
        }
    }
    assert_eq!(&fs::read(folder.path().join("clip.mp4")).expect("output")[4..8], b"ftyp");
    let frames = folder.path().join("frames/");
    let slash = PathBuf::from(format!("{}/", frames.display()));
    json(&run(generate(model(), &slash, &[])));
    assert!((0..5).all(|i| frames.join(format!("{i:04}.png")).is_file()));
}

#[test]
fn saved_latents_give_the_same_clip() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    let latents = at("latents.safetensors");
    let latents = latents.to_str().expect("UTF-8");
    json(&run(generate(model(), &at("first.y4m"), &["--seed", "7", "--save-latents", latents])));
    json(&run(generate(model(), &at("again.y4m"), &["--seed", "8", "--latents", latents])));
    json(&run(generate(model(), &at("other.y4m"), &["--seed", "8"])));
    let clip = |name: &str| fs::read(at(name)).expect("output");
    assert_eq!(clip("first.y4m"), clip("again.y4m"));
    assert_ne!(clip("first.y4m"), clip("other.y4m"));
    fails_without_output(model(), &["--latents", latents, "--frames", "9"], 2, &["latents", "[4, 3, 4, 6]"]);
    fails_without_output(model(), &["--latents", "/nonexistent.safetensors"], 1, &["latents", "/nonexistent"]);
    fs::write(at("broken"), b"not latents").expect("written");
    let broken = at("broken");
    fails_without_output(model(), &["--latents", broken.to_str().expect("UTF-8")], 1, &["latents", "broken"]);
}

#[test]
fn impossible_requests_are_wrong_use() {
    let too_long = "a".repeat(100_000);
    let wrong: [(&[&str], &[&str]); 11] = [
        (&["--steps", "0"], &["step"]),
        (&["--size", "50x32"], &["width 50", "48"]),
        (&["--size", "48x0"], &["height 0"]),
        (&["--size", "48x1000000"], &["height 1000000"]),
        (&["--frames", "6"], &["6 frames", "5"]),
        (&["--frames", "0"], &["0 frames"]),
        (&["--frames", "4000000001"], &["4000000001 frames", "at most"]),
        (&["--guidance-scale", "nan"], &["guidance"]),
        (&["--guidance-scale", "-3"], &["guidance"]),
        (&["--flow-shift", "0"], &["shift"]),
        (&["--flow-shift", "-1"], &["shift"]),
    ];
    for (more, words) in wrong {
        fails_without_output(model(), more, 2, words);
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let output = folder.path().join("clip.gif");
    let mut command = ditscope(&["generate", &too_long, "--json", "--size", "48x32", "--frames", "5", "--steps", "1"]);
    command.arg("--model").arg(model()).arg("-o").arg(&output);
    fails(command, 2, &["20000", "characters"]);
    fails(generate(model(), &folder.path().join("clip.avi"), &[]), 2, &["clip.avi", ".mp4"]);
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
    // clap's own errors have more than one line. Their exit code is also 2.
    assert_eq!(run(ditscope(&["generate", "x", "--size", "big"])).status.code(), Some(2));
    assert_eq!(run(ditscope(&["no-such-command"])).status.code(), Some(2));
}

#[test]
fn damaged_models_are_refused_with_the_file_named() {
    const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";
    type Damage = fn(&Path);
    type Case<'a> = (&'static str, &'a dyn Fn(&Path));
    let rewrite =
        |change: fn(Vec<u8>) -> Vec<u8>| move |path: &Path| fs::write(path, change(fs::read(path).unwrap())).unwrap();
    let remove: Damage = |path| fs::remove_file(path).unwrap();
    let truncated = rewrite(|bytes| bytes[..bytes.len() / 2].to_vec());
    let long_header = rewrite(|mut bytes| {
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        bytes
    });
    // Moves an offset beyond the file, in a header of the same length.
    let lying = rewrite(|bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = String::from_utf8(bytes[8..8 + length].to_vec()).unwrap().replacen("[0,", "[9,", 1);
        [&bytes[..8], header.as_bytes(), &bytes[8 + length..]].concat()
    });
    let empty: Damage = |path| fs::write(path, "").unwrap();
    let cases: [Case; 11] = [
        (WEIGHTS, &remove),
        (WEIGHTS, &truncated),
        (WEIGHTS, &long_header),
        (WEIGHTS, &lying),
        (WEIGHTS, &empty),
        ("transformer/config.json", &empty),
        ("transformer/config.json", &|path| fs::write(path, r#"{"_class_name": "FluxTransformer2DModel"}"#).unwrap()),
        ("vae/config.json", &truncated),
        ("text_encoder/config.json", &|path| fs::write(path, "[]").unwrap()),
        ("tokenizer/tokenizer.json", &truncated),
        ("scheduler/scheduler_config.json", &|path| fs::write(path, r#"{"flow_shift": "three"}"#).unwrap()),
    ];
    for (file, damage) in cases {
        let model = copy_of_model();
        damage(&model.path().join(file));
        let folder = file.split('/').next().expect("a folder");
        fails_without_output(model.path(), &[], 1, &[folder]);
        // `inspect` shows the readable parts of such a model and does not panic.
        let inspected = run(ditscope(&["inspect", model.path().to_str().expect("UTF-8")]));
        assert!(matches!(inspected.status.code(), Some(0..=2)), "{file}: {:?}", inspected.status);
    }
    let wrong_size = copy_of_model();
    let config = wrong_size.path().join("transformer/config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"ffn_dim\": 160", "\"ffn_dim\": 164");
    fs::write(&config, text).unwrap();
    fails_without_output(wrong_size.path(), &[], 1, &["ffn"]);
    fails_without_output(Path::new("/nonexistent"), &[], 1, &["/nonexistent"]);
    fails_without_output(tempfile::tempdir().expect("temporary folder").path(), &[], 1, &["no model in it"]);
}

#[test]
fn inspect_tells_by_its_exit_code_whether_the_model_runs() {
    let inspect = |model: &Path, more: &[&str]| {
        let mut command = ditscope(&["inspect"]);
        command.arg(model).args(more);
        command
    };
    let good = run(inspect(model(), &[]));
    assert_eq!(good.status.code(), Some(0));
    let listed = String::from_utf8(good.stdout).expect("UTF-8");
    assert!(listed.contains("diffusion_pytorch_model.safetensors: transformer"), "{listed}");
    let damaged = copy_of_model();
    fs::write(damaged.path().join("tokenizer/tokenizer.json"), "{}").expect("written");
    let refused = run(inspect(damaged.path(), &[]));
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(why.contains("cannot run") && why.contains("not a usable tokenizer"), "{why}");
    let named = model().join("tokenizer/tokenizer.json");
    let named = named.to_str().expect("UTF-8");
    assert_eq!(run(inspect(damaged.path(), &["--tokenizer", named])).status.code(), Some(0));
}

/// Of several files for one part the user names one. What a scheduler's file does not say is said
/// with options.
#[test]
fn files_and_options_make_up_for_a_folder() {
    let folder = copy_of_model();
    let part = |name: &str| folder.path().join("transformer").join(name);
    let weights = "diffusion_pytorch_model.safetensors";
    fs::copy(part(weights), part("other.safetensors")).expect("copied");
    fs::write(folder.path().join("vae/notes.safetensors"), "<!DOCTYPE html>").expect("written");
    fails_without_output(folder.path(), &[], 1, &["both hold it", "--transformer FILE"]);
    let config = folder.path().join("scheduler/scheduler_config.json");
    fs::write(config, r#"{"_class_name": "LCMScheduler"}"#).expect("written");
    let named = part("other.safetensors");
    let options = ["--transformer", named.to_str().expect("UTF-8")];
    fails_without_output(folder.path(), &options, 1, &["LCMScheduler", "--scheduler and --flow-shift"]);
    let clip = folder.path().join("clip.gif");
    let said = ["--scheduler", "unipc", "--flow-shift", "3", "--seed", "-1", "--negative-prompt", "- blurry"];
    let done = json(&run(generate(folder.path(), &clip, &[&options[..], &said].concat())));
    assert_eq!((done["flow_shift"].as_f64(), done["negative_prompt"].as_str()), (Some(3.0), Some("- blurry")));
    assert!(done["seed"].as_u64().is_some_and(|seed| seed < 1 << 32) && clip.is_file());
}

#[test]
fn no_adapter_is_said_with_what_to_do() {
    fails_without_output(model(), &["--device", "nosuch"], 1, &["nosuch", "found"]);
    fails_without_output(model(), &["--device", ""], 1, &["found"]);
    for (variable, value) in [("WGPU_BACKEND", "gl"), ("WGPU_ADAPTER_NAME", "nosuch")] {
        let mut command = ditscope(&["bench", "--kernels"]);
        command.env(variable, value);
        fails(command, 1, &[variable, value]);
    }
    if cfg!(target_os = "linux") {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut command = generate(model(), &folder.path().join("clip.gif"), &[]);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        fails(command, 1, &["no GPU adapter", "driver"]);
        let mut command = ditscope(&["devices", "--json"]);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        assert_eq!(json(&run(command)), serde_json::json!([]));
        let mut command = ditscope(&["devices"]);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        fails(command, 1, &["no GPU adapter", "driver"]);
    }
}

#[test]
fn outputs_that_cannot_be_written_leave_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let missing = folder.path().join("missing/clip.gif");
    fails(generate(model(), &missing, &[]), 1, &["missing/clip.gif", "no folder"]);
    assert!(!folder.path().join("missing").exists());
    let file = folder.path().join("file");
    fs::write(&file, "kept").expect("written");
    fails(generate(model(), &file.join("clip.gif"), &[]), 1, &["clip.gif"]);
    let full = folder.path().join("full");
    fs::create_dir(&full).expect("folder");
    fs::write(full.join("mine"), "kept").expect("written");
    fails(generate(model(), &PathBuf::from(format!("{}/", full.display())), &[]), 2, &["not empty"]);
    assert_eq!(fs::read(full.join("mine")).expect("still there"), b"kept");
    let latents = folder.path().join("missing/latents.safetensors");
    let output = folder.path().join("clip.gif");
    fails(generate(model(), &output, &["--save-latents", latents.to_str().expect("UTF-8")]), 1, &["latents"]);
    assert!(!output.exists());
    assert_eq!(fs::read(&file).expect("still there"), b"kept");
}

/// The program renames a finished file to its path, which would replace a pipe or a device there.
#[test]
#[cfg(unix)]
fn outputs_never_replace_what_is_no_file() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().expect("temporary folder");
    let pipe = folder.path().join("pipe.gif");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let text = pipe.to_str().expect("UTF-8");
    let output = folder.path().join("clip.gif");
    fails(generate(model(), &pipe, &[]), 1, &["pipe.gif", "not a file"]);
    fails(generate(model(), &output, &["--save-latents", text]), 1, &["pipe.gif", "not a file"]);
    fails(generate(model(), &output, &["--capture", text]), 1, &["pipe.gif", "not a file"]);
    assert!(fs::metadata(&pipe).expect("still there").file_type().is_fifo());
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1, "something was left");
}

/// Mounts a file system of a few kilobytes on a folder. Returns whether the user may do so.
#[cfg(target_os = "linux")]
fn mount_small(folder: &Path, size: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(folder).stderr(std::process::Stdio::null());
    mount.status().is_ok_and(|status| status.success())
}

/// Uses a file system of a few kilobytes. The test is skipped if the user may not mount one.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_without_leftovers() {
    let folder = tempfile::tempdir().expect("temporary folder");
    if !mount_small(folder.path(), "size=4k") {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let names = ["clip.y4m", "clip.mp4", "clip.gif", "clip.png", "clip/"];
    let ran = names.map(|name| {
        let output = run(generate(model(), Path::new(&format!("{}/{name}", folder.path().display())), &[]));
        (name, output, fs::read_dir(folder.path()).expect("folder").count())
    });
    Command::new("umount").arg(folder.path()).status().expect("umount");
    for (name, output, left) in ran {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        let one_line = stderr.starts_with("error: ") && stderr.trim().lines().count() == 1;
        assert!(one_line && stderr.contains(name) && stderr.contains("space"), "{stderr}");
        assert_eq!(left, 0, "{name}: half-written output");
    }
}

/// A disk that is full at the end only: the clip goes to the folder for temporary files.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_does_not_cost_the_clip() {
    let [small, temporary] = [(); 2].map(|()| tempfile::tempdir().expect("temporary folder"));
    if !mount_small(small.path(), "size=72k") {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let mut command = generate(model(), &small.path().join("clip.y4m"), &["--frames", "17"]);
    let output = command.env("TMPDIR", temporary.path()).output().expect("the program starts");
    Command::new("umount").arg(small.path()).status().expect("umount");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let kept = temporary.path().join("ditscope-clip-0.y4m");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("space") && stderr.contains(kept.to_str().expect("UTF-8")), "{stderr}");
    assert!(fs::read(kept).expect("the clip").starts_with(b"YUV4MPEG2"));
}

/// An empty folder on another disk, as a mount or behind a link, takes the frames.
#[test]
#[cfg(target_os = "linux")]
fn frames_go_into_a_mounted_folder() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let [mount, link] = ["mount", "link"].map(|name| folder.path().join(name));
    fs::create_dir(&mount).expect("folder");
    std::os::unix::fs::symlink("mount", &link).expect("link");
    if !mount_small(&mount, "size=1m") {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let output = run(generate(model(), Path::new(&format!("{}/", link.display())), &[]));
    let left = fs::read_dir(&mount).expect("folder").count();
    Command::new("umount").arg(&mount).status().expect("umount");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((left, link.is_symlink()), (6, true), "five frames and the settings");
}

/// A capture that cannot be written is reported at the end, because the clip is worth more than the
/// capture.
#[test]
#[cfg(target_os = "linux")]
fn a_capture_that_fails_does_not_cost_the_clip() {
    let (small, folder) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    if !mount_small(small.path(), "size=4k") {
        println!("skipped: no file system can be mounted here");
        return;
    }
    let (clip, capture) = (folder.path().join("clip.gif"), small.path().join("run.capture"));
    let output = run(generate(model(), &clip, &["--capture", capture.to_str().expect("UTF-8")]));
    Command::new("umount").arg(small.path()).status().expect("umount");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is written, but not all else") && stderr.contains("space"), "{stderr}");
    assert!(fs::read(&clip).expect("the clip").starts_with(b"GIF89a"));
    assert!(!output.stdout.is_empty(), "no summary");
}

#[test]
fn wrong_uses_are_said_before_anything_runs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (sheet, picture) = (at("sheet.avi"), at("window.mp4"));
    fails(ditscope(&["generat", "a cat"]), 2, &["generat", "did you mean generate?"]);
    fails(ditscope(&["no-such.capture"]), 2, &["no-such.capture"]);
    fails(ditscope(&["README.md"]), 2, &["README.md", "no capture", "--capture FILE"]);
    fails(ditscope(&["sheet", "-o", &sheet]), 2, &["sheet.avi", ".mp4"]);
    fails(ditscope(&["sheet", "-o", &at("sheet.png"), "--scale", "900"]), 2, &["pixels"]);
    fails(ditscope(&["screenshot", "assets/demo.capture", "-o", &picture]), 2, &["window.mp4", ".png"]);
    fails(ditscope(&["sheet", "-o", &at("sheet.mp4"), "--scale", "30"]), 2, &["H.264"]);
    fails(
        ditscope(&["generate", "a cat", "-o", &at("one.gif"), "--capture", &at("one.gif")]),
        2,
        &["two of the outputs"],
    );
    let long = folder.path().join("prompts.txt");
    fs::write(&long, format!("a cat\n{}\n", "a".repeat(20_001))).expect("written");
    fails(
        ditscope(&["sheet", "--prompts", &long.display().to_string(), "-o", &at("sheet.png")]),
        2,
        &["20001 characters"],
    );
    fs::remove_file(&long).expect("removed");
    for wrong in [["--columns", "0"], ["--seeds", "0"], ["--limit", "0"]] {
        let output = run(ditscope(&["sheet", "-o", &at("sheet.png"), wrong[0], wrong[1]]));
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let other = ["--strategy", "profiling:blocks=0-900"];
    fails_without_output(model(), &other, 2, &["does not have"]);
    assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0);
}

/// The reader ends early in `ditscope inspect ... | head -1`.
#[test]
fn a_reader_that_goes_is_no_panic() {
    let mut command = ditscope(&["inspect", "assets/demo.capture"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A full disk behind the streams, and readers that have gone: the clip is written, nothing panics,
/// and what cannot be printed is told where somebody reads.
#[test]
#[cfg(target_os = "linux")]
fn streams_that_nobody_reads_lose_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").expect("/dev/full"));
    let gone = || {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let clip = folder.path().join("clip.gif");
    let mut noisy = generate(model(), &clip, &["--strategy", "uniform:every=2,warm-up=0,last=0"]);
    let status = noisy.stdout(full()).stderr(gone()).status().expect("the program starts");
    assert_eq!(status.code(), Some(1), "the summary was not printed");
    assert!(fs::read(&clip).expect("the clip").starts_with(b"GIF89a"));
    let text = model().to_str().expect("UTF-8");
    let commands: [&[&str]; 6] = [
        &["devices"],
        &["inspect", text],
        &["inspect", "assets/demo.capture"],
        &["shaders"],
        &["nonsense"],
        &["--help"],
    ];
    for arguments in commands {
        let quiet = ditscope(arguments).stdout(gone()).stderr(gone()).status().expect("the program starts");
        assert!(quiet.code().is_some_and(|code| code <= 2), "{arguments:?}: {quiet}");
        let output = ditscope(arguments).stdout(full()).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code().is_some_and(|code| code <= 2) && !said.contains("panicked"),
            "{arguments:?}: {said}"
        );
    }
    let output = ditscope(&["devices"]).stdout(full()).output().expect("the program starts");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: everything is done, but"));
}

#[test]
fn lists_are_valid_json() {
    let devices = json(&run(ditscope(&["devices", "--json"])));
    assert!(devices.as_array().is_some_and(|list| list.iter().all(|device| device["name"].is_string())));
    let inspected = json(&run(ditscope(&["inspect", "--json", model().to_str().expect("UTF-8")])));
    assert!(inspected.is_object());
}

/// A model without a profile is planned for at once; its runs tell more, and measuring changes no
/// clip.
#[test]
fn plans_are_made_without_a_profile_and_from_runs() {
    let folder = tempfile::tempdir().expect("folder");
    let (bare, data) = (folder.path().join("model"), folder.path().join("data"));
    copy(model(), &bare);
    let speedup = ["--speedup", "2", "--steps", "6"];
    let clip = |name: &str, more: &[&str]| {
        let output = folder.path().join(name);
        let mut command = generate(&bare, &output, more);
        let done = run({
            command.env("XDG_DATA_HOME", &data);
            command
        });
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{told}");
        let summary: Value = serde_json::from_slice(&done.stdout).expect("JSON");
        (fs::read(output).expect("a clip"), summary)
    };
    let learning = |more: &[&str]| {
        let mut command = ditscope(&[&["learning", "--model", bare.to_str().expect("UTF-8")][..], more].concat());
        command.env("XDG_DATA_HOME", &data);
        String::from_utf8(run(command).stdout).expect("UTF-8")
    };
    let (cold, summary) = clip("cold.y4m", &speedup);
    assert!(summary["planned_from"].as_str().is_some_and(|text| text.contains("assumption")), "{summary}");
    assert!(summary["expected_psnr"].is_number() && summary["flop_speedup"].as_f64() > Some(1.5), "{summary}");
    let (full, _) = clip("full.y4m", &["--steps", "6"]);
    assert!(learning(&[]).contains("6 steps, 48x32"));
    let (unmeasured, _) = clip("unmeasured.y4m", &["--steps", "6", "--no-learning"]);
    assert!(full == unmeasured, "measuring changed the clip");
    let (learnt, summary) = clip("learnt.y4m", &speedup);
    assert_eq!(summary["planned_from"], "one run without reuse");
    let (again, _) = clip("again.y4m", &[&speedup[..], &["--no-learning"]].concat());
    assert!(cold == again && learnt != full, "the assumption makes the same plan");
    assert!(learning(&["--clear"]).contains("forgotten") && learning(&[]).contains("0 measured runs"));
}
