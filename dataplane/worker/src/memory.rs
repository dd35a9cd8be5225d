//! Memory files of our own for the flow tables: on hugetlbfs, mapped shared, holding offsets and
//! never pointers, so that a later process can adopt them. EAL's memory plays no part.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use memmap2::{Advice, MmapMut, MmapOptions};

/// `f_type` of a hugetlbfs mount (statfs(2)).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Why the flow memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The directory cannot be asked what it is.
    #[error("{path}: {source}; mount a hugetlbfs there, or leave memory.hugepages out")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is on another file system.
    #[error(
        "{path}: not a hugetlbfs; mount -t hugetlbfs -o uid=penstock-dataplane,mode=0700 none {path}"
    )]
    NotHugetlbfs {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("{path}: {source}; is another data plane running?")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There are not enough free pages.
    #[error(
        "{path}: {bytes} bytes asked: {source}; raise vm.nr_hugepages, or lower flows.capacity"
    )]
    NoPages {
        /// The file, or "memory".
        path: PathBuf,
        /// Bytes asked.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
}

/// Zeroed, populated memory of at least `bytes` bytes for the life of the process.
///
/// With a directory it is a file `name` on that hugetlbfs, locked so that no second data plane maps
/// it; without one it is anonymous memory, on large pages as far as the kernel has any just now.
///
/// # Errors
/// [`MemoryError`], before any page is lost at run time: all pages are taken here.
pub fn take(
    directory: Option<&Path>,
    name: &str,
    bytes: usize,
) -> Result<&'static mut [u8], MemoryError> {
    let map = match directory {
        Some(directory) => map_file(directory, name, bytes)?,
        None => map_anonymous(bytes).map_err(|source| MemoryError::NoPages {
            path: "memory".into(),
            bytes,
            source,
        })?,
    };
    Ok(&mut Box::leak(Box::new(map))[..bytes])
}

fn map_anonymous(bytes: usize) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes)?;
    let _ = map.advise(Advice::HugePage); // a kernel without them has ordinary pages
    map.advise(Advice::PopulateWrite)?;
    Ok(map)
}

fn map_file(directory: &Path, name: &str, bytes: usize) -> Result<MmapMut, MemoryError> {
    let stat = rustix::fs::statfs(directory).map_err(|errno| MemoryError::Directory {
        path: directory.to_owned(),
        source: errno.into(),
    })?;
    if stat.f_type as u64 & 0xffff_ffff != HUGETLBFS_MAGIC {
        return Err(MemoryError::NotHugetlbfs { path: directory.to_owned() });
    }
    let path = directory.join(name);
    let page = stat.f_bsize as usize;
    let bytes = bytes.next_multiple_of(page);
    let file = new_locked_file(&path)
        .map_err(|source| MemoryError::File { path: path.clone(), source })?;
    let no_pages = |source| MemoryError::NoPages { path: path.clone(), bytes, source };
    file.set_len(bytes as u64).map_err(no_pages)?;
    let map = map_shared(&file, bytes).map_err(no_pages)?;
    std::mem::forget(file); // the lock lives as long as the process
    Ok(map)
}

fn new_locked_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    file.set_len(0)?; // what an earlier process left goes back as free pages
    Ok(file)
}

#[expect(unsafe_code, reason = "mapping a file is only sound while nobody else changes it")]
fn map_shared(file: &File, bytes: usize) -> io::Result<MmapMut> {
    // SAFETY: the file is ours alone: mode 0600 in a mount of our own user, locked against a second
    // data plane, of this length, and never shortened by us after this point.
    unsafe { MmapOptions::new().len(bytes).populate().map_mut(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_memory_is_zeroed() {
        let memory = take(None, "flows.0", 8192).unwrap();
        assert_eq!(memory.len(), 8192);
        assert!(memory.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_directory_that_is_no_hugetlbfs_is_refused_with_the_mount_to_make() {
        let directory = tempfile::tempdir().unwrap();
        let error = take(Some(directory.path()), "flows.0", 8192).unwrap_err();
        assert!(error.to_string().contains("mount -t hugetlbfs"), "{error}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = take(Some(Path::new("/nonexistent/hugepages")), "flows.0", 1).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/hugepages: "), "{error}");
    }
}
