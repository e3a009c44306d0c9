//! One list of named tensors over one or many mapped files.

use super::bundle::{self, Bundle};
use super::container::Container;
use super::error::shown;
use super::gguf::{self, Metadata};
use super::identity::{self, Fnv};
use super::mapped::Mapped;
use super::strided::Strided;
use super::{Addition, DType, Scale, TensorView, WeightsError, safetensors_file, scale, torch};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One tensor, as listed by the reader of its file format.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// The tensor's bytes within the file. The reader has checked their bounds and their number.
    pub range: Range<usize>,
    /// Steps between elements for each dimension, if the elements do not lie row-major one after
    /// another. The reader has checked that all elements lie in `range`.
    pub strides: Option<Vec<usize>>,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    file: Arc<Mapped>,
    pub dtype: DType,
    pub shape: Vec<usize>,
    range: Range<usize>,
    strided: Option<Arc<Strided>>,
    pub scale: Option<Arc<Scale>>,
    additions: Vec<Addition>,
}

/// The tensors of a checkpoint, sorted by name. Cloning and renaming share the mapped files.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Opens a checkpoint: a safetensors file, a torch archive or a GGUF file, whatever its ending;
    /// one of a set of shards, or their index; or a folder.
    ///
    /// In a folder the file names that diffusers and transformers use come first. Without such a
    /// file the folder must hold exactly one checkpoint in safetensors, or else one in another
    /// format.
    ///
    /// The scale tensors of 8-bit checkpoints are taken out of the list and put into
    /// [`TensorView::scale`].
    ///
    /// # Errors
    /// Any variant of [`WeightsError`] except [`WeightsError::Shape`] and [`WeightsError::Rows`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        let path = path.as_ref();
        let metadata = std::fs::metadata(path).map_err(|source| WeightsError::io(path, source))?;
        if metadata.is_file() && bundle::is_index(path) {
            return Self::of_files(path, open_indexed(path)?);
        }
        Self::open_bundle(&Bundle::at(path)?)
    }

    /// Opens the files of a bundle.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_bundle(bundle: &Bundle) -> Result<Self, WeightsError> {
        let files = bundle.files.iter().map(|path| open_file(path)).collect::<Result<_, _>>()?;
        Self::of_files(&bundle.path, files)
    }

    fn of_files(path: &Path, files: Vec<Opened>) -> Result<Self, WeightsError> {
        let mut tensors = BTreeMap::new();
        for (file, entries) in files {
            for Entry { name, dtype, shape, range, strides } in entries {
                let strided = strides.map(|strides| Arc::new(Strided::new(strides)));
                let file = file.clone();
                let stored = Stored { file, dtype, shape, range, strided, scale: None, additions: Vec::new() };
                insert(&mut tensors, name, stored)?;
            }
        }
        scale::fold(path, &mut tensors)?;
        Ok(Self { path: path.into(), tensors })
    }

    /// The file that was opened. For a sharded checkpoint this is the index or the first shard.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors, sorted.
    pub fn files(&self) -> Vec<&Path> {
        self.mapped().into_iter().map(|file| file.path.as_path()).collect()
    }

    /// The metadata of the GGUF file. `None` for other formats.
    pub fn metadata(&self) -> Option<MetadataView<'_>> {
        let file = self.mapped().into_iter().find(|file| !file.metadata.is_empty())?;
        Some(MetadataView { bytes: &file.bytes, metadata: &file.metadata })
    }

    fn mapped(&self) -> Vec<&Mapped> {
        let mut files: Vec<&Mapped> = Vec::new();
        for stored in self.tensors.values() {
            if !files.iter().any(|file| std::ptr::eq(*file, &raw const *stored.file)) {
                files.push(&stored.file);
            }
        }
        files.sort_by_key(|file| &file.path);
        files
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

    /// A 128-bit hash in hexadecimal that identifies the checkpoint. It covers the name, type,
    /// shape, scale and additions of every tensor, and every byte. Renaming a tensor changes the
    /// hash.
    ///
    /// The first call reads all tensors, on all cores. The hash is then kept by [`Self::stamp`],
    /// for the process and, after [`keep_ids_in`](super::keep_ids_in), beyond.
    pub fn id(&self) -> String {
        identity::kept(&self.stamp(), || identity::hash(self.tensors()))
    }

    /// Names the files by path, size and time of change, and the tensors by name. Nothing is read.
    /// Two checkpoints with the same stamp have the same contents, unless a file was changed within
    /// the resolution of the file system's clock.
    pub fn stamp(&self) -> String {
        let mut hash = Fnv::default();
        self.mapped().iter().for_each(|file| hash.update(file.stamp.as_bytes()));
        for (name, stored) in &self.tensors {
            hash.update(name.as_bytes());
            hash.update(&stored.range.start.to_le_bytes());
            stored.additions.iter().for_each(|addition| hash.update(addition.stamp().as_bytes()));
        }
        format!("{:016x}", hash.finish())
    }

    /// The identity that earlier versions of this program gave to the checkpoint: a 64-bit hash of
    /// names, types, shapes and 256 bytes of each tensor. Captures and profiles of that time hold
    /// it.
    pub fn sampled_id(&self) -> String {
        const SAMPLE: usize = 256;
        let mut hash = Fnv::default();
        for tensor in self.tensors() {
            hash.update(tensor.name.as_bytes());
            hash.update(tensor.dtype.name().as_bytes());
            tensor.shape.iter().for_each(|extent| hash.update(&(*extent as u64).to_le_bytes()));
            let middle = tensor.bytes.len().saturating_sub(SAMPLE) / 2;
            hash.update(&tensor.bytes[middle..tensor.bytes.len().min(middle + SAMPLE)]);
        }
        format!("{:016x}", hash.finish())
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

    /// Adds `factor * up * down` to the tensor called `name`: the tensors `[up, down]` of `other`,
    /// with shapes `[rows, rank]` and `[rank, columns]`. Nothing is read yet. Returns whether there
    /// are such tensors and their shapes fit.
    pub fn add_low_rank(&mut self, name: &str, other: &Self, [up, down]: [&str; 2], factor: f32) -> bool {
        let (Some(target), Some(up), Some(down)) =
            (self.tensors.get_mut(name), other.tensors.get(up), other.tensors.get(down))
        else {
            return false;
        };
        let addition = Addition::low_rank(&target.shape, up.clone(), down.clone(), factor);
        let fits = addition.is_some();
        target.additions.extend(addition);
        fits
    }

    /// Adds `factor` times the tensor `added` of `other` to the tensor called `name`, as
    /// [`Checkpoint::add_low_rank`].
    pub fn add_whole(&mut self, name: &str, other: &Self, added: &str, factor: f32) -> bool {
        let (Some(target), Some(added)) = (self.tensors.get_mut(name), other.tensors.get(added)) else { return false };
        let addition = Addition::whole(&target.shape, added.clone(), factor);
        let fits = addition.is_some();
        target.additions.extend(addition);
        fits
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
}

/// The metadata of a GGUF file, by key.
#[derive(Clone, Copy, Debug)]
pub struct MetadataView<'a> {
    bytes: &'a [u8],
    metadata: &'a Metadata,
}

impl<'a> MetadataView<'a> {
    /// A text.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.metadata.text(self.bytes, key)
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<&'a str>> {
        self.metadata.texts(self.bytes, key)
    }

    /// A number, or a list of numbers. Truth values are 0 and 1.
    pub fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        self.metadata.numbers(self.bytes, key)
    }

    /// A list of bytes.
    pub fn bytes(&self, key: &str) -> Option<&'a [u8]> {
        self.metadata.bytes(self.bytes, key)
    }
}

impl Stored {
    /// The file and the place in it.
    pub(super) fn stamp(&self) -> String {
        format!("{}{}", self.file.stamp, self.range.start)
    }

    pub(super) fn view<'a>(&'a self, name: &'a str) -> TensorView<'a> {
        let stored = self.file.bytes.get(self.range.clone()).unwrap_or_default();
        let bytes = match &self.strided {
            Some(strided) => strided.row_major(stored, &self.shape, self.dtype),
            None => stored,
        };
        let scale = self.scale.as_deref();
        TensorView { name, dtype: self.dtype, shape: &self.shape, bytes, scale, additions: &self.additions }
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

type Opened = (Arc<Mapped>, Vec<Entry>);

/// Opens a file of tensors. Its first bytes say which format it has.
fn open_file(path: &Path) -> Result<Opened, WeightsError> {
    let mut file = Mapped::open(path)?;
    let read = read(path, &file.bytes);
    // A file that is cut right now reads as zeros, which says less than the reason.
    file.check()?;
    let (entries, metadata) = read?;
    file.metadata = metadata;
    Ok((Arc::new(file), entries))
}

/// Lists the tensors of a file whose bytes are `file`, and the metadata of a GGUF file.
fn read(path: &Path, file: &[u8]) -> Result<(Vec<Entry>, Metadata), WeightsError> {
    let listed = |entries| (entries, Metadata::default());
    match Container::of(&file[..file.len().min(Container::HEAD)]) {
        Container::Safetensors => safetensors_file::read(path, file).map(listed),
        Container::Zip => torch::read(path, file).map(listed),
        Container::Gguf => gguf::read(path, file),
        other => match other.advice() {
            Some(advice) => Err(WeightsError::unsupported(path, advice)),
            None if bundle::has_known_ending(path) => {
                let problem = "its first bytes are those of no format of tensors (safetensors, torch's zip, GGUF)";
                Err(WeightsError::malformed(path, problem))
            }
            None => Err(WeightsError::UnknownFormat { path: path.into() }),
        },
    }
}

/// Opens every shard that an index names, and checks that each shard holds its tensors.
fn open_indexed(index: &Path) -> Result<Vec<Opened>, WeightsError> {
    let mut opened = Vec::new();
    for (path, tensors) in bundle::shards_of(index)? {
        if !path.exists() {
            let shard = shown(&path.file_name().unwrap_or_default().to_string_lossy());
            return Err(WeightsError::MissingShard { index: index.into(), shard });
        }
        let file = open_file(&path)?;
        let held: HashSet<_> = file.1.iter().map(|entry| entry.name.as_str()).collect();
        if let Some(missing) = tensors.iter().find(|tensor| !held.contains(tensor.as_str())) {
            return Err(WeightsError::MissingTensor { name: shown(missing), path });
        }
        opened.push(file);
    }
    Ok(opened)
}

#[cfg(test)]
mod tests;
