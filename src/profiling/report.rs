//! The report of a profile: a folder of figures (SVG and PNG) and tables (CSV).
//!
//! | file | content |
//! |---|---|
//! | `profile.json` | the profile itself |
//! | `lift`, `recall` | lift, and eq. 6, by block and step (the paper's Fig. 2) |
//! | `maps` | attention received in some blocks at some steps, and the mask's outline (Fig. 3) |
//! | `prediction` | L1 distance of consecutive predictions (Fig. 4) |
//! | `delta`, `residual` | relative change of each block's delta, and of the residual |
//! | `blocks_lift_delta` | mean lift against mean change of each block |
//! | `scores.csv`, `blocks.csv`, `steps.csv` | all numbers |
//!
//! `blocks_lift_delta` shows whether attention or stability separates the blocks better.

use std::fmt::Write as _;
use std::path::Path;

use super::ProfilingError;
use super::profile::{Profile, StepBlock};
use super::recorder::KeptMaps;
use crate::media::figure::{ColorScale, Heatmap, MapGrid, MapPanel, Plot, Series, Svg};

/// Pixels of a PNG per CSS pixel of its SVG.
const PNG_SCALE: f64 = 2.0;
/// Largest number of blocks in the grid of maps.
const MAP_BLOCKS: usize = 6;

/// Writes the report of `profile` into `folder`. The folder is created if it does not exist, and
/// files with the same names are replaced.
///
/// # Errors
/// [`ProfilingError::Io`] or [`ProfilingError::Media`] if a file cannot be written;
/// [`ProfilingError::Invalid`] for a profile that breaks its format.
pub fn write(folder: &Path, profile: &Profile, maps: Option<&KeptMaps>) -> Result<(), ProfilingError> {
    let io = |source| ProfilingError::Io { path: folder.into(), source };
    std::fs::create_dir_all(folder).map_err(io)?;
    let put = |name: &str, bytes: &[u8]| crate::media::write_bytes(&folder.join(name), bytes);
    for (name, svg) in figures(profile, maps) {
        put(&format!("{name}.svg"), svg.as_str().as_bytes())?;
        put(&format!("{name}.png"), &svg.to_png(PNG_SCALE)?)?;
    }
    put("scores.csv", scores_csv(profile).as_bytes())?;
    put("blocks.csv", blocks_csv(profile).as_bytes())?;
    put("steps.csv", steps_csv(profile).as_bytes())?;
    Ok(put("profile.json", profile.to_json()?.as_bytes())?)
}

/// All figures of a report with their names.
pub fn figures(profile: &Profile, maps: Option<&KeptMaps>) -> Vec<(&'static str, Svg)> {
    let mut all = vec![
        ("lift", lift_heatmap(profile).svg()),
        ("recall", recall_heatmap(profile).svg()),
        ("delta", delta_heatmap(profile).svg()),
        ("prediction", prediction_plot(profile).svg()),
        ("residual", residual_plot(profile).svg()),
        ("blocks_lift_delta", lift_against_delta(profile).svg()),
    ];
    all.extend(maps.map(|maps| ("maps", map_grid(profile, maps).svg())));
    all
}

/// A line that describes the measurement.
fn subtitle(profile: &Profile) -> String {
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{}, {} steps of {}, {}, {}, mask {} (confidence {:.2})",
        profile.model.id,
        profile.settings.steps(),
        profile.settings.scheduler,
        plural(profile.prompts.len(), "prompt"),
        plural(profile.seeds.len(), "seed"),
        profile.mask.estimator.name(),
        profile.mask.confidence
    )
}

/// Turns `[step][block]` into rows of blocks.
fn by_block(matrix: &StepBlock, blocks: usize) -> Vec<Option<f64>> {
    (0..blocks).flat_map(|block| matrix.iter().map(move |row| row.get(block).copied().flatten())).collect()
}

fn heatmap(profile: &Profile, title: &str, value_label: &str, matrix: &StepBlock) -> Heatmap {
    let blocks = profile.model.blocks;
    let class = |block: usize| if profile.partition.foreground.contains(&block) { "F" } else { "B" };
    Heatmap {
        title: title.into(),
        subtitle: subtitle(profile),
        x_label: "step (0 is the noisiest)".into(),
        y_label: "block".into(),
        value_label: value_label.into(),
        columns: profile.settings.steps(),
        values: by_block(matrix, blocks),
        row_marks: (0..blocks).map(|block| class(block).into()).collect(),
        marks_label: format!("F: foreground block, B: background block (tau = {:.3})", profile.partition.tau),
        ..Default::default()
    }
}

/// Lift by block and step, similar to the paper's Fig. 2.
pub fn lift_heatmap(profile: &Profile) -> Heatmap {
    let title = "Attention to the foreground, by block and step";
    let map = heatmap(profile, title, "lift (1 = chance)", &profile.scores.lift.mean);
    Heatmap { colors: ColorScale::Diverging, middle: Some(1.0), ..map }
}

/// Recall by block and step, as in the paper's Fig. 2.
pub fn recall_heatmap(profile: &Profile) -> Heatmap {
    let title = "Foreground recall R_attn (eq. 6), by block and step";
    heatmap(profile, title, "recall at the matched count (0 to 1)", &profile.scores.recall.mean)
}

/// Relative change of each block's delta.
pub fn delta_heatmap(profile: &Profile) -> Heatmap {
    let title = "Change of what each block adds since the step before";
    heatmap(profile, title, "relative change (L1, 0 = none)", &profile.delta_change)
}

fn curve(profile: &Profile, title: &str, y_label: &str, values: &[Option<f64>]) -> Plot {
    let points = values.iter().enumerate().filter_map(|(step, value)| value.map(|value| (step as f64, value)));
    let series = Series { name: y_label.into(), points: points.collect(), joined: true, ..Default::default() };
    Plot {
        title: title.into(),
        subtitle: subtitle(profile),
        x_label: "step (0 is the noisiest)".into(),
        y_label: y_label.into(),
        series: vec![series],
        from_zero: true,
        ..Plot::default()
    }
}

/// Distance of consecutive predictions, similar to the paper's Fig. 4.
pub fn prediction_plot(profile: &Profile) -> Plot {
    let title = "Distance between consecutive predictions";
    curve(profile, title, "mean |v(s) - v(s - 1)|", &profile.prediction_l1)
}

/// Relative change of the residual, which is the sum of all blocks' deltas.
pub fn residual_plot(profile: &Profile) -> Plot {
    let title = "Change of what all blocks add since the step before";
    curve(profile, title, "relative change (L1, 0 = none)", &profile.residual_change)
}

fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = values.flatten().fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn block_delta(profile: &Profile, block: usize) -> Option<f64> {
    mean(profile.delta_change.iter().map(|row| row[block]))
}

/// Mean lift of every block against the mean change of its delta, by class.
pub fn lift_against_delta(profile: &Profile) -> Plot {
    let series = |name: &str, blocks: &[usize]| {
        let places = blocks.iter().filter_map(|block| Some((*block, block_delta(profile, *block)?)));
        Series {
            name: name.into(),
            points: places.clone().map(|(block, delta)| (profile.block_lift[block], delta)).collect(),
            labels: places.map(|(block, _)| block.to_string()).collect(),
            ..Default::default()
        }
    };
    Plot {
        title: "Attention against stability, by block".into(),
        subtitle: subtitle(profile),
        x_label: "mean lift (1 = chance)".into(),
        y_label: "mean relative change of what the block adds".into(),
        series: vec![
            series("foreground blocks", &profile.partition.foreground),
            series("background blocks", &profile.partition.background),
        ],
        ..Plot::default()
    }
}

/// The blocks to show, in the order of the model. Their lifts are spread evenly from the lowest to
/// the highest.
fn shown_blocks(profile: &Profile) -> Vec<usize> {
    let mut order: Vec<usize> = (0..profile.model.blocks).collect();
    order.sort_by(|a, b| profile.block_lift[*a].total_cmp(&profile.block_lift[*b]));
    let count = order.len().min(MAP_BLOCKS);
    let mut shown: Vec<usize> = (0..count).map(|i| order[i * (order.len() - 1) / (count - 1).max(1)]).collect();
    shown.sort_unstable();
    shown.dedup();
    shown
}

/// Maps of received attention, similar to the paper's Fig. 3. The colours end at the 99th
/// percentile, because single tokens may receive many times more than all others.
pub fn map_grid(profile: &Profile, maps: &KeptMaps) -> MapGrid {
    let blocks = shown_blocks(profile);
    let mut steps: Vec<usize> = maps.maps.keys().map(|(_, step)| *step).collect();
    steps.sort_unstable();
    steps.dedup();
    let panel = |block: usize, step: usize| {
        let map = maps.maps.get(&(block, step))?;
        Some(MapPanel { values: map.iter().map(|value| f64::from(*value)).collect(), outline: maps.mask.clone() })
    };
    let panels: Vec<Option<MapPanel>> =
        blocks.iter().flat_map(|block| steps.iter().map(move |step| panel(*block, *step))).collect();
    let mut values: Vec<f64> = panels.iter().flatten().flat_map(|panel| panel.values.iter().copied()).collect();
    values.sort_by(f64::total_cmp);
    let top = values.get(values.len() * 99 / 100).copied().unwrap_or(1.0).max(1.0);
    let class = |block: &usize| if profile.partition.foreground.contains(block) { "F" } else { "B" };
    MapGrid {
        title: "Attention received, by block and step".into(),
        subtitle: format!("{}; latent frame {}; outline: the foreground mask", profile.model.id, maps.frame),
        value_label: "attention received (mean = 1)".into(),
        extents: maps.extents,
        row_names: blocks.iter().map(|block| format!("block {block} ({})", class(block))).collect(),
        column_names: steps.iter().map(|step| format!("step {step}")).collect(),
        panels,
        colors: ColorScale::Viridis,
        range: Some((0.0, top)),
    }
}

fn field(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn scores_csv(profile: &Profile) -> String {
    let mut csv = "step,block".to_owned();
    for (name, _) in profile.scores.all() {
        let _ = write!(csv, ",{name}_mean,{name}_spread");
    }
    csv.push_str(",delta_change\n");
    for step in 0..profile.settings.steps() {
        for block in 0..profile.model.blocks {
            let _ = write!(csv, "{step},{block}");
            for (_, map) in profile.scores.all() {
                let _ = write!(csv, ",{},{}", field(map.mean[step][block]), field(map.spread[step][block]));
            }
            let _ = writeln!(csv, ",{}", field(profile.delta_change[step][block]));
        }
    }
    csv
}

fn blocks_csv(profile: &Profile) -> String {
    let mut csv = "block,class,mean_lift,mean_recall,mean_auc,mean_delta_change\n".to_owned();
    for block in 0..profile.model.blocks {
        let class = if profile.partition.foreground.contains(&block) { "foreground" } else { "background" };
        let of = |matrix: &StepBlock| field(mean(matrix.iter().map(|row| row[block])));
        let _ = writeln!(
            csv,
            "{block},{class},{},{},{},{}",
            profile.block_lift[block],
            of(&profile.scores.recall.mean),
            of(&profile.scores.auc.mean),
            field(block_delta(profile, block))
        );
    }
    csv
}

fn steps_csv(profile: &Profile) -> String {
    let mut csv = "step,prediction_l1,residual_change\n".to_owned();
    for step in 0..profile.settings.steps() {
        let (l1, change) = (field(profile.prediction_l1[step]), field(profile.residual_change[step]));
        let _ = writeln!(csv, "{step},{l1},{change}");
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profiling::profile::tests::sample;
    use crate::profiling::recorder::tests::recorded;

    #[test]
    fn a_report_holds_all_figures_and_all_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let (profile, maps) = recorded();
        write(folder.path(), &profile, Some(&maps)).unwrap();
        write(folder.path(), &profile, Some(&maps)).unwrap();
        for name in ["lift", "recall", "delta", "prediction", "residual", "blocks_lift_delta", "maps"] {
            let svg = std::fs::read_to_string(folder.path().join(format!("{name}.svg"))).unwrap();
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{name}");
            assert!(std::fs::read(folder.path().join(format!("{name}.png"))).unwrap().starts_with(b"\x89PNG"));
        }
        assert_eq!(Profile::read(&folder.path().join("profile.json")).unwrap(), profile);
        let csv = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(csv("scores.csv").lines().count(), 1 + 8 * 6);
        assert_eq!(csv("blocks.csv").lines().nth(2).unwrap().split(',').nth(1), Some("foreground"));
        assert_eq!(csv("steps.csv").lines().nth(5), Some("4,0.25,0.25"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2 * 7 + 4, "no temporary file is left");
    }

    #[test]
    fn a_profile_without_maps_and_with_gaps_has_its_figures() {
        assert_eq!(figures(&sample(), None).len(), 6);
        assert_eq!(shown_blocks(&sample()), [0, 1, 2, 3, 4, 5]);
    }

    /// Writes a report into the folder FIGURES for inspection.
    #[test]
    #[ignore = "writes files to look at"]
    fn show() {
        let folder = std::path::PathBuf::from(std::env::var("FIGURES").expect("FIGURES names a folder"));
        let (profile, maps) = recorded();
        write(&folder.join("report"), &profile, Some(&maps)).unwrap();
    }
}
