//! The command `ditscope profile`, which generates videos, measures them, and writes the profile
//! and its report.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::caching::block_list;
use crate::engine::Engine;
use crate::profiling::mask::Estimator;
use crate::profiling::partition::TauRule;
use crate::profiling::profile::{Profile, Queries};
use crate::profiling::report;
use crate::study::ProfileStudy;
use crate::study::profile::MaskSource;

use super::generate::SUBMIT_BUDGET;
use super::job::{RunArgs, StudyBar, open_gpu};
use super::{GpuArgs, interrupt};

/// Arguments of `ditscope profile`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    runs: RunArgs,
    /// Foreground mask: auto, motion, pca, prompt, or file:PLACE (a PNG for all frames, an animated
    /// PNG or GIF, or a folder of PNGs)
    #[arg(long, default_value = "auto", value_parser = parse_mask)]
    mask: MaskSource,
    /// Attention queries sampled per head to measure what tokens receive; 0 for all of them
    #[arg(long, value_name = "N", default_value_t = 0)]
    queries: usize,
    /// Threshold between foreground and background blocks: otsu, a number, q0.6 (quantile) or
    /// lowest8
    #[arg(long, default_value = "otsu", value_parser = parse_rule)]
    tau: TauRule,
    /// Also make errors on purpose at seven steps, to measure how they are carried on, and try
    /// plans at three speed-ups: ten runs more for one prompt, 68 for eight
    #[arg(long)]
    thorough: bool,
    /// The profile to write
    #[arg(short, long, default_value = "profile.json")]
    output: PathBuf,
    /// Folder for figures (lift, recall, maps, prediction, delta, residual, blocks_lift_delta: SVG
    /// and PNG), tables (scores, blocks, steps: CSV) and the profile [default: none]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    gpu: GpuArgs,
}

fn parse_mask(text: &str) -> Result<MaskSource, String> {
    if let Some(place) = text.strip_prefix("file:") {
        return Ok(MaskSource::File(place.into()));
    }
    let estimated = [Estimator::Auto, Estimator::Motion, Estimator::Pca, Estimator::Prompt];
    let found = estimated.into_iter().find(|estimator| estimator.name() == text).map(MaskSource::Estimated);
    found.ok_or_else(|| format!("\"{text}\" is none of auto, motion, pca, prompt, file:PLACE"))
}

fn parse_rule(text: &str) -> Result<TauRule, String> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let rule = if text == "otsu" {
        Some(TauRule::Otsu)
    } else if let Some(share) = text.strip_prefix('q') {
        number(share).filter(|share| (0.0..=1.0).contains(share)).map(TauRule::Quantile)
    } else if let Some(count) = text.strip_prefix("lowest") {
        count.parse().ok().map(TauRule::Lowest)
    } else {
        number(text).map(TauRule::Value)
    };
    rule.ok_or_else(|| format!("\"{text}\" is none of otsu, a number, a quantile of 0 to 1 such as q0.6, lowest8"))
}

/// Runs the study and writes the profile and its report.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let prompts = args.runs.read_prompts()?;
    let request = args.runs.request(&prompts[0])?;
    let study = ProfileStudy {
        seeds: args.runs.seeds,
        mask: args.mask.clone(),
        queries: if args.queries == 0 { Queries::Exact } else { Queries::Sampled(args.queries) },
        rule: args.tau,
        thorough: args.thorough,
        output: Some(args.output.clone()),
        ..ProfileStudy::new(request, prompts)
    };
    let facts = study.check()?;
    if let Some(folder) = &args.report {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let engine = Engine::start(open_gpu(&args.gpu, facts.gpu_memory)?, SUBMIT_BUDGET)?;
    let (cancel, bar) = (interrupt::cancel(), StudyBar::new()?);
    let done = study.run(&bar.session(&engine, &cancel));
    bar.clear();
    let done = done?;
    if let Some(folder) = &args.report {
        report::write(folder, &done.profile, Some(&done.maps))?;
    }
    print(&done.profile, &args.output);
    let more = more(done.profile.prompts.len() * done.profile.seeds.len(), args.thorough);
    more.lines().for_each(|line| out!("{line}"));
    Ok(())
}

/// What further runs would bring.
fn more(runs: usize, thorough: bool) -> String {
    let mut lines = String::new();
    if runs < 8 {
        let left = 8 - runs;
        lines += &format!("  {left} more prompts (--prompts FILE, a run each) make plans that suit more prompts\n");
    }
    if !thorough {
        lines += "  --thorough (ten runs for one prompt) measures how errors are carried on; plans for four times \
                  less work and more, and the expected PSNR, get surer\n";
    }
    lines
}

/// Prints the main results of a profile in a few lines.
pub(super) fn print(profile: &Profile, place: &Path) {
    let stability = profile.stability;
    let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2}"));
    let runs = profile.prompts.len() * profile.seeds.len();
    out!("{}: {runs} runs of {}, {} blocks", place.display(), profile.model.id, profile.model.blocks);
    out!("  background blocks {}", block_list::print(&profile.partition.background));
    out!(
        "  foreground blocks {} (lift of {:.2} and more)",
        block_list::print(&profile.partition.foreground),
        profile.partition.tau
    );
    out!(
        "  order of the blocks: rank correlation {} between steps, {} between prompts; lists agree by {} and {}",
        shown(stability.steps.spearman),
        shown(stability.prompts.spearman),
        shown(stability.steps.jaccard),
        shown(stability.prompts.jaccard)
    );
    out!("  masks: {:?}, confidence {:.2}", profile.mask.estimator, profile.mask.confidence);
    if let Some(agreement) = profile.sampled_agreement {
        out!("  sampled maps against exact ones: rank correlation {agreement:.2}");
    }
    for (error, psnr) in profile.calibration.iter().flat_map(|calibration| &calibration.outcomes) {
        out!("  a plan with a predicted error of {error:.1e} kept {psnr:.1} dB");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_parse() {
        assert_eq!(parse_rule("otsu"), Ok(TauRule::Otsu));
        assert_eq!(parse_rule("q0.6"), Ok(TauRule::Quantile(0.6)));
        assert_eq!(parse_rule("lowest8"), Ok(TauRule::Lowest(8)));
        assert_eq!(parse_rule("1.2"), Ok(TauRule::Value(1.2)));
        for wrong in ["lowest", "much", "q5", "q-0.1", "qnan", "nan", "inf", "lowest-1"] {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
    }
}
