//! The checkpoints in a folder: single files, and shards with and without their index.

use super::error::shown;
use super::{Container, WeightsError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The files of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The file, the index of the shards, or the first shard.
    pub path: PathBuf,
    /// The files that hold tensors.
    pub files: Vec<PathBuf>,
}

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles {
    /// The checkpoints, sorted by path.
    pub found: Vec<Bundle>,
    /// Indices and shards of which no checkpoint can be made, and why.
    pub passed_over: Vec<(PathBuf, String)>,
}

/// Endings of files that hold tensors.
const ENDINGS: [&str; 8] = ["safetensors", "sft", "pth", "pt", "ckpt", "bin", "gguf", "th"];

/// The shard's place in its set: what all names of the set have in common, and its number and their
/// count as text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SetName {
    before: String,
    count: usize,
    after: String,
}

/// Largest number of shards that a set may have.
const MOST_SHARDS: usize = 10_000;

/// `model-00002-of-00003.fp16.safetensors` -> its set, and 2.
fn shard(path: &Path) -> Option<(SetName, usize)> {
    let name = path.file_name()?.to_str()?;
    let (start, end) = name.rsplit_once("-of-")?;
    let (before, number) = start.rsplit_once('-')?;
    let digits = end.bytes().take_while(u8::is_ascii_digit).count();
    let (count, after) = end.split_at(digits);
    let parsed = |text: &str| (text.len() >= 5).then(|| text.parse::<usize>().ok())?;
    let (number, count) = (parsed(number)?, parsed(count)?);
    let fits = (1..=MOST_SHARDS).contains(&count) && (1..=count).contains(&number);
    fits.then(|| (SetName { before: before.into(), count, after: after.into() }, number))
}

/// Whether the name is one of a set of shards.
#[cfg(test)]
pub(super) fn is_shard(path: &Path) -> bool {
    shard(path).is_some()
}

/// Whether the name is that of an index of shards.
pub(super) fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    name.ends_with(".json") && (name.contains(".index."))
}

/// Whether the name has an ending of files that hold tensors.
pub(super) fn has_known_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    ENDINGS.contains(&ending.as_str())
}

impl Bundle {
    /// The checkpoint that a user names: a file, one of a set of shards, an index, or a folder that
    /// holds one checkpoint.
    ///
    /// # Errors
    /// [`WeightsError::Io`]; [`WeightsError::MissingShard`]; for an index those of reading it; for
    /// a folder [`WeightsError::NoCheckpoint`] and [`WeightsError::Ambiguous`].
    pub fn at(path: &Path) -> Result<Self, WeightsError> {
        let metadata = std::fs::metadata(path).map_err(|source| WeightsError::io(path, source))?;
        if metadata.is_dir() {
            return find_in(path);
        }
        if is_index(path) {
            return Ok(Self { path: path.into(), files: shards_of(path)?.into_keys().collect() });
        }
        Self::of_shard(path).unwrap_or_else(|| Ok(Self::single(path.into())))
    }

    fn single(path: PathBuf) -> Self {
        Self { files: vec![path.clone()], path }
    }

    /// The whole set of the shard at `path`, or `None` if that is no shard.
    ///
    /// # Errors
    /// [`WeightsError::MissingShard`].
    fn of_shard(path: &Path) -> Option<Result<Self, WeightsError>> {
        let (set, _) = shard(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let name = |number: usize| format!("{}-{number:05}-of-{:05}{}", set.before, set.count, set.after);
        let files: Vec<_> = (1..=set.count).map(|number| folder.join(name(number))).collect();
        Some(match files.iter().find(|file| !file.is_file()) {
            None => Ok(Self { path: path.into(), files }),
            Some(missing) => Err(WeightsError::MissingShard {
                index: path.into(),
                shard: missing.file_name().map_or_else(String::new, |name| shown(&name.to_string_lossy())),
            }),
        })
    }
}

impl Bundles {
    /// The checkpoints in a folder. Files are chosen by their endings; what they hold is not looked
    /// at.
    ///
    /// Shards that are numbered completely are a checkpoint with and without an index. Other shards
    /// need an index that names them. An index whose shards are not there is passed over.
    ///
    /// # Errors
    /// [`WeightsError::Io`] if the folder cannot be listed.
    pub fn of(folder: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::io(folder, source);
        let mut files = BTreeSet::new();
        let mut indices = BTreeSet::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && is_index(&path) && path.is_file() {
                indices.insert(path);
            } else if !hidden && has_known_ending(&path) && path.is_file() {
                files.insert(path);
            }
        }
        let mut bundles = Self::default();
        bundles.take_sets(&mut files);
        bundles.take_indices(&mut files, indices);
        bundles.found.extend(files.into_iter().map(Bundle::single));
        bundles.found.sort_by(|a, b| a.path.cmp(&b.path));
        bundles.passed_over.sort();
        Ok(bundles)
    }

    /// Takes the numbered shards out of `files`.
    fn take_sets(&mut self, files: &mut BTreeSet<PathBuf>) {
        let mut sets: BTreeMap<SetName, BTreeMap<usize, PathBuf>> = BTreeMap::new();
        for path in files.iter() {
            if let Some((set, number)) = shard(path) {
                sets.entry(set).or_default().insert(number, path.clone());
            }
        }
        for (set, shards) in sets {
            let Some(first) = shards.values().next().cloned() else { continue };
            shards.values().for_each(|path| _ = files.remove(path));
            if shards.len() == set.count {
                self.found.push(Bundle { path: first, files: shards.into_values().collect() });
            } else {
                let missing: Vec<_> =
                    (1..=set.count).filter(|number| !shards.contains_key(number)).map(|n| n.to_string()).collect();
                let why = format!(
                    "of its {} shards {} missing: number {}; download what is missing",
                    set.count,
                    if missing.len() == 1 { "one is" } else { "some are" },
                    missing.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ")
                );
                self.passed_over.push((first, why));
            }
        }
    }

    /// Makes checkpoints of indices that name other files than numbered shards.
    fn take_indices(&mut self, files: &mut BTreeSet<PathBuf>, indices: BTreeSet<PathBuf>) {
        for index in indices {
            let named = match shards_of(&index) {
                Ok(named) => named.into_keys().collect::<Vec<_>>(),
                Err(error) => {
                    self.passed_over.push((index, why(&error)));
                    continue;
                }
            };
            if let Some(bundle) = self.found.iter_mut().find(|bundle| named.iter().all(|p| bundle.files.contains(p))) {
                // The numbered set is complete without the index. Its name says most.
                bundle.path = index;
                continue;
            }
            let taken = |path: &PathBuf| self.found.iter().any(|bundle| bundle.files.contains(path));
            let missing = named.iter().find(|path| !files.contains(*path) && !taken(path));
            if missing.is_none() && named.iter().all(|path| files.contains(path)) {
                named.iter().for_each(|path| _ = files.remove(path));
                self.found.push(Bundle { path: index, files: named });
            } else if !named.iter().any(|path| files.contains(path) || taken(path)) {
                self.passed_over.push((index, "it is stale: no shard that it names is there".into()));
            } else {
                let missing = missing.and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy();
                self.passed_over.push((index, format!("it names the shard {}, which is not there", shown(&missing))));
            }
        }
    }
}

/// The one checkpoint in a folder; [`Checkpoint::open`] describes the order of the search.
fn find_in(folder: &Path) -> Result<Bundle, WeightsError> {
    let Bundles { mut found, passed_over } = Bundles::of(folder)?;
    let name = |bundle: &Bundle| bundle.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for usual in ["diffusion_pytorch_model.safetensors", "model.safetensors"] {
        let index = format!("{usual}.index.json");
        if let Some(at) = found.iter().position(|bundle| name(bundle) == index || name(bundle) == usual) {
            return Ok(found.swap_remove(at));
        }
    }
    let is_safetensors =
        |bundle: &Bundle| bundle.files.iter().all(|file| Container::of_file(file) == Container::Safetensors);
    let (first, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_safetensors);
    let mut candidates = if first.is_empty() { others } else { first };
    match (candidates.len(), passed_over.into_iter().next()) {
        (0, None) => Err(WeightsError::NoCheckpoint { folder: folder.into() }),
        (0, Some((path, why))) => Err(WeightsError::unsupported(&path, why)),
        (1, _) => Ok(candidates.swap_remove(0)),
        _ => {
            let names: Vec<_> = candidates.iter().map(|bundle| shown(&name(bundle))).collect();
            Err(WeightsError::Ambiguous { folder: folder.into(), candidates: names.join(", ") })
        }
    }
}

/// The error and its causes on one line.
pub(super) fn why(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Longest index file that is read, in bytes. The largest published index has a few hundred kB.
const LONGEST_INDEX: u64 = 100_000_000;

/// The shards that an index names, each with its tensors.
///
/// # Errors
/// [`WeightsError::Json`], or [`WeightsError::Malformed`] if it names a file elsewhere.
pub(super) fn shards_of(index: &Path) -> Result<BTreeMap<PathBuf, Vec<String>>, WeightsError> {
    let folder = index.parent().unwrap_or(Path::new(""));
    let mut shards: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (tensor, shard) in read_index(index)?.weight_map {
        if !is_plain_file_name(&shard) {
            let problem = format!("it names the shard {}, which is not a file beside it", shown(&shard));
            return Err(WeightsError::malformed(index, problem));
        }
        shards.entry(folder.join(shard)).or_default().push(tensor);
    }
    Ok(shards)
}

fn read_index(path: &Path) -> Result<Index, WeightsError> {
    let metadata = std::fs::metadata(path).map_err(|source| WeightsError::io(path, source))?;
    if !metadata.is_file() {
        return Err(WeightsError::NotAFile { path: path.into() });
    }
    if metadata.len() > LONGEST_INDEX {
        return Err(WeightsError::malformed(path, format!("it has {} bytes, too many for an index", metadata.len())));
    }
    let text = std::fs::read(path).map_err(|source| WeightsError::io(path, source))?;
    serde_json::from_slice(&text).map_err(|source| WeightsError::Json { path: path.into(), source })
}

/// Whether `name` names a file of tensors in the same folder on every system: no separators, no
/// drive, no `..`.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !name.contains(['/', '\\', ':']) && has_known_ending(Path::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundles(names: &[&str], index: Option<(&str, &[&str])>) -> (Vec<(String, usize)>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "x").unwrap());
        if let Some((name, shards)) = index {
            let map: BTreeMap<_, _> = shards.iter().enumerate().map(|(i, shard)| (format!("t{i}"), *shard)).collect();
            let json = serde_json::json!({ "weight_map": map }).to_string();
            std::fs::write(folder.path().join(name), json).unwrap();
        }
        let found = Bundles::of(folder.path()).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        (
            found.found.iter().map(|bundle| (name(&bundle.path), bundle.files.len())).collect(),
            found.passed_over.iter().map(|(path, why)| format!("{}: {why}", name(path))).collect(),
        )
    }

    #[test]
    fn shards_with_and_without_an_index() {
        let set = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
        let one = |name: &str, files| (vec![(name.to_owned(), files)], Vec::<String>::new());
        assert_eq!(bundles(&set, None), one(set[0], 2));
        assert_eq!(bundles(&set, Some(("m.safetensors.index.json", &set))), one("m.safetensors.index.json", 2));
        let variant = ["m-00001-of-00001.fp16.safetensors"];
        let index = "m.safetensors.index.fp16.json";
        assert_eq!(bundles(&variant, Some((index, &variant))), one(index, 1));
        let named = ["a.safetensors", "b.safetensors"];
        assert_eq!(bundles(&named, Some(("m.safetensors.index.json", &named))), one("m.safetensors.index.json", 2));

        let (found, passed) = bundles(&["m.safetensors"], Some(("m.safetensors.index.json", &set)));
        assert_eq!(found, [("m.safetensors".to_owned(), 1)], "the merged file counts");
        assert!(passed[0].contains("stale"), "{passed:?}");
        let (found, passed) = bundles(&set[..1], None);
        assert!(found.is_empty() && passed[0].contains("number 2"), "{passed:?}");
        let (found, passed) = bundles(&["a.safetensors"], Some(("m.safetensors.index.json", &named)));
        assert_eq!((found.len(), passed[0].contains("the shard b.safetensors")), (1, true));
    }

    #[test]
    fn names() {
        assert!(is_shard(Path::new("diffusion_pytorch_model-00001-of-00006.safetensors")));
        for name in ["model.safetensors", "a-of-b.safetensors", "wan-2-of-3.safetensors", "-of-00001.safetensors"] {
            assert!(!is_shard(Path::new(name)), "{name}");
        }
        assert!(!is_shard(Path::new("m-00001-of-99999.safetensors")) && !is_shard(Path::new("m-00003-of-00002.sft")));
        assert!(is_index(Path::new("m.safetensors.index.json")) && !is_index(Path::new("index.json")));
    }
}
