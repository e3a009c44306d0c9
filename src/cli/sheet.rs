//! `ditscope sheet`: the clips of several prompts in one picture.

use std::path::PathBuf;

use indicatif::ProgressBar;

use crate::engine::{Engine, GenerateRequest};
use crate::media::{self, Clip};

use super::GpuArgs;
use super::generate::{SUBMIT_BUDGET, bar_style};
use super::job::{RunArgs, run_job};

/// Arguments of `ditscope sheet`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Clips in a row
    #[arg(long, default_value_t = 3)]
    columns: usize,
    /// Frames shown of each clip; 0 for clips that play, in .mp4 and .gif
    #[arg(long, default_value_t = 4)]
    shown: usize,
    /// Enlarge each pixel so many times
    #[arg(long, default_value_t = 1)]
    scale: u32,
    /// The sheet: .png, .gif, .mp4
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Generates and writes; clips are in the order of the prompts, row by row.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let prompts = args.runs.read_prompts()?;
    media::check_path(&args.output)?;
    let request = args.runs.request(&prompts[0])?;
    let engine = Engine::start(args.gpu.open()?, SUBMIT_BUDGET)?;
    let bar = ProgressBar::new(prompts.len() as u64 * args.runs.seeds * request.num_inference_steps as u64);
    bar.set_style(bar_style()?);
    let mut cells = Vec::new();
    for prompt in &prompts {
        for seed in 0..args.runs.seeds {
            bar.set_message(prompt.clone());
            let request = GenerateRequest { prompt: prompt.clone(), seed, ..request.clone() };
            let run = run_job(&engine, &request, |_| bar.inc(1))?;
            let bytes = run.generated.bytes();
            let clip = Clip::new(bytes.width as u32, bytes.height as u32, run.capture.run.fps, bytes.frames)?;
            cells.push((if args.shown == 0 { clip } else { media::strip(&clip, args.shown)? }, prompt.as_str()));
        }
    }
    bar.finish_and_clear();
    let cells: Vec<_> = cells.iter().map(|(clip, prompt)| (clip, *prompt)).collect();
    let sheet = media::grid(&cells, args.columns, args.scale)?;
    media::write(&args.output, &sheet, &prompts.join("; "))?;
    println!("{}: {} clips, {} in a row", args.output.display(), cells.len(), args.columns);
    Ok(())
}
