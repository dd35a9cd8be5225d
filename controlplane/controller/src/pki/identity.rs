//! Which Box a certificate is of: a URI among its names, `penstock:box:<name>:<incarnation>`.

use std::fmt;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Unusable;

/// Clocks may differ by so much: a certificate is good from so long before it is made.
pub(super) const SKEW: Duration = Duration::from_secs(3600);

const PREFIX: &str = "penstock:box:";

/// A Box, and which one of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    name: String,
    incarnation: String,
}

/// What a certificate says of its box and of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Whose it is.
    pub identity: Identity,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// From when it is good.
    pub from: SystemTime,
    /// Until when it is good.
    pub until: SystemTime,
}

impl Identity {
    /// The Box `name`, the one that `incarnation` (a uid, or the time of creation where there are none) tells from
    /// others of the name.
    ///
    /// # Errors
    /// For what cannot be the name of an object, or the incarnation of one.
    pub fn new(name: &str, incarnation: &str) -> Result<Self, Unusable> {
        check_name(name)?;
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "-:.+".contains(c));
        if incarnation.is_empty() || incarnation.len() > 64 || incarnation.contains(odd) {
            return Err(Unusable(format!("Box {name}: {incarnation:?} is no uid")));
        }
        Ok(Self { name: name.to_owned(), incarnation: incarnation.to_owned() })
    }

    /// The Box's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which Box of that name.
    #[must_use]
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// It, as certificates have it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{PREFIX}{}:{}", self.name, self.incarnation)
    }

    fn from_uri(uri: &str) -> Option<Self> {
        let (name, incarnation) = uri.strip_prefix(PREFIX)?.split_once(':')?;
        Self::new(name, incarnation).ok()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether a Box may have this name: as any object without a namespace.
///
/// # Errors
/// With the value and what is allowed.
pub fn check_name(name: &str) -> Result<(), Unusable> {
    let part = |part: &str| {
        let odd = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        !part.is_empty() && !part.contains(odd) && !part.starts_with('-') && !part.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(part) {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    let message =
        format!("{shown:?} is no name of a Box: use lower case letters, digits, `-` and `.`");
    Err(Unusable(message))
}

impl Card {
    /// What a certificate in DER says. Whether it is anything worth is for TLS to say.
    ///
    /// # Errors
    /// For one that is not a box's.
    pub fn of(certificate: &[u8]) -> Result<Self, Unusable> {
        let parsed = X509Certificate::from_der(certificate);
        let (_, parsed) = parsed.map_err(|error| Unusable::because("no certificate", error))?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|names| &names.value.general_names);
        let mut boxes = names.filter_map(|name| match name {
            GeneralName::URI(uri) => Identity::from_uri(uri),
            _ => None,
        });
        let (Some(identity), None) = (boxes.next(), boxes.next()) else {
            return Err(Unusable("the certificate is not one box's".into()));
        };
        let validity = parsed.validity();
        let time = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        Ok(Self {
            identity,
            serial: format!("{:x}", parsed.serial),
            from: time(validity.not_before.timestamp()),
            until: time(validity.not_after.timestamp()),
        })
    }

    /// When to ask for another: at six tenths of its time, so before two thirds have passed.
    #[must_use]
    pub fn renew_at(&self) -> SystemTime {
        let made = self.from + SKEW;
        made + self.until.duration_since(made).unwrap_or_default() * 6 / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_objects() {
        let long = "a".repeat(254);
        for (name, good) in [
            ("edge-1", true),
            ("edge-1.site.example", true),
            ("7", true),
            ("", false),
            ("Edge", false),
            ("a..b", false),
            ("-a", false),
            ("a-", false),
            ("a:b", false),
            ("a/b", false),
            (long.as_str(), false),
        ] {
            assert_eq!(check_name(name).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn an_identity_is_what_its_uri_says() {
        for incarnation in ["5f6c", "2026-01-01T00:00:00Z"] {
            let identity = Identity::new("edge-1", incarnation).unwrap();
            assert_eq!(Identity::from_uri(&identity.uri()), Some(identity));
        }
        for uri in ["penstock:box:a", "penstock:box::x", "penstock:box:a:", "spiffe://a/b"] {
            assert_eq!(Identity::from_uri(uri), None, "{uri}");
        }
        assert!(Identity::new("a", "x y").is_err() && Identity::new("a", "").is_err());
    }
}
