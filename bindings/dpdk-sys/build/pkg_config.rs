//! What pkg-config says of libdpdk, read whole.
//!
//! The crate of that name drops `-include rte_config.h` and `-march=…`, without which the inline
//! functions of the shim are compiled for another machine than the library; so we ask ourselves.

use std::env;
use std::fmt;
use std::process::Command;

/// The oldest release whose names and layouts these bindings know.
pub(crate) const OLDEST: Release = Release { year: 22, month: 11 };

const MISSING: &str = "libdpdk ≥ 22.11 not found by pkg-config: apt-get install libdpdk-dev (Debian 12), or set PKG_CONFIG_PATH";

/// A DPDK release is named for the month it came out in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    year: u32,
    month: u32,
}

impl Release {
    fn parse(version: &str) -> Option<Self> {
        let mut parts = version.split(['.', '-']);
        let year = parts.next()?.parse().ok()?;
        let month = parts.next()?.parse().ok()?;
        Some(Self { year, month })
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.year, self.month)
    }
}

/// The installed libdpdk.
#[derive(Debug)]
pub(crate) struct Libdpdk {
    /// As pkg-config spells it, for instance `22.11.11`.
    pub(crate) version: String,
    /// What anything that reads its headers must be given.
    pub(crate) cflags: Vec<String>,
}

impl Libdpdk {
    pub(crate) fn find() -> Result<Self, String> {
        for name in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR"]
        {
            println!("cargo::rerun-if-env-changed={name}");
        }
        let version = ask(&["--modversion"])?.concat();
        match Release::parse(&version) {
            Some(release) if release >= OLDEST => {}
            _ => {
                return Err(format!(
                    "libdpdk {version} is too old, {OLDEST} or later is needed: point PKG_CONFIG_PATH at a newer one"
                ));
            }
        }
        let mut cflags = ask(&["--cflags"])?;
        cflags.push("-D_GNU_SOURCE".to_owned()); // as DPDK itself is built, for CPU sets
        Ok(Self { version, cflags })
    }
}

/// The words pkg-config answers for libdpdk.
pub(crate) fn ask(question: &[&str]) -> Result<Vec<String>, String> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let answer = Command::new(&program).args(question).arg("libdpdk").output();
    let answer = answer.map_err(|failed| {
        format!("{program}: {failed}: apt-get install pkg-config libdpdk-dev (Debian 12)")
    })?;
    if !answer.status.success() {
        return Err(match question {
            ["--modversion"] => MISSING.to_owned(),
            _ => format!("{program} {} libdpdk: {}", question.join(" "), one_line(&answer.stderr)),
        });
    }
    Ok(words(&String::from_utf8_lossy(&answer.stdout)))
}

/// Cargo takes one line for an error.
fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Splits as a shell would: pkg-config escapes blanks inside a word with a backslash.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => word.extend(letters.next()),
            blank if blank.is_whitespace() => words.extend(take_word(&mut word)),
            other => word.push(other),
        }
    }
    words.extend(take_word(&mut word));
    words
}

fn take_word(word: &mut String) -> Option<String> {
    (!word.is_empty()).then(|| std::mem::take(word))
}
