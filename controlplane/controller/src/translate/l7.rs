//! What the L7 tier must do: a second output, beside the feed's state.
//!
//! The data plane has no listener at these places: it must only keep the VIPs on its companion, and
//! the packets go to the kernel, where the L7 tier accepts.
//!
//! A certificate is shared by every listener that names it, so that a copy of the whole costs what it names
//! and not what it holds; and no key is shown to whoever debugs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use penstock_feed::model::{Map, Name};

/// The listeners that read requests, by VIP and L4 port, and by name. A copy shares all that is changed in neither.
#[derive(Clone, Default, PartialEq)]
pub struct L7 {
    /// At each place, listeners that are told apart by host name: the most specific one serves.
    pub places: Map<SocketAddr, BTreeMap<Name, L7Listener>>,
}

impl fmt::Debug for L7 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.places).finish() // the map itself would show its nodes
    }
}

/// One listener at one place.
#[derive(Clone, Debug, PartialEq)]
pub struct L7Listener {
    /// The name it serves, `example.com` or `*.example.com`, in lower case; none for every name.
    pub hostname: Option<Arc<str>>,
    /// What it speaks.
    pub speaks: Speaks,
}

/// What an L7 listener speaks. HTTP and HTTPS are given out; the others are judged, and left out until someone
/// serves them.
#[derive(Clone, Debug, PartialEq)]
pub enum Speaks {
    /// HTTP in clear text.
    Http,
    /// HTTP over TLS that ends here.
    Https(Tls),
    /// Something else over TLS that ends here.
    Tls(Tls),
    /// TLS that goes on to the backend unopened.
    Passthrough,
}

/// How TLS ends here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    /// The certificates, in the order of the spec; at least one.
    pub certificates: Vec<Arc<Certificate>>,
    /// Whether and how clients are validated.
    pub clients: Option<Clients>,
}

/// How clients are validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// The certificate authorities in PEM, one entry a reference.
    pub authorities: Vec<Arc<[u8]>>,
    /// Whether a client without a valid certificate is let in all the same.
    pub insecure_fallback: bool,
}

/// A certificate and its key. It was parsed, and the key is the certificate's.
#[derive(Clone, PartialEq)]
pub struct Certificate {
    /// The chain in PEM, the leaf first.
    pub chain: Vec<u8>,
    /// The leaf's private key in PEM.
    pub key: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("chain_bytes", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl L7 {
    /// The listener of that name at that place.
    #[must_use]
    pub fn get(&self, place: &SocketAddr, name: &Name) -> Option<&L7Listener> {
        self.places.get(place)?.get(name)
    }

    /// Whether it answers on a VIP.
    #[must_use]
    pub fn has_place_on(&self, vip: IpAddr) -> bool {
        let ports = SocketAddr::new(vip, 0)..=SocketAddr::new(vip, u16::MAX);
        self.places.range(ports).next().is_some()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_has_a_place_whatever_its_port() {
        let place = |text: &str| (text.parse().unwrap(), BTreeMap::new());
        let places = ["192.0.2.1:1", "192.0.2.3:65535", "[2001:db8::1]:80"].map(place);
        let l7 = L7 { places: places.into_iter().collect() };
        for (vip, expected) in [
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("192.0.2.3", true),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            assert_eq!(l7.has_place_on(vip.parse().unwrap()), expected, "{vip}");
        }
    }

    #[test]
    fn a_key_is_not_shown_to_whoever_debugs() {
        let certificate = Certificate { chain: b"CHAIN".to_vec(), key: b"KEY".to_vec() };
        assert_eq!(format!("{certificate:?}"), "Certificate { chain_bytes: 5, .. }");
    }
}
