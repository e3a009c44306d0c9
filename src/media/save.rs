//! Files and folders that appear whole or not at all. A path that is a link keeps the link: its
//! target is written.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::MediaError;

/// The folder that holds `path`. It is never an empty path, so the system can look it up.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The place at which `path` is written: itself, or the target of a link, which need not exist yet.
///
/// # Errors
/// The links go round in a circle.
pub(super) fn target(path: &Path) -> io::Result<PathBuf> {
    /// Number of links that are followed, as in Linux.
    const MOST: usize = 40;
    let mut place = path.to_owned();
    for _ in 0..MOST {
        // With a slash at its end, the path of a link names the target already.
        let link: PathBuf = place.components().collect();
        match fs::read_link(&link) {
            Ok(next) => place = parent(&link).join(next),
            Err(_) => return Ok(place),
        }
    }
    Err(io::Error::other("its links go round in a circle"))
}

/// Number of bytes of a clip that must fit on the disk before the work begins. Few clips are
/// smaller.
const ROOM: usize = 64 << 10;
/// The same for other files: a block of a full disk.
const SMALL: usize = 4 << 10;

/// Checks that a file can be written at `path`, with room for a clip or for any file. The temporary
/// file that tries is removed.
pub(super) fn try_file(path: &Path, clip: bool) -> io::Result<()> {
    let mut file = file_beside(&target(path)?)?;
    file.write_all(&vec![0; if clip { ROOM } else { SMALL }])
}

/// Creates a temporary file in the folder of `path`, which the caller renames to `path`. Fails if
/// `path` exists and is not a file, because renaming would replace a device.
fn file_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("it exists and is not a file"));
    }
    check_parent(path)?;
    builder(0o666).tempfile_in(parent(path))
}

/// Fails if the folder of `path` does not exist.
fn check_parent(path: &Path) -> io::Result<()> {
    let parent = parent(path);
    match parent.is_dir() {
        true => Ok(()),
        false => Err(io::Error::other(format!("there is no folder {}", parent.display()))),
    }
}

/// Writes `bytes` to a temporary file beside `path` and renames it to `path`.
pub(super) fn file(path: &Path, bytes: &[u8]) -> Result<(), MediaError> {
    let save = || -> io::Result<()> {
        let path = target(path)?;
        let mut file = file_beside(&path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?; // some file systems report a full disk only now
        file.persist(&path)?;
        Ok(())
    };
    save().map_err(|source| MediaError::Write { path: path.into(), source })
}

/// Writes the named files into a temporary folder beside `path` and renames it to `path`. An empty
/// folder that exists at `path` may be a mount, which cannot be replaced: the files are then moved
/// into it, one after another.
pub(super) fn folder(path: &Path, files: &[(String, Vec<u8>)]) -> Result<(), MediaError> {
    check_folder(path)?;
    let save = || -> io::Result<()> {
        let path = target(path)?;
        let exists = path.is_dir();
        let folder = folder_for(&path)?;
        for (name, bytes) in files {
            let mut file = fs::File::create(folder.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        if exists {
            return files.iter().try_for_each(|(name, _)| fs::rename(folder.path().join(name), path.join(name)));
        }
        fs::rename(folder.path(), &path)?;
        let _ = folder.keep(); // the folder has a new name, so there is nothing to clean up
        Ok(())
    };
    save().map_err(|source| MediaError::Write { path: path.into(), source })
}

/// A temporary folder on the file system of `path`: in it, if it is a folder, or else beside it.
fn folder_for(path: &Path) -> io::Result<tempfile::TempDir> {
    if path.is_dir() {
        return builder(0o777).tempdir_in(path);
    }
    check_parent(path)?;
    builder(0o777).tempdir_in(parent(path))
}

/// Checks that a folder can be written at `path`, with room for a small file. Nothing is left
/// behind.
pub(super) fn try_folder(path: &Path) -> io::Result<()> {
    let folder = folder_for(&target(path)?)?;
    fs::write(folder.path().join("room"), vec![0; ROOM])
}

/// Fails if `path` exists and is not an empty folder.
pub(super) fn check_folder(path: &Path) -> Result<(), MediaError> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(MediaError::Write { path: path.into(), source }),
    };
    if entries.next().is_some() { Err(MediaError::FolderNotEmpty(path.into())) } else { Ok(()) }
}

/// Makes temporary files and folders with the permissions `mode` less the umask, as a user's own
/// files have. The default of `tempfile` would be private to the user.
fn builder(mode: u32) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ditscope-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}
