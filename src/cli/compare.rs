//! `ditscope compare`: strategies over prompts and seeds, interleaved on one device, against the
//! same model without reuse.

mod resume;

use std::path::PathBuf;

use clap::ArgMatches;

use crate::caching::Learnt;
use crate::engine::{Engine, RequestInfo};
use crate::profiling::profile::Profile;
use crate::study::compare::{CompareRequest, Entry, Folder, Row, Settings, Shard, merge, report};
use crate::study::{CompareStudy, Session, StudyError};

use super::generate::SUBMIT_BUDGET;
use super::job::{RunArgs, StudyBar, open_gpu};
use super::strategy::StrategyArgs;
use super::{GpuArgs, WrongUse, interrupt};

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
    /// with the rows that it has. The options need not be said again
    #[arg(long)]
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
    /// Do not use what earlier runs of `generate` told of the model
    #[arg(long)]
    no_learning: bool,
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
            learnt: Learnt::default(),
        })
    }
}

/// Compares and writes.
pub fn run(args: Args, matches: &ArgMatches) -> anyhow::Result<()> {
    let folder = Folder::new(&args.output);
    let given = matches.subcommand_matches(resume::NAME).map(resume::options).unwrap_or_default();
    let args = &if args.resume { resume::completed(&folder, &given)? } else { args };
    if !args.merge.is_empty() {
        return join(&args.merge, &folder);
    }
    let mut asked = args.asked()?;
    let facts = RequestInfo::of(&asked.request)?;
    let named = StrategyArgs { profile: args.profile.clone(), no_learning: args.no_learning, ..Default::default() };
    let profile = named.fitting_profile(&asked.request.model, &facts)?;
    asked.learnt = named.learnt(&facts);
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
        note!("warning: strategies are made on \"{known}\" too; what is profiled or tuned flatters itself there");
    }
    let gpu = open_gpu(&args.gpu, facts.gpu_memory + kept)?;
    folder.make()?;
    let engine = Engine::start(gpu, SUBMIT_BUDGET)?;
    let (cancel, bar) = (interrupt::cancel(), StudyBar::new()?);
    let inputs = Inputs { facts: &facts, profile: profile.as_ref(), before, given: &given };
    let study = run_study(args, &asked, inputs, &bar.session(&engine, &cancel), &folder);
    bar.clear();
    let Some(study) = study? else { return Ok(()) };
    folder.write_report(&study.settings, &study.rows)?;
    out!("{}", report::table(&study.settings, &study.rows).trim_end());
    note!("{}", folder.path().join("report.html").display());
    Ok(())
}

/// What a comparison starts from.
struct Inputs<'a> {
    facts: &'a RequestInfo,
    profile: Option<&'a Profile>,
    /// The comparison to go on with.
    before: Option<(Settings, Vec<Row>)>,
    /// The options of the command.
    given: &'a [String],
}

/// Tunes, or takes over what was tuned before, and runs what is missing. Only tunes if asked to.
fn run_study(
    args: &Args,
    asked: &CompareRequest,
    Inputs { facts, profile, before, given }: Inputs,
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
    if study.settings.command.is_empty() {
        study.settings.command = given.to_vec();
    }
    if args.tune_only {
        return write_tuned(folder, &study.settings).map(|()| None);
    }
    if let Err(error) = study.run(session, &study.queue(), Some(folder)) {
        if study.rows.is_empty() {
            return Err(error);
        }
        folder.write_report(&study.settings, &study.rows)?;
        let place = folder.path().display();
        return Err(error.within(format!("the rows until then are in {place}; add --resume to go on")));
    }
    Ok(Some(study))
}

/// Leaves the settings for comparisons that are made later, and lists them.
fn write_tuned(folder: &Folder, settings: &Settings) -> Result<(), StudyError> {
    folder.write_settings(settings)?;
    for Entry { name, target, config, .. } in &settings.strategies {
        let target = target.map_or(String::new(), |target| format!(" at {target}x"));
        out!("{name}{target}: {}", serde_json::to_string(config).map_err(StudyError::Unwritable)?);
    }
    Ok(())
}

/// Joins comparisons.
fn join(folders: &[PathBuf], output: &Folder) -> anyhow::Result<()> {
    let merged = merge(folders)?;
    merged.warnings.iter().for_each(|warning| note!("warning: {warning}"));
    merged.write(output)?;
    out!("{}", report::table(&merged.settings, &merged.rows).trim_end());
    Ok(())
}
