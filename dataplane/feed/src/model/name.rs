//! The key of an object.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The name of an object: 1 to 600 bytes of printable UTF-8, such as `default/web/http`.
///
/// It stays the same over restarts of the control plane, since it is what tells a changed object
/// from a new one. Cloning is a reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name in bytes: two Kubernetes names of 253 and room for a few short words.
    pub const MAX_BYTES: usize = 600;

    /// # Errors
    /// [`BadName`] if `text` is empty, longer than [`Self::MAX_BYTES`], or holds a control
    /// character.
    pub fn new(text: &str) -> Result<Self, BadName> {
        match text.len() {
            0 => Err(BadName::Empty),
            len if len > Self::MAX_BYTES => Err(BadName::TooLong { len }),
            _ => match text.char_indices().find(|(_, c)| c.is_control()) {
                Some((at, character)) => Err(BadName::Control { at, character }),
                None => Ok(Self(text.into())),
            },
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Name {
    type Error = BadName;

    fn try_from(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

/// Why a text is no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// It is empty.
    #[error("a name is empty: give it at least one character")]
    Empty,
    /// It is too long.
    #[error("a name of {len} bytes is too long: at most {} are allowed", Name::MAX_BYTES)]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It holds a character that does not print.
    #[error(
        "a name holds the control character {character:?} at byte {at}: only printable text is allowed"
    )]
    Control {
        /// Where.
        at: usize,
        /// Which.
        character: char,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_printable_text() {
        let longest = "x".repeat(Name::MAX_BYTES);
        let too_long = "x".repeat(Name::MAX_BYTES + 1);
        for (text, expected) in [
            ("default/web/http", Ok(())),
            ("größe", Ok(())),
            (longest.as_str(), Ok(())),
            ("", Err(BadName::Empty)),
            (too_long.as_str(), Err(BadName::TooLong { len: 601 })),
            ("a\nb", Err(BadName::Control { at: 1, character: '\n' })),
            ("a\u{0}", Err(BadName::Control { at: 1, character: '\0' })),
        ] {
            assert_eq!(Name::new(text).map(|_| ()), expected, "{text:?}");
        }
    }
}
