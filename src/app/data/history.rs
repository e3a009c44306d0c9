//! Runs of earlier sessions: captures in the user's data folder, each with a summary beside it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::app::data::run_table::goal;
use crate::app::data::runs::Run;
use crate::engine::Capture;
use crate::engine::capture::file;
use crate::media;

/// Most bytes of captures in the folder. The oldest go first.
const MOST_BYTES: u64 = 1 << 30;
/// Most captures in the folder.
const MOST_RUNS: usize = 200;
/// Largest summary that is read.
const LARGEST_SUMMARY: u64 = 1 << 16;
/// Width and height of a thumbnail, in pixels.
pub const THUMBNAIL: usize = 32;

/// What is known about a run whose capture is in the folder.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct KeptRun {
    /// The file of the capture.
    #[serde(skip)]
    pub path: PathBuf,
    /// Bytes of the capture.
    #[serde(skip)]
    pub bytes: u64,
    /// The user's name for it; empty for none.
    pub name: String,
    /// The user's note.
    pub note: String,
    /// The strategy's name.
    pub strategy: String,
    /// The goal of the planner; empty for other strategies.
    pub goal: String,
    /// The prompt.
    pub prompt: String,
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
    /// Work without reuse divided by work with it.
    pub flop_speedup: Option<f64>,
    /// RGB of a frame, [`THUMBNAIL`] pixels wide and high; empty for none.
    pub thumbnail: Vec<u8>,
}

impl KeptRun {
    /// The summary of a run.
    pub fn of(run: &Run) -> Self {
        let info = &run.capture.run;
        Self {
            path: run.path.clone().unwrap_or_default(),
            bytes: 0,
            name: run.name.clone(),
            note: run.note.clone(),
            strategy: info.strategy.name().into(),
            goal: goal(&info.strategy),
            prompt: info.prompt.clone(),
            size: [info.clip.width, info.clip.height, info.clip.num_frames],
            seed: info.clip.seed,
            steps: info.steps(),
            hit_rate: run.capture.hit_rate(),
            seconds: run.denoise_seconds(),
            flop_speedup: run.capture.flop_speedup(),
            thumbnail: thumbnail(&run.capture),
        }
    }
}

/// The frame in the middle of a clip, small: RGB; empty for a run without a clip.
pub fn thumbnail(capture: &Capture) -> Vec<u8> {
    let Some(clip) = &capture.clip else { return Vec::new() };
    let Some(frame) = clip.frames.get(clip.frames.len() / 2) else { return Vec::new() };
    let pixel = |place: usize| {
        let (y, x) = (place / THUMBNAIL * clip.height / THUMBNAIL, place % THUMBNAIL * clip.width / THUMBNAIL);
        let at = 3 * (y * clip.width + x);
        frame.get(at..at + 3).unwrap_or(&[0; 3]).to_vec()
    };
    (0..THUMBNAIL * THUMBNAIL).flat_map(pixel).collect()
}

fn summary_of(capture: &Path) -> PathBuf {
    capture.with_extension("json")
}

/// Keeps a capture in the folder. Returns its file. The oldest captures go if there are too many.
///
/// # Errors
/// The folder or the files cannot be written. The error is a text for the user.
pub fn keep(folder: &Path, summary: &KeptRun, capture: &Capture) -> Result<PathBuf, String> {
    let told = |error: std::io::Error| format!("This run could not be kept in {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(told)?;
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let path = (0..).map(|n| folder.join(format!("{:015}.capture", stamp + n))).find(|path| !path.exists());
    let path = path.unwrap_or_else(|| folder.join("run.capture"));
    file::save(&path, capture).map_err(|error| error.to_string())?;
    write_summary(&path, summary)?;
    trim(folder, MOST_RUNS, MOST_BYTES);
    Ok(path)
}

/// Writes the summary of a capture in the folder anew.
///
/// # Errors
/// It cannot be written. The error is a text for the user.
pub fn write_summary(capture: &Path, summary: &KeptRun) -> Result<(), String> {
    let json = serde_json::to_string(summary).map_err(|error| error.to_string())?;
    media::write_bytes(&summary_of(capture), json.as_bytes()).map_err(|error| error.to_string())
}

/// The runs in the folder, newest first. Files of others are left out.
pub fn list(folder: &Path) -> Vec<KeptRun> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let captures = entries.flatten().map(|entry| entry.path());
    let captures = captures.filter(|path| path.extension().is_some_and(|extension| extension == "capture"));
    let mut kept: Vec<KeptRun> = captures.filter_map(read).collect();
    kept.sort_by(|a, b| b.path.cmp(&a.path));
    kept
}

fn read(path: PathBuf) -> Option<KeptRun> {
    let summary = summary_of(&path);
    if std::fs::metadata(&summary).ok()?.len() > LARGEST_SUMMARY {
        return None;
    }
    let text = std::fs::read_to_string(&summary).ok()?;
    let mut kept: KeptRun = serde_json::from_str(&text).ok()?;
    if kept.thumbnail.len() != 3 * THUMBNAIL * THUMBNAIL {
        kept.thumbnail.clear();
    }
    let bytes = std::fs::metadata(&path).ok()?.len();
    Some(KeptRun { path, bytes, ..kept })
}

/// Removes the oldest captures until the rest is within limits.
fn trim(folder: &Path, most_runs: usize, most_bytes: u64) {
    let mut sum = 0;
    for (index, kept) in list(folder).into_iter().enumerate() {
        sum += kept.bytes;
        // The newest stays, however large.
        if index > 0 && (index >= most_runs || sum > most_bytes) {
            remove(&kept.path);
        }
    }
}

/// Removes a capture of the folder with its summary.
pub fn remove(capture: &Path) {
    // A file that cannot be removed stays in the list.
    std::fs::remove_file(capture).ok();
    std::fs::remove_file(summary_of(capture)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::data::runs::Runs;
    use crate::app::tests::sample::{self, Kind};

    #[test]
    fn runs_are_kept_listed_trimmed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("runs");
        assert!(list(&place).is_empty());
        let mut runs = Runs::default();
        runs.add(sample::capture(Kind::Uniform), false, None);
        let run = runs.current().unwrap();
        let summary = KeptRun { note: "good".into(), ..KeptRun::of(run) };
        let files: Vec<PathBuf> = (0..3).map(|_| keep(&place, &summary, &run.capture).unwrap()).collect();
        let kept = list(&place);
        assert_eq!(kept.iter().map(|kept| &kept.path).collect::<Vec<_>>(), files.iter().rev().collect::<Vec<_>>());
        assert!(kept.iter().all(|kept| kept.bytes > 0 && kept.note == "good" && kept.thumbnail == summary.thumbnail));
        assert_eq!(file::open(&files[0]).unwrap().capture.steps.len(), run.capture.steps.len());
        // Files of others and damaged summaries are left out.
        std::fs::write(place.join("other.txt"), "").unwrap();
        std::fs::write(summary_of(&files[1]), "{").unwrap();
        assert_eq!(list(&place).len(), 2);
        trim(&place, 1, u64::MAX);
        assert_eq!(list(&place).iter().map(|kept| kept.path.clone()).collect::<Vec<_>>(), [files[2].clone()]);
        trim(&place, 9, 0);
        assert_eq!(list(&place).len(), 1, "the newest stays");
        remove(&files[2]);
        assert!(list(&place).is_empty() && place.join("other.txt").exists());
    }
}
