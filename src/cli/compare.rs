//! `ditscope compare`: strategies over prompts and seeds, interleaved on one device, against the same model without reuse.

mod report;
mod tune;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use indicatif::ProgressBar;

use crate::caching::StrategyConfig;
use crate::engine::{ClipSettings, Engine, Facts, GenerateRequest, Seconds};
use crate::gpu::Gpu;
use crate::media::Clip;
use crate::metrics::{self, Fidelity, Frames, LPIPS_MIN_SIDE};
use crate::profiling::profile::Profile;

use super::generate::{SUBMIT_BUDGET, bar_style};
use super::job::{Finished, RunArgs, clip, open_gpu, run_job};
use super::strategy::StrategyArgs;
use super::{GpuArgs, WrongUse};

/// Arguments of `ditscope compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Strategies, separated by spaces or semicolons, as in `generate --strategy`; `planner` is that of `generate --speedup`, for the nearest number of steps
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
    driver: String,
    model_id: String,
    vae_id: String,
    size: [usize; 2],
    num_frames: usize,
    num_inference_steps: usize,
    guidance_scale: f64,
    scheduler: String,
    flow_shift: f64,
    /// The prompts that strategies were made on, by profile and by trial. Others should be compared.
    known_prompts: Vec<String>,
    strategies: Vec<Entry>,
}

/// One strategy to compare.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Entry {
    /// Its name in tables.
    name: String,
    /// The speed-up that it was tuned to.
    target: Option<f64>,
    /// The PSNR in decibels that the planner expects.
    expected: Option<f64>,
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
    if request.clip.width.min(request.clip.height) < LPIPS_MIN_SIDE {
        return Err(WrongUse(format!("LPIPS needs {LPIPS_MIN_SIDE} pixels a side: choose a larger --size")).into());
    }
    let named = StrategyArgs { profile: args.profile.clone(), ..Default::default() };
    let profile = named.fitting_profile(&request.model, &facts)?;
    if !args.resume && report::has_rows(&args.output) {
        let message = "the output folder holds a comparison: add --resume to go on with it, or name another folder";
        return Err(WrongUse(message.into()).into());
    }
    let names = args.names();
    let before = args.resume.then(|| report::read_settings_and_rows(&args.output)).transpose()?;
    let (kept, known) = match &before {
        Some((before, _)) => (kept(before, &request, &facts), before.known_prompts.clone()),
        None => (
            tune::check(&names, &args.speedups, &request, &facts, profile.as_ref())?,
            known_prompts(args, profile.as_ref()),
        ),
    };
    if let Some(known) = prompts.iter().find(|prompt| known.contains(prompt)) {
        eprintln!("warning: strategies are made on \"{known}\" too; what is profiled or tuned flatters itself there");
    }
    let sheets = report::Sheets::new(&args.output)?;
    let gpu = open_gpu(&args.gpu, facts.gpu_memory + kept)?;
    let mut settings = Settings { known_prompts: known, ..Settings::new(&request, &facts, &gpu) };
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    let mut rows = match before {
        Some((before, rows)) => {
            settings.go_on_with(before)?;
            rows
        }
        None => {
            let tuning = GenerateRequest { prompt: args.tuning_prompt.clone(), ..request.clone() };
            let tuner = tune::Tuner::new(&engine, tuning, &facts, profile.as_ref());
            settings.strategies = tuner.entries(&names, &args.speedups)?;
            Vec::new()
        }
    };
    if settings.strategies.is_empty() {
        return Err(WrongUse("there is nothing to compare: name strategies that reach the speed-ups".into()).into());
    }
    // The rows first: those of another comparison must not be taken for this one's.
    report::write_rows(&args.output, &rows)?;
    report::write_settings(&args.output, &settings)?;
    compare_all(args, &engine, (&prompts, &request), &settings, &sheets, &mut rows)?;
    report::write(&args.output, &settings, &rows)
}

/// Adds the rows that are missing, and writes them and a sheet after each prompt and seed.
fn compare_all(
    args: &Args,
    engine: &Engine,
    (prompts, request): (&[String], &GenerateRequest),
    settings: &Settings,
    sheets: &report::Sheets,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let entries = &settings.strategies;
    let bar = ProgressBar::new(prompts.len() as u64 * args.runs.seeds * (entries.len() as u64 + RUNS_BESIDES));
    bar.set_style(bar_style()?);
    // Warnings, each once.
    let mut told = BTreeSet::new();
    for (index, prompt) in prompts.iter().enumerate() {
        bar.set_message(format!("{} of {}", index + 1, prompts.len()));
        let number = number_of(prompt, rows);
        for seed in 0..args.runs.seeds {
            if rows.iter().any(|row| row.prompt == *prompt && row.seed == seed) {
                bar.inc(entries.len() as u64 + RUNS_BESIDES);
                continue;
            }
            let request = GenerateRequest {
                prompt: prompt.clone(),
                clip: ClipSettings { seed, ..request.clip },
                ..request.clone()
            };
            let backwards = (number as u64 + seed) % 2 == 1;
            let clips = compare_one(engine, &request, (entries, backwards), rows, (&bar, &mut told))?;
            report::write_rows(&args.output, rows)?;
            // Figures do not hang on it.
            if let Err(error) = sheets.write(number, seed, prompt, entries, &clips) {
                bar.suspend(|| eprintln!("warning: no contact sheet of \"{prompt}\": {error:#}"));
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// The prompts that the profile and thresholds are made on.
fn known_prompts(args: &Args, profile: Option<&Profile>) -> Vec<String> {
    let tuned = !args.speedups.is_empty() && args.names().into_iter().any(tune::by_trial);
    let profiled = profile.into_iter().flat_map(|profile| profile.prompts.clone());
    profiled.chain(tuned.then(|| args.tuning_prompt.clone())).collect()
}

/// Bytes of the deltas that one of the strategies keeps at most.
fn kept(settings: &Settings, request: &GenerateRequest, facts: &Facts) -> u64 {
    let (steps, guided) = (request.clip.num_inference_steps, request.clip.guided());
    let strategies = settings.strategies.iter();
    strategies.map(|entry| facts.strategy_memory(&entry.config, steps, guided)).max().unwrap_or(0)
}

impl Settings {
    /// Of a request, before strategies are chosen.
    fn new(request: &GenerateRequest, facts: &Facts, gpu: &Gpu) -> Self {
        Self {
            program: concat!("ditscope ", env!("CARGO_PKG_VERSION")).into(),
            adapter: gpu.adapter_name().into(),
            driver: gpu.driver(),
            model_id: facts.model_id.clone(),
            vae_id: facts.vae_id.clone(),
            size: [request.clip.width, request.clip.height],
            num_frames: request.clip.num_frames,
            num_inference_steps: request.clip.num_inference_steps,
            guidance_scale: request.clip.guidance_scale,
            scheduler: facts.scheduler.clone(),
            flow_shift: facts.flow_shift,
            known_prompts: Vec::new(),
            strategies: Vec::new(),
        }
    }

    /// Takes the strategies of a comparison that was begun before over.
    ///
    /// # Errors
    /// It compared something else.
    fn go_on_with(&mut self, before: Self) -> anyhow::Result<()> {
        self.strategies = before.strategies.clone();
        match first_difference(&before, self)? {
            None => Ok(()),
            Some((setting, before, now)) => Err(WrongUse(format!(
                "the comparison in the output folder has another {setting}: {before} there, {now} here"
            ))
            .into()),
        }
    }
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
/// measured against their mean. Every second time they run backwards: where a machine grows slower or faster in the course of a prompt,
/// being early or late then favours nobody. A short run before them all pays what is paid once: the prompt's encoding, the loading of the
/// model and the compiling of kernels. Gives the clips: without reuse, then as the entries are listed.
fn compare_one(
    engine: &Engine,
    request: &GenerateRequest,
    (entries, backwards): (&[Entry], bool),
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
    let reference = frames(&baseline)?;
    let (before, first) = (baseline.generated.seconds, clip(&baseline.generated, baseline.capture.run.clip.fps)?);
    drop(baseline);
    let off = Entry { name: "off again".into(), target: None, expected: None, config: StrategyConfig::Off };
    let (mut times, mut clips, mut after) = (Vec::new(), Vec::new(), before);
    let mut warn = |entry: &Entry, warning: &str| {
        let warning = format!("{}: {warning}", entry.name);
        if told.insert(warning.clone()) {
            bar.suspend(|| eprintln!("warning: {warning}"));
        }
    };
    let mut order: Vec<&Entry> = entries.iter().collect();
    if backwards {
        order.reverse();
    }
    for entry in order.into_iter().chain([&off]) {
        let run = job(&entry.config)?;
        after = run.generated.seconds;
        run.capture.warnings.iter().for_each(|warning| warn(entry, warning));
        clips.push(clip(&run.generated, run.capture.run.clip.fps)?);
        let fidelity = match frames(&run).and_then(|frames| Ok(metrics::compare(&reference, &frames)?)) {
            Ok(fidelity) => fidelity,
            // The others are worth as much without it.
            Err(error) => {
                let target = entry.target.map_or(String::new(), |target| format!(" at {target}x"));
                warn(
                    entry,
                    &format!("left out{target} for \"{}\", seed {}: {error:#}", request.prompt, request.clip.seed),
                );
                continue;
            }
        };
        rows.push(Row {
            strategy: entry.name.clone(),
            target: entry.target,
            prompt: request.prompt.clone(),
            seed: request.clip.seed,
            flop_speedup: run.capture.flop_speedup().context("a run without its cost")?,
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
    if backwards {
        clips.reverse();
    }
    clips.insert(0, first);
    let whole = |seconds: &Seconds| seconds.denoise + seconds.decode;
    let mean = (0.5 * (before.denoise + after.denoise), 0.5 * (whole(&before) + whole(&after)));
    let start = rows.len() - times.len();
    for (row, seconds) in rows[start..].iter_mut().zip(&times) {
        // A mean that has this very run in it would say that the clock varies less than it does.
        let full = if row.strategy == off.name { (before.denoise, whole(&before)) } else { mean };
        (row.denoise_speedup, row.total_speedup) = (full.0 / seconds.denoise, full.1 / whole(seconds));
    }
    Ok(clips)
}

fn frames(run: &Finished) -> anyhow::Result<Frames> {
    let clip = &run.generated;
    Ok(Frames::from_signed(clip.width, clip.height, &clip.frames)?)
}
