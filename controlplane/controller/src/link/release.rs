//! Which releases talk to each other: those of one major version, one minor version apart at most.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A release, as `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Release {
    major: u32,
    minor: u32,
    patch: u32,
}

/// Text that is no release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no release: expected major.minor.patch, as in 0.1.0")]
pub struct NoRelease(String);

impl Release {
    /// Ours.
    #[must_use]
    pub fn ours() -> Self {
        // Cargo's own format; the test below reads it.
        env!("CARGO_PKG_VERSION").parse().unwrap_or(Self { major: 0, minor: 0, patch: 0 })
    }

    /// `major.minor.patch`.
    #[must_use]
    pub fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether the two understand each other: of messages, both use what the older knows.
    #[must_use]
    pub fn talks_to(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

impl FromStr for Release {
    type Err = NoRelease;

    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let fail = || NoRelease(text.chars().take(64).collect());
        // What follows a dash or a plus names a build, and changes nothing.
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse::<u32>);
        let mut next = || parts.next().and_then(Result::ok).ok_or_else(fail);
        let release = Self { major: next()?, minor: next()?, patch: next()? };
        match parts.next() {
            None => Ok(release),
            Some(_) => Err(fail()),
        }
    }
}

impl TryFrom<String> for Release {
    type Error = NoRelease;

    fn try_from(text: String) -> Result<Self, NoRelease> {
        text.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> Self {
        release.to_string()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_apart_is_near_enough() {
        for (one, other, talk) in [
            ("0.1.0", "0.1.9", true),
            ("0.1.0", "0.2.0", true),
            ("0.2.0", "0.1.0", true),
            ("0.1.0", "0.3.0", false),
            ("1.1.0", "0.1.0", false),
            ("1.0.0", "0.1.0", false),
            ("0.1.0-rc.1", "0.2.3+build", true),
        ] {
            let (a, b): (Release, Release) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(a.talks_to(b), talk, "{one} and {other}");
            assert_eq!(b.talks_to(a), talk, "{other} and {one}");
        }
        assert_eq!(Release::ours().to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for text in ["", "1", "1.2", "1.2.x", "1.2.3.4", "-1.2.3", "99999999999.1.1"] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
    }
}
