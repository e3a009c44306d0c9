//! One list of named tensors over one or many mapped files.

use super::error::shown;
use super::mapped::Mapped;
use super::{DType, TensorView, WeightsError, safetensors_file, torch};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// One tensor, as listed by the reader of its file format.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// The tensor's bytes within the file. The reader has checked their bounds and their number.
    pub range: Range<usize>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Stored {
    file: Arc<Mapped>,
    dtype: DType,
    shape: Vec<usize>,
    range: Range<usize>,
    scale: Option<f32>,
}

/// The tensors of a checkpoint, sorted by name. Cloning and renaming share the mapped files.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

/// The FNV-1a hash. Unlike the standard library's hashers it is the same in every version and on
/// every platform.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Longest index file that is read, in bytes. The largest published index has a few hundred kB.
const LONGEST_INDEX: u64 = 100_000_000;

impl Checkpoint {
    /// Opens a checkpoint: a `.safetensors` file, a sharded `.safetensors.index.json`, a torch
    /// `.pth` or `.pt` archive, or a folder.
    ///
    /// In a folder the file names that diffusers and transformers use come first. Without such a
    /// file the folder must hold exactly one index, or else one safetensors file, or else one torch
    /// archive.
    ///
    /// The scale tensors of fp8 checkpoints are taken out of the list and put into
    /// [`TensorView::scale`].
    ///
    /// # Errors
    /// Any variant of [`WeightsError`] except [`WeightsError::Shape`] and [`WeightsError::Rows`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|source| WeightsError::io(path, source))?;
        let path = if metadata.is_dir() { find_in(path)? } else { path.into() };
        let files = match Format::of(&path) {
            Some(Format::Index) => open_shards(&path)?,
            Some(_) => vec![open_file(&path)?],
            None => return Err(WeightsError::UnknownFormat { path }),
        };
        let mut tensors = BTreeMap::new();
        for (file, entries) in files {
            for Entry { name, dtype, shape, range } in entries {
                let stored = Stored { file: file.clone(), dtype, shape, range, scale: None };
                insert(&mut tensors, name, stored)?;
            }
        }
        let mut checkpoint = Self { path, tensors };
        checkpoint.fold_scales()?;
        Ok(checkpoint)
    }

    /// The checkpoints in a folder, sorted by name: indices, safetensors files and torch archives.
    /// Shards (`...-00001-of-00002.safetensors`) belong to their index and are not listed.
    ///
    /// # Errors
    /// [`WeightsError::Io`] if the folder cannot be listed.
    pub fn candidates(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
        let io = |source| WeightsError::io(folder, source);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if Format::of(&path).is_some() && !is_shard(&path) && path.is_file() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// The file that was opened. For a sharded checkpoint this is the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> + Clone {
        self.tensors.iter().map(|(name, stored)| stored.view(name))
    }

    /// A 64-bit hash in hexadecimal that identifies the checkpoint. The hash covers the name, type
    /// and shape of every tensor and a sample of its bytes, because hashing all bytes would read
    /// gigabytes. Renaming a tensor changes the hash.
    pub fn fingerprint(&self) -> String {
        const SAMPLE: usize = 256;
        let mut hash = Fnv::default();
        for tensor in self.tensors() {
            hash.update(tensor.name.as_bytes());
            hash.update(tensor.dtype.name().as_bytes());
            tensor.shape.iter().for_each(|extent| hash.update(&(*extent as u64).to_le_bytes()));
            let middle = tensor.bytes.len().saturating_sub(SAMPLE) / 2;
            hash.update(&tensor.bytes[middle..tensor.bytes.len().min(middle + SAMPLE)]);
        }
        format!("{:016x}", hash.0)
    }

    /// Fails if a file has become unreadable since it was opened, for example because another
    /// program cut it short. What was read since then may be zeros, so whoever reads tensors asks
    /// afterwards.
    ///
    /// # Errors
    /// [`WeightsError::Changed`].
    pub fn check(&self) -> Result<(), WeightsError> {
        self.tensors.values().try_for_each(|stored| stored.file.check())
    }

    /// A text that differs if a file of the checkpoint has another time of change or another
    /// length. A fingerprint samples the tensors, so that it may miss a change.
    pub fn stamp(&self) -> String {
        let files: BTreeMap<&Path, &str> =
            self.tensors.values().map(|stored| (stored.file.path.as_path(), stored.file.stamp.as_str())).collect();
        files.into_values().collect::<Vec<_>>().join(", ")
    }

    /// The tensor called `name`, if there is one.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get_key_value(name).map(|(name, stored)| stored.view(name))
    }

    /// The tensor called `name`, which must have the given shape.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`] or [`WeightsError::Shape`].
    pub fn require(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightsError> {
        let missing = || WeightsError::MissingTensor { name: name.into(), path: self.path.clone() };
        let view = self.get(name).ok_or_else(missing)?;
        if view.shape != shape {
            return Err(WeightsError::Shape { name: name.into(), expected: shape.into(), found: view.shape.into() });
        }
        Ok(view)
    }

    /// Tells the system that a tensor's bytes are not needed soon. The system may then free the
    /// pages of the file and read them again on the next use. Without this hint every byte that was
    /// ever read counts as the program's memory.
    pub fn rest(&self, name: &str) {
        #[cfg(unix)]
        if let Some(stored) = self.tensors.get(name) {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is of a file, shared and read-only. A page that was freed has the
            // file's bytes again when it is next read.
            let advised =
                unsafe { stored.file.bytes.unchecked_advise_range(advice, stored.range.start, stored.range.len()) };
            // A system that ignores the hint keeps the pages, so an error changes nothing.
            advised.ok();
        }
        #[cfg(not(unix))]
        let _ = name;
    }

    /// The same tensors under other names. Tensors for which `rename` returns `None` are left out.
    ///
    /// Some files store a tied weight under two names. A tensor that keeps its name therefore
    /// replaces a tensor that is renamed to the same name.
    ///
    /// # Errors
    /// [`WeightsError::Duplicate`] if two tensors are renamed to one name.
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Result<Self, WeightsError> {
        let mut tensors = BTreeMap::new();
        for (old, stored) in &self.tensors {
            match rename(old) {
                Some(new) if new != *old && self.keeps(&new, &rename) => {}
                Some(new) => insert(&mut tensors, new, stored.clone())?,
                None => {}
            }
        }
        Ok(Self { path: self.path.clone(), tensors })
    }

    /// Whether a tensor called `name` exists and keeps its name.
    fn keeps(&self, name: &str, rename: &impl Fn(&str) -> Option<String>) -> bool {
        self.tensors.contains_key(name) && rename(name).as_deref() == Some(name)
    }

    /// Moves the scales of fp8 checkpoints into the tensors that they belong to.
    ///
    /// Such a file has a marker `scaled_fp8`, and beside each `X.weight` a one-element
    /// `X.scale_weight` (`X.weight_scale` in newer files), so that W = stored * scale.
    /// `X.scale_input` and similar tensors serve fp8 arithmetic. They are dropped because the
    /// program computes with decoded weights.
    fn fold_scales(&mut self) -> Result<(), WeightsError> {
        const SCALES: [&str; 2] = ["scale_weight", "weight_scale"];
        const IGNORED: [&str; 4] = ["scaled_fp8", "scale_input", "input_scale", "comfy_quant"];
        let mut scales = Vec::new();
        for (name, stored) in &self.tensors {
            let (stem, last) = name.rsplit_once('.').unwrap_or(("", name));
            if SCALES.contains(&last) {
                scales.push((format!("{stem}.weight"), self.scale(name, stored)?));
            }
        }
        self.tensors.retain(|name, _| {
            let last = name.rsplit('.').next().unwrap_or_default();
            !SCALES.contains(&last) && !IGNORED.contains(&last)
        });
        for (name, scale) in scales {
            let missing = || WeightsError::MissingTensor { name: shown(&name), path: self.path.clone() };
            self.tensors.get_mut(&name).ok_or_else(missing)?.scale = Some(scale);
        }
        Ok(())
    }

    fn scale(&self, name: &str, stored: &Stored) -> Result<f32, WeightsError> {
        let view = stored.view(name);
        if view.elements() != 1 {
            let what = format!(
                "{} has {} values; only one scale for a whole tensor is supported",
                shown(name),
                view.elements()
            );
            return Err(WeightsError::unsupported(&self.path, what));
        }
        match view.to_f32()?[..] {
            [scale] if scale.is_finite() => Ok(scale),
            _ => Err(WeightsError::malformed(&self.path, format!("the scale {} is not a finite number", shown(name)))),
        }
    }
}

impl Stored {
    fn view<'a>(&'a self, name: &'a str) -> TensorView<'a> {
        let bytes = self.file.bytes.get(self.range.clone()).unwrap_or_default();
        TensorView { name, dtype: self.dtype, shape: &self.shape, bytes, scale: self.scale }
    }
}

fn insert(tensors: &mut BTreeMap<String, Stored>, name: String, stored: Stored) -> Result<(), WeightsError> {
    if let Some(first) = tensors.get(&name) {
        let (first, second) = (first.file.path.clone(), stored.file.path.clone());
        return Err(WeightsError::Duplicate { name: shown(&name), first, second });
    }
    tensors.insert(name, stored);
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Index,
    Safetensors,
    Torch,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        match name.rsplit_once('.')?.1 {
            "safetensors" => Some(Self::Safetensors),
            "pth" | "pt" => Some(Self::Torch),
            _ => name.ends_with(".safetensors.index.json").then_some(Self::Index),
        }
    }
}

/// The one checkpoint in a folder; [`Checkpoint::open`] describes the order of the search.
fn find_in(folder: &Path) -> Result<PathBuf, WeightsError> {
    for name in ["diffusion_pytorch_model.safetensors", "model.safetensors"] {
        for path in [folder.join(format!("{name}.index.json")), folder.join(name)] {
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    let candidates = Checkpoint::candidates(folder)?;
    for format in [Format::Index, Format::Safetensors, Format::Torch] {
        let mut of_format: Vec<_> = candidates.iter().filter(|path| Format::of(path) == Some(format)).collect();
        match of_format.len() {
            0 => {}
            1 => return Ok(of_format.remove(0).clone()),
            _ => {
                let names: Vec<_> = of_format.iter().filter_map(|path| path.file_name()?.to_str()).map(shown).collect();
                return Err(WeightsError::Ambiguous { folder: folder.into(), candidates: names.join(", ") });
            }
        }
    }
    Err(WeightsError::NoCheckpoint { folder: folder.into() })
}

fn is_shard(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let digits = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    stem.rsplit_once("-of-")
        .and_then(|(rest, count)| Some((rest.rsplit_once('-')?.1, count)))
        .is_some_and(|(number, count)| digits(number) && digits(count))
}

type Opened = (Arc<Mapped>, Vec<Entry>);

fn open_file(path: &Path) -> Result<Opened, WeightsError> {
    let file = Mapped::open(path)?;
    let entries = match Format::of(path) {
        Some(Format::Torch) => torch::read(path, &file.bytes),
        _ => safetensors_file::read(path, &file.bytes),
    };
    // A file that is cut right now reads as zeros, which says less than the reason.
    file.check()?;
    Ok((Arc::new(file), entries?))
}

/// Opens every shard that the index names, and checks that each shard holds its tensors.
fn open_shards(index_path: &Path) -> Result<Vec<Opened>, WeightsError> {
    let index = read_index(index_path)?;
    let folder = index_path.parent().unwrap_or(Path::new(""));
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        shards.entry(shard).or_default().push(tensor);
    }
    let mut opened = Vec::with_capacity(shards.len());
    for (shard, tensors) in shards {
        if !is_plain_file_name(shard) {
            let problem = format!("it names the shard {}, which is not a file beside it", shown(shard));
            return Err(WeightsError::malformed(index_path, problem));
        }
        let path = folder.join(shard);
        if !path.exists() {
            return Err(WeightsError::MissingShard { index: index_path.into(), shard: shown(shard) });
        }
        let file = open_file(&path)?;
        let held: HashSet<_> = file.1.iter().map(|entry| entry.name.as_str()).collect();
        if let Some(missing) = tensors.iter().find(|&tensor| !held.contains(tensor)) {
            return Err(WeightsError::MissingTensor { name: shown(missing), path });
        }
        opened.push(file);
    }
    Ok(opened)
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

/// Whether `name` names a safetensors file in the same folder on every system: no separators, no
/// drive, no `..`.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    single && !name.contains(['/', '\\', ':']) && Format::of(Path::new(name)) == Some(Format::Safetensors)
}

#[cfg(test)]
mod tests;
