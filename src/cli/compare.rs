//! `ditscope compare`: strategies over prompts and seeds, interleaved on one device, against the
//! same model without reuse.

mod tune;

use std::path::PathBuf;

use crate::engine::{Engine, Facts, GenerateRequest};
use crate::profiling::profile::Profile;
use crate::study::compare::{Entry, Folder, MOST_PSNR, Part, Row, Settings, Shard, merge, report};
use crate::study::{Cancel, CompareStudy, StudyError};

use super::generate::SUBMIT_BUDGET;
use super::job::{RunArgs, StudyBar, open_gpu};
use super::strategy::StrategyArgs;
use super::{GpuArgs, WrongUse, strategy};

/// Arguments of `ditscope compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Strategies, separated by spaces or semicolons, as in `generate --strategy`
    #[arg(long, default_value = "planner;uniform;fewer-steps;profiling")]
    strategies: String,
    /// Tune each strategy to these speed-ups of the denoising, by FLOPs; without, settings are
    /// taken as they are
    #[arg(long, value_name = "X,X,...", value_delimiter = ',')]
    speedups: Vec<f64>,
    /// Go on with the comparison in the output folder: as it was set up, without tuning anew, and
    /// with the rows that it has
    #[arg(long, conflicts_with_all = ["strategies", "speedups", "tuning_prompt"])]
    resume: bool,
    /// Tune, write settings.json into the output folder, and stop; --resume goes on from there
    #[arg(long, conflicts_with = "resume")]
    tune_only: bool,
    /// Run only this part of the prompts and seeds, for example 3/16; --merge joins the parts
    #[arg(long, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Join the comparisons in these folders, which may come from different machines; nothing is
    /// run
    #[arg(
        long,
        value_name = "DIR",
        num_args = 1..,
        conflicts_with_all = ["strategies", "speedups", "tuning_prompt", "resume", "tune_only", "shard", "profile", "prompts", "model"]
    )]
    merge: Vec<PathBuf>,
    /// Profile of the model, made on other prompts [default: profile.json in the model's folder]
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Prompt on which thresholds of rules that decide while they run are tuned; one that is not
    /// compared
    #[arg(long, default_value = "a dog walking left in the snow")]
    tuning_prompt: String,
    /// Folder for report.md (means), rows.csv (every run), pareto-*.svg and .png, sheets/ (clips
    /// side by side), and settings.json and rows.json, which --resume and --merge read
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

/// Compares and writes.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = Folder::new(&args.output);
    if !args.merge.is_empty() {
        return join(&args.merge, &folder);
    }
    let prompts = args.runs.read_prompts()?;
    let request = args.runs.request(&prompts[0])?;
    let facts = Facts::of(&request)?;
    CompareStudy::check_size(&request)?;
    let named = StrategyArgs { profile: args.profile.clone(), ..Default::default() };
    let profile = named.fitting_profile(&request.model, &facts)?;
    let evidence = strategy::evidence(&facts, profile.as_ref());
    if !args.resume && folder.has_rows() {
        let message = "the output folder holds a comparison: add --resume to go on with it, or name another folder";
        return Err(WrongUse(message.into()).into());
    }
    let names = args.names();
    let before = args.resume.then(|| folder.read()).transpose()?;
    let (kept, known) = match &before {
        Some((settings, _)) => (settings.delta_memory(&facts), settings.known_prompts.clone()),
        None => {
            (tune::check(&names, &args.speedups, &request, &facts, &evidence)?, known_prompts(args, profile.as_ref()))
        }
    };
    if let Some(known) = prompts.iter().find(|prompt| known.contains(prompt)) {
        eprintln!("warning: strategies are made on \"{known}\" too; what is profiled or tuned flatters itself there");
    }
    folder.make()?;
    let gpu = open_gpu(&args.gpu, facts.gpu_memory + kept)?;
    let mut settings = Settings::new(&request, &facts, gpu.adapter_name(), &gpu.driver());
    settings.known_prompts = known;
    settings.part = args.shard.map(|shard| Part { shard, prompts: prompts.clone(), seeds: args.runs.seeds });
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    let mut rows = Vec::new();
    match before {
        Some((before, had)) => {
            settings.go_on_with(before, !had.is_empty())?;
            rows = had;
        }
        None => {
            let tuning = GenerateRequest { prompt: args.tuning_prompt.clone(), ..request.clone() };
            let tuner = tune::Tuner::new(&engine, tuning, &facts, &evidence);
            settings.strategies = tuner.entries(&names, &args.speedups)?;
        }
    }
    if args.tune_only {
        return Ok(write_tuned(&folder, &settings)?);
    }
    let study = CompareStudy { request, prompts, seeds: args.runs.seeds, settings, rows };
    compare(study, &engine, &folder)
}

/// Runs what is missing, writes the report, and prints its table.
fn compare(mut study: CompareStudy, engine: &Engine, folder: &Folder) -> anyhow::Result<()> {
    let (cancel, bar) = (Cancel::default(), StudyBar::new()?);
    let done = study.run(&bar.session(engine, &cancel), &study.queue(), Some(folder));
    bar.clear();
    done?;
    write_report(folder, &study.settings, &study.rows)
}

/// Leaves the settings for comparisons that are made later, and lists them.
fn write_tuned(folder: &Folder, settings: &Settings) -> Result<(), StudyError> {
    folder.write_settings(settings)?;
    for Entry { name, target, config, .. } in &settings.strategies {
        let target = target.map_or(String::new(), |target| format!(" at {target}x"));
        println!("{name}{target}: {}", serde_json::to_string(config).map_err(StudyError::Unwritable)?);
    }
    Ok(())
}

/// Joins comparisons.
fn join(folders: &[PathBuf], output: &Folder) -> anyhow::Result<()> {
    let merged = merge(folders)?;
    merged.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    merged.write(output)?;
    print!("{}", report::table(&merged.settings, &merged.rows));
    Ok(())
}

fn write_report(folder: &Folder, settings: &Settings, rows: &[Row]) -> anyhow::Result<()> {
    folder.write_report(settings, rows)?;
    print!("{}", report::table(settings, rows));
    Ok(())
}

/// The prompts that the profile and thresholds are made on.
fn known_prompts(args: &Args, profile: Option<&Profile>) -> Vec<String> {
    let tuned = !args.speedups.is_empty() && args.names().into_iter().any(tune::by_trial);
    let profiled = profile.into_iter().flat_map(|profile| profile.prompts.clone());
    profiled.chain(tuned.then(|| args.tuning_prompt.clone())).collect()
}
