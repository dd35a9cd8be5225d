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

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

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
    let mut texts = Texts::new();
    for path in files(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match text(&path) {
            Ok(text) => texts.insert(name, Ok(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => None,
            Err(error) => texts.insert(name, Err(format!("cannot be read: {error}"))),
        };
    }
    Ok(texts)
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
