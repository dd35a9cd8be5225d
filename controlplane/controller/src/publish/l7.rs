//! What the L7 tier must do, as the feed says it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use penstock_feed::model::{
    ClientMode, Clients, Hostname, L7Listener, Name, Pem, PemId, Speaks as FeedSpeaks, State,
    Tls as FeedTls, Touched,
};
use xxhash_rust::xxh3::xxh3_128;
use zeroize::Zeroizing;

use crate::translate::l7::{Certificate, L7, L7Listener as Wanted, Speaks, Tls};

/// The state for the L7 tier, changed as [`L7`] is and at the cost of what changes there. Listeners that the tier does
/// not serve yet, and any that the feed cannot carry, are not in it, so that none of them is ever acknowledged.
#[derive(Default)]
pub struct L7Feed {
    state: Arc<State>,
    /// The listeners at each place, and the texts that each names.
    at: BTreeMap<SocketAddr, BTreeMap<Name, Vec<PemId>>>,
    pems: BTreeMap<PemId, Named>,
    /// Certificates by where they are, so that what listeners share is hashed once; what is held stays there.
    known: HashMap<usize, (Arc<Certificate>, PemId)>,
}

/// Who names a text.
#[derive(Default)]
struct Named {
    /// How many times listeners do.
    uses: usize,
    /// Where it was seen as a certificate.
    certificates: Vec<usize>,
}

/// The state for the L7 tier that does all of `l7`.
#[must_use]
pub fn l7_state(l7: &L7) -> Arc<State> {
    let mut feed = L7Feed::default();
    feed.update(l7, &l7.places.keys().copied().collect());
    feed.state
}

impl L7Feed {
    /// The state.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Takes in what `l7` has at `places` now. Returns what that touched. Costs a hash of every certificate that is
    /// named there and was nowhere before.
    pub fn update(&mut self, l7: &L7, places: &BTreeSet<SocketAddr>) -> Touched {
        let (mut touched, mut before) = (Touched::default(), Vec::new());
        for place in places {
            for (name, pems) in self.at.remove(place).unwrap_or_default() {
                Arc::make_mut(&mut self.state).l7.listeners.remove_mut(&name);
                touched.l7_listeners.insert(name);
                before.extend(pems);
            }
        }
        for place in places {
            for (name, listener) in l7.places.get(place).into_iter().flatten() {
                let mut pems = Vec::new();
                if let Some(listener) = self.listener(*place, listener, &mut pems) {
                    touched.l7_listeners.insert(name.clone());
                    Arc::make_mut(&mut self.state).l7.listeners.insert_mut(name.clone(), listener);
                }
                touched.pems.extend(&pems);
                self.at.entry(*place).or_default().insert(name.clone(), pems);
            }
        }
        // What is named again is not sent again.
        touched.pems.extend(&before);
        before.into_iter().for_each(|id| self.release(id));
        touched
    }

    /// A listener as the feed has it. What it names is added to `pems`.
    fn listener(
        &mut self,
        address: SocketAddr,
        listener: &Wanted,
        pems: &mut Vec<PemId>,
    ) -> Option<L7Listener> {
        let hostname = listener.hostname.as_deref().map(Hostname::new).transpose().ok()?;
        let speaks = match &listener.speaks {
            Speaks::Http => FeedSpeaks::Http,
            Speaks::Https(tls) => FeedSpeaks::Https(self.tls(tls, pems)?),
            Speaks::Tls(_) | Speaks::Passthrough => return None,
        };
        Some(L7Listener { address, hostname, speaks })
    }

    fn tls(&mut self, tls: &Tls, pems: &mut Vec<PemId>) -> Option<FeedTls> {
        let mut certificates = Vec::new();
        for certificate in &tls.certificates {
            certificates.push(self.certificate(certificate, pems)?);
        }
        let Some(clients) = &tls.clients else {
            return Some(FeedTls { certificates, clients: None });
        };
        let bundle: Vec<_> = clients.authorities.iter().map(|pem| &**pem).collect();
        let authorities = self.put(&bundle.join(&b"\n"[..]), pems)?;
        let mode = match clients.insecure_fallback {
            true => ClientMode::InsecureFallback,
            false => ClientMode::Required,
        };
        Some(FeedTls { certificates, clients: Some(Clients { authorities, mode }) })
    }

    fn certificate(
        &mut self,
        certificate: &Arc<Certificate>,
        pems: &mut Vec<PemId>,
    ) -> Option<PemId> {
        let place = Arc::as_ptr(certificate).addr();
        if let Some((_, known)) = self.known.get(&place) {
            let id = *known;
            self.pems.entry(id).or_default().uses += 1;
            pems.push(id);
            return Some(id);
        }
        let text = Zeroizing::new([&certificate.chain[..], b"\n", &certificate.key].concat());
        let id = self.put(&text, pems)?;
        self.known.insert(place, (Arc::clone(certificate), id));
        self.pems.entry(id).or_default().certificates.push(place);
        Some(id)
    }

    /// The number of a text: what it hashes to, or the next one if another text, which somebody may have made so,
    /// has that already.
    fn put(&mut self, text: &[u8], pems: &mut Vec<PemId>) -> Option<PemId> {
        let pem = Arc::new(Pem::new(text)?);
        let mut bits = xxh3_128(text);
        let id = loop {
            let id = PemId::from_bits(bits);
            match self.state.l7.pems.get(&id) {
                Some(held) if *held == pem => break id,
                Some(_) => bits = bits.wrapping_add(1),
                None => {
                    Arc::make_mut(&mut self.state).l7.pems.insert_mut(id, pem);
                    break id;
                }
            }
        };
        self.pems.entry(id).or_default().uses += 1;
        pems.push(id);
        Some(id)
    }

    /// A listener names a text no more.
    fn release(&mut self, id: PemId) {
        let Some(named) = self.pems.get_mut(&id) else { return };
        named.uses -= 1;
        if named.uses == 0 {
            for place in self.pems.remove(&id).unwrap_or_default().certificates {
                self.known.remove(&place);
            }
            Arc::make_mut(&mut self.state).l7.pems.remove_mut(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::l7::Clients as WantedClients;

    fn https(certificates: &[&Arc<Certificate>], clients: Option<WantedClients>) -> Speaks {
        let certificates = certificates.iter().map(|it| Arc::clone(it)).collect();
        Speaks::Https(Tls { certificates, clients })
    }

    #[test]
    fn listeners_share_what_they_name_and_what_nobody_serves_is_left_out() {
        let certificate =
            |chain: &str, key: &str| Arc::new(Certificate { chain: chain.into(), key: key.into() });
        let (a, also_a, b) = (certificate("a", "k"), certificate("a", "k"), certificate("b", "k"));
        let authorities = vec![Arc::from(&b"one"[..]), Arc::from(&b"two"[..])];
        let clients = Some(WantedClients { authorities, insecure_fallback: true });
        let tls = Tls { certificates: vec![Arc::clone(&a)], clients: None };
        let listeners = [
            ("http", None, Speaks::Http),
            ("https", Some("www.example.com"), https(&[&a, &b], clients)),
            ("wild", Some("*.example.com"), https(&[&also_a], None)),
            ("tls", None, Speaks::Tls(tls)),
            ("through", None, Speaks::Passthrough),
        ];
        let listeners = listeners.into_iter().map(|(name, hostname, speaks)| {
            let hostname = hostname.map(Arc::from);
            (Name::new(name).unwrap(), Wanted { hostname, speaks })
        });
        let place = "192.0.2.1:443".parse().unwrap();
        let l7 = L7 { places: [(place, listeners.collect())].into_iter().collect() };
        let state = l7_state(&l7);

        let names: Vec<_> = state.l7.listeners.keys().map(Name::as_str).collect();
        assert_eq!(names, ["http", "https", "wild"]);
        let mut texts: Vec<_> = state.l7.pems.values().map(|pem| pem.text().to_vec()).collect();
        texts.sort();
        assert_eq!(texts, [&b"a\nk"[..], b"b\nk", b"one\ntwo"]);
        let tls_of = |name: &str| match &state.l7.listeners.get(name).unwrap().speaks {
            FeedSpeaks::Https(tls) => tls.clone(),
            FeedSpeaks::Http => panic!("{name} has no TLS"),
        };
        assert_eq!(tls_of("https").certificates[0], tls_of("wild").certificates[0]);
        assert_eq!(tls_of("https").clients.unwrap().mode, ClientMode::InsecureFallback);
        assert_eq!(state.digest(), l7_state(&l7).digest(), "the same again");
    }

    #[test]
    fn a_text_that_hashes_as_another_gets_the_next_number() {
        let mut feed = L7Feed::default();
        let id = PemId::from_bits(xxh3_128(b"x"));
        let other = Arc::new(Pem::new(b"made to collide").unwrap());
        Arc::make_mut(&mut feed.state).l7.pems.insert_mut(id, other);
        let next = PemId::from_bits(id.to_bits() + 1);
        assert_eq!(feed.put(b"x", &mut Vec::new()), Some(next));
        assert_eq!(feed.put(b"x", &mut Vec::new()), Some(next));
    }

    #[test]
    fn a_change_of_a_place_comes_to_what_the_whole_does() {
        let certificate =
            |chain: &str| Arc::new(Certificate { chain: chain.into(), key: b"k".to_vec() });
        let (a, also_a, b) = (certificate("a"), certificate("a"), certificate("b"));
        let place = |port: u16| SocketAddr::from(([192, 0, 2, 1], port));
        let listener = |name: &str, speaks: Speaks| {
            (Name::new(name).unwrap(), Wanted { hostname: None, speaks })
        };
        let steps = [
            ("the first", 443, vec![listener("x", https(&[&a], None))]),
            ("one that shares", 444, vec![listener("y", https(&[&also_a, &b], None))]),
            ("one that lets go", 443, vec![listener("x", Speaks::Http)]),
            ("one that goes", 444, vec![]),
            ("one that takes it up again", 443, vec![listener("x", https(&[&a, &b], None))]),
            ("one that nobody serves", 445, vec![listener("z", Speaks::Passthrough)]),
            ("none at all", 443, vec![]),
        ];
        let (mut feed, mut l7) = (L7Feed::default(), L7::default());
        for (promise, port, listeners) in steps {
            match listeners.is_empty() {
                true => _ = l7.places.remove_mut(&place(port)),
                false => l7.places.insert_mut(place(port), listeners.into_iter().collect()),
            }
            let before = Arc::clone(feed.state());
            let touched = feed.update(&l7, &[place(port)].into());
            assert_eq!(*feed.state(), l7_state(&l7), "{promise}");
            assert_eq!(
                before.diff_of(feed.state(), &touched),
                before.diff(feed.state()),
                "{promise}"
            );
        }
        assert!(feed.pems.is_empty() && feed.known.is_empty(), "nothing is left over");
    }

    #[test]
    fn a_listener_that_moves_is_at_its_new_place() {
        let (name, http) =
            (Name::new("x").unwrap(), Wanted { hostname: None, speaks: Speaks::Http });
        let places = [443, 80].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let mut feed = L7Feed::default();
        for place in places {
            let at = [(name.clone(), http.clone())].into();
            let l7 = L7 { places: [(place, at)].into_iter().collect() };
            feed.update(&l7, &places.into());
            assert_eq!(feed.state().l7.listeners.get(&name).unwrap().address, place);
        }
    }
}
