//! A file seen as a slice of 64-bit atomics: the one `unsafe` of the statistics.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// Bytes of a word.
pub(super) const WORD: usize = size_of::<AtomicU64>();

/// A shared mapping of a whole file.
pub(super) struct Mapping {
    raw: MmapRaw,
    words: usize,
}

impl Mapping {
    /// Maps `words` words of `file` for reading and writing.
    pub(super) fn writable(file: &File, words: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(words * WORD).map_raw(file)?;
        Ok(Self { raw, words })
    }

    /// Maps the first `words` words of `file` for reading; the caller saw that the file has them.
    pub(super) fn read_only(file: &File, words: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(words * WORD).map_raw_read_only(file)?;
        Ok(Self { raw, words })
    }

    /// All words. Through a read-only mapping only `Relaxed` loads are allowed.
    pub(super) fn words(&self) -> &[AtomicU64] {
        let start = self.raw.as_ptr().cast::<AtomicU64>();
        #[expect(unsafe_code, reason = "memory shared with another process, seen as atomics")]
        // SAFETY: `start` is the start of a mapping, hence page-aligned and not null, of
        // `words * WORD` bytes, and it lives as long as `self`, to which the slice is bound. Any bytes
        // are a valid `AtomicU64`. All access by us and by the other process is by such atomics; the
        // file's owner alone may open it for writing. Both sides keep the rule that the file never
        // shrinks (a new segment is a new file), so that no page behind the mapping goes away. The
        // standard library allows relaxed 8-byte loads on read-only memory, which is what the reader
        // does; the writer's mapping is writable.
        unsafe {
            std::slice::from_raw_parts(start, self.words)
        }
    }
}
