//! `ditscope compare`: strategies over prompts and seeds, interleaved on one device, against the same model without reuse.

mod report;
mod tune;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use indicatif::ProgressBar;

use crate::caching::StrategyConfig;
use crate::engine::{Engine, Facts, GenerateRequest, Seconds};
use crate::media::Clip;
use crate::metrics::{self, Fidelity, Frames, LPIPS_MIN_SIDE};
use crate::profiling::profile::Profile;

use super::generate::{SUBMIT_BUDGET, bar_style};
use super::job::{Finished, RunArgs, clip, run_job};
use super::strategy::StrategyArgs;
use super::{GpuArgs, WrongUse};

/// Arguments of `ditscope compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Strategies, separated by spaces or semicolons, as in `generate --strategy`; `planner` is what `generate --speedup` uses
    #[arg(long, default_value = "planner;uniform;fewer-steps;profiling")]
    strategies: String,
    /// Tune each strategy to these speed-ups of the denoising, by FLOPs; without, settings are taken as they are, and
    /// the planner plans for 2
    #[arg(long, value_name = "X,X,...", value_delimiter = ',')]
    speedups: Vec<f64>,
    /// Go on with the comparison in the output folder: as it was set up, without tuning anew, and with the rows that it has
    #[arg(long, conflicts_with_all = ["strategies", "speedups", "tuning_prompt"])]
    resume: bool,
    /// Profile of the model, made on other prompts [default: profile.json in the model's folder]
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Prompt on which the thresholds of EasyCache, DBCache and DiCache are tuned; one that is not compared
    #[arg(long, default_value = "a dog walking left in the snow")]
    tuning_prompt: String,
    /// Folder for report.md (means), rows.csv (every run), pareto-*.svg and .png, sheets/ (clips side by side), and settings.json and rows.json, which --resume reads
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    gpu: GpuArgs,
}

impl Args {
    fn names(&self) -> Vec<&str> {
        self.strategies.split([' ', ';']).filter(|name| !name.is_empty()).collect()
    }
}

/// Runs of a prompt and seed besides the strategies': one that warms up, and two of the baseline.
const RUNS_BESIDES: u64 = 3;

/// PSNR of equal clips, in decibels.
const MOST_PSNR: f64 = 200.0;

/// What is compared and under which conditions: settings.json.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Settings {
    program: String,
    adapter: String,
    model_id: String,
    vae_id: String,
    size: [usize; 2],
    num_frames: usize,
    num_inference_steps: usize,
    guidance_scale: f64,
    strategies: Vec<Entry>,
}

/// One strategy to compare.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Entry {
    /// Its name in tables.
    name: String,
    /// The speed-up that it was tuned to.
    target: Option<f64>,
    config: StrategyConfig,
}

/// One run beside its baseline.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Row {
    strategy: String,
    target: Option<f64>,
    prompt: String,
    seed: u64,
    flop_speedup: f64,
    /// Denoising loop, wall clock.
    denoise_speedup: f64,
    /// Denoising and decoding, wall clock: what is loaded and encoded once counts for nobody.
    total_speedup: f64,
    hit_rate: f64,
    peak_memory: u64,
    delta_memory: u64,
    #[serde(flatten)]
    fidelity: Scores,
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
struct Scores {
    psnr: f64,
    ssim: f64,
    lpips: f64,
    ssimulacra2: f64,
}

impl From<&Fidelity> for Scores {
    fn from(found: &Fidelity) -> Self {
        // JSON has no infinity, which equal clips have.
        Self { psnr: found.psnr.min(MOST_PSNR), ssim: found.ssim, lpips: found.lpips, ssimulacra2: found.ssimulacra2 }
    }
}

/// Compares and writes.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let prompts = args.runs.read_prompts()?;
    let request = args.runs.request(&prompts[0])?;
    let facts = Facts::of(&request)?;
    if request.width.min(request.height) < LPIPS_MIN_SIDE {
        return Err(WrongUse(format!("LPIPS needs {LPIPS_MIN_SIDE} pixels a side: choose a larger --size")).into());
    }
    let named = StrategyArgs { profile: args.profile.clone(), ..Default::default() };
    let profile = named.fitting_profile(&request.model, &facts)?;
    if let Some(profile) = &profile
        && let Some(shared) = prompts.iter().find(|prompt| profile.prompts.contains(prompt))
    {
        eprintln!("warning: the profile was made on \"{shared}\" too; figures of profiled strategies flatter");
    }
    if !args.resume && report::has_rows(&args.output) {
        let message = "the output folder holds a comparison: add --resume to go on with it, or name another folder";
        return Err(WrongUse(message.into()).into());
    }
    let names = args.names();
    if !args.resume {
        tune::check(&names, &args.speedups, &request, &facts, profile.as_ref())?;
    }
    let sheets = report::Sheets::new(&args.output)?;
    let gpu = args.gpu.open()?;
    let adapter = gpu.adapter_name().to_owned();
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    let (settings, mut rows) = set_up(args, &engine, &request, &facts, &adapter, profile.as_ref())?;
    let entries = &settings.strategies;
    let bar = ProgressBar::new(prompts.len() as u64 * args.runs.seeds * (entries.len() as u64 + RUNS_BESIDES));
    bar.set_style(bar_style()?);
    // Warnings, each once.
    let mut told = BTreeSet::new();
    for (index, prompt) in prompts.iter().enumerate() {
        bar.set_message(format!("{} of {}", index + 1, prompts.len()));
        let number = number_of(prompt, &rows);
        for seed in 0..args.runs.seeds {
            if rows.iter().any(|row| row.prompt == *prompt && row.seed == seed) {
                bar.inc(entries.len() as u64 + RUNS_BESIDES);
                continue;
            }
            let request = GenerateRequest { prompt: prompt.clone(), seed, ..request.clone() };
            let clips = compare_one(&engine, &request, entries, &mut rows, (&bar, &mut told))?;
            report::write_rows(&args.output, &rows)?;
            // Figures do not hang on it.
            if let Err(error) = sheets.write(number, seed, prompt, entries, &clips) {
                bar.suspend(|| eprintln!("warning: no contact sheet of \"{prompt}\": {error:#}"));
            }
        }
    }
    bar.finish_and_clear();
    report::write(&args.output, &settings, &rows)
}

/// What is compared, and the rows that are there already: as asked for, or as it was set up before.
fn set_up(
    args: &Args,
    engine: &Engine,
    request: &GenerateRequest,
    facts: &Facts,
    adapter: &str,
    profile: Option<&Profile>,
) -> anyhow::Result<(Settings, Vec<Row>)> {
    let (strategies, rows) = if args.resume {
        let (before, rows) = report::read_settings_and_rows(&args.output)?;
        let now = settings(request, facts, adapter, before.strategies.clone());
        if let Some((setting, before, now)) = first_difference(&before, &now)? {
            let message =
                format!("the comparison in the output folder has another {setting}: {before} there, {now} here");
            return Err(WrongUse(message).into());
        }
        (before.strategies, rows)
    } else {
        (tuned(args, engine, request, facts, profile)?, Vec::new())
    };
    if strategies.is_empty() {
        return Err(WrongUse("there is nothing to compare: name strategies that reach the speed-ups".into()).into());
    }
    let settings = settings(request, facts, adapter, strategies);
    // The rows first: those of another comparison must not be taken for this one's.
    report::write_rows(&args.output, &rows)?;
    report::write_settings(&args.output, &settings)?;
    Ok((settings, rows))
}

fn settings(request: &GenerateRequest, facts: &Facts, adapter: &str, strategies: Vec<Entry>) -> Settings {
    Settings {
        program: concat!("ditscope ", env!("CARGO_PKG_VERSION")).into(),
        adapter: adapter.into(),
        model_id: facts.model_id.clone(),
        vae_id: facts.vae_id.clone(),
        size: [request.width, request.height],
        num_frames: request.num_frames,
        num_inference_steps: request.num_inference_steps,
        guidance_scale: request.guidance_scale,
        strategies,
    }
}

fn tuned(
    args: &Args,
    engine: &Engine,
    request: &GenerateRequest,
    facts: &Facts,
    profile: Option<&Profile>,
) -> anyhow::Result<Vec<Entry>> {
    let tuning = GenerateRequest { prompt: args.tuning_prompt.clone(), ..request.clone() };
    tune::Tuner::new(engine, tuning, facts, profile).entries(&args.names(), &args.speedups)
}

/// The first setting in which two comparisons differ, with its values.
fn first_difference(
    before: &Settings,
    now: &Settings,
) -> serde_json::Result<Option<(String, serde_json::Value, serde_json::Value)>> {
    let (before, now) = (serde_json::to_value(before)?, serde_json::to_value(now)?);
    let mut settings = before.as_object().into_iter().flatten();
    let differs = settings.find(|(name, value)| now[name.as_str()] != **value);
    Ok(differs.map(|(name, value)| (name.replace('_', " "), value.clone(), now[name.as_str()].clone())))
}

/// The number of a prompt's sheets, from 0: it stays the same when a comparison goes on with other prompts.
fn number_of(prompt: &str, rows: &[Row]) -> usize {
    let mut known: Vec<&str> = Vec::new();
    for row in rows {
        if !known.contains(&row.prompt.as_str()) {
            known.push(&row.prompt);
        }
    }
    known.iter().position(|known| *known == prompt).unwrap_or(known.len())
}

/// All strategies on one prompt and seed between two runs of the baseline: their difference is the noise floor, and the others are
/// measured against their mean, so that a machine that grows slower or faster favours nobody. A short run before them all pays what is paid
/// once: the prompt's encoding, the loading of the model and the compiling of kernels.
fn compare_one(
    engine: &Engine,
    request: &GenerateRequest,
    entries: &[Entry],
    rows: &mut Vec<Row>,
    (bar, told): (&ProgressBar, &mut BTreeSet<String>),
) -> anyhow::Result<Vec<Clip>> {
    let job = |config: &StrategyConfig| {
        let finished = run_job(engine, &GenerateRequest { strategy: config.clone(), ..request.clone() }, |_| {});
        bar.inc(1);
        finished
    };
    job(&StrategyConfig::FewerSteps { steps: 1 })?;
    let baseline = job(&StrategyConfig::Off)?;
    let (reference, full) = (frames(&baseline)?, baseline.capture.plans());
    let (before, mut clips) = (baseline.generated.seconds, vec![clip(&baseline.generated, baseline.capture.run.fps)?]);
    drop(baseline);
    let off = Entry { name: "off again".into(), target: None, config: StrategyConfig::Off };
    let (mut times, mut after) = (Vec::new(), before);
    let mut warn = |entry: &Entry, warning: &str| {
        let warning = format!("{}: {warning}", entry.name);
        if told.insert(warning.clone()) {
            bar.suspend(|| eprintln!("warning: {warning}"));
        }
    };
    for entry in entries.iter().chain([&off]) {
        let run = job(&entry.config)?;
        after = run.generated.seconds;
        run.capture.warnings.iter().for_each(|warning| warn(entry, warning));
        clips.push(clip(&run.generated, run.capture.run.fps)?);
        let fidelity = match frames(&run).and_then(|frames| Ok(metrics::compare(&reference, &frames)?)) {
            Ok(fidelity) => fidelity,
            // The others are worth as much without it.
            Err(error) => {
                let target = entry.target.map_or(String::new(), |target| format!(" at {target}x"));
                warn(entry, &format!("left out{target} for \"{}\", seed {}: {error:#}", request.prompt, request.seed));
                continue;
            }
        };
        let cost = run.capture.run.cost.context("a run without its cost")?;
        let guided = run.capture.run.guided();
        rows.push(Row {
            strategy: entry.name.clone(),
            target: entry.target,
            prompt: request.prompt.clone(),
            seed: request.seed,
            // Against the baseline's steps: fewer steps are less work too.
            flop_speedup: cost.of_steps(&full, guided) / cost.of_steps(&run.capture.plans(), guided),
            denoise_speedup: 1.0,
            total_speedup: 1.0,
            hit_rate: run.capture.hit_rate(),
            peak_memory: run.generated.peak_memory,
            delta_memory: run.capture.steps.iter().map(|step| step.delta_memory).max().unwrap_or(0),
            fidelity: (&fidelity).into(),
        });
        times.push(run.generated.seconds);
    }
    clips.pop();
    let whole = |seconds: &Seconds| seconds.denoise + seconds.decode;
    let mean = (0.5 * (before.denoise + after.denoise), 0.5 * (whole(&before) + whole(&after)));
    let start = rows.len() - times.len();
    for (row, seconds) in rows[start..].iter_mut().zip(&times) {
        (row.denoise_speedup, row.total_speedup) = (mean.0 / seconds.denoise, mean.1 / whole(seconds));
    }
    Ok(clips)
}

fn frames(run: &Finished) -> anyhow::Result<Frames> {
    let clip = &run.generated;
    Ok(Frames::from_signed(clip.width, clip.height, &clip.frames)?)
}
