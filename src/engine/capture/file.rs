//! Capture files. `docs/capture-format.md` describes the format.
//!
//! ```text
//! magic (8 bytes)  version (u32)  then chunks up to the end of the file
//! chunk: tag (4 bytes)  length (u32)  crc32 (u32)  deflate(CBOR of one Record)
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{Capture, Record};
use crate::media::target;

/// First bytes of a capture. They are not text, and a program that translates line ends changes
/// them, so such damage is noticed.
const MAGIC: [u8; 8] = *b"\x89DITCAP\n";
/// The version that is written. Readers take this version and older ones.
const VERSION: u32 = 1;
/// Longest compressed chunk, in bytes.
const LONGEST_CHUNK: u32 = 512 << 20;
/// Largest unpacked clip, in bytes. It is enough for more than 10 s at 720p.
const LARGEST_CLIP: u64 = 1 << 30;
/// Largest unpacked description of a run, in bytes. It is enough for thousands of planned steps.
/// Reading takes about thirty times as much memory, because the kind of a strategy may come after
/// its settings.
const LARGEST_RUN: u64 = 8 << 20;
/// Largest unpacked record of any other kind, in bytes. A step of the largest known model with all
/// its maps takes 15 MiB.
const LARGEST_RECORD: u64 = 64 << 20;
/// Largest unpacked capture, in bytes.
const LARGEST_CAPTURE: u64 = 8 << 30;

/// Why a capture file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Another run records under the same name.
    #[error("{} is being written by another run; choose another name", .0.display())]
    InUse(PathBuf),
    /// The file is not a capture.
    #[error("{} is no capture of ditscope", .0.display())]
    Foreign(PathBuf),
    /// The file was written by a later version of the program.
    #[error("{} is a capture of format {version}, this program reads up to {VERSION}: update ditscope to open it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The description of the run cannot be read.
    #[error("{} holds nothing that can be shown: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A record could not be packed.
    #[error("the capture cannot be written: {0}")]
    Encode(String),
}

/// A capture from a file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The records that could be read.
    pub capture: Capture,
    /// Why the file may have more records, as one sentence. `None` for an undamaged file.
    pub damage: Option<String>,
}

fn tag(record: &Record) -> [u8; 4] {
    *match record {
        Record::Run(_) => b"RUN ",
        Record::Step(_) => b"STEP",
        Record::Mask(_) => b"MASK",
        Record::Warning(_) => b"WARN",
        Record::Clip(_) => b"CLIP",
        Record::Outcome(_) => b"END ",
    }
}

/// Largest number of bytes to which a chunk may unpack. `None` for a chunk that this version does
/// not know.
fn limit(tag: [u8; 4]) -> Option<u64> {
    match &tag {
        b"CLIP" => Some(LARGEST_CLIP),
        b"RUN " => Some(LARGEST_RUN),
        b"STEP" | b"MASK" | b"WARN" | b"END " => Some(LARGEST_RECORD),
        _ => None,
    }
}

/// Writes a capture during the run. Until [`Writer::finish`] the records are in `PATH.partial`,
/// which opens like any capture, so nothing is lost if the program ends early.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    /// Number of bytes of all records before packing.
    unpacked: u64,
    /// Whether the file has the description of a run, without which it cannot be opened.
    described: bool,
}

impl Writer {
    /// Starts a file. If `path` is a link, its target is written.
    ///
    /// # Errors
    /// [`CaptureError::Io`]; [`CaptureError::InUse`] while another run records under this name.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let path =
            &target(path).map_err(|error| CaptureError::Io { path: path.into(), source: io::Error::other(error) })?;
        let partial = path.with_added_extension("partial");
        let start = || {
            let mut file = BufWriter::new(claim(&partial)?);
            file.write_all(&MAGIC)?;
            file.write_all(&VERSION.to_le_bytes())?;
            file.flush()?;
            Ok(file)
        };
        let file = start().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock => CaptureError::InUse(partial.clone()),
            _ => CaptureError::Io { path: partial.clone(), source },
        })?;
        Ok(Self { path: path.into(), partial, file, unpacked: 0, described: false })
    }

    /// Adds a record. The record is in the file when the function returns.
    ///
    /// # Errors
    /// [`CaptureError::Io`]; [`CaptureError::Encode`] if the record is too large for the format.
    pub fn write(&mut self, record: &Record) -> Result<(), CaptureError> {
        let (payload, unpacked) = pack(record)?;
        let room = LARGEST_CAPTURE.saturating_sub(self.unpacked);
        // Readers refuse larger records, so the writer refuses them too.
        if limit(tag(record)).is_none_or(|limit| unpacked > limit.min(room)) {
            let message = "a record is larger than the format allows: ask for a smaller size or fewer frames";
            return Err(CaptureError::Encode(message.into()));
        }
        let length = u32::try_from(payload.len()).ok().filter(|length| *length <= LONGEST_CHUNK);
        let length = length.ok_or_else(|| CaptureError::Encode("a record is too large".into()))?;
        let mut put = || {
            self.file.write_all(&tag(record))?;
            self.file.write_all(&length.to_le_bytes())?;
            self.file.write_all(&crc32fast::hash(&payload).to_le_bytes())?;
            self.file.write_all(&payload)?;
            self.file.flush()
        };
        put().map_err(|source| CaptureError::Io { path: self.partial.clone(), source })?;
        self.unpacked += unpacked;
        self.described |= matches!(record, Record::Run(_));
        Ok(())
    }

    /// Ends the file of a failed run and returns its path.
    ///
    /// If an earlier file has the name, it may be complete, so it is kept and the new file stays at
    /// `PATH.partial`. A file without the description of a run is removed, and the result is
    /// `None`.
    ///
    /// # Errors
    /// The errors of [`Self::finish`].
    pub fn finish_failed(self) -> Result<Option<PathBuf>, CaptureError> {
        let (path, partial) = (self.path.clone(), self.partial.clone());
        if !self.described {
            drop(self.file);
            std::fs::remove_file(&partial).map_err(|source| CaptureError::Io { path: partial, source })?;
            return Ok(None);
        }
        if path.exists() {
            return Ok(Some(partial));
        }
        self.finish().map(|()| Some(path))
    }

    /// Gives the file its final name.
    ///
    /// # Errors
    /// [`CaptureError::Io`]. The records then stay in `PATH.partial`.
    pub fn finish(self) -> Result<(), CaptureError> {
        let Self { path, partial, file, .. } = self;
        let done = || {
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(&partial, &path)
        };
        done().map_err(|source| CaptureError::Io { path: path.clone(), source })
    }
}

/// A new file at `path` that no other program writes. A file that a program left behind when it
/// ended is replaced.
#[cfg(not(windows))]
fn claim(path: &Path) -> io::Result<File> {
    let create = || File::options().write(true).create_new(true).open(path);
    let file = match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // The lock of a running program is held until its file has the final name.
            match File::options().write(true).open(path)?.try_lock() {
                Err(std::fs::TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                // Some network drives know no locks.
                Err(std::fs::TryLockError::Error(_)) | Ok(()) => {}
            }
            std::fs::remove_file(path)?;
            create()?
        }
        created => created?,
    };
    file.try_lock().ok();
    Ok(file)
}

/// A new file at `path` that no other program writes, though others may read it. A lock would also
/// keep readers out.
#[cfg(windows)]
fn claim(path: &Path) -> io::Result<File> {
    use std::os::windows::fs::OpenOptionsExt;
    const SHARE_READ: u32 = 1;
    const SHARING_VIOLATION: i32 = 32;
    let open = File::options().write(true).create(true).truncate(true).share_mode(SHARE_READ).open(path);
    open.map_err(|error| match error.raw_os_error() {
        Some(SHARING_VIOLATION) => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

/// A record's compressed bytes, and its number of bytes before compression.
fn pack(record: &Record) -> Result<(Vec<u8>, u64), CaptureError> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    ciborium::into_writer(record, &mut packer).map_err(|error| CaptureError::Encode(error.to_string()))?;
    packer.try_finish().map_err(|error| CaptureError::Encode(error.to_string()))?;
    let unpacked = packer.total_in();
    Ok((packer.finish().map_err(|error| CaptureError::Encode(error.to_string()))?, unpacked))
}

/// Writes a whole capture.
///
/// # Errors
/// The errors of [`Writer`].
pub fn save(path: &Path, capture: &Capture) -> Result<(), CaptureError> {
    let mut writer = Writer::create(path)?;
    for record in capture.records() {
        writer.write(&record)?;
    }
    writer.finish()
}

/// Reads a capture file. From a damaged or truncated file, the records before the damage are read.
///
/// # Errors
/// [`CaptureError::Io`]; [`CaptureError::Foreign`]; [`CaptureError::Newer`];
/// [`CaptureError::Unreadable`] if the description of the run is damaged.
pub fn open(path: &Path) -> Result<Loaded, CaptureError> {
    let io = |source| CaptureError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    read(BufReader::new(file), path)
}

/// Reads a capture from any reader. Messages name `path`.
///
/// # Errors
/// The errors of [`open`].
pub fn read(mut from: impl Read, path: &Path) -> Result<Loaded, CaptureError> {
    let mut head = [0; 12];
    if let Err(source) = from.read_exact(&mut head) {
        return Err(match source.kind() {
            std::io::ErrorKind::UnexpectedEof => CaptureError::Foreign(path.into()),
            _ => CaptureError::Io { path: path.into(), source },
        });
    }
    if head[..8] != MAGIC {
        return Err(CaptureError::Foreign(path.into()));
    }
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if version > VERSION {
        return Err(CaptureError::Newer { path: path.into(), version });
    }
    let mut reader = Reader { from, unpacked: 0 };
    let mut capture = None;
    let damage = reader.records(&mut capture).err();
    match capture {
        Some(capture) => Ok(Loaded { capture, damage }),
        None => {
            let reason = damage.unwrap_or_else(|| "it has no records".into());
            Err(CaptureError::Unreadable { path: path.into(), reason })
        }
    }
}

/// A chunk's tag and payload.
type Chunk = ([u8; 4], Vec<u8>);

struct Reader<R> {
    from: R,
    unpacked: u64,
}

impl<R: Read> Reader<R> {
    /// Puts records into `capture`, up to the end of the file or the first invalid record. For an
    /// invalid record, returns the reason.
    fn records(&mut self, capture: &mut Option<Capture>) -> Result<(), String> {
        while let Some((tag, payload)) = self.chunk()? {
            let Some(limit) = limit(tag) else { continue };
            let mut record = self.unpack(&payload, limit)?;
            super::check::mend(&mut record);
            match (&mut *capture, record) {
                (None, Record::Run(run)) => {
                    super::check::run(&run)?;
                    *capture = Some(Capture { run: *run, ..Capture::default() });
                }
                (None, _) => return Err("its first record does not describe a run".into()),
                (Some(_), Record::Run(_)) => return Err("a second run begins in it".into()),
                (Some(capture), record) => {
                    super::check::record(capture, &record)?;
                    capture.push(record);
                }
            }
        }
        Ok(())
    }

    /// The next chunk, or `None` at the end of the file.
    fn chunk(&mut self) -> Result<Option<Chunk>, String> {
        const CUT: &str = "the file ends in the middle of a record";
        let mut head = Vec::new();
        self.from.by_ref().take(12).read_to_end(&mut head).map_err(|error| error.to_string())?;
        let [t0, t1, t2, t3, l0, l1, l2, l3, c0, c1, c2, c3] = head[..] else {
            return if head.is_empty() { Ok(None) } else { Err(CUT.into()) };
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > LONGEST_CHUNK {
            return Err("a record claims to be longer than any can be".into());
        }
        // The buffer grows with the bytes in the file, not with the length that the file claims.
        let mut payload = Vec::new();
        self.from.by_ref().take(length.into()).read_to_end(&mut payload).map_err(|error| error.to_string())?;
        if payload.len() < length as usize {
            return Err(CUT.into());
        }
        if crc32fast::hash(&payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err("a record is damaged (its checksum is wrong)".into());
        }
        Ok(Some(([t0, t1, t2, t3], payload)))
    }

    fn unpack(&mut self, payload: &[u8], limit: u64) -> Result<Record, String> {
        let limit = limit.min(LARGEST_CAPTURE.saturating_sub(self.unpacked));
        let mut bytes = Vec::new();
        let unpacked = ZlibDecoder::new(payload).take(limit + 1).read_to_end(&mut bytes);
        unpacked.map_err(|_| "a record cannot be unpacked")?;
        self.unpacked += bytes.len() as u64;
        if bytes.len() as u64 > limit {
            return Err("a record unpacks to more than any can hold".into());
        }
        ciborium::from_reader(&bytes[..]).map_err(|_| "a record cannot be understood".into())
    }
}
