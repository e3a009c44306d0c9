//! A capture as one HTML page: the clip, the estimates on the way, maps of blocks and steps, curves
//! and settings.

use crate::caching::Cell;
use crate::media::figure::{ColorScale, Heatmap, Plot, Series};
use crate::media::{Clip, MediaError, Page, mp4_bytes, png_bytes};
use crate::profiling::mask::Mask;
use crate::profiling::score::{FIXED_THRESHOLD, score};

use super::{BlockRecord, Capture, Frames};

/// Least side of an enlarged clip, in pixels.
const SHOWN_SIDE: usize = 320;
const STEP: &str = "step (0 is the noisiest)";

/// The page of a capture. Parts that were not recorded are left out.
///
/// # Errors
/// [`MediaError`] for frames that cannot be encoded.
pub fn page(capture: &Capture) -> Result<String, MediaError> {
    let run = &capture.run;
    let title = if run.prompt.is_empty() { "A run" } else { &run.prompt };
    let mut page = Page::new(title, &subtitle(capture));
    capture.warnings.iter().for_each(|warning| page.warning(warning));
    if let Some(error) = capture.outcome.as_ref().and_then(|outcome| outcome.error.as_deref()) {
        page.warning(&format!("The run ended early: {error}"));
    }
    if let Some(frames) = &capture.clip {
        add_clip(&mut page, frames, run.clip.fps, "the clip")?;
    }
    if let Some(estimates) = estimates(capture) {
        add_clip(
            &mut page,
            &estimates,
            4,
            "the middle frame as it was estimated at each step, one pixel a latent cell",
        )?;
    }
    page.heading("Blocks and steps");
    for map in maps(capture) {
        page.figure(&map.svg());
    }
    let curves = curves(capture);
    if !curves.is_empty() {
        page.heading("Steps");
        curves.iter().for_each(|curve| page.figure(&curve.svg()));
    }
    page.heading("Settings");
    page.facts(&facts(capture));
    Ok(page.finish())
}

fn subtitle(capture: &Capture) -> String {
    let work = capture.flop_speedup().map_or(String::new(), |speedup| format!(", {speedup:.2} times less work"));
    format!(
        "{} of {} steps; strategy {}: {:.0} % of the blocks' runs avoided{work}",
        capture.steps.len(),
        capture.run.steps(),
        capture.run.strategy.name(),
        100.0 * capture.hit_rate()
    )
}

/// Adds frames as a video. Small frames are enlarged, so that players show them sharply.
fn add_clip(page: &mut Page, frames: &Frames, fps: u32, caption: &str) -> Result<(), MediaError> {
    let scale = (SHOWN_SIDE / frames.width.max(frames.height).max(1)).max(1);
    let (width, height) = (frames.width * scale, frames.height * scale);
    let enlarge = |frame: &Vec<u8>| -> Vec<u8> {
        let pixel = |at: usize| {
            let from = (at / width / scale * frames.width + at % width / scale) * 3;
            frame.get(from..from + 3).unwrap_or(&[0; 3]).to_vec()
        };
        (0..width * height).flat_map(pixel).collect()
    };
    let shown: Vec<Vec<u8>> = frames.frames.iter().map(enlarge).collect();
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let middle = shown.get(shown.len() / 2).cloned().into_iter().collect();
    let poster = png_bytes(&Clip::new(side(width), side(height), fps.max(1), middle)?)?;
    let clip = Clip::new(side(width), side(height), fps.max(1), shown)?;
    page.video(&mp4_bytes(&clip, "")?, Some(&poster), caption);
    Ok(())
}

/// The middle frame of each step's estimate. `None` if no step has one.
fn estimates(capture: &Capture) -> Option<Frames> {
    let previews: Vec<&Frames> = capture.steps.iter().filter_map(|step| step.preview.as_ref()).collect();
    let first = previews.first()?;
    let alike = previews.iter().filter(|preview| (preview.width, preview.height) == (first.width, first.height));
    let frames = alike.filter_map(|preview| preview.frames.get(preview.frames.len() / 2).cloned()).collect();
    Some(Frames { width: first.width, height: first.height, frames })
}

/// Maps of blocks by steps: what was reused, and what was measured.
fn maps(capture: &Capture) -> Vec<Heatmap> {
    let cell = |block: &BlockRecord| Some(if block.cell == Cell::Reused { 1.0 } else { 0.0 });
    let reuse = Heatmap {
        title: "Reused blocks".into(),
        value_label: "0 computed, 1 reused".into(),
        range: Some((0.0, 1.0)),
        ..map(capture, cell)
    };
    let change = Heatmap {
        title: "Change of each block's delta".into(),
        subtitle: "since it was last measured".into(),
        value_label: "relative change".into(),
        ..map(capture, |block| block.change.map(f64::from))
    };
    let seconds = Heatmap {
        title: "Time of each block".into(),
        value_label: "milliseconds on the GPU".into(),
        ..map(capture, |block| block.seconds.map(|seconds| 1000.0 * f64::from(seconds)))
    };
    let lifts = capture.masks.iter().filter_map(|record| {
        let mask = Mask::new(capture.run.token_grid, record.tokens.clone()).ok()?;
        let lift = |block: &BlockRecord| Some(score(block.received.as_deref()?, &mask, FIXED_THRESHOLD)?.lift);
        Some(Heatmap {
            title: format!("Attention to the foreground (mask: {})", record.estimator),
            subtitle: format!("the mask's confidence is {:.2}", record.confidence),
            value_label: "lift (1 is chance)".into(),
            colors: ColorScale::Diverging,
            middle: Some(1.0),
            ..map(capture, lift)
        })
    });
    let all = [reuse, change, seconds].into_iter().chain(lifts);
    all.filter(|map| map.values.iter().any(Option::is_some)).collect()
}

/// A map of the cond branch with one cell for each block and step.
fn map(capture: &Capture, value: impl Fn(&BlockRecord) -> Option<f64>) -> Heatmap {
    let (blocks, columns) = (capture.run.blocks, capture.steps.len());
    let at = |index: usize| capture.steps[index % columns].cond.get(index / columns).and_then(&value);
    Heatmap {
        x_label: STEP.into(),
        y_label: "block".into(),
        columns,
        values: (0..blocks * columns).map(at).collect(),
        ..Heatmap::default()
    }
}

/// Curves over the steps. Curves without any value are left out.
fn curves(capture: &Capture) -> Vec<Plot> {
    let plot = |title: &str, y_label: &str, value: fn(&super::StepRecord) -> Option<f64>| {
        let points: Vec<(f64, f64)> =
            capture.steps.iter().filter_map(|step| Some((step.step as f64, value(step)?))).collect();
        let series = Series { name: title.into(), points, joined: true, ..Series::default() };
        Plot {
            title: title.into(),
            x_label: STEP.into(),
            y_label: y_label.into(),
            series: vec![series],
            from_zero: true,
            ..Plot::default()
        }
    };
    let all = [
        plot("Change of the prediction", "mean |v - v before|", |step| step.prediction_change),
        plot("Change of the whole residual", "relative change", |step| step.residual_change),
        plot("Time", "seconds", |step| (step.seconds > 0.0).then_some(step.seconds)),
    ];
    all.into_iter().filter(|plot| plot.series.iter().any(|series| !series.points.is_empty())).collect()
}

fn facts(capture: &Capture) -> Vec<(&'static str, String)> {
    let (run, clip) = (&capture.run, &capture.run.clip);
    let mut facts = vec![
        ("prompt", run.prompt.clone()),
        ("negative prompt", run.negative_prompt.clone()),
        ("model", format!("{} ({})", run.model, run.model_id)),
        ("size", format!("{}x{} pixels, {} frames, {} a second", clip.width, clip.height, clip.num_frames, clip.fps)),
        ("seed", format!("{} ({})", clip.seed, run.noise)),
        ("steps", format!("{}, {}, shift {}", run.steps(), run.scheduler, run.flow_shift())),
        ("guidance", clip.guidance_scale.to_string()),
        ("strategy", run.strategy.to_json()),
        ("tokens", format!("{} ({:?})", run.tokens(), run.token_grid)),
        ("program", run.program.clone()),
        ("adapter", run.adapter.clone()),
    ];
    if let Some(outcome) = &capture.outcome {
        let seconds = &outcome.seconds;
        facts.push(("seconds", format!("{:.2} in all, {:.2} of denoising", seconds.total, seconds.denoise)));
        facts.push(("GPU memory", format!("{:.1} MiB at most", outcome.peak_memory as f64 / f64::from(1 << 20))));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::capture::tests::small;

    #[test]
    fn a_page_has_the_clip_the_maps_and_the_settings() {
        let mut capture = small();
        capture.run.prompt = "<b>a cat</b>".into();
        capture.masks[0].tokens = [true, false, false, false].repeat(2);
        capture.steps[1].prediction_change = Some(0.5);
        let text = page(&capture).unwrap();
        let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
        let document = roxmltree::Document::parse_with_options(&text, options).unwrap();
        let all = |name: &'static str| document.descendants().filter(move |node| node.tag_name().name() == name);
        assert_eq!(all("h1").next().unwrap().text(), Some("<b>a cat</b>"));
        let titles: Vec<&str> = all("svg").filter_map(|svg| svg.first_element_child()?.text()).collect();
        for title in ["Reused blocks", "Change of each block's delta", "Change of the prediction"] {
            assert!(titles.contains(&title), "{titles:?}");
        }
        assert!(titles.iter().any(|title| title.starts_with("Attention to the foreground")), "{titles:?}");
        // The middle step of both blocks is reused.
        let tips: Vec<&str> = all("title").filter_map(|tip| tip.text()).collect();
        assert!(tips.contains(&"block 1, step 1: 1.000") && tips.contains(&"block 1, step 2: 0.00"), "{tips:?}");
        assert_eq!(all("video").count(), 2, "the clip and the estimates");
    }

    #[test]
    fn an_empty_capture_has_a_page_too() {
        assert!(page(&Capture::default()).unwrap().contains("A run"));
    }
}
