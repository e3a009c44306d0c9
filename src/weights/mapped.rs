//! Mapped files that other programs may cut short.
//!
//! The system answers a read beyond the end of a mapped file with SIGBUS, which ends a program
//! without a word. The same happens when a network drive goes away or a disk cannot read a block.
//! On Unix a handler therefore puts zeros where the file was, and remembers the file. Whoever read
//! it asks [`check`] before using what was read. Windows refuses to truncate a mapped file.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::WeightsError;
use super::gguf::Metadata;

/// A mapped file.
#[derive(Debug)]
pub(super) struct Mapped {
    /// It comes first, because it must be dropped before the map.
    guard: guard::Guard,
    pub path: PathBuf,
    pub bytes: Mmap,
    /// Path, time of the last change, and length: they tell apart two states of one file.
    pub stamp: String,
    /// The metadata of a GGUF file, once it is read.
    pub metadata: Metadata,
}

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// [`WeightsError::Io`]; [`WeightsError::NotAFile`]; [`WeightsError::Malformed`] for an empty
    /// file.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::io(path, source);
        // This check comes before opening the file, because opening a named pipe would wait for a
        // writer.
        let metadata = std::fs::metadata(path).map_err(io)?;
        if !metadata.is_file() {
            return Err(WeightsError::NotAFile { path: path.into() });
        }
        if metadata.len() == 0 {
            return Err(WeightsError::malformed(path, "it is empty"));
        }
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let stamp = format!("{} {:?} {}\n", place.display(), changed.unwrap_or_default(), metadata.len());
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is private to this room and read-only. Its contents may change if another
        // program writes the file. The bytes are only read as numbers, for which every bit pattern
        // is valid, and headers are parsed into owned values before use. The guard serves reads
        // beyond the end of a file that has become shorter.
        let bytes = unsafe { Mmap::map(&file) }.map_err(io)?;
        let guard = guard::Guard::new(&bytes);
        Ok(Self { guard, path: path.into(), bytes, stamp, metadata: Metadata::default() })
    }

    /// Fails if a read of the file could not be served since it was mapped.
    ///
    /// # Errors
    /// [`WeightsError::Changed`].
    pub fn check(&self) -> Result<(), WeightsError> {
        if self.guard.is_broken() { Err(WeightsError::Changed { path: self.path.clone() }) } else { Ok(()) }
    }
}

#[cfg(unix)]
mod guard {
    use std::ffi::{c_int, c_void};
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Mutex, Once, PoisonError};

    /// A watched range of addresses. `end` is 0 for a free place.
    struct Watched {
        start: AtomicUsize,
        end: AtomicUsize,
        broken: AtomicBool,
    }

    /// Number of files that can be watched at once. Models have at most a few dozen. A file without
    /// a place is mapped without protection.
    const PLACES: usize = 512;
    static WATCHED: [Watched; PLACES] =
        [const { Watched { start: AtomicUsize::new(0), end: AtomicUsize::new(0), broken: AtomicBool::new(false) } };
            PLACES];
    /// Held while places are taken. The handler only reads them.
    static TAKING: Mutex<()> = Mutex::new(());
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    /// What handled the signal before. It is never freed, because a handler may use it at any time.
    static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

    /// Watches a map until it is dropped. It must be dropped before the map's addresses are used
    /// for something else, and after the last read.
    #[derive(Debug)]
    pub struct Guard(Option<usize>);

    impl Guard {
        pub fn new(bytes: &[u8]) -> Self {
            install();
            let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
            let free = WATCHED.iter().position(|place| place.end.load(Ordering::Acquire) == 0);
            if let Some(index) = free {
                let (place, start) = (&WATCHED[index], bytes.as_ptr() as usize);
                place.broken.store(false, Ordering::Relaxed);
                place.start.store(start, Ordering::Relaxed);
                place.end.store(start + bytes.len(), Ordering::Release);
            }
            Self(free)
        }

        pub fn is_broken(&self) -> bool {
            self.0.is_some_and(|index| WATCHED[index].broken.load(Ordering::Acquire))
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            if let Some(index) = self.0 {
                WATCHED[index].end.store(0, Ordering::Release);
            }
        }
    }

    fn install() {
        static ONCE: Once = Once::new();
        // SAFETY: the arguments of `sysconf` and `sigaction` are valid. The handler only does what
        // POSIX, or every system in use, allows in a handler: it reads atomics and calls `mmap` and
        // `sigaction`, which are plain system calls.
        ONCE.call_once(|| unsafe {
            PAGE.store(usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096), Ordering::Release);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = serve as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            let before = Box::into_raw(Box::new(std::mem::zeroed::<libc::sigaction>()));
            libc::sigaction(libc::SIGBUS, ptr::null(), before);
            BEFORE.store(before, Ordering::Release);
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        });
    }

    /// Puts zeros in place of the rest of the file in which a read has failed. The read is then
    /// repeated and succeeds.
    extern "C" fn serve(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
        // SAFETY: the system passes a valid description of the signal.
        let address = unsafe { (*info).si_addr() } as usize;
        let held = |place: &&Watched| {
            (place.start.load(Ordering::Relaxed)..place.end.load(Ordering::Acquire)).contains(&address)
        };
        if let Some(place) = WATCHED.iter().find(held) {
            let page = address & !(PAGE.load(Ordering::Acquire) - 1);
            let length = place.end.load(Ordering::Acquire) - page;
            // SAFETY: the range belongs to a map of a file that is only read, and stays a readable
            // map of the same length.
            let zeros = unsafe {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                libc::mmap(page as *mut c_void, length, libc::PROT_READ, flags, -1, 0)
            };
            if zeros != libc::MAP_FAILED {
                place.broken.store(true, Ordering::Release);
                return;
            }
        }
        // SAFETY: what handled the signal before does so again when the read is repeated.
        unsafe { libc::sigaction(signal, BEFORE.load(Ordering::Acquire), ptr::null_mut()) };
    }
}

#[cfg(not(unix))]
mod guard {
    #[derive(Debug)]
    pub struct Guard;

    impl Guard {
        pub fn new(_bytes: &[u8]) -> Self {
            Self
        }

        pub fn is_broken(&self) -> bool {
            false
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_cut_while_it_is_mapped_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![7; 1 << 20]).unwrap();
            Mapped::open(&path).unwrap()
        };
        let sum = |mapped: &Mapped| mapped.bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let (cut, whole) = (open("cut"), open("whole"));
        assert_eq!(sum(&cut), 7 << 20);
        File::options().write(true).open(&cut.path).unwrap().set_len(5000).unwrap();
        assert!(sum(&cut) < 7 << 20);
        let error = cut.check().unwrap_err().to_string();
        assert!(error.contains("cut") && error.contains("changed"), "{error}");
        assert_eq!(sum(&whole), 7 << 20);
        whole.check().unwrap();
        drop(cut);
        let again = open("again");
        again.check().unwrap();
        assert_ne!(again.stamp, "");
    }
}
