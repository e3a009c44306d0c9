//! Files and folders that appear whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::MediaError;

/// The folder that holds `path`. It is never an empty path, so the system can look it up.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Creates a temporary file in the folder of `path`, which the caller renames to `path`. Fails if
/// `path` exists and is not a file, because renaming would replace a device.
pub(super) fn file_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
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
        let mut file = file_beside(path)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?; // some file systems report a full disk only now
        file.persist(path)?;
        Ok(())
    };
    save().map_err(|source| MediaError::Write { path: path.into(), source })
}

/// Writes the named files into a temporary folder beside `path` and renames it to `path`. An empty
/// folder may exist at `path`.
pub(super) fn folder(path: &Path, files: &[(String, Vec<u8>)]) -> Result<(), MediaError> {
    check_folder(path)?;
    let save = || -> io::Result<()> {
        check_parent(path)?;
        let folder = builder(0o777).tempdir_in(parent(path))?;
        for (name, bytes) in files {
            let mut file = fs::File::create(folder.path().join(name))?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        if path.exists() {
            fs::remove_dir(path)?; // Windows does not rename onto a folder, even an empty one
        }
        fs::rename(folder.path(), path)?;
        let _ = folder.keep(); // the folder has a new name, so there is nothing to clean up
        Ok(())
    };
    save().map_err(|source| MediaError::Write { path: path.into(), source })
}

/// Checks that a folder can be created beside `path`. The folder is removed again.
pub(super) fn try_folder_beside(path: &Path) -> io::Result<()> {
    check_parent(path)?;
    builder(0o777).tempdir_in(parent(path)).map(drop)
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
