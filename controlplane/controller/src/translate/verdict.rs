//! What we answer about an object, before anyone asks when.
//!
//! A [`Verdict`] is a condition without its times: `translate` is pure, and stamping is left to
//! [`crate::status`].

use std::fmt;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the API")]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    /// The word as the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// A condition: type, status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `Accepted`, `ResolvedRefs`, `Programmed`, …
    pub type_: &'static str,
    /// Whether it holds.
    pub status: Truth,
    /// One word of the API's for why.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Verdict {
    /// A condition that holds.
    #[must_use]
    pub fn holds(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, status: Truth::True, reason, message: message.into() }
    }

    /// A condition that does not hold.
    #[must_use]
    pub fn fails(type_: &'static str, refusal: Refusal) -> Self {
        Self { type_, status: Truth::False, reason: refusal.reason, message: refusal.message }
    }
}

/// Why something is refused: a reason of the API's and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as the API spells it.
    pub reason: &'static str,
    /// The value, what is wrong with it, and the next move.
    pub message: String,
}

impl Refusal {
    /// Refuses for `reason`.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
