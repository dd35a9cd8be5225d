//! How the packets of a box are spread over its workers: as a NIC's RSS does it, computed here too.
//!
//! ```text
//!  addresses, L4 ports ─Toeplitz─▶ hash ─low bits─▶ entry of the RETA ─▶ queue = worker
//! ```
//! A box has one spread or none. NICs that took its key and RETA bring packets to their owner; whatever comes
//! in otherwise (a port without RSS, one that lies, a fragment) is handed over by the same sum. So ownership
//! stays a function of the packet, and what a NIC does decides only how far a packet has to go.
//!
//! The hash is linear, which finds in a few loads an L4 port whose replies come to a given worker
//! ([`inverse`](Spread)); and it hides nothing: who knows the key can aim at a worker. Clients are spread by it
//! only where the key is a secret of the box.

mod inverse;
mod toeplitz;

use crate::flow::{FlowKey, V6};
use crate::{Protocol, WorkerIdx};

use inverse::Inverse;
use toeplitz::Toeplitz;

pub(crate) use inverse::PortsTo;
pub use toeplitz::KEY_LEN;

/// The longest RETA: twice what NICs have, of which some of Intel's have 2048 entries.
const LONGEST_TABLE: usize = 4096;

/// Which packets' L4 ports go into a NIC's hash, besides the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// TCP over IPv4.
    pub tcp_v4: bool,
    /// UDP over IPv4.
    pub udp_v4: bool,
    /// TCP over IPv6.
    pub tcp_v6: bool,
    /// UDP over IPv6.
    pub udp_v6: bool,
}

impl Hashed {
    /// Of all packets.
    pub const ALL: Self = Self { tcp_v4: true, udp_v4: true, tcp_v6: true, udp_v6: true };

    /// What either hashes.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tcp_v4: self.tcp_v4 || other.tcp_v4,
            udp_v4: self.udp_v4 || other.udp_v4,
            tcp_v6: self.tcp_v6 || other.tcp_v6,
            udp_v6: self.udp_v6 || other.udp_v6,
        }
    }

    /// Whether it hashes the L4 ports of packets with this tuple.
    pub(crate) fn has(self, key: &FlowKey) -> bool {
        match (key.family == V6, Protocol::from_number(key.protocol)) {
            (false, Some(Protocol::Tcp)) => self.tcp_v4,
            (false, Some(Protocol::Udp)) => self.udp_v4,
            (true, Some(Protocol::Tcp)) => self.tcp_v6,
            (true, Some(Protocol::Udp)) => self.udp_v6,
            (_, None) => false,
        }
    }
}

/// Who has seen the key of a spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// We drew it, and the NIC took it: nobody else.
    Secret,
    /// It is the PMD's own, which anyone can read in its source.
    Known,
}

/// Why a key and a RETA are no spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpreadError {
    /// The low bits of a hash name an entry.
    #[error("a RETA of {0} entries: a power of two from 2 to {LONGEST_TABLE} is wanted")]
    TableLen(usize),
    /// An entry names a worker that is not there.
    #[error("the RETA names queue {queue}, and there are {workers}")]
    NoSuchWorker {
        /// The entry.
        queue: u8,
        /// Workers of the box.
        workers: u8,
    },
    /// A worker would get nothing.
    #[error("the RETA does not name queue {0}")]
    Idle(u8),
    /// With this key the L4 port alone does not lead to every entry.
    #[error("the RSS key is too regular: some replies could not come to some worker")]
    Regular,
}

/// See the module. About 8 KiB, shared by all workers.
#[derive(Clone, Debug)]
pub struct Spread {
    toeplitz: Toeplitz,
    hashed: Hashed,
    key: Key,
    /// The worker of each entry.
    table: Box<[WorkerIdx]>,
    /// Entries in the order of their workers, and where those of each worker begin.
    entries: Box<[u16]>,
    begins: Box<[u16]>,
    /// By family: the L4 ports of ours that bring replies to an entry.
    v4: Inverse,
    v6: Inverse,
}

impl Spread {
    /// The spread of NICs with this key and RETA.
    ///
    /// * `key`: what goes into hashes of tuples; longer keys of NICs are longer at the end.
    /// * `table`: the queue of each entry; worker `i` polls queue `i`.
    /// * `hashed`: what is spread by it. Other packets are spread as if there were none.
    ///
    /// # Errors
    /// [`SpreadError`]. A random key is [`SpreadError::Regular`] once in some hundred times: draw another.
    pub fn new(
        key: &[u8; KEY_LEN],
        known_to: Key,
        table: &[u8],
        workers: u8,
        hashed: Hashed,
    ) -> Result<Self, SpreadError> {
        if !table.len().is_power_of_two() || !(2..=LONGEST_TABLE).contains(&table.len()) {
            return Err(SpreadError::TableLen(table.len()));
        }
        if let Some(queue) = table.iter().copied().find(|queue| *queue >= workers) {
            return Err(SpreadError::NoSuchWorker { queue, workers });
        }
        if let Some(idle) = (0..workers).find(|worker| !table.contains(worker)) {
            return Err(SpreadError::Idle(idle));
        }
        let toeplitz = Toeplitz::new(key);
        let inverse = |address_len| {
            let client_ports = toeplitz.port_columns(address_len, toeplitz::SOURCE);
            Inverse::new(&client_ports, table.len())?; // neighbouring clients are spread evenly
            Inverse::new(&toeplitz.port_columns(address_len, toeplitz::DESTINATION), table.len())
        };
        let (v4, v6) = (inverse(4), inverse(16));
        let (Some(v4), Some(v6)) = (v4, v6) else { return Err(SpreadError::Regular) };
        let mut entries: Vec<u16> = (0..).take(table.len()).collect();
        entries.sort_by_key(|entry| table[usize::from(*entry)]);
        let named_before = |worker| table.iter().filter(|queue| **queue < worker).count() as u16;
        Ok(Self {
            toeplitz,
            hashed,
            key: known_to,
            table: table.iter().copied().map(WorkerIdx).collect(),
            entries: entries.into(),
            begins: (0..workers).map(named_before).chain([table.len() as u16]).collect(),
            v4,
            v6,
        })
    }

    /// The hash that a NIC computes of a packet's addresses and L4 ports.
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u32 {
        self.toeplitz.hash(key)
    }

    /// The worker to whose queue packets with this key come, if their L4 ports are hashed.
    #[must_use]
    pub fn worker_of(&self, key: &FlowKey) -> Option<WorkerIdx> {
        self.hashed.has(key).then(|| self.table[self.entry(key)])
    }

    /// As [`Self::worker_of`], of packets whose sender could choose who gets them, were the key known.
    pub(crate) fn worker_of_client(&self, key: &FlowKey) -> Option<WorkerIdx> {
        self.worker_of(key).filter(|_| self.key == Key::Secret)
    }

    /// The L4 ports of ours at which replies come to a worker; `replies` is their key, with port 0.
    #[inline(never)] // a box without RSS shall not be slower for it
    pub(crate) fn ports_to(&self, worker: WorkerIdx, replies: &FlowKey) -> Option<PortsTo<'_>> {
        if !self.hashed.has(replies) {
            return None;
        }
        let at = usize::from(worker.0);
        let own = usize::from(*self.begins.get(at)?)..usize::from(*self.begins.get(at + 1)?);
        let inverse = if replies.family == V6 { &self.v6 } else { &self.v4 };
        Some(inverse.ports_to(self.entries.get(own)?, self.entry(replies)))
    }

    fn entry(&self, key: &FlowKey) -> usize {
        self.hash(key) as usize & (self.table.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Family, spread};

    fn table(len: usize, workers: u8) -> Vec<u8> {
        (0..workers).cycle().take(len).collect()
    }

    /// A key of which everyone has read.
    const MICROSOFT: &[u8; KEY_LEN] =
        b"\x6d\x5a\x56\xda\x25\x5b\x0e\xc2\x41\x67\x25\x3d\x43\xa3\x8f\xb0\xd0\xca\x2b\xcb\
        \xae\x7b\x30\xb4\x77\xcb\x2d\xa3\x80\x30\xf2\x0c\x6a\x42\xb7\x3b\xbe\xac\x01\xfa";

    #[test]
    fn what_is_no_spread_is_named() {
        let new = |key: &[u8; KEY_LEN], table: &[u8]| {
            Spread::new(key, Key::Known, table, 3, Hashed::ALL)
                .map_or_else(|error| error.to_string(), |_| "a spread".to_owned())
        };
        let rows = [
            (new(MICROSOFT, &table(128, 3)), "a spread"),
            (new(MICROSOFT, &table(2048, 3)), "a spread"),
            (
                new(MICROSOFT, &table(100, 3)),
                "a RETA of 100 entries: a power of two from 2 to 4096 is wanted",
            ),
            (new(MICROSOFT, &[]), "a RETA of 0 entries: a power of two from 2 to 4096 is wanted"),
            (new(MICROSOFT, &table(64, 4)), "the RETA names queue 3, and there are 3"),
            (new(MICROSOFT, &table(64, 2)), "the RETA does not name queue 2"),
            (
                new(&[0x55; KEY_LEN], &table(64, 3)),
                "the RSS key is too regular: some replies could not come to some worker",
            ),
        ];
        for (said, expected) in rows {
            assert_eq!(said, expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Every L4 port from 1024 on is some worker's, and no two workers'.
        #[test]
        fn each_port_leads_to_one_worker_and_is_told_once(
            seed in any::<u64>(),
            workers in 2..=8_u8,
            len in prop::sample::select(&[8_usize, 64, 128, 512]),
            family in prop::sample::select(Family::BOTH.to_vec()),
            (backend, port) in (1..=40_u8, any::<u16>()),
        ) {
            let spread = spread(seed, &table(len, workers), workers);
            let ends = ["10.0.0.200:0".to_owned(), format!("10.0.0.{backend}:{port}")];
            let [ours, backend] = ends.map(|end| family.text(&end).parse().unwrap());
            let replies = FlowKey::new(backend, ours, Protocol::Tcp).unwrap();
            let mut seen = HashSet::new();
            for worker in (0..workers).map(WorkerIdx) {
                let ports = spread.ports_to(worker, &replies).unwrap();
                let fair = 65536 / u32::from(workers);
                prop_assert!(ports.count().abs_diff(fair) <= 65536 / len as u32, "{}", ports.count());
                for port in (0..ports.count()).filter_map(|at| ports.port(at as u16)) {
                    let ours = std::net::SocketAddr::new(ours.ip(), port);
                    let replies = FlowKey::new(backend, ours, Protocol::Tcp).unwrap();
                    prop_assert_eq!(spread.worker_of(&replies), Some(worker));
                    prop_assert!(port >= 1024 && seen.insert(port));
                }
            }
            prop_assert_eq!(seen.len(), 65536 - 1024);
        }
    }

    #[test]
    fn what_is_not_hashed_is_not_spread() {
        let hashed = Hashed { tcp_v4: true, udp_v6: true, ..Hashed::default() };
        let spread = Spread::new(MICROSOFT, Key::Known, &table(64, 2), 2, hashed).unwrap();
        for (family, protocol, expected) in [
            (Family::V4, Protocol::Tcp, true),
            (Family::V4, Protocol::Udp, false),
            (Family::V6, Protocol::Tcp, false),
            (Family::V6, Protocol::Udp, true),
        ] {
            let [a, b] =
                ["10.0.0.3:80", "10.0.0.200:0"].map(|end| family.text(end).parse().unwrap());
            let key = FlowKey::new(a, b, protocol).unwrap();
            assert_eq!(spread.worker_of(&key).is_some(), expected);
            assert_eq!(spread.ports_to(WorkerIdx(0), &key).is_some(), expected);
            assert_eq!(spread.worker_of_client(&key), None, "its key is known");
        }
    }
}
