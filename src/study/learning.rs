//! What ordinary runs told, kept on disk: one small file a model, in the user's data folder.
//!
//! A file is one JSON object: `format` (`"ditscope-learnt"`), `version` (1), `runs` (at most
//! [`MOST_RUNS`], see [`RunMeasurement`]) and `plans` (the last plan for each goal). It holds no
//! prompt. A file that is broken counts as empty, and one of a later version is left alone.
//!
//! [`MOST_RUNS`]: crate::caching::MOST_RUNS

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::caching::{Goal, GoalPlan, Learnt, RunMeasurement, StrategyConfig};
use crate::engine::RequestInfo;
use crate::media::write_bytes;

use super::StudyError;

const FORMAT: &str = "ditscope-learnt";
const VERSION: u32 = 1;
/// Largest file that is read. Sixteen runs of 250 steps take some six MiB.
const MOST_BYTES: u64 = 16 << 20;
/// Plans that are remembered at most.
const MOST_PLANS: usize = 32;
/// How long another process may hold the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last plan that was made for a goal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct LastPlan {
    goal: Goal,
    steps: usize,
    scheduler: String,
    /// The computed steps.
    computed: Vec<usize>,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    format: String,
    version: u32,
    #[serde(flatten)]
    learnt: Learnt,
    #[serde(default)]
    plans: Vec<LastPlan>,
}

/// The fields that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// The file of what a model's runs told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearntFile(PathBuf);

impl LearntFile {
    /// The file of a model, by the fingerprint of its weights. `None` if the user has no data
    /// folder.
    pub fn of_model(model_id: &str) -> Option<Self> {
        data_folder().map(|folder| Self::within(&folder, model_id))
    }

    /// The file of a model in a folder.
    pub fn within(folder: &Path, model_id: &str) -> Self {
        let name: String =
            model_id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(100).collect();
        Self(folder.join(format!("{name}.json")))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What is known: nothing if the file is missing, broken, too large or of a later version.
    pub fn read(&self) -> Learnt {
        self.content().map(|content| content.learnt).unwrap_or_default()
    }

    /// Adds what a run told. Processes take turns, so that nothing that another one adds is lost.
    ///
    /// # Errors
    /// [`StudyError::Io`] or [`StudyError::Media`] if the file cannot be written;
    /// [`StudyError::Failed`] if another process holds it, or it is of a later version.
    pub fn add(&self, run: RunMeasurement) -> Result<(), StudyError> {
        self.change(|content| content.learnt.add(run))
    }

    /// Remembers the plan of a run. Says so if the last plan for the same goal was another one,
    /// because more was measured since.
    ///
    /// # Errors
    /// Those of [`LearntFile::add`].
    pub fn note_plan(&self, strategy: &StrategyConfig, facts: &RequestInfo) -> Result<Option<String>, StudyError> {
        let Some(rule) = strategy.rule::<GoalPlan>().filter(|rule| !rule.plans.is_empty()) else { return Ok(None) };
        let plan = LastPlan {
            goal: rule.goal,
            steps: rule.plans.len(),
            scheduler: facts.scheduler.clone(),
            computed: rule.computed_steps(),
        };
        let same =
            |known: &LastPlan| (known.goal, known.steps, &known.scheduler) == (plan.goal, plan.steps, &plan.scheduler);
        let before = self.content().and_then(|content| content.plans.into_iter().rfind(same));
        if before.as_ref() == Some(&plan) {
            return Ok(None);
        }
        let changed = before.map(|before| {
            let others = plan.computed.iter().filter(|step| !before.computed.contains(step)).count();
            let moved = others.max(before.computed.len().saturating_sub(plan.computed.len()));
            let known = rule.known.words();
            format!("the plan differs from the last one for this goal in {moved} steps: it is made from {known} now")
        });
        self.change(|content| {
            content.plans.retain(|known| !same(known));
            content.plans.push(plan.clone());
            let surplus = content.plans.len().saturating_sub(MOST_PLANS);
            content.plans.drain(..surplus);
        })?;
        Ok(changed)
    }

    /// Forgets everything. Says whether there was a file.
    ///
    /// # Errors
    /// [`StudyError::Io`] if the file cannot be removed.
    pub fn clear(&self) -> Result<bool, StudyError> {
        let removed = |path: &Path| match std::fs::remove_file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(|source| io("cannot remove", path, source)),
        };
        removed(&self.lock_path())?;
        removed(&self.0)
    }

    fn content(&self) -> Option<Content> {
        let mut bytes = Vec::new();
        File::open(&self.0).ok()?.take(MOST_BYTES + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > MOST_BYTES {
            return None;
        }
        let mut content: Content = serde_json::from_slice(&bytes).ok()?;
        content.learnt.retain_sound();
        (content.format == FORMAT && content.version == VERSION).then_some(content)
    }

    /// Whether the file is of a later version of the program.
    fn is_later(&self) -> bool {
        let text = std::fs::read(&self.0).unwrap_or_default();
        serde_json::from_slice::<Head>(&text).is_ok_and(|head| head.format == FORMAT && head.version > VERSION)
    }

    fn lock_path(&self) -> PathBuf {
        self.0.with_extension("lock")
    }

    /// Reads, changes and replaces the file while no other process does.
    fn change(&self, change: impl FnOnce(&mut Content)) -> Result<(), StudyError> {
        let folder = self.0.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|source| io("cannot make", folder, source))?;
        let place = self.lock_path();
        let lock = File::create(&place).map_err(|source| io("cannot write", &place, source))?;
        let start = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StudyError::Failed(format!("another process holds {}", self.0.display())));
                }
                Err(TryLockError::Error(source)) => return Err(io("cannot lock", &place, source)),
            }
        }
        if self.is_later() {
            return Err(StudyError::Failed(format!("{} is of a later version of this program", self.0.display())));
        }
        let mut content = self.content().unwrap_or_default();
        change(&mut content);
        (content.format, content.version) = (FORMAT.into(), VERSION);
        // The lock is given back when `lock` is dropped.
        let text = serde_json::to_vec(&content).map_err(StudyError::Unwritable)?;
        Ok(write_bytes(&self.0, &text)?)
    }
}

fn io(action: &str, path: &Path, source: std::io::Error) -> StudyError {
    StudyError::Io { context: format!("{action} {}", path.display()), source }
}

/// The folder `ditscope/learnt` in the user's data folder.
pub fn data_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")))
    };
    data.map(|data| data.join("ditscope").join("learnt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caching::RunRecorder;

    fn measured(last: f64) -> RunMeasurement {
        let mut recorder = RunRecorder::default();
        recorder.add(0.9, &[1.0, 0.0], &[1.0, 0.0]);
        recorder.add(last, &[1.0, 0.5], &[1.0, 0.5]);
        let (levels, products, gain) = recorder.finish();
        let (size, scheduler) = ([64, 64, 17], "unipc".to_owned());
        RunMeasurement { levels, products, gain, size, guidance_scale: 4.0, scheduler }
    }

    fn file() -> (tempfile::TempDir, LearntFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = LearntFile::within(folder.path(), "a/b:c");
        (folder, file)
    }

    #[test]
    fn measurements_are_kept_and_cleared() {
        let (_folder, file) = file();
        assert!(file.path().ends_with("a-b-c.json") && file.read().runs().is_empty());
        file.add(measured(0.5)).unwrap();
        file.add(measured(0.4)).unwrap();
        assert_eq!(file.read().runs(), [measured(0.5), measured(0.4)]);
        assert_eq!([file.clear().unwrap(), file.clear().unwrap()], [true, false]);
        assert!(file.read().runs().is_empty());
    }

    /// Writers take turns: no run is lost.
    #[test]
    fn writers_at_once_lose_nothing() {
        let (_folder, file) = file();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for run in 0..3 {
                        file.add(measured(0.1 + 0.1 * f64::from(writer) + 0.01 * f64::from(run))).unwrap();
                    }
                });
            }
        });
        assert_eq!(file.read().runs().len(), 12);
    }

    #[test]
    fn broken_files_count_as_empty_and_later_versions_are_left_alone() {
        let (_folder, file) = file();
        for text in ["", "{", "[]", r#"{"format":"other","version":1,"runs":[]}"#] {
            std::fs::write(file.path(), text).unwrap();
            assert!(file.read().runs().is_empty(), "{text}");
            file.add(measured(0.5)).unwrap();
            assert_eq!(file.read().runs().len(), 1);
        }
        let later = r#"{"format":"ditscope-learnt","version":2,"runs":"new"}"#;
        std::fs::write(file.path(), later).unwrap();
        assert!(file.add(measured(0.5)).is_err() && file.read().runs().is_empty());
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), later);
    }
}
