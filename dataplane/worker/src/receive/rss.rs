//! The one key and RETA that all NICs of the box are asked to take, and what they took.
//!
//! A key of our own is a secret, so that nobody can aim at a worker; one RETA, cut to the shortest that a NIC has,
//! lets all of them agree whatever their sizes. A NIC that keeps its own may still be followed, if there is none
//! that took ours: then we know where replies come in, but its key, which is in its driver's source, names no owner
//! of clients.

use std::sync::Arc;

use penstock_dpdk::{Capabilities, Port, PortError, Rss};
use penstock_forward::{
    Spread,
    spread::{Hashed, KEY_LEN, Key},
};
use tracing::debug;

/// Bytes of key drawn: what any NIC could ask for.
const DRAWN: usize = 255;
/// Keys that may turn out too regular, one after the other: one in a hundred does.
const DRAWS: usize = 64;

/// What every NIC is asked to do.
#[derive(Clone, Debug)]
pub struct Drawn {
    key: [u8; DRAWN],
    table: Vec<u8>,
}

/// What one NIC said then that it does: its workers are those of the RETA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    key: [u8; KEY_LEN],
    table: Vec<u8>,
    hashed: Hashed,
}

/// The box's spread, and which ports keep to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// None if no port's RSS is known.
    pub spread: Option<Arc<Spread>>,
    /// In the order of the ports: what each hashes, if it keeps to it.
    pub keeps: Vec<Option<Hashed>>,
}

impl Drawn {
    /// Draws a key, for RETAs of which the shortest has `shortest` entries; none if no NIC has one.
    ///
    /// # Errors
    /// What `random` says.
    pub fn draw<E>(
        shortest: Option<u16>,
        workers: u8,
        mut random: impl FnMut(&mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        let Some(shortest) = shortest.filter(|_| workers > 1) else { return Ok(None) };
        let table: Vec<u8> = (0..workers).cycle().take(shortest.into()).collect();
        let mut key = [0; DRAWN];
        for _ in 0..DRAWS {
            random(&mut key)?;
            if spread(&key_of(&key), Key::Secret, &table, workers, Hashed::ALL).is_some() {
                return Ok(Some(Self { key, table }));
            }
        }
        Ok(None) // a table that RSS cannot have, of fewer entries than workers or no power of two
    }

    /// The key at the length that a NIC wants.
    pub fn key(&self, bytes: u8) -> Vec<u8> {
        self.key[..usize::from(bytes)].to_vec()
    }

    /// Gives a port that runs key and RETA, and reads what it has then; none if it cannot tell.
    pub fn give(&self, port: &mut Port, can: &Capabilities) -> Option<Taken> {
        let table: Vec<u16> = self.table.iter().map(|queue| u16::from(*queue)).collect();
        let table: Vec<u16> = table.into_iter().cycle().take(can.rss_table_len.into()).collect();
        told(port.set_rss_table(&table));
        let mut rss = told(port.rss())?;
        if rss.key != self.key(rss.key.len() as u8) {
            told(port.set_rss_key(&self.key(rss.key.len() as u8)));
            rss = told(port.rss())?;
        }
        Taken::of(&rss)
    }

    fn as_taken(&self) -> Taken {
        Taken { key: key_of(&self.key), table: self.table.clone(), hashed: Hashed::default() }
    }
}

/// A port that cannot do something is served all the same.
fn told<T>(answer: Result<T, PortError>) -> Option<T> {
    answer.inspect_err(|error| debug!(%error, "RSS")).ok()
}

fn key_of(key: &[u8]) -> [u8; KEY_LEN] {
    std::array::from_fn(|at| key.get(at).copied().unwrap_or_default())
}

impl Taken {
    /// None if its key is too short to be one of a Toeplitz hash of IPv6.
    fn of(rss: &Rss) -> Option<Self> {
        let hashed = Hashed {
            tcp_v4: rss.hashed.tcp_v4,
            udp_v4: rss.hashed.udp_v4,
            tcp_v6: rss.hashed.tcp_v6,
            udp_v6: rss.hashed.udp_v6,
        };
        let table = rss.table.iter().map(|queue| u8::try_from(*queue).ok()).collect::<Option<_>>();
        let long = rss.key.len() >= KEY_LEN;
        long.then(|| Some(Self { key: key_of(&rss.key), table: table?, hashed })).flatten()
    }

    /// Whether it does what the other does: the same key, and its RETA says the same for each hash.
    fn keeps_to(&self, other: &Self) -> bool {
        self.key == other.key
            && !other.table.is_empty()
            && self.table.len().is_multiple_of(other.table.len())
            && self.table.iter().eq(other.table.iter().cycle().take(self.table.len()))
    }
}

/// The spread of the box: ours if any port took it, or else that of the first port whose own can be one.
pub fn find(drawn: Option<&Drawn>, taken: &[Option<Taken>], workers: u8) -> Found {
    let ours = drawn.map(|drawn| (Key::Secret, drawn.as_taken()));
    let theirs = taken.iter().flatten().map(|taken| (Key::Known, taken.clone()));
    for (key, wanted) in ours.into_iter().chain(theirs) {
        let keeps = |taken: &Option<Taken>| {
            let keeping = taken.as_ref().filter(|taken| taken.keeps_to(&wanted));
            keeping.map(|taken| taken.hashed).filter(|hashed| *hashed != Hashed::default())
        };
        let keeps: Vec<Option<Hashed>> = taken.iter().map(keeps).collect();
        let hashed = keeps.iter().flatten().fold(Hashed::default(), |sum, hashed| sum.or(*hashed));
        if hashed == Hashed::default() {
            continue; // nobody keeps to it, or only addresses are hashed
        }
        if let Some(spread) = spread(&wanted.key, key, &wanted.table, workers, hashed) {
            return Found { spread: Some(Arc::new(spread)), keeps };
        }
    }
    Found { spread: None, keeps: vec![None; taken.len()] }
}

fn spread(
    key: &[u8; KEY_LEN],
    known_to: Key,
    table: &[u8],
    workers: u8,
    hashed: Hashed,
) -> Option<Spread> {
    Spread::new(key, known_to, table, workers, hashed)
        .inspect_err(|error| debug!(%error, "RSS"))
        .ok()
}

#[cfg(test)]
mod tests {
    use penstock_dpdk::softrss;
    use penstock_forward::{FlowKey, Protocol};

    use super::*;

    /// Bytes that look random, and are the same each time.
    fn random(bytes: &mut [u8]) -> Result<(), ()> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        Ok(())
    }

    fn drawn(shortest: u16) -> Drawn {
        Drawn::draw(Some(shortest), 3, random).unwrap().expect("a key that is not regular")
    }

    fn said(key: Vec<u8>, entries: usize, hashed: penstock_dpdk::Hashed) -> Option<Taken> {
        let table: Vec<u16> = (0..64).map(|entry| entry % 3).collect();
        let table = table.into_iter().cycle().take(entries).collect();
        Taken::of(&Rss { key, hashed, table })
    }

    const TCP: penstock_dpdk::Hashed =
        penstock_dpdk::Hashed { tcp_v4: true, udp_v4: false, tcp_v6: true, udp_v6: false };
    const UDP: penstock_dpdk::Hashed =
        penstock_dpdk::Hashed { tcp_v4: false, udp_v4: true, tcp_v6: false, udp_v6: false };
    const NOTHING: penstock_dpdk::Hashed =
        penstock_dpdk::Hashed { tcp_v4: false, udp_v4: false, tcp_v6: false, udp_v6: false };

    fn tuple(text: &str, protocol: Protocol) -> FlowKey {
        let (source, destination) = text.split_once(' ').unwrap();
        FlowKey::new(source.parse().unwrap(), destination.parse().unwrap(), protocol).unwrap()
    }

    #[test]
    fn nics_of_any_length_of_key_and_table_that_took_ours_agree() {
        let ours = drawn(64);
        let taken = [
            said(ours.key(40), 64, TCP),
            None,
            said(ours.key(52), 512, UDP),
            said(vec![0x6d; 40], 128, TCP),
        ];
        let Found { spread, keeps } = find(Some(&ours), &taken, 3);
        let [tcp, udp] = [TCP, UDP].map(|hashed| Hashed {
            tcp_v4: hashed.tcp_v4,
            udp_v4: hashed.udp_v4,
            tcp_v6: hashed.tcp_v6,
            udp_v6: hashed.udp_v6,
        });
        assert_eq!(keeps, [Some(tcp), None, Some(udp), None], "each what it hashes itself");
        let spread = spread.expect("two keep to it");
        let ends = "10.0.0.3:80 10.0.0.200:4000";
        let found = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let v4 = spread.worker_of(&tuple(ends, protocol));
            let v6 = spread.worker_of(&tuple("[2001:db8::3]:80 [2001:db8::200]:4000", protocol));
            (v4.is_some(), v6.is_some())
        });
        assert_eq!(found, [(true, true), (true, false)], "what either of them hashes");
    }

    /// Such a one brings nothing home that another port's spread computes, and nothing of it is ever checked.
    #[test]
    fn a_nic_that_hashes_addresses_alone_keeps_to_nothing_beside_one_that_hashes_all() {
        let ours = drawn(64);
        let found =
            find(Some(&ours), &[said(ours.key(40), 64, TCP), said(ours.key(40), 64, NOTHING)], 3);
        let keeps: Vec<bool> = found.keeps.iter().map(Option::is_some).collect();
        assert_eq!(keeps, [true, false]);
    }

    /// What was given, what was said, and whether there is a spread.
    #[test]
    fn a_nic_is_followed_as_far_as_it_can_be() {
        let ours = drawn(64);
        let mut own = [0; 40];
        random(&mut own).unwrap();
        own[0] ^= 1; // another than ours
        let rows = [
            ("its own key and a table over all workers", said(own.to_vec(), 128, TCP), true),
            ("a key too regular", said(vec![0x55; 40], 128, TCP), false),
            ("ours, but addresses alone are hashed", said(ours.key(40), 64, NOTHING), false),
            ("a key too short", said(ours.key(16), 64, TCP), false),
            ("nothing", None, false),
            ("no table", Taken::of(&Rss { key: own.to_vec(), hashed: TCP, table: vec![] }), false),
            (
                "a table over one queue",
                Taken::of(&Rss { key: own.to_vec(), hashed: TCP, table: vec![0; 64] }),
                false,
            ),
        ];
        for (promise, taken, expected) in rows {
            let found = find(Some(&ours), &[taken], 3);
            assert_eq!(found.spread.is_some(), expected, "{promise}");
            assert_eq!(found.keeps[0].is_some(), expected, "{promise}");
        }
    }

    #[test]
    fn no_key_is_drawn_where_none_would_be_taken() {
        assert!(Drawn::draw(None, 4, random).unwrap().is_none(), "no RETA");
        assert!(Drawn::draw(Some(128), 1, random).unwrap().is_none(), "one worker");
        assert!(Drawn::draw(Some(2), 4, random).unwrap().is_none(), "fewer entries than workers");
        assert_eq!(Drawn::draw(Some(64), 4, |_| Err("none")).unwrap_err(), "none");
    }

    /// Ours against DPDK's, by tuples that have every bit somewhere.
    #[test]
    fn the_hash_is_what_dpdk_computes() {
        let ours = drawn(128);
        let taken = [said(ours.key(40), 128, TCP)];
        let spread = find(Some(&ours), &taken, 3).spread.unwrap();
        for n in 0..500_u32 {
            let mix = |salt: u32| (n ^ salt).wrapping_mul(0x9e37_79b1).rotate_left(n % 32);
            let (source, destination) = (mix(1), mix(2));
            let ports = [mix(3) as u16, (mix(4) >> 16) as u16];
            let v4 = |bits: u32| std::net::Ipv4Addr::from_bits(bits);
            let key = FlowKey::new(
                (v4(source), ports[0]).into(),
                (v4(destination), ports[1]).into(),
                Protocol::Tcp,
            );
            let both = u32::from(ports[0]) << 16 | u32::from(ports[1]);
            let expected = softrss(&[source, destination, both], &ours.key(40));
            assert_eq!(spread.hash(&key.unwrap()), expected);
            let words: [u32; 8] = std::array::from_fn(|at| mix(5 + at as u32));
            let v6 = |words: &[u32]| {
                let bits = words.iter().fold(0_u128, |bits, word| bits << 32 | u128::from(*word));
                std::net::Ipv6Addr::from_bits(bits)
            };
            let key = FlowKey::new(
                (v6(&words[..4]), ports[0]).into(),
                (v6(&words[4..]), ports[1]).into(),
                Protocol::Tcp,
            );
            let expected = softrss(&[&words[..], &[both]].concat(), &ours.key(40));
            assert_eq!(spread.hash(&key.unwrap()), expected);
        }
    }
}
