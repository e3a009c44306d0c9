//! Hashes that identify a checkpoint, and where they are kept.

use super::TensorView;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The FNV-1a hash. Unlike the standard library's hashers it is the same in every version and on
/// every platform.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn finish(&self) -> u64 {
        self.0
    }
}

/// Odd factors, by which 64-bit multiplication loses nothing.
const FACTORS: [u64; 4] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];

/// A hash of 128 bits in four lanes of 64 bits. Every step of a lane can be undone, so two inputs
/// that differ in one word always give different lanes.
#[derive(Clone, Copy)]
pub(super) struct Wide([u64; 4]);

impl Wide {
    fn new(length: usize) -> Self {
        Self(FACTORS.map(|factor| factor ^ length as u64))
    }

    fn absorb(&mut self, words: [u64; 4]) {
        for ((lane, word), factor) in self.0.iter_mut().zip(words).zip(FACTORS) {
            *lane = (*lane ^ word).wrapping_mul(factor).rotate_left(29);
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        let (groups, rest) = bytes.as_chunks::<32>();
        let words = |group: &[u8; 32]| {
            let (words, _) = group.as_chunks::<8>();
            [0, 1, 2, 3].map(|i| u64::from_le_bytes(words[i]))
        };
        groups.iter().for_each(|group| self.absorb(words(group)));
        let mut last = [0; 32];
        last[..rest.len()].copy_from_slice(rest);
        self.absorb(words(&last));
    }

    /// Both halves depend on every lane.
    fn finish(mut self) -> [u64; 2] {
        for _ in 0..4 {
            let [a, b, c, d] = self.0;
            self.absorb([b, c, d, a].map(|lane| lane ^ lane >> 31));
        }
        [self.0[0] ^ self.0[2].rotate_left(17), self.0[1] ^ self.0[3].rotate_left(41)]
    }
}

fn hash_part(bytes: &[u8]) -> [u64; 2] {
    let mut hash = Wide::new(bytes.len());
    hash.bytes(bytes);
    hash.finish()
}

/// The hash of all tensors in 32 hexadecimal digits: names, types, shapes, scales and every byte.
pub(super) fn hash<'a>(tensors: impl Iterator<Item = TensorView<'a>>) -> String {
    /// Bytes that one thread hashes at a time.
    const PART: usize = 1 << 20;
    let mut whole = Wide::new(0);
    for tensor in tensors {
        let about = format!("{} {} {:?} {:?}", tensor.name, tensor.dtype, tensor.shape, tensor.scale);
        whole.bytes(about.as_bytes());
        let parts: Vec<[u64; 2]> = tensor.bytes.par_chunks(PART).map(hash_part).collect();
        parts.iter().for_each(|[a, b]| whole.absorb([*a, *b, tensor.bytes.len() as u64, 0]));
        tensor.additions.iter().for_each(|addition| addition.hash(&mut whole));
    }
    let [a, b] = whole.finish();
    format!("{a:016x}{b:016x}")
}

/// Known identities by stamp, and the file that keeps them.
#[derive(Default)]
struct Known {
    ids: BTreeMap<String, String>,
    file: Option<PathBuf>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { ids: BTreeMap::new(), file: None });

/// Keeps the identities of checkpoints in `file` from now on, and takes over those that it holds. A
/// file that cannot be read or written is no error: identities are then worked out again.
pub fn keep_ids_in(file: &Path) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.ids.extend(read(file));
    known.file = Some(file.into());
}

fn read(file: &Path) -> BTreeMap<String, String> {
    /// Longest file that is read, in bytes.
    const LONGEST: u64 = 1 << 20;
    let size = std::fs::metadata(file).map_or(u64::MAX, |metadata| metadata.len());
    let text = if size <= LONGEST { std::fs::read(file).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The identity that is known by this stamp, or else `find`'s.
pub(super) fn kept(stamp: &str, find: impl FnOnce() -> String) -> String {
    /// Largest number of identities in the file.
    const MOST: usize = 1000;
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let before = lock().ids.get(stamp).cloned();
    if let Some(id) = before {
        return id;
    }
    // Other checkpoints need not wait for this one.
    let id = find();
    let mut known = lock();
    known.ids.insert(stamp.into(), id.clone());
    if let Some(file) = known.file.clone() {
        // Another process may have added to the file.
        let mut all = read(&file);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(stamp.into(), id.clone());
        write(&file, &all);
    }
    id
}

/// Replaces the file at once, so that another process never reads half of it.
fn write(file: &Path, ids: &BTreeMap<String, String>) {
    let folder = file.parent().unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut new, ids)?;
        new.persist(file)?;
        Ok(())
    };
    // Without the file the identity is worked out again next time.
    written().ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::DType;

    fn of(bytes: &[u8]) -> String {
        let shape = [bytes.len()];
        hash(std::iter::once(TensorView {
            name: "t",
            dtype: DType::F8E4M3,
            shape: &shape,
            bytes,
            scale: None,
            additions: &[],
        }))
    }

    #[test]
    fn every_byte_counts() {
        let bytes: Vec<u8> = (0..200).collect();
        let whole = of(&bytes);
        assert_eq!(whole.len(), 32);
        let mut seen = std::collections::HashSet::from([whole]);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(seen.insert(of(&other)), "byte {at}");
        }
        assert!(seen.insert(of(&[&bytes[..], &[0]].concat())), "and the length");
    }

    #[test]
    fn an_identity_is_worked_out_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/ids.json");
        keep_ids_in(&file);
        assert_eq!(kept("a stamp of this test", || "one".into()), "one");
        assert_eq!(kept("a stamp of this test", || panic!("it is known")), "one");
        assert_eq!(read(&file)["a stamp of this test"], "one");
        std::fs::write(&file, "no JSON").unwrap();
        assert!(read(&file).is_empty());
        KNOWN.lock().unwrap().file = None;
    }
}
