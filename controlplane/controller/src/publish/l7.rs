//! What the L7 tier must do, as the feed says it.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_feed::model::{
    ClientMode, Clients, Hostname, L7Listener, Pem, PemId, Speaks as FeedSpeaks, State,
    Tls as FeedTls,
};
use xxhash_rust::xxh3::xxh3_128;
use zeroize::Zeroizing;

use crate::translate::l7::{Certificate, L7, Speaks, Tls};

/// The state for the L7 tier. Listeners that it does not serve yet, and any that the feed cannot carry, are not in
/// it, so that none of them is ever acknowledged. Costs a hash of every certificate that is named, once each.
#[must_use]
pub fn l7_state(l7: &L7) -> Arc<State> {
    let mut pems = Pems::default();
    let listeners = l7.places.iter().flat_map(|(place, listeners)| {
        listeners.iter().map(move |(name, listener)| (*place, name, listener))
    });
    for (address, name, listener) in listeners {
        let hostname = listener.hostname.as_deref().map(Hostname::new).transpose();
        let speaks = match &listener.speaks {
            Speaks::Http => Some(FeedSpeaks::Http),
            Speaks::Https(tls) => pems.tls(tls).map(FeedSpeaks::Https),
            Speaks::Tls(_) | Speaks::Passthrough => None,
        };
        if let (Ok(hostname), Some(speaks)) = (hostname, speaks) {
            let listener = L7Listener { address, hostname, speaks };
            pems.state.l7.listeners.insert_mut(name.clone(), listener);
        }
    }
    Arc::new(pems.state)
}

/// The state that is being made, and what of it is known to be in it.
#[derive(Default)]
struct Pems {
    state: State,
    /// By where they are: what is shared is looked at once.
    certificates: HashMap<*const Certificate, PemId>,
}

impl Pems {
    fn tls(&mut self, tls: &Tls) -> Option<FeedTls> {
        let certificates = tls.certificates.iter().map(|it| self.certificate(it));
        let certificates = certificates.collect::<Option<_>>()?;
        let clients = match &tls.clients {
            None => None,
            Some(clients) => {
                let bundle = clients.authorities.iter().map(|pem| &**pem);
                let authorities = self.put(&bundle.collect::<Vec<_>>().join(&b"\n"[..]))?;
                let mode = match clients.insecure_fallback {
                    true => ClientMode::InsecureFallback,
                    false => ClientMode::Required,
                };
                Some(Clients { authorities, mode })
            }
        };
        Some(FeedTls { certificates, clients })
    }

    fn certificate(&mut self, certificate: &Arc<Certificate>) -> Option<PemId> {
        let place = Arc::as_ptr(certificate);
        if let Some(known) = self.certificates.get(&place) {
            return Some(*known);
        }
        let text = Zeroizing::new([&certificate.chain[..], b"\n", &certificate.key].concat());
        let id = self.put(&text)?;
        self.certificates.insert(place, id);
        Some(id)
    }

    /// The number of a text: what it hashes to, or the next one if another text, which somebody may have made so,
    /// has that already.
    fn put(&mut self, text: &[u8]) -> Option<PemId> {
        let pem = Arc::new(Pem::new(text)?);
        let mut bits = xxh3_128(text);
        loop {
            let id = PemId::from_bits(bits);
            match self.state.l7.pems.get(&id) {
                Some(held) if *held == pem => return Some(id),
                Some(_) => bits = bits.wrapping_add(1),
                None => {
                    self.state.l7.pems.insert_mut(id, pem);
                    return Some(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use penstock_feed::model::Name;

    use super::*;
    use crate::translate::l7::{Clients as WantedClients, L7Listener as Wanted};

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
        let mut pems = Pems::default();
        let id = PemId::from_bits(xxh3_128(b"x"));
        pems.state.l7.pems.insert_mut(id, Arc::new(Pem::new(b"made to collide").unwrap()));
        let next = PemId::from_bits(id.to_bits() + 1);
        assert_eq!(pems.put(b"x"), Some(next));
        assert_eq!(pems.put(b"x"), Some(next));
    }
}
