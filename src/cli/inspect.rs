//! `ditscope inspect`: what a model's folder, a capture or a profile is.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::engine::Capture;
use crate::engine::capture::{file, page};
use crate::profiling::profile::Profile;

use super::{FileArgs, WrongUse};

/// Arguments of `ditscope inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A model's folder, a capture (.capture, .partial) or a profile (.json)
    #[arg(value_name = "MODEL|CAPTURE|PROFILE")]
    place: PathBuf,
    #[command(flatten)]
    files: FileArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a capture as a page that any browser shows without a network
    #[arg(long, value_name = "FILE.html", conflicts_with = "json")]
    html: Option<PathBuf>,
}

/// Prints what a place holds.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let extension = args.place.extension().and_then(|extension| extension.to_str()).filter(|_| !args.place.is_dir());
    // A profile that is not calibrated yet is NAME.json.partial.
    let profile = args.place.to_str().is_some_and(|name| name.ends_with(".json.partial"));
    let kind = extension.map(|extension| if profile { "json" } else { extension });
    if let (Some(_), false) = (&args.html, matches!(kind, Some("capture" | "partial"))) {
        return Err(WrongUse("--html needs a capture; `compare` writes its page by itself".into()).into());
    }
    match (kind, args.json) {
        (Some("json"), true) => out!("{}", serde_json::to_string(&Profile::read(&args.place)?)?),
        (Some("json"), false) => super::profile::print(&Profile::read(&args.place)?, &args.place),
        (Some("capture" | "partial"), json) => {
            let loaded = file::open(&args.place)?;
            if let Some(damage) = &loaded.damage {
                note!("warning: {}: {damage}", args.place.display());
            }
            if let Some(path) = &args.html {
                crate::media::check_place(path)?;
                crate::media::write_bytes(path, page(&loaded.capture)?.as_bytes())?;
            }
            out!("{}", if json { capture_json(&loaded.capture)? } else { capture_text(&loaded.capture, &args.place)? });
        }
        (_, json) => {
            let summary = crate::model::find_named(&args.place, &args.files.named())?.summary();
            out!("{}", if json { summary.json } else { summary.text });
            if let Some(first) = summary.problems.first() {
                anyhow::bail!("{} cannot run: {first}", args.place.display());
            }
        }
    }
    Ok(())
}

fn capture_json(capture: &Capture) -> serde_json::Result<String> {
    serde_json::to_string(&serde_json::json!({
        "run": capture.run,
        "steps": capture.steps.len(),
        "hit_rate": capture.hit_rate(),
        "flop_speedup": capture.flop_speedup(),
        "masks": capture.masks.iter().map(|mask| &mask.estimator).collect::<Vec<_>>(),
        "warnings": capture.warnings,
        "outcome": capture.outcome,
    }))
}

fn capture_text(capture: &Capture, place: &Path) -> Result<String, std::fmt::Error> {
    let (run, mut text) = (&capture.run, String::new());
    writeln!(
        text,
        "{}: {} of {} steps of {}, by {}",
        place.display(),
        capture.steps.len(),
        run.steps(),
        run.model,
        run.program
    )?;
    writeln!(
        text,
        "  \"{}\", seed {}, guidance {}, {} with shift {}",
        run.prompt,
        run.clip.seed,
        run.clip.guidance_scale,
        run.scheduler,
        run.flow_shift()
    )?;
    writeln!(
        text,
        "  {} frames of {}x{}; {} blocks, {} tokens; {}",
        run.clip.num_frames,
        run.clip.width,
        run.clip.height,
        run.blocks,
        run.tokens(),
        run.adapter
    )?;
    let speedup = capture.flop_speedup().map_or(String::new(), |speedup| format!(", {speedup:.2} times less work"));
    writeln!(
        text,
        "  strategy {}: {:.0} % of the blocks' runs avoided{speedup}",
        run.strategy.name(),
        100.0 * capture.hit_rate()
    )?;
    let has =
        |part: fn(&crate::engine::BlockRecord) -> bool| capture.steps.iter().flat_map(|step| &step.cond).any(part);
    let measured = [
        ("attention received", has(|block| block.received.is_some())),
        ("attention to the subject", has(|block| block.paid.is_some())),
        ("changes", has(|block| block.change.is_some())),
        ("times", has(|block| block.seconds.is_some())),
    ];
    let measured: Vec<_> = measured.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    let list = |names: &[&str]| if names.is_empty() { "none".into() } else { names.join(", ") };
    let masks: Vec<_> = capture.masks.iter().map(|mask| mask.estimator.as_str()).collect();
    write!(text, "  measured: {}; masks: {}", list(&measured), list(&masks))?;
    for warning in &capture.warnings {
        write!(text, "\n  warning: {warning}")?;
    }
    Ok(text)
}
