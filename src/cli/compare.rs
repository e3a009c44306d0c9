//! `ditscope compare`: strategies over prompts and seeds, interleaved on one device, against the
//! same model without reuse.

use std::path::PathBuf;

use crate::engine::{Engine, RequestInfo};
use crate::profiling::profile::Profile;
use crate::study::compare::{CompareRequest, Entry, Folder, Row, Settings, Shard, merge, report};
use crate::study::{Cancel, CompareStudy, Session, StudyError};

use super::generate::SUBMIT_BUDGET;
use super::job::{RunArgs, StudyBar, open_gpu};
use super::strategy::StrategyArgs;
use super::{GpuArgs, WrongUse};

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
    /// Folder for report.html (one page with everything), report.md (means), rows.csv (every run),
    /// pareto-*.svg and .png, sheets/ (clips side by side), and settings.json and rows.json, which
    /// --resume and --merge read
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    gpu: GpuArgs,
}

impl Args {
    fn asked(&self) -> anyhow::Result<CompareRequest> {
        let prompts = self.runs.read_prompts()?;
        let names = self.strategies.split([' ', ';']).filter(|name| !name.is_empty());
        Ok(CompareRequest {
            request: self.runs.request(&prompts[0])?,
            prompts,
            seeds: self.runs.seeds,
            strategies: names.map(str::to_owned).collect(),
            speedups: self.speedups.clone(),
            tuning_prompt: self.tuning_prompt.clone(),
            shard: self.shard,
        })
    }
}

/// Compares and writes.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = Folder::new(&args.output);
    if !args.merge.is_empty() {
        return join(&args.merge, &folder);
    }
    let asked = args.asked()?;
    let facts = RequestInfo::of(&asked.request)?;
    let named = StrategyArgs { profile: args.profile.clone(), ..Default::default() };
    let profile = named.fitting_profile(&asked.request.model, &facts)?;
    if !args.resume && folder.has_rows() {
        let message = "the output folder holds a comparison: add --resume to go on with it, or name another folder";
        return Err(WrongUse(message.into()).into());
    }
    let before = args.resume.then(|| folder.read()).transpose()?;
    let (kept, known) = match &before {
        Some((settings, _)) => (settings.delta_memory(&facts), settings.known_prompts.clone()),
        None => (asked.check(&facts, profile.as_ref())?, asked.known_prompts(profile.as_ref())),
    };
    if let Some(known) = asked.prompts.iter().find(|prompt| known.contains(prompt)) {
        eprintln!("warning: strategies are made on \"{known}\" too; what is profiled or tuned flatters itself there");
    }
    let gpu = open_gpu(&args.gpu, facts.gpu_memory + kept)?;
    folder.make()?;
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    let (cancel, bar) = (Cancel::default(), StudyBar::new()?);
    let study = run_study(args, &asked, (&facts, profile.as_ref()), before, &bar.session(&engine, &cancel), &folder);
    bar.clear();
    let Some(study) = study? else { return Ok(()) };
    folder.write_report(&study.settings, &study.rows)?;
    print!("{}", report::table(&study.settings, &study.rows));
    eprintln!("{}", folder.path().join("report.html").display());
    Ok(())
}

/// Tunes, or takes over what was tuned before, and runs what is missing. Only tunes if asked to.
fn run_study(
    args: &Args,
    asked: &CompareRequest,
    (facts, profile): (&RequestInfo, Option<&Profile>),
    before: Option<(Settings, Vec<Row>)>,
    session: &Session,
    folder: &Folder,
) -> Result<Option<CompareStudy>, StudyError> {
    let mut study = match before {
        Some((before, rows)) => {
            let mut settings = asked.settings(session, facts, profile);
            settings.go_on_with(before, !rows.is_empty())?;
            CompareStudy { rows, ..asked.study(settings) }
        }
        None => asked.tune(session, facts, profile)?,
    };
    if args.tune_only {
        return write_tuned(folder, &study.settings).map(|()| None);
    }
    study.run(session, &study.queue(), Some(folder))?;
    Ok(Some(study))
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
