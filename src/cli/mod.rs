//! Room `cli`: the subcommands.

mod bench;
mod compare;
mod devices;
mod generate;
mod inspect;
mod job;
mod latents;
mod plan;
mod profile;
mod screenshot;
pub mod shaders;
mod sheet;
mod strategy;
mod window;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::engine::EngineError;
use crate::gpu::{Gpu, GpuOptions, Tier, choices_path};

/// A scope for video diffusion transformers: generates video with Wan2.1 on any GPU. Without a command it opens the window.
#[derive(Debug, Parser)]
#[command(version, about)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// A recorded run to open in the window
    capture: Option<std::path::PathBuf>,
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
    /// Say what a model's folder, a capture or a profile holds, and what a model lacks
    Inspect(inspect::Args),
    /// Measure the kernels and a denoising step on a GPU.
    Bench(bench::Args),
    /// Draw the window with a recorded run as a picture; needs no display
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
    fn open(&self) -> anyhow::Result<Gpu> {
        let tier = if self.base_tier { Tier::Base } else { Tier::Full };
        let options = GpuOptions {
            adapter: self.device.clone(),
            tier,
            checked_shaders: self.checked_shaders,
            choices: if self.no_tuning { None } else { choices_path() },
            ..Default::default()
        };
        Ok(Gpu::open(&options)?)
    }
}

/// A request that can never work, as opposed to one that failed: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

/// Runs the program: exit code 0 for done, 1 for failed, 2 for wrong use.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Generate(args)) => generate::run(&args),
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Plan(args)) => plan::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Sheet(args)) => sheet::run(&args),
        Some(Command::Devices(args)) => devices::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Shaders(args)) => shaders::run(&args),
        Some(Command::Screenshot(args)) => screenshot::run(&args),
        None => window::run(cli.capture),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(if is_wrong_use(&error) { 2 } else { 1 })
        }
    }
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

fn is_wrong_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<WrongUse>().is_some()
        || error.downcast_ref::<EngineError>().is_some_and(EngineError::is_wrong_use)
}
