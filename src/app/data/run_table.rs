//! The runs as a table: one row a run, which can be sorted and written as CSV.

use std::cmp::Ordering;
use std::path::PathBuf;

use crate::app::data::history::KeptRun;
use crate::app::data::runs::Run;
use crate::app::data::shared::Shared;
use crate::caching::{Goal, StrategyConfig};

/// A column of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Column {
    /// The number, which grows with time.
    #[default]
    Number,
    /// Name or strategy.
    Strategy,
    /// The goal of the planner.
    Goal,
    /// Width, height, frames.
    Size,
    /// The seed.
    Seed,
    /// Number of steps.
    Steps,
    /// Share of block executions avoided.
    HitRate,
    /// Seconds of denoising.
    Denoising,
    /// Time of the baseline divided by that of the run.
    Speedup,
    /// Likeness to the baseline.
    Psnr,
    /// The prompt.
    Prompt,
    /// The user's note.
    Note,
}

impl Column {
    /// All of them, from left to right.
    pub const ALL: [Self; 12] = [
        Self::Number,
        Self::Strategy,
        Self::Goal,
        Self::Speedup,
        Self::Psnr,
        Self::HitRate,
        Self::Denoising,
        Self::Size,
        Self::Steps,
        Self::Seed,
        Self::Prompt,
        Self::Note,
    ];

    /// The head of the column.
    pub fn head(self) -> &'static str {
        match self {
            Self::Number => "#",
            Self::Strategy => "strategy",
            Self::Goal => "goal",
            Self::Size => "size",
            Self::Seed => "seed",
            Self::Steps => "steps",
            Self::HitRate => "hit rate",
            Self::Denoising => "denoising",
            Self::Speedup => "speed-up",
            Self::Psnr => "PSNR",
            Self::Prompt => "prompt",
            Self::Note => "note",
        }
    }
}

/// The run of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A run of this session.
    Run(u64),
    /// The capture of an earlier session.
    Kept(PathBuf),
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its run.
    pub source: Source,
    /// The name that the user gave it, or the strategy's.
    pub title: String,
    /// The goal of the planner; empty for other strategies.
    pub goal: String,
    /// Width, height and frames.
    pub size: [usize; 3],
    /// The seed.
    pub seed: u64,
    /// Number of steps.
    pub steps: usize,
    /// Share of block executions avoided.
    pub hit_rate: f64,
    /// Seconds of denoising.
    pub seconds: f64,
    /// Time of the baseline divided by that of the run.
    pub speedup: Option<f64>,
    /// Work without reuse divided by work with it.
    pub flop_speedup: Option<f64>,
    /// PSNR to the baseline in dB; infinite for identical clips.
    pub psnr: Option<f64>,
    /// The prompt.
    pub prompt: String,
    /// The user's note.
    pub note: String,
}

/// The goal of the planner in words; empty for other strategies.
pub fn goal(strategy: &StrategyConfig) -> String {
    match strategy.goal() {
        Some(Goal::Speedup(speedup)) => format!("{speedup:.2}x"),
        Some(Goal::Psnr(psnr)) => format!("{psnr:.1} dB"),
        Some(Goal::Computed(steps)) => format!("{steps} computed"),
        None => String::new(),
    }
}

impl Row {
    /// The row of a run.
    pub fn of(run: &Run, shared: &Shared) -> Self {
        let kept = KeptRun { thumbnail: Vec::new(), ..KeptRun::of(run) };
        Self {
            source: Source::Run(run.id),
            speedup: run.saving(shared.runs.reference_of(run)).map(|saving| saving.speedup),
            psnr: shared.known_likeness(run).map(|likeness| likeness.psnr),
            ..Self::of_kept(&kept)
        }
    }

    /// The row of an earlier session's run.
    pub fn of_kept(kept: &KeptRun) -> Self {
        let KeptRun { path, name, note, strategy, goal, prompt, size, seed, steps, hit_rate, seconds, .. } =
            kept.clone();
        let title = if name.is_empty() { strategy } else { name };
        let source = Source::Kept(path);
        let flop_speedup = kept.flop_speedup;
        let (speedup, psnr) = (None, None);
        Self { source, title, goal, size, seed, steps, hit_rate, seconds, speedup, flop_speedup, psnr, prompt, note }
    }

    /// The number of a run of this session.
    pub fn number(&self) -> Option<u64> {
        match self.source {
            Source::Run(id) => Some(id),
            Source::Kept(_) => None,
        }
    }

    fn compare(&self, other: &Self, column: Column) -> Ordering {
        let real =
            |a: Option<f64>, b: Option<f64>| a.unwrap_or(f64::NEG_INFINITY).total_cmp(&b.unwrap_or(f64::NEG_INFINITY));
        match column {
            // Runs of this session are newer than all others.
            Column::Number => match (&self.source, &other.source) {
                (Source::Kept(a), Source::Kept(b)) => a.cmp(b),
                _ => self.number().cmp(&other.number()),
            },
            Column::Strategy => self.title.cmp(&other.title),
            Column::Goal => self.goal.cmp(&other.goal),
            Column::Size => self.size.cmp(&other.size),
            Column::Seed => self.seed.cmp(&other.seed),
            Column::Steps => self.steps.cmp(&other.steps),
            Column::HitRate => self.hit_rate.total_cmp(&other.hit_rate),
            Column::Denoising => self.seconds.total_cmp(&other.seconds),
            Column::Speedup => real(self.speedup, other.speedup),
            Column::Psnr => real(self.psnr, other.psnr),
            Column::Prompt => self.prompt.cmp(&other.prompt),
            Column::Note => self.note.cmp(&other.note),
        }
    }
}

/// All runs: those of this session, and those of earlier sessions that are not open.
pub fn rows(shared: &Shared) -> Vec<Row> {
    let open = |kept: &&KeptRun| !shared.runs.iter().any(|run| run.is_in(&kept.path));
    let live = shared.runs.iter().map(|run| Row::of(run, shared));
    live.chain(shared.history.iter().filter(open).map(Row::of_kept)).collect()
}

/// Sorts rows by a column, the largest first if `falling`.
pub fn sort(rows: &mut [Row], column: Column, falling: bool) {
    rows.sort_by(|a, b| if falling { b.compare(a, column) } else { a.compare(b, column) });
}

/// The rows as CSV, with a head.
pub fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "run,title,goal,width,height,frames,steps,seed,hit_rate,denoising_s,speedup,flop_speedup,psnr_db,prompt,note\n",
    );
    let real = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.4}"));
    for row in rows {
        let number = row.number().map_or_else(String::new, |number| number.to_string());
        let [width, height, frames] = row.size.map(|extent| extent.to_string());
        let cells = [
            number,
            cell(&row.title),
            cell(&row.goal),
            width,
            height,
            frames,
            row.steps.to_string(),
            row.seed.to_string(),
            format!("{:.4}", row.hit_rate),
            format!("{:.3}", row.seconds),
            real(row.speedup),
            real(row.flop_speedup),
            real(row.psnr),
            cell(&row.prompt),
            cell(&row.note),
        ];
        text += &cells.join(",");
        text.push('\n');
    }
    text
}

/// A text as a cell of CSV. Spreadsheets must not take it for a formula.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.into() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::sample::{self, Kind};

    #[test]
    fn runs_become_sorted_rows_and_a_table() {
        let mut shared = Shared::default();
        shared.runs.add(sample::capture(Kind::Off), false, None);
        let id = shared.runs.add(sample::capture(Kind::Uniform), false, Some("open.capture".into()));
        shared.runs.change(id, |run| run.note = "=cmd(), \"x\"".into());
        let kept = |path: &str, seed| KeptRun { path: path.into(), seed, strategy: "old".into(), ..KeptRun::default() };
        shared.history = vec![kept("2.capture", 7), kept("1.capture", 9), kept("open.capture", 1)];
        let mut all = rows(&shared);
        assert_eq!(all.len(), 4, "a kept run that is open has one row");
        sort(&mut all, Column::Number, true);
        let numbers: Vec<_> = all.iter().map(Row::number).collect();
        assert_eq!((numbers, all[2].seed), (vec![Some(2), Some(1), None, None], 7), "newest first");
        sort(&mut all, Column::Seed, false);
        assert_eq!(all[3].seed, 9);
        sort(&mut all, Column::HitRate, true);
        assert_eq!(all[0].number(), Some(2));
        let text = csv(&all);
        assert_eq!(text.lines().count(), 5);
        assert!(text.contains("\"'=cmd(), \"\"x\"\"\""), "{text}");
        let columns = text.lines().next().unwrap().split(',').count();
        assert_eq!(text.lines().nth(2).unwrap().split(',').count(), columns);
    }
}
