//! `ditscope sheet`: the clips of several prompts in one picture.

use std::path::PathBuf;

use indicatif::ProgressBar;

use crate::engine::{ClipSettings, Engine, Facts, GenerateRequest};
use crate::media::{self, Clip};

use super::GpuArgs;
use super::generate::{SUBMIT_BUDGET, bar_style};
use super::job::{RunArgs, at_least_one, clip, open_gpu, run_job};

/// Arguments of `ditscope sheet`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Clips in a row
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    columns: usize,
    /// Frames shown of each clip; 0 for clips that play
    #[arg(long, default_value_t = 4)]
    shown: usize,
    /// Enlarge each pixel this many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
    /// The sheet: .png (animated where clips play), .gif, .mp4 or .y4m
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Generates and writes; clips are in the order of the prompts, row by row.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let prompts = args.runs.read_prompts()?;
    let request = args.runs.request(&prompts[0])?;
    let count = prompts.len() * args.runs.seeds as usize;
    let columns = args.columns.min(count);
    let shown = args.shown.min(request.clip.num_frames);
    let (width, height) =
        media::check_grid((count, columns), (request.clip.width, request.clip.height), shown, args.scale)?;
    media::check_clip(&args.output, width, height)?;
    let engine = Engine::start(open_gpu(&args.gpu, Facts::of(&request)?.gpu_memory)?, SUBMIT_BUDGET)?;
    let bar = ProgressBar::new(prompts.len() as u64 * args.runs.seeds * request.clip.num_inference_steps as u64);
    bar.set_style(bar_style()?);
    let one = |prompt: &String, seed: u64| -> anyhow::Result<Clip> {
        bar.set_message(prompt.clone());
        let request =
            GenerateRequest { prompt: prompt.clone(), clip: ClipSettings { seed, ..request.clip }, ..request.clone() };
        let run = run_job(&engine, &request, |_| bar.inc(1))?;
        let clip = clip(&run.generated, run.capture.run.clip.fps)?;
        Ok(if args.shown == 0 { clip } else { media::strip(&clip, args.shown)? })
    };
    let (mut cells, mut failure) = (Vec::new(), None);
    for (prompt, seed) in prompts.iter().flat_map(|prompt| (0..args.runs.seeds).map(move |seed| (prompt, seed))) {
        match one(prompt, seed) {
            Ok(cell) => cells.push((cell, prompt.as_str())),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    bar.finish_and_clear();
    if let Some(error) = failure.take_if(|_| cells.is_empty()) {
        return Err(error);
    }
    let cells: Vec<_> = cells.iter().map(|(clip, prompt)| (clip, *prompt)).collect();
    let sheet = media::grid(&cells, columns, args.scale)?;
    media::write(&args.output, &sheet, &prompts.join("; "))?;
    println!("{}: {} clips, {} in a row", args.output.display(), cells.len(), columns);
    failure.map_or(Ok(()), |error| Err(error.context("the sheet holds the clips before this error")))
}
