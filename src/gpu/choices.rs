//! Measured choices among kernel variants, and the results of their tests, remembered on disk for
//! each adapter.
//!
//! Variants round sums differently, and the same seed must give the same clip. So a choice is made
//! once: the first one written stays until the adapter, its driver or this program change. If the
//! file cannot be written there are no choices, and callers follow a fixed rule.
//!
//! Before a variant is tested, a marker is written. A marker that is found later belongs to a test
//! that ended the program, or a program that the user ended. After two of them the variant is set
//! aside.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Largest file that is read: a real one has some kilobytes.
const MAX_BYTES: u64 = 4 << 20;

/// Names of variants by kernel family and class of shapes.
type Table = BTreeMap<String, String>;

/// The file: tables by adapter.
type Adapters = BTreeMap<String, Table>;

/// The choices of one adapter.
#[derive(Debug)]
pub struct Choices {
    /// `None` if choices are not to be measured.
    path: Option<PathBuf>,
    adapter: String,
    table: Mutex<Table>,
    /// Variants that were set aside since the news were last taken.
    news: Mutex<Vec<String>>,
}

/// The results of a test, and the markers of tests that did not end.
const RIGHT: &str = "right";
const WRONG: &str = "wrong: ";
const STARTED: &str = "started";
const STARTED_AGAIN: &str = "started again";

impl Choices {
    /// The choices in a file for an adapter: none if the file is missing or broken. Without a file
    /// no choice is ever made.
    pub(super) fn new(path: Option<PathBuf>, adapter: String) -> Self {
        let table = path.as_deref().map(read).unwrap_or_default().remove(&adapter).unwrap_or_default();
        Self { path, adapter, table: Mutex::new(table), news: Mutex::default() }
    }

    /// Whether choices are made by measuring.
    pub fn measured(&self) -> bool {
        self.path.is_some()
    }

    /// The variant chosen for a class.
    pub fn get(&self, class: &str) -> Option<String> {
        self.lock().get(class).cloned()
    }

    /// Remembers a choice, and returns the one that holds: `variant`, or the variant that another
    /// process wrote meanwhile, or `None` if the file cannot be written.
    pub fn remember(&self, class: &str, variant: &str) -> Option<String> {
        let path = self.path.as_deref()?;
        let mut adapters = read(path);
        let table = adapters.entry(self.adapter.clone()).or_default();
        let holds = table.entry(class.into()).or_insert_with(|| variant.into()).clone();
        if holds == variant && write(path, &adapters).is_err() {
            return None;
        }
        self.lock().insert(class.into(), holds.clone());
        Some(holds)
    }

    /// Whether a variant of a kernel is right. Unless the answer is known, `test` finds out, and
    /// says what is wrong if anything is. Its errors count as wrong, but for a lost device and a
    /// cancelled job. One program tests at a time. Without a file nothing is tested.
    ///
    /// # Errors
    /// The device is lost, or the job was cancelled.
    pub fn judge(&self, variant: &str, test: impl FnOnce() -> super::Result<Option<String>>) -> super::Result<bool> {
        let Some(path) = self.path.as_deref() else { return Ok(true) };
        let key = format!("test of {variant}");
        if let Some(known) = self.get(&key).filter(|known| !known.starts_with(STARTED)) {
            return Ok(known == RIGHT);
        }
        // Another program that tests holds the lock, and its marker is no trace of an accident.
        let _lock = lock_beside(path);
        let marker = match read(path).remove(&self.adapter).and_then(|mut table| table.remove(&key)).as_deref() {
            None => STARTED,
            Some(STARTED) => STARTED_AGAIN,
            Some(STARTED_AGAIN) => {
                return Ok(self.judged(path, variant, Some("the program ended while it was tried, twice".into())));
            }
            Some(known) => {
                self.lock().insert(key, known.into());
                return Ok(known == RIGHT);
            }
        };
        self.write_down(path, &key, Some(marker));
        let fault = match test() {
            Ok(fault) => fault,
            Err(lost @ super::GpuError::Lost(_)) => return Err(lost),
            Err(super::GpuError::Cancelled) => {
                self.write_down(path, &key, None);
                return Err(super::GpuError::Cancelled);
            }
            Err(error) => Some(error.to_string()),
        };
        Ok(self.judged(path, variant, fault))
    }

    fn judged(&self, path: &Path, variant: &str, fault: Option<String>) -> bool {
        let right = fault.is_none();
        let result = fault.map_or(RIGHT.into(), |why| {
            let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
            news.push(format!("{variant} is wrong on this GPU and is not used: {why}"));
            format!("{WRONG}{why}")
        });
        let key = format!("test of {variant}");
        self.write_down(path, &key, Some(&result));
        self.lock().insert(key, result);
        right
    }

    /// Writes or removes an entry of the file. If the file cannot be written the entry is lost, and
    /// the variant is tested again by the next program.
    fn write_down(&self, path: &Path, key: &str, value: Option<&str>) {
        let mut adapters = read(path);
        let table = adapters.entry(self.adapter.clone()).or_default();
        match value {
            Some(value) => table.insert(key.into(), value.into()),
            None => table.remove(key),
        };
        write(path, &adapters).ok();
    }

    /// The variants that were set aside since the last call, with reasons.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets all choices of the adapter, here and in the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&self) -> std::io::Result<()> {
        self.lock().clear();
        let Some(path) = &self.path else { return Ok(()) };
        let mut adapters = read(path);
        match adapters.remove(&self.adapter) {
            Some(_) => write(path, &adapters),
            None => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // A panic leaves the table whole: every change is a single call.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file for choices: `ditscope/kernels.json` in the user's cache folder. `None` if there is no
/// such folder.
pub fn choices_path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    };
    cache.map(|cache| cache.join("ditscope").join("kernels.json"))
}

/// Waits for the lock of a file. `None` if there can be no lock.
fn lock_beside(path: &Path) -> Option<std::fs::File> {
    std::fs::create_dir_all(path.parent()?).ok()?;
    let file = std::fs::File::create(path.with_extension("lock")).ok()?;
    file.lock().ok()?;
    Some(file)
}

/// The file's tables: empty if the file is missing, too large or not in this program's format.
fn read(path: &Path) -> Adapters {
    let small = std::fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= MAX_BYTES);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    serde_json::from_str(&text).unwrap_or_default()
}

/// Replaces the file. The new file appears whole or not at all.
fn write(path: &Path, adapters: &Adapters) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&serde_json::to_vec_pretty(adapters)?)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path, adapter: &str) -> Choices {
        Choices::new(Some(path.into()), adapter.into())
    }

    #[test]
    fn the_first_choice_stays_for_every_process_and_adapters_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/kernels.json");
        let (first, second) = (at(&path, "a"), at(&path, "a"));
        assert_eq!(first.remember("class", "x").as_deref(), Some("x"));
        assert_eq!(second.get("class"), None, "a table is read once, on opening");
        assert_eq!(second.remember("class", "y").as_deref(), Some("x"));
        assert_eq!(second.get("class").as_deref(), Some("x"));
        assert_eq!(at(&path, "b").remember("class", "z").as_deref(), Some("z"));
        assert_eq!(at(&path, "a").get("class").as_deref(), Some("x"));
        first.forget().unwrap();
        assert_eq!(at(&path, "a").get("class"), None);
        assert_eq!(at(&path, "b").get("class").as_deref(), Some("z"));
    }

    #[test]
    fn a_variant_is_tested_once_and_set_aside_if_it_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let choices = at(&path, "a");
        let never = || -> super::super::Result<Option<String>> { panic!("tested again") };
        assert!(choices.judge("good", || Ok(None)).unwrap());
        assert!(!choices.judge("bad", || Ok(Some("zeros".into()))).unwrap());
        assert!(!choices.judge("refused", || Err(super::super::GpuError::Device("no".into()))).unwrap());
        for choices in [&choices, &at(&path, "a")] {
            assert!(choices.judge("good", never).unwrap());
            assert!(!choices.judge("bad", never).unwrap() && !choices.judge("refused", never).unwrap());
        }
        assert!(at(&path, "b").judge("bad", || Ok(None)).unwrap(), "another adapter");
        let news = choices.take_news();
        assert!(news.len() == 2 && news[0].contains("zeros") && choices.take_news().is_empty(), "{news:?}");
        assert!(Choices::new(None, "a".into()).judge("bad", never).unwrap(), "nothing to remember with");
    }

    /// A lost device and a process that ends leave the marker.
    #[test]
    fn a_variant_that_ends_the_program_twice_is_set_aside() {
        use super::super::GpuError;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let lost = || Err(GpuError::Lost("hung".into()));
        assert!(matches!(at(&path, "a").judge("x", || Err(GpuError::Cancelled)), Err(GpuError::Cancelled)));
        assert!(matches!(at(&path, "a").judge("x", lost), Err(GpuError::Lost(_))));
        let ended = std::panic::catch_unwind(|| at(&path, "a").judge("x", || panic!("the driver crashes")));
        assert!(ended.is_err());
        let choices = at(&path, "a");
        assert!(!choices.judge("x", || panic!("tried a third time")).unwrap());
        assert!(choices.take_news()[0].contains("twice"));
        // An accident that did not come again.
        assert!(matches!(at(&path, "a").judge("y", lost), Err(GpuError::Lost(_))));
        assert!(at(&path, "a").judge("y", || Ok(None)).unwrap());
        assert!(at(&path, "a").judge("y", || panic!("tested again")).unwrap());
    }

    #[test]
    fn broken_files_count_as_none_and_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        for broken in ["", "{", "[1]", r#"{"a":{"class":3}}"#, "\u{0}\u{0}"] {
            std::fs::write(&path, broken).unwrap();
            let choices = at(&path, "a");
            assert_eq!(choices.get("class"), None, "{broken:?}");
            assert_eq!(choices.remember("class", "x").as_deref(), Some("x"));
            assert_eq!(at(&path, "a").get("class").as_deref(), Some("x"));
        }
        std::fs::write(&path, vec![b' '; MAX_BYTES as usize + 1]).unwrap();
        assert_eq!(at(&path, "a").get("class"), None);
    }

    #[test]
    fn nothing_is_chosen_that_cannot_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let choices = at(&file.join("kernels.json"), "a");
        assert!(choices.measured());
        assert_eq!(choices.remember("class", "x"), None);
        assert_eq!(choices.get("class"), None);
        let off = Choices::new(None, "a".into());
        assert!(!off.measured());
        assert_eq!(off.remember("class", "x"), None);
    }
}
