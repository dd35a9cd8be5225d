//! What the L7 tier must know to serve: its listeners, and the certificates and keys they name.
//!
//! It travels as the data plane's objects do, to another process by a ring of its own: [`Tier`] says whose a
//! change is, and a consumer ends the connection of a producer that sends it the other's. So no data plane
//! ever holds a key.
//!
//! A [`Pem`] never changes: another text has another [`PemId`]. Its bytes are wiped when they are dropped, and
//! nothing shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Map, Name, ObjectError, ObjectId, ObjectKind, faults, limits};

/// The objects of the L7 tier.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct L7 {
    /// What it answers for.
    pub listeners: Map<Name, L7Listener>,
    /// Certificates with their keys, and authorities.
    pub pems: Map<PemId, Arc<Pem>>,
}

/// Which process an object is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The data plane.
    #[default]
    L4,
    /// The L7 tier.
    L7,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L4 => "data plane",
            Self::L7 => "L7 tier",
        })
    }
}

/// An address and port where HTTP is spoken, and the host name by which it is told from others there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L7Listener {
    /// Where clients connect to.
    pub address: SocketAddr,
    /// The name it serves; `None` serves every name.
    pub hostname: Option<Hostname>,
    /// What is spoken there; the same for all listeners of one address.
    pub speaks: Speaks,
}

/// What an [`L7Listener`] speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP in clear text.
    Http,
    /// HTTP over TLS that ends here.
    Https(Tls),
}

/// How TLS ends at a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Chains, leaf first, each with its key in the same [`Pem`]; 1 to [`limits::CERTIFICATES`].
    pub certificates: Vec<PemId>,
    /// Whether clients show certificates.
    pub clients: Option<Clients>,
}

/// How clients are validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clients {
    /// The authorities.
    pub authorities: PemId,
    /// What is done without a valid certificate.
    pub mode: ClientMode,
}

/// What becomes of a client without a valid certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientMode {
    /// The handshake fails (Gateway API `AllowValidOnly`).
    Required,
    /// It is served (Gateway API `AllowInsecureFallback`).
    InsecureFallback,
}

/// A host name in lower case, `www.example.com`, or `*.example.com` for every name below, of any depth.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

/// A text that is no [`Hostname`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no host name: 1 to 253 of a-z, 0-9, - and dots, at most a leading *.")]
pub struct BadHostname {
    /// The text.
    pub text: String,
}

impl Hostname {
    /// The longest in bytes (RFC 1035 §2.3.4, without the dot of the root).
    pub const MAX_BYTES: usize = 253;

    /// # Errors
    /// [`BadHostname`] unless it is labels as in RFC 1123 §2.1, in lower case, the first of which may be `*`.
    pub fn new(text: &str) -> Result<Self, BadHostname> {
        let labels = text.strip_prefix("*.").unwrap_or(text);
        let good = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if text.len() > Self::MAX_BYTES || !labels.split('.').all(good) {
            return Err(BadHostname { text: text.chars().take(Self::MAX_BYTES).collect() });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the `*` of a wildcard, with its dot.
    #[must_use]
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a [`Pem`], which its text decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PemId(u128);

impl PemId {
    /// That number.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The number.
    #[must_use]
    pub const fn to_bits(self) -> u128 {
        self.0
    }
}

/// Bytes that nobody is shown, wiped when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A copy of `bytes`; theirs are the caller's to wipe.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// A text of at most [`Self::MAX_BYTES`], kept in the pieces in which it travels, so that it never moves and
/// leaves copies behind.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pem {
    parts: Vec<Secret>,
}

impl Pem {
    /// The longest text in bytes: what a Secret or a ConfigMap can hold.
    pub const MAX_BYTES: usize = 1 << 20;
    /// The bytes of every part but the last.
    pub const PART_BYTES: usize = 1536;
    /// The most parts.
    pub const MAX_PARTS: usize = Self::MAX_BYTES.div_ceil(Self::PART_BYTES);

    /// The pem of that text; `None` if it is longer than [`Self::MAX_BYTES`].
    #[must_use]
    pub fn new(text: &[u8]) -> Option<Self> {
        let parts = || text.chunks(Self::PART_BYTES).map(Secret::new).collect();
        (text.len() <= Self::MAX_BYTES).then(|| Self { parts: parts() })
    }

    /// Its parts in order.
    #[must_use]
    pub fn parts(&self) -> &[Secret] {
        &self.parts
    }

    /// A copy of the text, in one piece.
    #[must_use]
    pub fn text(&self) -> Zeroizing<Vec<u8>> {
        let bytes = self.parts.iter().map(|part| part.bytes().len()).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(bytes)); // never grows, so leaves no copy
        self.parts.iter().for_each(|part| text.extend_from_slice(part.bytes()));
        text
    }

    /// Whether `part` can be the part number `index` of this text.
    pub(crate) fn takes(&self, index: u16, part: &Secret) -> bool {
        let full = |part: &Secret| part.bytes().len() == Self::PART_BYTES;
        usize::from(index) == self.parts.len()
            && self.parts.len() < Self::MAX_PARTS
            && self.parts.last().is_none_or(full)
            && (1..=Self::PART_BYTES).contains(&part.bytes().len())
    }

    /// Appends the part.
    pub(crate) fn push(&mut self, part: Secret) {
        self.parts.push(part);
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} parts)", self.parts.len())
    }
}

impl fmt::Debug for L7 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, pems } = self;
        f.debug_struct("L7")
            .field("listeners", &listeners.iter().collect::<BTreeMap<_, _>>())
            .field("pems", &pems.iter().collect::<BTreeMap<_, _>>())
            .finish()
    }
}

impl L7 {
    /// Whether nothing is wrong with it as a whole. Costs a pass over its listeners.
    pub(crate) fn is_sound(&self) -> bool {
        check(self).is_empty()
    }
}

/// What is wrong with the objects of the L7 tier. Costs a pass over its listeners.
pub(super) fn check(l7: &L7) -> Vec<ObjectError> {
    let mut places: BTreeMap<SocketAddr, BTreeMap<Option<&Hostname>, &Name>> = BTreeMap::new();
    let mut protocols: BTreeMap<SocketAddr, (bool, &Name)> = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, listener) in &l7.listeners {
        let place = listener.address;
        let https = matches!(listener.speaks, Speaks::Https(_));
        let (first, of) = protocols.entry(place).or_insert((https, name));
        let same = places.entry(place).or_default();
        let twin = same.insert(listener.hostname.as_ref(), name);
        let fault = if let Some(other) = twin {
            Some(format!("{place} and its host name are those of listener {other}: keep one"))
        } else if *first != https {
            Some(format!("{place} is HTTP or HTTPS, and listener {of} says the other: move one"))
        } else {
            fault(l7, listener)
        };
        errors.extend(fault.map(|message| ObjectError {
            object: ObjectId { kind: ObjectKind::L7Listener, name: name.clone() },
            message,
        }));
    }
    errors
}

fn fault(l7: &L7, listener: &L7Listener) -> Option<String> {
    let place = listener.address;
    if place.port() == 0 {
        return Some(format!("{place}: port 0 cannot be listened on"));
    }
    if let Some(fault) = faults::of(place.ip()) {
        return Some(format!("its address {} {fault}", place.ip()));
    }
    let Speaks::Https(tls) = &listener.speaks else { return None };
    if !(1..=limits::CERTIFICATES).contains(&tls.certificates.len()) {
        let (count, most) = (tls.certificates.len(), limits::CERTIFICATES);
        return Some(format!("{count} certificates: HTTPS needs 1 to {most}"));
    }
    let missing = |id: &&PemId| l7.pems.get(*id).is_none_or(|pem| pem.parts.is_empty());
    let authorities = tls.clients.iter().map(|clients| &clients.authorities);
    let absent = tls.certificates.iter().chain(authorities).find(missing)?;
    Some(format!("its pem {:032x} does not exist or is empty: send it with it", absent.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostname_is_labels_in_lower_case() {
        let longest = format!("{}com", "a.".repeat(125));
        for (text, good) in [
            ("example.com", true),
            ("*.example.com", true),
            ("localhost", true),
            (longest.as_str(), true),
            ("*", false),
            ("*.", false),
            ("", false),
            ("a..b", false),
            ("a.*.b", false),
            ("-a.com", false),
            ("Example.com", false),
            ("example.com.", false),
            ("a_b.com", false),
            (&"a".repeat(64), false),
            (&format!("{longest}a"), false),
        ] {
            assert_eq!(Hostname::new(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn a_pem_travels_in_parts_and_is_shown_to_nobody() {
        let text: Vec<u8> = (0..2 * Pem::PART_BYTES + 7).map(|n| n as u8).collect();
        let pem = Pem::new(&text).unwrap();
        let lengths: Vec<_> = pem.parts().iter().map(|part| part.bytes().len()).collect();
        assert_eq!(lengths, [Pem::PART_BYTES, Pem::PART_BYTES, 7]);
        assert_eq!(*pem.text(), text);
        assert_eq!(format!("{pem:?} {:?}", pem.parts()[2]), "Pem(3 parts) Secret(7 bytes)");
        assert!(Pem::new(&vec![0; Pem::MAX_BYTES]).is_some());
        assert!(Pem::new(&vec![0; Pem::MAX_BYTES + 1]).is_none());
        assert!(!pem.takes(3, &Secret::new(b"x")), "after a part that is not full");
    }

    /// What makes the whole unfit, a row each.
    #[test]
    fn listeners_at_one_place_agree_and_have_their_certificates() {
        let id = PemId::from_bits;
        let https = |certificates: &[u128]| {
            let certificates = certificates.iter().copied().map(id).collect();
            Speaks::Https(Tls { certificates, clients: None })
        };
        let clients = |authorities| {
            let clients = Clients { authorities: id(authorities), mode: ClientMode::Required };
            Speaks::Https(Tls { certificates: vec![id(1)], clients: Some(clients) })
        };
        let host = |text: &str| Hostname::new(text).ok();
        let one = "192.0.2.1:443";
        type At<'a> = (&'a str, Option<Hostname>, Speaks);
        let rows: [(&str, Vec<At>, &str); 9] = [
            ("names apart", vec![(one, host("a"), https(&[1])), (one, host("b"), https(&[1]))], ""),
            ("a name and all", vec![(one, host("a"), https(&[1])), (one, None, https(&[1]))], ""),
            (
                "one name twice",
                vec![(one, None, https(&[1])), (one, None, https(&[1]))],
                "keep one",
            ),
            ("both", vec![(one, None, https(&[1])), (one, host("a"), Speaks::Http)], "move one"),
            ("no certificate", vec![(one, None, https(&[]))], "0 certificates"),
            ("one that is not there", vec![(one, None, https(&[7]))], "does not exist"),
            ("one that is empty", vec![(one, None, https(&[2]))], "is empty"),
            ("authorities not there", vec![(one, None, clients(7))], "does not exist"),
            ("no port", vec![("192.0.2.1:0", None, Speaks::Http)], "port 0"),
        ];
        for (promise, listeners, expected) in rows {
            let mut l7 = L7::default();
            l7.pems.insert_mut(id(1), Arc::new(Pem::new(b"pem").unwrap()));
            l7.pems.insert_mut(id(2), Arc::default());
            for (n, (address, hostname, speaks)) in listeners.into_iter().enumerate() {
                let address = address.parse().unwrap();
                let name = Name::new(&format!("l{n}")).unwrap();
                l7.listeners.insert_mut(name, L7Listener { address, hostname, speaks });
            }
            let found = check(&l7).first().map(ToString::to_string).unwrap_or_default();
            let as_expected =
                if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
            assert!(as_expected, "{promise}: {found}");
        }
    }
}
