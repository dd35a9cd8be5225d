//! `pattern`: a file whose every byte is known from its offset, so that a download can be checked
//! without a second copy to compare it with.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

/// Write a file whose every byte follows from its offset
#[derive(Args)]
pub(crate) struct Arguments {
    /// The file to write
    file: PathBuf,
    /// Its length
    #[arg(long, default_value_t = 64 << 20)]
    bytes: u64,
}

/// The byte at `offset`: of the eight-byte word it is in, the word's number times an odd constant,
/// so that neither a shift by any distance nor a repeated packet goes unseen.
pub(crate) fn byte_at(offset: u64) -> u8 {
    let word = (offset / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes()[(offset % 8) as usize]
}

pub(crate) fn write(arguments: &Arguments) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(&arguments.file)?);
    for offset in 0..arguments.bytes {
        file.write_all(&[byte_at(offset)])?;
    }
    file.flush()
}

/// Where `bytes`, which begin at `offset` of the file, first differ from it.
pub(crate) fn first_difference(bytes: &[u8], offset: u64) -> Option<u64> {
    (offset..).zip(bytes).find(|&(at, &byte)| byte_at(at) != byte).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_lost_or_changed_byte_is_found() {
        let good: Vec<u8> = (100..3000).map(byte_at).collect();
        assert_eq!(first_difference(&good, 100), None);
        assert!(first_difference(&good, 108).is_some(), "shifted by a word");
        assert!(first_difference(&good, 1100).is_some(), "repeated");
        let mut changed = good;
        changed[2000] ^= 1;
        assert_eq!(first_difference(&changed, 100), Some(2100));
    }
}
