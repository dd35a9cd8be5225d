//! What a box keeps of controllers: the last good bundle, and the highest epoch it was told of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::link::message::{Delivery, Message};
use crate::link::{Bundle, Contents};
use crate::whole_file;

/// The bundle in force, as it came.
#[derive(Clone, Debug)]
pub struct Kept {
    file: PathBuf,
}

impl Kept {
    /// In `state_dir`.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        Self { file: state_dir.join("bundle") }
    }

    /// The last good bundle and what it says; `None` if there is none yet.
    ///
    /// # Errors
    /// The file system's, or [`io::ErrorKind::InvalidData`] for a file that is not ours: both with the path.
    pub fn load(&self) -> io::Result<Option<(Bundle, Contents)>> {
        whole_file::read(&self.file, |bytes| {
            let message = Message::decode(BUNDLE, bytes).map_err(|fault| fault.to_string())?;
            let Some(Message::Bundle(Delivery { bundle, .. })) = message else {
                return Err("it is no bundle".to_owned());
            };
            let contents = bundle.contents().map_err(|fault| fault.to_string())?;
            Ok(Some((bundle, contents)))
        })
    }

    /// Keeps a bundle, whole or not at all, for our user alone. Costs two syncs of the disk.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn save(&self, bundle: &Bundle) -> io::Result<()> {
        let message = Message::Bundle(Delivery { epoch: 0, bundle: bundle.clone() });
        let (_, head, packed) = message.encode();
        whole_file::write_durably(&self.file, &[&head, packed].concat())
    }
}

/// The kind of the frame, which the file is the payload of.
const BUNDLE: u8 = 4;

/// The highest epoch that we were told of. What we obey is on disk first.
#[derive(Debug)]
pub struct Epochs {
    file: PathBuf,
    highest: u64,
}

impl Epochs {
    /// As kept in `state_dir`.
    ///
    /// # Errors
    /// The file system's, or [`io::ErrorKind::InvalidData`] for a file that is not ours: both with the path.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let file = state_dir.join("epoch");
        let highest = whole_file::read(&file, |bytes| {
            let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
            text.trim().parse::<u64>().map_err(|error| error.to_string())
        })?;
        Ok(Self { file, highest })
    }

    /// The highest.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Takes in the epoch of a controller that wants something. Whoever removed the file let all begin anew.
    ///
    /// # Errors
    /// If a later one was seen, or this one cannot be kept: then the controller is not to be obeyed.
    pub fn meet(&mut self, epoch: u64) -> Result<(), String> {
        if epoch < self.highest && fs::exists(&self.file).unwrap_or(true) {
            return Err(format!(
                "its epoch {epoch} is before {}, which was seen already: another controller leads, or the cluster was \
                 restored from a backup: then remove {}",
                self.highest,
                self.file.display()
            ));
        }
        if epoch != self.highest {
            let text = format!("{epoch}\n");
            whole_file::write_durably(&self.file, text.as_bytes())
                .map_err(|error| format!("its epoch cannot be kept: {error}"))?;
            self.highest = epoch;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_good_bundle_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path());
        assert!(kept.load().unwrap().is_none());
        let bundle = Bundle::pack(3, &Contents::default().body()).unwrap();
        kept.save(&bundle).unwrap();
        assert_eq!(kept.load().unwrap(), Some((bundle.clone(), Contents::default())));
        let path = folder.path().join("bundle");
        let whole = fs::read(&path).unwrap();
        for cut in [0, 3, 20, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = kept.load().unwrap_err().to_string();
            assert!(error.contains("bundle") && error.contains("remove it"), "{cut}: {error}");
        }
    }

    #[test]
    fn a_lower_epoch_is_not_obeyed_over_restarts_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut epochs = Epochs::open(folder.path()).unwrap();
        for (epoch, obeyed) in [(5, true), (5, true), (4, false), (9, true), (8, false)] {
            assert_eq!(epochs.meet(epoch).is_ok(), obeyed, "{epoch}");
        }
        let mut epochs = Epochs::open(folder.path()).unwrap();
        assert_eq!(epochs.highest(), 9);
        assert!(epochs.meet(8).unwrap_err().contains("remove"));
        fs::remove_file(folder.path().join("epoch")).unwrap();
        assert_eq!(epochs.meet(2), Ok(()), "an operator said so");
        assert_eq!(Epochs::open(folder.path()).unwrap().highest(), 2);
        fs::write(folder.path().join("epoch"), "x").unwrap();
        assert!(Epochs::open(folder.path()).is_err());
    }
}
