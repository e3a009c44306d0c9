//! The study that compares strategies with the same model without reuse. The runs of all strategies
//! on a prompt and seed are interleaved on one device.
//!
//! A comparison can be cut into shards by prompt and seed, which run on different machines
//! ([`Shard`], [`merge`](merge::merge)). Every prompt and seed has a baseline of its own, so rows
//! from different machines can be joined.

mod folder;
mod interleaved;
mod merge;
mod page;
pub mod report;
mod request;
mod settings;
mod shard;
mod sheet;
mod tune;
mod verdict;

use crate::engine::GenerateRequest;
use crate::media::Clip;
use crate::metrics::Fidelity;

use super::queue::Queue;
use super::{Session, Size, StudyError, StudyEvent};

pub use folder::Folder;
pub use merge::{Merged, merge};
pub use request::CompareRequest;
pub use settings::{Entry, Settings};
pub use shard::{Part, Shard};
pub use sheet::sheet;
pub use tune::{Tuner, check_runs};
pub use verdict::{Lead, Verdict, verdicts};

/// PSNR of equal clips, in decibels.
pub const MOST_PSNR: f64 = 200.0;
/// The name of the second run of the baseline in rows and tables.
pub const OFF_AGAIN: &str = "off again";

/// The result of one run, relative to its baseline.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Row {
    /// The strategy's name in tables.
    pub strategy: String,
    /// The speed-up to which the strategy was tuned.
    pub target: Option<f64>,
    /// The prompt.
    pub prompt: String,
    /// Seed of the noise.
    pub seed: u64,
    /// Speed-up of the denoising by FLOPs.
    pub flop_speedup: f64,
    /// Speed-up of the denoising loop by the clock.
    pub denoise_speedup: f64,
    /// Speed-up of denoising and decoding by the clock. Loading and encoding happen only once and
    /// do not count.
    pub total_speedup: f64,
    /// Share of the blocks that were reused, 0 to 1.
    pub hit_rate: f64,
    /// Highest GPU memory, in bytes.
    pub peak_memory: u64,
    /// Highest GPU memory of stored deltas, in bytes.
    pub delta_memory: u64,
    /// Fidelity to the clip without reuse.
    #[serde(flatten)]
    pub fidelity: Scores,
}

/// The similarity of two clips.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Scores {
    /// PSNR in decibels, [`MOST_PSNR`] for equal clips.
    pub psnr: f64,
    /// SSIM, 1 for equal clips.
    pub ssim: f64,
    /// LPIPS, 0 for equal clips.
    pub lpips: f64,
    /// SSIMULACRA2, 100 for equal clips.
    pub ssimulacra2: f64,
}

impl From<&Fidelity> for Scores {
    fn from(found: &Fidelity) -> Self {
        // Equal clips have an infinite PSNR, which JSON cannot represent.
        Self { psnr: found.psnr.min(MOST_PSNR), ssim: found.ssim, lpips: found.lpips, ssimulacra2: found.ssimulacra2 }
    }
}

/// A prompt and a seed, on which all strategies and one baseline run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The prompt's number in the comparison, from 0. Contact sheets are named after it.
    pub number: usize,
    /// The prompt.
    pub prompt: String,
    /// Seed of the noise.
    pub seed: u64,
}

impl Case {
    /// The prompt and the seed as a text.
    pub fn caption(&self) -> String {
        format!("{}, seed {}", self.prompt, self.seed)
    }
}

/// The results of all strategies on a prompt and a seed.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The prompt and seed.
    pub case: Case,
    /// A row for each strategy and for the second baseline, in the order of the runs.
    pub rows: Vec<Row>,
    /// The clips: first without reuse, then in the order of the strategies.
    pub clips: Vec<Clip>,
}

/// A comparison to make or to resume.
#[derive(Clone, Debug)]
pub struct CompareStudy {
    /// The model and the clip's settings. The study sets prompt, seed and strategy.
    pub request: GenerateRequest,
    /// The prompts of the clips.
    pub prompts: Vec<String>,
    /// Number of seeds of each prompt: 0 to `seeds` - 1.
    pub seeds: u64,
    /// The conditions, and the strategies with their settings.
    pub settings: Settings,
    /// The rows of the comparison so far. New rows are added.
    pub rows: Vec<Row>,
}

impl CompareStudy {
    /// The prompts and seeds of the shard that have no rows yet.
    pub fn queue(&self) -> Queue<Case> {
        let queue = Queue::default();
        for case in shard::cases(&self.prompts, self.seeds, &self.rows, self.settings.part.as_ref()) {
            let has_rows = self.rows.iter().any(|row| row.prompt == case.prompt && row.seed == case.seed);
            if !has_rows {
                queue.push(case.caption(), self.case_size(), case);
            }
        }
        queue
    }

    /// Runs all strategies on each item of the queue. After each item its rows and contact sheet
    /// are written to the folder, if there is one, and reported as [`StudyEvent::Compared`]. A
    /// cancelled study keeps them.
    ///
    /// # Errors
    /// [`StudyError::Cancelled`]; [`StudyError::Request`] without strategies; the error of a failed
    /// job; [`StudyError::Media`] if rows cannot be written.
    pub fn run(&mut self, session: &Session, queue: &Queue<Case>, folder: Option<&Folder>) -> Result<(), StudyError> {
        let Self { request, settings, rows, .. } = self;
        if settings.strategies.is_empty() {
            let message = "there is nothing to compare: name strategies that reach the speed-ups";
            return Err(StudyError::Request(message.into()));
        }
        if let Some(folder) = folder {
            folder.begin(settings, rows)?;
        }
        let mut experiment = interleaved::Experiment::new(session, request, &settings.strategies);
        queue.run(session, |item| {
            let prompts = queue.list();
            let place = prompts.iter().position(|other| other.id == item.id).unwrap_or(0);
            session.phase(&format!("{} of {}", place + 1, prompts.len()));
            let compared = experiment.run(&item.work)?;
            rows.extend(compared.rows.iter().cloned());
            if let Some(folder) = folder {
                folder.write_rows(rows)?;
                // The comparison continues without the sheet.
                if let Err(error) = folder.write_sheet(&compared, &settings.strategies) {
                    session.warn(format!("no contact sheet of \"{}\": {error}", item.work.prompt));
                }
            }
            session.tell(StudyEvent::Compared(Box::new(compared)));
            Ok(())
        })
    }

    /// The size of the runs on one prompt and seed.
    fn case_size(&self) -> Size {
        let steps = self.request.clip.num_inference_steps;
        let baselines = interleaved::warm_up_size() + Size::run(steps, 1.0).times(2);
        self.settings.strategies.iter().map(|entry| interleaved::size(entry, steps)).sum::<Size>() + baselines
    }
}
