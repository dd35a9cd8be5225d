//! A bundle: everything that a box must know, as one value with one digest.
//!
//! ```text
//!  body, a line of JSON each:   {"listeners": [...]}                       what the controller decided
//!                               {"apiVersion": ..., "kind": ..., ...}     objects, as in a file
//!                               ...
//!  digest                       SHA-256 of the body
//!  packed                       the body, deflated
//! ```
//!
//! Equal configuration is an equal body on every controller: objects come in the order of kinds and names, and
//! nothing in it tells when or by whom it was made. So the digest alone says whether a box must be sent anything.
//!
//! A box translates the objects itself. Two things it must not decide, since it may see a part of the cluster only:
//! which address a Gateway has, and which of several Gateways serves where only one can. The first is said in each
//! Gateway's `status.addresses`, the second by the names of the listeners to serve, in the first line.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::frame;
use crate::object::{self, Kind, Object, Objects};
use crate::schema;

/// The largest body that is taken or made.
pub const MOST_BODY_BYTES: usize = 256 << 20;
/// Room for what goes before the packed body in its frame.
const MOST_PACKED_BYTES: usize = frame::MOST - 4096;

/// What a body hashes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut value = [0; 32];
        value.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(value)
    }
}

/// In hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

/// Its first bytes: enough to tell two apart in a log.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0[..6]))
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let decoded = HEXLOWER.decode(text.as_bytes()).ok();
        let value = decoded.and_then(|bytes| bytes.try_into().ok());
        value.map(Self).ok_or_else(|| "a digest has 64 hexadecimal digits".to_owned())
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// What a bundle says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The objects.
    pub objects: Objects,
    /// The listeners to serve, by their names in the feed: no others, whatever the objects say.
    pub listeners: BTreeSet<String>,
    /// Objects of kinds that this version does not know: they are left out.
    pub unread: usize,
}

/// The first line of a body.
#[derive(Default, Deserialize, Serialize)]
struct Decisions {
    listeners: BTreeSet<String>,
}

/// A bundle, packed.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Its number: of two that one controller made, the higher is the newer.
    pub version: u64,
    /// What its body hashes to.
    pub digest: Digest,
    /// The body, deflated.
    pub packed: Arc<[u8]>,
}

/// What it holds is not for logs: there may be keys in it.
impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, digest, packed } = self;
        let bytes = packed.len();
        write!(f, "Bundle {{ version: {version}, digest: {digest:?}, packed_bytes: {bytes} }}")
    }
}

/// Why a bundle cannot be made or taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It has another digest than it says.
    #[error(
        "the body's digest is {found}, not {said} as it says: it was damaged on the way, and is not taken"
    )]
    Digest {
        /// What the body hashes to.
        found: Digest,
        /// What the bundle says.
        said: Digest,
    },
    /// It is too large.
    #[error(
        "the body has more than {MOST_BODY_BYTES} bytes, or {MOST_PACKED_BYTES} deflated: let the box carry fewer Gateways"
    )]
    TooLarge,
    /// It cannot be unpacked.
    #[error("the body cannot be inflated: {0}")]
    Packed(String),
    /// A line of it does not fit.
    #[error("line {line} of the body: {reason}")]
    Line {
        /// Which, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Contents {
    /// The body. Costs all of it.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let decisions = Decisions { listeners: self.listeners.clone() };
        let mut body = Vec::new();
        // These types have string keys and finite numbers only, and memory takes every write.
        let _ = serde_json::to_writer(&mut body, &decisions);
        for object in self.objects.iter() {
            body.push(b'\n');
            let _ = serde_json::to_writer(&mut body, &object);
        }
        body
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`BundleError::Line`] for the first line that does not fit: then none of it is taken.
    pub fn read(body: &[u8]) -> Result<Self, BundleError> {
        let mut lines = body.split(|byte| *byte == b'\n').zip(1..);
        let fail = |line, reason: String| BundleError::Line { line, reason };
        let (first, number) = lines.next().unwrap_or((&[], 1));
        let decisions: Decisions =
            serde_json::from_slice(first).map_err(|error| fail(number, error.to_string()))?;
        let mut contents = Self { listeners: decisions.listeners, ..Self::default() };
        for (line, number) in lines {
            match read_object(line).map_err(|reason| fail(number, reason))? {
                Some(object) => contents.objects.insert(object),
                None => contents.unread += 1,
            }
        }
        Ok(contents)
    }
}

/// The object of a line; `None` if its kind is not ours.
fn read_object(line: &[u8]) -> Result<Option<Object>, String> {
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let text = |key: &str| value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    let known = Kind::ALL.into_iter().find(|it| it.as_str() == kind);
    let Some(kind) = known.filter(|it| it.api_version() == api_version) else { return Ok(None) };
    let object = object::deserialize(kind, value).map_err(|error| format!("{kind}: {error}"))?;
    schema::check(&object)
        .map_err(|fault| format!("{}: {}: {}", object.key(), fault.path, fault.message))?;
    Ok(Some(object))
}

impl Bundle {
    /// Packs a body. Costs a hash and a compression of all of it.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`].
    pub fn pack(version: u64, body: &[u8]) -> Result<Self, BundleError> {
        if body.len() > MOST_BODY_BYTES {
            return Err(BundleError::TooLarge);
        }
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
        let packed = packer.write_all(body).and_then(|()| packer.finish());
        let packed = packed.map_err(|error| BundleError::Packed(error.to_string()))?;
        if packed.len() > MOST_PACKED_BYTES {
            return Err(BundleError::TooLarge);
        }
        Ok(Self { version, digest: Digest::of(body), packed: packed.into() })
    }

    /// The body, which has the digest that the bundle says.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn body(&self) -> Result<Vec<u8>, BundleError> {
        let mut body = Vec::new();
        let mut unpacked = DeflateDecoder::new(&*self.packed).take(MOST_BODY_BYTES as u64 + 1);
        let read = unpacked.read_to_end(&mut body);
        read.map_err(|error| BundleError::Packed(error.to_string()))?;
        if body.len() > MOST_BODY_BYTES {
            return Err(BundleError::TooLarge);
        }
        match (Digest::of(&body), self.digest) {
            (found, said) if found == said => Ok(body),
            (found, said) => Err(BundleError::Digest { found, said }),
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// [`BundleError`]: then none of it is taken.
    pub fn contents(&self) -> Result<Contents, BundleError> {
        Contents::read(&self.body()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;

    fn contents() -> Contents {
        let text = include_str!("../../../../deploy/examples/web.yaml");
        let objects = manifest::read("web.yaml", text).manifests.into_iter().map(|m| m.object);
        Contents {
            objects: objects.collect(),
            listeners: ["default/web/http".to_owned()].into(),
            unread: 0,
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_and_equal_contents_have_one_digest() {
        let bundle = Bundle::pack(7, &contents().body()).unwrap();
        assert_eq!(bundle.contents().unwrap(), contents());
        let again = Bundle::pack(8, &contents().body()).unwrap();
        assert_eq!(again.digest, bundle.digest, "a number is no content");
        assert!(bundle.packed.len() < contents().body().len() / 2, "{bundle:?}");
        assert_eq!(bundle.digest.to_string().parse(), Ok(bundle.digest));
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let good = String::from_utf8(contents().body()).unwrap();
        let pack = |body: &str| Bundle::pack(1, body.as_bytes()).unwrap();
        let replaced = |from: &str, to: &str| {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good);
            pack(&text)
        };
        let cut = {
            let whole = pack(&good);
            let half = whole.packed[..whole.packed.len() / 2].into();
            Bundle { packed: half, ..whole }
        };
        let other = Bundle { digest: Digest::of(b"other"), ..pack(&good) };
        for (promise, bundle, expected) in [
            ("nothing", pack(""), "line 1"),
            ("no decisions", pack("[]"), "line 1"),
            ("a number for a name", replaced("\"name\":\"web\"", "\"name\":7"), "invalid type"),
            ("a port that nobody has", replaced("\"port\":80", "\"port\":80000"), "65535"),
            ("names that are none", replaced("[\"default/web/http\"]", "7"), "line 1"),
            ("a line that is no JSON", pack(&format!("{good}\nx")), "expected value"),
            ("half of it", cut, ""),
            ("another digest", other, "is damaged"),
        ] {
            let error = bundle.contents().expect_err(promise).to_string();
            let expected = if expected == "is damaged" { "it was damaged" } else { expected };
            assert!(error.contains(expected), "{promise}: {error}");
        }
    }

    #[test]
    fn a_kind_of_a_later_version_is_left_out_and_counted() {
        let good = String::from_utf8(contents().body()).unwrap();
        let later = format!("{good}\n{{\"apiVersion\":\"penstock.dev/v9\",\"kind\":\"Tomorrow\"}}");
        let read = Bundle::pack(1, later.as_bytes()).unwrap().contents().unwrap();
        assert_eq!(read, Contents { unread: 1, ..contents() });
    }

    #[test]
    fn a_bomb_is_not_inflated() {
        let mut packer = DeflateEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..=(MOST_BODY_BYTES >> 20) {
            packer.write_all(&zeros).unwrap();
        }
        let packed: Arc<[u8]> = packer.finish().unwrap().into();
        assert!(packed.len() < 1 << 20, "a few bytes");
        let bomb = Bundle { version: 1, digest: Digest::of(b""), packed };
        assert_eq!(bomb.contents(), Err(BundleError::TooLarge));
    }
}
