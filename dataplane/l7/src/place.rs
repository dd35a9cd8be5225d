//! One VIP and L4 port, and the listeners that share it, told apart by host name.
//!
//! The most specific wins: the exact name, then the longest wildcard, then the listener without a name
//! (Gateway API, `Listener.hostname`). A wildcard stands for one label or more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_feed::model::{Clients, L7, Pem, Speaks, Tls};
use penstock_feed::{Name, ObjectError, ObjectId, ObjectKind};
use rustls::ServerConfig;

use crate::tls;

/// Every place that is wanted.
pub type Places = BTreeMap<SocketAddr, Arc<Place>>;

/// The listeners of one place.
#[derive(Debug, Default)]
pub struct Place {
    exact: BTreeMap<Arc<str>, Arc<Served>>,
    wildcard: BTreeMap<Arc<str>, Arc<Served>>, // by what follows the star, with its dot
    nameless: Option<Arc<Served>>,
    is_https: bool,
}

/// A listener.
#[derive(Debug)]
pub struct Served {
    /// Its name in the feed.
    pub name: Name,
    /// How TLS ends; none for HTTP in clear text, and for one whose certificates cannot be used: its clients
    /// are refused, and not given to another listener of the place.
    pub tls: Option<Arc<ServerConfig>>,
    /// What that was made from.
    of: Option<(Tls, Vec<Arc<Pem>>)>,
}

impl Served {
    /// How its clients are validated.
    #[must_use]
    pub fn clients(&self) -> Option<Clients> {
        self.of.as_ref().and_then(|(tls, _)| tls.clients)
    }

    /// The same one, made anew unless `before` was made from the same; with what is wrong with it.
    fn of_tls(
        name: &Name,
        tls: &Tls,
        l7: &L7,
        before: Option<&Arc<Self>>,
    ) -> (Arc<Self>, Option<ObjectError>) {
        let authorities = tls.clients.iter().map(|clients| &clients.authorities);
        let pems =
            tls.certificates.iter().chain(authorities).filter_map(|id| l7.pems.get(id).cloned());
        let of = Some((tls.clone(), pems.collect()));
        if let Some(same) = before.filter(|before| before.tls.is_some() && before.of == of) {
            return (Arc::clone(same), None); // and with it the sessions that may be resumed
        }
        let (tls, fault) = match tls::server_config(tls, &l7.pems) {
            Ok(config) => (Some(config), None),
            Err(fault) => (None, Some(error(name, fault.to_string()))),
        };
        (Arc::new(Self { name: name.clone(), tls, of }), fault)
    }
}

impl Place {
    /// The listener for a host name; without one, the listener that has none. Any case is the same name, and
    /// a dot at the end is the root's.
    #[must_use]
    pub fn listener(&self, host: Option<&str>) -> Option<&Arc<Served>> {
        let Some(host) = host else { return self.nameless.as_ref() };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let exact = self.exact.get(host.as_str());
        let dots = host.match_indices('.').filter(|(at, _)| *at > 0);
        let mut suffixes = dots.map(|(at, _)| &host[at..]);
        exact
            .or_else(|| suffixes.find_map(|suffix| self.wildcard.get(suffix)))
            .or(self.nameless.as_ref())
    }

    /// Whether TLS is spoken there.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Its listeners.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.exact.values().chain(self.wildcard.values()).chain(&self.nameless)
    }
}

/// The places of a state, and the listeners whose certificates cannot be used. What did not change since
/// `before` is taken from there, so that no key is read again.
#[must_use]
pub fn places(l7: &L7, before: &Places) -> (Places, Vec<ObjectError>) {
    let before: BTreeMap<&Name, &Arc<Served>> = before
        .values()
        .flat_map(|place| place.listeners())
        .map(|served| (&served.name, served))
        .collect();
    let mut places: BTreeMap<SocketAddr, Place> = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, listener) in &l7.listeners {
        let (served, fault) = match &listener.speaks {
            Speaks::Http => (Arc::new(Served { name: name.clone(), tls: None, of: None }), None),
            Speaks::Https(tls) => Served::of_tls(name, tls, l7, before.get(name).copied()),
        };
        errors.extend(fault);
        let place = places.entry(listener.address).or_default();
        place.is_https |= served.of.is_some();
        match &listener.hostname {
            None => place.nameless = Some(served),
            Some(host) => match host.wildcard_suffix() {
                Some(suffix) => _ = place.wildcard.insert(suffix.into(), served),
                None => _ = place.exact.insert(host.as_str().into(), served),
            },
        }
    }
    (places.into_iter().map(|(at, place)| (at, Arc::new(place))).collect(), errors)
}

/// What the acknowledgement says of a listener.
#[must_use]
pub fn error(name: &Name, message: String) -> ObjectError {
    ObjectError { object: ObjectId { kind: ObjectKind::L7Listener, name: name.clone() }, message }
}

#[cfg(test)]
mod tests {
    use penstock_feed::model::{Hostname, L7Listener};

    use super::*;

    /// Which listener has a name, a row each.
    #[test]
    fn the_most_specific_name_wins() {
        let mut l7 = L7::default();
        let address = "192.0.2.1:80".parse().unwrap();
        for (name, host) in [
            ("exact", Some("www.example.com")),
            ("short", Some("*.com")),
            ("long", Some("*.example.com")),
            ("nameless", None),
        ] {
            let hostname = host.map(|host| Hostname::new(host).unwrap());
            let listener = L7Listener { address, hostname, speaks: Speaks::Http };
            l7.listeners.insert_mut(Name::new(name).unwrap(), listener);
        }
        let (places, errors) = places(&l7, &Places::new());
        assert_eq!(errors, []);
        for (promise, host, expected) in [
            ("the exact name", Some("www.example.com"), "exact"),
            ("in any case, with the root's dot", Some("WWW.Example.com."), "exact"),
            ("the longest wildcard", Some("api.example.com"), "long"),
            ("of any depth", Some("a.b.example.com"), "long"),
            ("the shorter one for the rest", Some("example.com"), "short"),
            ("a wildcard needs a label", Some(".com"), "nameless"),
            ("another domain", Some("example.org"), "nameless"),
            ("no name", None, "nameless"),
        ] {
            let found = places[&address].listener(host).map(|served| served.name.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{promise}");
        }
    }
}
