//! The last committed state on disk, so that a data plane serves after a restart with nobody to ask.
//!
//! ```text
//!   "PNSTK-ST" | format version | 0 | generation | digest | length of the records | checksum
//!   records, as in the ring: what leads from nothing to the state
//! ```
//! Only its owner can read it. A save goes to a file beside it, is synced, renamed over the old one, and the directory is
//! synced: after a power cut there is the old file or the new one. A load checks the checksum, the
//! records, the limits, the digest, and [`State::check`]; a file that fails any of it is refused by
//! name and moved aside to `NAME.damaged`, where a person can look at it.

mod saver;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::decode::decode;
use crate::digest::Digest;
use crate::encode::encode;
use crate::model::State;
use crate::record::Record;
use crate::tracked::Tracked;

pub use saver::Saver;

const MAGIC: [u8; 8] = *b"PNSTK-ST";
const FORMAT: u32 = 1;

/// Larger than the largest state within the limits.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// A file that holds one state, or does not exist yet.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

/// What went wrong with a state file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// The kernel refused something.
    #[error("state file {}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or its directory.
        path: PathBuf,
        /// What we were about to do.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is not what was written. It has been moved.
    #[error(
        "state file {}: {reason}; it is kept as {} and not used: the control plane will send everything",
        path.display(), set_aside.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it is now.
        set_aside: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 8],
    format: U32,
    zero: U32,
    generation: U64,
    digest: U128,
    length: U64,
    checksum: U128, // of the header up to here, and the records
}

const CHECKSUM_BYTES: usize = size_of::<U128>();

impl StateFile {
    /// The state file at `path`, whose directory must exist.
    ///
    /// # Errors
    /// [`StateFileError::Io`] if it does not.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateFileError> {
        let file = Self { path: path.into() };
        let directory = file.directory();
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => Ok(file),
            Ok(_) => Err(file.error(directory, "use it", io::ErrorKind::NotADirectory.into())),
            Err(source) => Err(file.error(directory, "use its directory", source)),
        }
    }

    /// The path given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state that was last saved and its generation; `None` if none ever was.
    ///
    /// # Errors
    /// [`StateFileError::Damaged`] if the file is not as it was written; it has then been moved
    /// aside, and the next load gives `None`.
    pub fn load(&self) -> Result<Option<(u64, Arc<State>)>, StateFileError> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.error(&self.path, "open it", source)),
            Ok(file) => {
                let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
                read.map_err(|source| self.error(&self.path, "read it", source))?;
            }
        }
        match decode_file(&bytes) {
            Ok((generation, state)) => Ok(Some((generation, state))),
            Err(reason) => Err(self.set_aside(reason)),
        }
    }

    /// Replaces the file by one that holds `state`. Takes two syncs of the disk.
    ///
    /// # Errors
    /// [`StateFileError::Io`]; the old file is then still whole.
    pub fn save(&self, generation: u64, state: &Arc<State>) -> Result<(), StateFileError> {
        let temporary = self.beside("new");
        let bytes = encode_file(generation, state);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600) // the L7 tier's holds keys
            .open(&temporary)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(|source| self.error(&temporary, "write it", source))?;
        fs::rename(&temporary, &self.path)
            .map_err(|source| self.error(&self.path, "replace it", source))?;
        File::open(self.directory())
            .and_then(|directory| directory.sync_all())
            .map_err(|source| self.error(self.directory(), "sync its directory", source))
    }

    fn set_aside(&self, reason: String) -> StateFileError {
        let set_aside = self.beside("damaged");
        match fs::rename(&self.path, &set_aside) {
            Ok(()) => StateFileError::Damaged { path: self.path.clone(), set_aside, reason },
            Err(source) => self.error(&self.path, "move the damaged file aside", source),
        }
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(extension);
        name.into()
    }

    fn error(&self, path: &Path, action: &'static str, source: io::Error) -> StateFileError {
        StateFileError::Io { path: path.into(), action, source }
    }
}

/// The bytes of a file that holds `state`.
pub fn encode_file(generation: u64, state: &Arc<State>) -> Vec<u8> {
    let mut records = Vec::new();
    for change in State::default().diff(state) {
        encode(&Record::Change(change), &mut records);
    }
    seal(generation, Tracked::of(Arc::clone(state)).digest(), &records)
}

/// Puts the header with its checksum before `records`, whatever they are.
pub fn seal(generation: u64, digest: Digest, records: &[u8]) -> Vec<u8> {
    let mut header = FileHeader {
        magic: MAGIC,
        format: U32::new(FORMAT),
        zero: U32::ZERO,
        generation: U64::new(generation),
        digest: U128::new(digest.to_bits()),
        length: U64::new(records.len() as u64),
        checksum: U128::ZERO,
    };
    header.checksum = U128::new(checksum(&header, records));
    [header.as_bytes(), records].concat()
}

fn checksum(header: &FileHeader, records: &[u8]) -> u128 {
    let header = header.as_bytes();
    let summed = &header[..header.len() - CHECKSUM_BYTES];
    xxh3_128(&[summed, records].concat())
}

/// The state and generation in the bytes of a file. Total over any bytes.
///
/// # Errors
/// What is wrong with them, in words.
pub fn decode_file(bytes: &[u8]) -> Result<(u64, Arc<State>), String> {
    let (header, mut records) = FileHeader::read_from_prefix(bytes)
        .map_err(|_| format!("{} bytes are no state file", bytes.len()))?;
    if header.magic != MAGIC {
        return Err("it does not begin like a state file".into());
    }
    if header.format.get() != FORMAT {
        return Err(format!("its format is {}, this program reads {FORMAT}", header.format));
    }
    if header.length.get() != records.len() as u64 {
        return Err(format!("{} bytes of records of {}", records.len(), header.length));
    }
    if header.checksum.get() != checksum(&header, records) {
        return Err("its checksum is wrong".into());
    }
    let mut tracked = Tracked::default();
    while !records.is_empty() {
        let at = bytes.len() - records.len();
        let (record, rest) = decode(records).map_err(|error| format!("at byte {at}: {error}"))?;
        let Record::Change(change) = record else {
            return Err(format!("at byte {at}: a record that describes no object"));
        };
        tracked.apply(change).map_err(|error| format!("at byte {at}: {error}"))?;
        records = rest;
    }
    if tracked.digest() != Digest::from_bits(header.digest.get()) {
        return Err(format!("its digest is {}, its objects have another", header.digest));
    }
    match tracked.state().check().first() {
        Some(error) => Err(error.to_string()),
        None => Ok((header.generation.get(), Arc::clone(tracked.state()))),
    }
}

#[cfg(test)]
mod tests;
