//! A folder of files, as `/etc/penstock/routes.d` is: what is in it, and when it changed.
//!
//! Files end in `.yaml`, `.yml` or `.json`; hidden files are not read, nor the temporary and backup files of
//! editors, which have other endings. Symbolic links are followed, so that a mounted ConfigMap works. What
//! bears such a name and cannot be read (a folder, a pipe, a link to nothing) is reported, not passed over.
//!
//! A change is read when it has settled ([`Settle`]): a rename is whole at once, a file being written is not
//! until its writer closes it. Events may get lost, so [`Watch`] only says "look again", and the control
//! process looks by itself now and then.

mod settle;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use settle::{Change, Settle};
pub use watch::Watch;

/// The most that one file may hold: EndpointSlices of half a million endpoints.
pub const MOST_BYTES: u64 = 64 << 20;

/// The files of a folder by name: the text of each, or why it cannot be read.
pub type Texts = BTreeMap<String, Result<String, String>>;

/// The files of `folder` that hold objects, sorted by name.
///
/// # Errors
/// The file system's, if the folder cannot be listed.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if holds_objects(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads the files of `folder`. One that went while we looked is not among them.
///
/// # Errors
/// The file system's, if the folder cannot be listed; it is then not known whether files went.
pub fn read(folder: &Path) -> io::Result<Texts> {
    Ok(Reader::default().read(folder)?.0)
}

/// Reads a folder again and again, and of each file only what may have changed.
#[derive(Debug, Default)]
pub struct Reader {
    known: BTreeMap<String, Print>,
}

/// What changes with a file's text, as the file system has it, and whether it is old enough to be told from what comes
/// next: two writes within a tick of the clock look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Print {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    is_settled: bool,
}

/// A file that changed so recently may yet change unseen.
const UNSETTLED_SECONDS: i64 = 2;

impl Print {
    fn of(path: &Path, now: SystemTime) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed,
            is_settled: i64::try_from(now).ok()? - changed.0 > UNSETTLED_SECONDS,
        })
    }
}

impl Reader {
    /// Reads every file anew the next time.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// Reads the files of `folder` that may have changed, as [`read`] does; and the names of the others.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(&mut self, folder: &Path) -> io::Result<(Texts, BTreeSet<String>)> {
        self.read_at(folder, SystemTime::now())
    }

    fn read_at(&mut self, folder: &Path, now: SystemTime) -> io::Result<(Texts, BTreeSet<String>)> {
        let (mut texts, mut same) = (Texts::new(), BTreeSet::new());
        let mut known = BTreeMap::new();
        for path in files(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let print = Print::of(&path, now); // before the text, so that a change in between is seen the next time
            if let Some(print) = print.filter(|print| self.known.get(&name) == Some(print)) {
                known.insert(name.clone(), print);
                same.insert(name);
                continue;
            }
            let Some(text) = text_of(&path) else { continue };
            if let (Ok(_), Some(print)) = (&text, print.filter(|print| print.is_settled)) {
                known.insert(name.clone(), print);
            }
            texts.insert(name, text);
        }
        self.known = known;
        Ok((texts, same))
    }
}

/// The text of a file, or why it cannot be read; `None` for one that is gone.
fn text_of(path: &Path) -> Option<Result<String, String>> {
    match text(path) {
        Ok(text) => Some(Ok(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => None,
        Err(error) => Some(Err(format!("cannot be read: {error}"))),
    }
}

/// Reads one file, within [`MOST_BYTES`].
///
/// # Errors
/// The file system's; [`io::ErrorKind::InvalidData`] if it is no UTF-8, and
/// [`io::ErrorKind::FileTooLarge`].
pub fn text(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other(
            "it is a folder, and only files are read: move its files here",
        ));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        let message = format!("it is larger than {} MiB: split it", MOST_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Whether a file's name says that it holds objects.
fn holds_objects(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let ending = path.extension().and_then(|ending| ending.to_str());
    !hidden && matches!(ending, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_files_that_an_operator_meant_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b.yaml",
            "a.yml",
            "c.json",
            ".hidden.yaml",
            "d.yaml~",
            "e.yaml.swp",
            "#f.yaml#",
            "g.txt",
            "4913",
        ] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        fs::create_dir(folder.path().join("below")).unwrap();
        symlink("b.yaml", folder.path().join("link.yaml")).unwrap();
        let texts = read(folder.path()).unwrap();
        assert_eq!(texts.keys().collect::<Vec<_>>(), ["a.yml", "b.yaml", "c.json", "link.yaml"]);
    }

    #[test]
    fn a_file_is_read_again_when_it_may_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let now = SystemTime::now();
        let (old, later) = (now - Duration::from_secs(60), now + Duration::from_secs(60));
        let put = |name: &str, text: &str| {
            fs::write(path(name), text).unwrap();
            File::options().append(true).open(path(name)).unwrap().set_modified(old).unwrap();
        };
        put("a.yaml", "1");
        put("b.yaml", "2");
        let mut reader = Reader::default();
        let mut read = |now| {
            let (texts, same) = reader.read_at(folder.path(), now).unwrap();
            let texts = texts.into_iter().map(|(name, text)| name + "=" + &text.unwrap());
            [texts.collect(), same.into_iter().collect::<Vec<_>>()].map(|names| names.join(" "))
        };
        let all = "a.yaml=1 b.yaml=2";
        assert_eq!(read(now), [all, ""]);
        assert_eq!(read(now), [all, ""], "too young to be told from what may come next");
        assert_eq!(read(later), [all, ""], "once more, and then they are known");
        assert_eq!(read(later), ["", "a.yaml b.yaml"]);
        put("a.yaml", "3");
        assert_eq!(read(later), ["a.yaml=3", "b.yaml"], "of the same size and time, and another");
        fs::remove_file(path("b.yaml")).unwrap();
        assert_eq!(read(later), ["", "a.yaml"], "and gone is gone");
    }

    #[test]
    fn what_only_bears_the_name_of_a_file_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("folder.yaml")).unwrap();
        for (name, target) in [("device", "/dev/null"), ("loop", "loop.yaml"), ("loose", "nowhere")]
        {
            symlink(target, folder.path().join(format!("{name}.yaml"))).unwrap();
        }
        let texts = read(folder.path()).unwrap();
        for (name, expected) in [
            ("folder.yaml", "it is a folder, and only files are read: move its files here"),
            ("device.yaml", "it is no regular file"),
            ("loop.yaml", "Too many levels of symbolic links"),
            ("loose.yaml", "No such file or directory"),
        ] {
            let error = texts[name].as_ref().unwrap_err();
            assert!(
                error.starts_with("cannot be read: ") && error.contains(expected),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported_and_not_taken_for_gone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
        let texts = read(folder.path()).unwrap();
        assert!(texts["a.yaml"].as_ref().is_err_and(|error| error.contains("cannot be read")));
        read(&folder.path().join("nowhere")).expect_err("a folder that is not there is an error");
    }
}
