//! What is wrong with a file or an object, and where.

use std::fmt;

use serde::Serialize;

use crate::object::ObjectKey;
use crate::yaml::Place;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not served, or not as written.
    Error,
    /// Everything is served, but the author probably meant something else.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One thing that is wrong.
///
/// Displayed as compilers do, `web.yaml:12:9: error: Gateway default/web: …`, which editors understand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, as it was named to us; empty if the finding is about no file.
    pub file: String,
    /// Where in the file.
    pub place: Option<Place>,
    /// How bad it is.
    pub severity: Severity,
    /// The object, where it is known.
    pub object: Option<ObjectKey>,
    /// The value, what is wrong with it, and the next move.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if let Some(place) = self.place {
                write!(f, ":{place}")?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}: ", self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.message)
    }
}
