//! Room `cli`: the subcommands.

#[macro_use]
mod print;

mod bench;
mod compare;
mod devices;
mod doctor;
mod generate;
mod inspect;
mod interrupt;
mod job;
mod latents;
mod learning;
mod plan;
mod profile;
#[cfg(feature = "window")]
mod screenshot;
pub mod shaders;
mod sheet;
mod strategy;
mod typed;
#[cfg(feature = "window")]
mod window;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::caching::CacheError;
use crate::engine::{EngineError, Lora, NamedFiles};
use crate::gpu::{Gpu, GpuOptions, Tier, choices_path};
use crate::media::MediaError;
use crate::ops::selftest;
use crate::study::StudyError;

/// A scope for video diffusion transformers: generates video with Wan2.1 on any GPU. Without a
/// command it opens the window.
#[derive(Debug, Parser)]
#[command(version)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// A recorded run, or a model's folder, to open in the window
    #[arg(value_name = "CAPTURE|MODEL")]
    place: Option<PathBuf>,
    #[command(flatten)]
    gpu: GpuArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a video from a prompt.
    Generate(Box<generate::Args>),
    /// Measure what each block of a model attends to and how its predictions hang together
    Profile(Box<profile::Args>),
    /// Print the plan for a speed-up or a quality, and what it is expected to do
    Plan(plan::Args),
    /// Run strategies over prompts and report speed against fidelity
    Compare(Box<compare::Args>),
    /// Make the clips of several prompts and show them in one picture
    Sheet(Box<sheet::Args>),
    /// List the GPUs and what they can do.
    Devices(devices::Args),
    /// Test all kernels on a GPU against the CPU, and print a table for a bug report
    Doctor(doctor::Args),
    /// Say what a model's folder, a capture or a profile holds, and what a model lacks
    Inspect(inspect::Args),
    /// Show what ordinary runs told of a model, or clear it
    Learning(learning::Args),
    /// Measure the kernels and a denoising step on a GPU.
    Bench(bench::Args),
    /// Draw the window with a recorded run as a picture; needs no display
    #[cfg(feature = "window")]
    Screenshot(screenshot::Args),
    /// List the shaders, or write them out in another language.
    Shaders(shaders::Args),
}

/// Which GPU, and how much of it.
#[derive(Clone, Debug, Default, clap::Args)]
struct GpuArgs {
    /// GPU: its number or part of its name in `ditscope devices` [default: the strongest]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Use WebGPU's default limits and no optional feature
    #[arg(long)]
    base_tier: bool,
    /// Compile shaders with bounds checks (slower; for finding bugs)
    #[arg(long)]
    checked_shaders: bool,
    /// Choose kernels by a fixed rule, not by measuring them once and remembering the choice
    #[arg(long)]
    no_tuning: bool,
}

impl GpuArgs {
    /// Opens the device, and warns of adapters that are passed over.
    fn open(&self) -> anyhow::Result<Gpu> {
        let gpu = self.open_quietly()?;
        for warning in gpu.warnings() {
            note!("warning: {warning}");
        }
        Ok(gpu)
    }

    fn open_quietly(&self) -> anyhow::Result<Gpu> {
        Ok(Gpu::open_tested(&self.options(), selftest::works)?)
    }

    /// Opens the device without any test.
    fn open_untested(&self) -> anyhow::Result<Gpu> {
        Ok(Gpu::open(&self.options())?)
    }

    fn options(&self) -> GpuOptions {
        let tier = if self.base_tier { Tier::Base } else { Tier::Full };
        GpuOptions {
            adapter: self.device.clone(),
            tier,
            checked_shaders: self.checked_shaders,
            choices: if self.no_tuning { None } else { choices_path() },
            ..Default::default()
        }
    }
}

/// Which model.
#[derive(Clone, Debug, Default, clap::Args)]
struct ModelArgs {
    /// Model folder: diffusers' or the original layout, single files, or a folder of the hub's
    /// cache; or the transformer's file [default: the built-in demo model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
}

/// Files of a model, named one by one.
#[derive(Clone, Debug, Default, clap::Args)]
struct FileArgs {
    /// The transformer: .safetensors, .gguf or .pth, one of its shards, or their index [default:
    /// what the folder holds]
    #[arg(long, value_name = "FILE")]
    transformer: Option<PathBuf>,
    /// The text encoder
    #[arg(long, value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// The VAE
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// The tokenizer: tokenizer.json or spiece.model
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Merge a LoRA into the transformer, FILE@0.8 with a strength of 0.8. May be given several
    /// times
    #[arg(long = "lora", value_name = "FILE[@SCALE]", value_delimiter = ',')]
    loras: Vec<String>,
    /// Strength of every --lora that says none
    #[arg(long, value_name = "SCALE", default_value_t = 1.0, allow_negative_numbers = true)]
    lora_scale: f32,
}

impl FileArgs {
    fn named(&self) -> NamedFiles {
        let Self { transformer, text_encoder, vae, tokenizer, loras, lora_scale } = self.clone();
        let loras = loras.iter().map(|text| lora(text, lora_scale)).collect();
        NamedFiles { transformer, text_encoder, vae, tokenizer, loras }
    }
}

/// `FILE@0.8`, or a file alone.
fn lora(text: &str, scale: f32) -> Lora {
    let with_scale = text.rsplit_once('@').and_then(|(path, scale)| Some((path, scale.parse::<f32>().ok()?)));
    let (path, scale) = with_scale.filter(|(_, scale)| scale.is_finite()).unwrap_or((text, scale));
    Lora { path: path.into(), scale }
}

impl ModelArgs {
    /// The model's folder, and the files that are named. Without a folder it is that of the first
    /// named file, and without one the model that ships with the program.
    fn place(&self) -> anyhow::Result<(PathBuf, NamedFiles)> {
        let mut named = self.files.named();
        let folder = |file: &Path| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let place = match (&self.model, named.first()) {
            (Some(file), _) if file.is_file() => {
                named.transformer.get_or_insert_with(|| file.clone());
                folder(file)
            }
            (Some(model), _) => model.clone(),
            (None, Some(file)) => folder(file),
            (None, None) => demo_model()?,
        };
        Ok((place, named))
    }
}

/// A wrong use of the program: a request that can never work. The exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

/// Runs the program: exit code 0 for done, 1 for failed, 2 for wrong use, 130 for interrupted. An
/// output that nobody could be told of counts as failed.
pub fn main() -> ExitCode {
    if let Some(place) = choices_path() {
        crate::model::remember_in(&place.with_file_name("models.json"));
    }
    let result = match std::env::args_os().nth(1).and_then(|first| mistyped(&first)) {
        Some(wrong) => Err(wrong.into()),
        None => parsed().and_then(|matches| run(Cli::from_arg_matches(&matches)?, &matches)),
    };
    match (result, print::end()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(failure)) => {
            // A reader that ended early, as in `| head`, knows why.
            if failure.kind() != std::io::ErrorKind::BrokenPipe {
                note!("error: everything is done, but the result cannot be printed: {failure}");
            }
            ExitCode::FAILURE
        }
        (Err(error), _) => {
            note!("error: {}", one_line(&error));
            ExitCode::from(match is_cancelled(&error) {
                true => interrupt::CODE,
                false if is_wrong_use(&error) => 2,
                false => 1,
            })
        }
    }
}

/// The command line. A run that goes on takes its options from its capture.
fn parsed() -> anyhow::Result<ArgMatches> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    Ok(generate::resumed(&arguments)?.unwrap_or_else(|| Cli::command().get_matches_from(arguments)))
}

fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<()> {
    match cli.command {
        Some(Command::Generate(args)) => generate::run(&args, matches),
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Compare(args)) => compare::run(*args, matches),
        Some(Command::Sheet(args)) => sheet::run(&args),
        Some(Command::Devices(args)) => devices::run(&args),
        Some(Command::Doctor(args)) => doctor::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Learning(args)) => learning::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Shaders(args)) => shaders::run(&args),
        #[cfg(feature = "window")]
        Some(Command::Screenshot(args)) => screenshot::run(&args),
        #[cfg(feature = "window")]
        None => window::run(cli.place, cli.gpu),
        #[cfg(not(feature = "window"))]
        None => Err(WrongUse("this build has no window; `ditscope --help` lists the commands".into()).into()),
    }
}

/// The error for a first argument that resembles a command. Without this check the program takes
/// the argument for the name of a capture.
fn mistyped(first: &OsString) -> Option<WrongUse> {
    /// Number of letters that may be wrong.
    const MOST: usize = 2;
    let text = first.to_str().filter(|text| !text.starts_with('-') && !Path::new(text).exists())?;
    let mut program = Cli::command();
    program.build();
    let distance = |name: &str| strsim::damerau_levenshtein(text, name);
    let nearest = program.get_subcommands().map(clap::Command::get_name).min_by_key(|name| distance(name))?;
    (1..=MOST)
        .contains(&distance(nearest))
        .then(|| WrongUse(format!("there is no command called {text}: did you mean {nearest}?")))
}

/// A file or folder that ships with the program. It is in the working directory, beside the
/// executable, or in the source folder of the build.
fn shipped(place: &str, is_there: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(place)));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    [Some(PathBuf::from(place)), beside, Some(source)].into_iter().flatten().find(|path| is_there(path))
}

/// The model that ships with the program.
fn demo_model() -> anyhow::Result<PathBuf> {
    shipped("assets/demo-model", |folder| folder.join("model_index.json").is_file())
        .context("the demo model is not beside the program; name a model folder with --model")
}

/// The error and its causes on one line, each said once.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the user ended the command.
fn is_cancelled(error: &anyhow::Error) -> bool {
    let engine = error.downcast_ref::<EngineError>().is_some_and(|error| matches!(error, EngineError::Cancelled));
    engine || error.downcast_ref::<StudyError>().is_some_and(StudyError::is_cancelled)
}

fn is_wrong_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<WrongUse>().is_some()
        || error.downcast_ref::<StudyError>().is_some_and(StudyError::is_wrong_use)
        || error.downcast_ref::<EngineError>().is_some_and(EngineError::is_wrong_use)
        || error.downcast_ref::<CacheError>().is_some_and(CacheError::is_wrong_use)
        || error.downcast_ref::<MediaError>().is_some_and(MediaError::is_wrong_use)
}
