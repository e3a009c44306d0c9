//! `ditscope sheet`: the clips of several prompts in one picture.

use std::path::PathBuf;

use crate::engine::{Engine, GenerateRequest, RequestInfo};
use crate::media::{self, Clip, SheetCell, SheetShape};
use crate::study::Size;
use crate::study::queue::Queue;

use super::generate::SUBMIT_BUDGET;
use super::job::{RunArgs, StudyBar, at_least_one, open_gpu};
use super::{GpuArgs, interrupt};

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
    #[arg(short, long, value_name = "FILE", help = format!("The sheet: {} (.png is animated where clips play)", media::endings()))]
    output: PathBuf,
    #[command(flatten)]
    gpu: GpuArgs,
}

/// Generates and writes; clips are in the order of the prompts, row by row.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let prompts = args.runs.read_prompts()?;
    let request = args.runs.request(&prompts[0])?;
    let queue = queue(&request, &prompts, args.runs.seeds);
    let columns = args.columns.min(queue.list().len());
    let shown = args.shown.min(request.clip.num_frames);
    let cells = queue.list().len();
    let shape = SheetShape { cells, columns, clip: request.clip.size(), shown, scale: args.scale };
    let (width, height) = media::check_grid(&shape)?;
    media::check_clip(&args.output, width, height)?;
    let engine = Engine::start(open_gpu(&args.gpu, RequestInfo::of(&request)?.gpu_memory)?, SUBMIT_BUDGET)?;
    let (cancel, bar, mut cells) = (interrupt::cancel(), StudyBar::new()?, Vec::new());
    let session = bar.session(&engine, &cancel);
    let done = queue.run(&session, |item| {
        bar.name(&item.work.condition.to_string());
        let clip = session.run(item.work.clone(), item.size, |_| {})?.clip()?;
        let clip = if args.shown == 0 { clip } else { media::strip(&clip, args.shown)? };
        cells.push((clip, item.work.condition.to_string()));
        Ok(())
    });
    bar.clear();
    if let Err(error) = done {
        if cells.is_empty() {
            return Err(error.into());
        }
        write(args, columns, &cells, &prompts)?;
        return Err(error.within("the sheet holds the clips before this error").into());
    }
    write(args, columns, &cells, &prompts)
}

/// A job for every prompt and seed.
fn queue(request: &GenerateRequest, prompts: &[String], seeds: u64) -> Queue<GenerateRequest> {
    let queue = Queue::default();
    for prompt in prompts {
        for seed in 0..seeds {
            let size = Size::run(request.clip.num_inference_steps, 1.0);
            queue.push(prompt, size, request.with_prompt(prompt, seed));
        }
    }
    queue
}

fn write(args: &Args, columns: usize, cells: &[(Clip, String)], prompts: &[String]) -> anyhow::Result<()> {
    let cells: Vec<_> = cells.iter().map(|(clip, caption)| SheetCell { clip, caption }).collect();
    let sheet = media::grid(&cells, columns, args.scale)?;
    media::write_or_keep(&args.output, &sheet, &prompts.join("; "))?;
    out!("{}: {} clips, {} in a row", args.output.display(), cells.len(), columns);
    Ok(())
}
