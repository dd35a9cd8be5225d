//! Files that a reader sees whole: written beside, then renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` by `bytes` at once. Enough for `/run`, which does not outlive the machine.
///
/// # Errors
/// The file system's, with the path.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, false).map_err(|error| named(path, &error))
}

/// Replaces `path` by `bytes` at once, so that it also survives a loss of power: file and folder are synced.
/// Our user alone can read it, since what is kept may hold Secrets.
///
/// # Errors
/// The file system's, with the path.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, true).map_err(|error| named(path, &error))
}

/// What `decode` makes of the bytes at `path`; the default if nothing was saved there yet.
///
/// # Errors
/// The file system's, or [`io::ErrorKind::InvalidData`] for a file that is not ours: both with the path.
pub(crate) fn read<T: Default>(
    path: &Path,
    decode: impl FnOnce(&[u8]) -> Result<T, String>,
) -> io::Result<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(named(path, &error)),
    };
    decode(&bytes).map_err(|fault| {
        let message = format!("{}: {fault}: remove it to start anew", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

fn replace(path: &Path, bytes: &[u8], durably: bool) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let beside = path.with_file_name(hidden);
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    if durably {
        options.mode(0o600);
    }
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    if durably {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) if durably => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// `error`, with the path it is about.
pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
