//! `ditscope learning`: what ordinary runs told of a model.

use crate::caching::RunMeasurement;
use crate::engine::{GenerateRequest, RequestInfo};
use crate::study::LearntFile;

use super::{ModelArgs, WrongUse};

/// Arguments of `ditscope learning`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Forget what runs of the model told
    #[arg(long)]
    clear: bool,
}

/// Lists or clears.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (model, files) = args.model.place()?;
    let facts = RequestInfo::of(&GenerateRequest::of_files(&model, &files, "")?)?;
    let no_folder = || WrongUse("there is no data folder for this user, so nothing is learnt".into());
    let file = LearntFile::of_model(&facts.model_id).ok_or_else(no_folder)?;
    let place = file.path().display();
    if args.clear {
        let said = if file.clear()? { "forgotten" } else { "there was nothing to forget" };
        out!("{place}: {said}");
        return Ok(());
    }
    let learnt = file.read();
    out!("{place}: {} measured runs", learnt.runs().len());
    learnt.runs().iter().for_each(|run| out!("{}", line(run)));
    Ok(())
}

fn line(run: &RunMeasurement) -> String {
    let RunMeasurement { levels, size: [width, height, frames], guidance_scale, scheduler, .. } = run;
    let steps = levels.len();
    format!("{steps} steps, {width}x{height}, {frames} frames, guidance {guidance_scale}, {scheduler}")
}
