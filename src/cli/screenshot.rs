//! The command `ditscope screenshot`.

use std::path::PathBuf;

use anyhow::Context;

use crate::app::{Screenshot, screenshot};
use crate::media::{self, Clip};

use super::WrongUse;

/// Arguments of `ditscope screenshot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recorded run to show
    capture: PathBuf,
    /// The picture (PNG)
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Another recorded run as the baseline
    #[arg(long, value_name = "CAPTURE")]
    baseline: Option<PathBuf>,
    /// Size in pixels
    #[arg(long, value_name = "WxH", default_value = "1600x1000", value_parser = super::generate::parse_size)]
    size: (usize, usize),
    /// Zoom in percent
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(50..=300))]
    zoom: u32,
    /// Theme
    #[arg(long, value_enum, default_value = "dark")]
    theme: Theme,
    /// Block whose attention is shown, with --step
    #[arg(long, requires = "step")]
    block: Option<usize>,
    /// Step that is shown, with --block
    #[arg(long, requires = "block")]
    step: Option<usize>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Theme {
    Dark,
    Light,
}

/// Draws the picture and writes it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    if !args.output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        let message = format!("{}: the picture is a PNG file: name it with .png", args.output.display());
        return Err(WrongUse(message).into());
    }
    media::check_path(&args.output)?;
    let wanted = Screenshot {
        capture: args.capture.clone(),
        baseline: args.baseline.clone(),
        size: [side(args.size.0), side(args.size.1)],
        scale: args.zoom as f32 / 100.0,
        dark: matches!(args.theme, Theme::Dark),
        cell: args.block.zip(args.step).map(|(block, step)| [block, step]),
    };
    let (rgba, width, height) = screenshot(&wanted)?;
    let rgb = rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    media::write(&args.output, &Clip::new(width, height, 1, vec![rgb])?, "")
        .context("the picture could not be written")?;
    out!("{}: {width}x{height} pixels", args.output.display());
    Ok(())
}
