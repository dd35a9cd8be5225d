//! Which L4 port a new flow tries first: double-hash port selection, RFC 6056 §3.3.4.
//!
//! Each pair of backend and address of ours walks through all ports from a place that a keyed hash
//! names, so a port just freed is the last to be taken again. That gives the backend time to forget
//! the old connection: one that closed first keeps it in TIME-WAIT, and answers a SYN from that port
//! with an ACK of the old one. Who does not see the ports cannot tell where the walk is; who sees
//! one can tell the next to the same backend (§3.3.4 has no more to give, nor has §3.3.3).
//!
//! Pairs may share a turn; each then skips the ports of the other's turns, and repeats none earlier.
//! A new connection costs one hash for this.

use crate::flow::FlowKey;
use crate::flow::hash::FlowHash;

/// Turns kept, 4 KiB a worker.
const TURNS: usize = 1024;

/// How far each walk has come: one worker's.
#[derive(Debug)]
pub(crate) struct PortWalks(Box<[u32; TURNS]>);

/// One pair's walk through `0..ports`.
#[derive(Debug)]
pub(crate) struct PortWalk<'w> {
    turn: &'w mut u32,
    begin: u32,
    ports: u32,
}

impl PortWalks {
    pub(crate) fn new() -> Self {
        Self(Box::new([0; TURNS]))
    }

    /// The walk of the pair in `replies`, the tuple of the backend's packets with port 0 of ours,
    /// which no flow has; `ports` is not 0.
    pub(crate) fn of(&mut self, hash: &FlowHash, replies: &FlowKey, ports: u32) -> PortWalk<'_> {
        let hash = hash.tuple(replies);
        let begin = ((hash & 0xffff_ffff) * u64::from(ports)) >> 32;
        let turn = &mut self.0[(hash >> 32) as usize % TURNS];
        PortWalk { turn, begin: u32::try_from(begin).unwrap_or(0), ports }
    }
}

impl PortWalk<'_> {
    /// The port `step` further on, as an offset; `step` is at most 2¹⁶, and the next walk goes on
    /// from here.
    pub(crate) fn go(&mut self, step: u32) -> u16 {
        *self.turn = self.wrapped(*self.turn + step);
        u16::try_from(self.wrapped(self.begin + *self.turn)).unwrap_or(0)
    }

    /// Divides only where it must.
    fn wrapped(&self, port: u32) -> u32 {
        if port < self.ports { port } else { port % self.ports }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Protocol;

    fn pair(backend: u8) -> FlowKey {
        let backend = ([10, 0, 0, backend], 80).into();
        FlowKey::new(backend, ([10, 0, 0, 200], 0).into(), Protocol::Tcp).unwrap()
    }

    #[test]
    fn each_port_comes_once_before_any_comes_again() {
        let hash = FlowHash::new(&[5; 32]);
        for ports in [1, 2, 253, 1008, 64512] {
            let mut walks = PortWalks::new();
            let mut round = || -> Vec<u16> {
                (0..ports).map(|_| walks.of(&hash, &pair(3), ports).go(1)).collect()
            };
            let first = round();
            assert_eq!(first.iter().collect::<HashSet<_>>().len(), ports as usize);
            assert!(first.iter().all(|port| u32::from(*port) < ports));
            assert_eq!(round(), first, "the one freed longest ago comes first");
        }
    }

    #[test]
    fn pairs_that_share_a_turn_repeat_no_port_earlier() {
        let hash = FlowHash::new(&[5; 32]);
        let ports = 1008;
        let mut walks = PortWalks::new();
        let mut seen = HashSet::new();
        for turn in 0..ports {
            let backend = (turn % 3) as u8;
            let shared = PortWalk { turn: &mut walks.0[0], begin: u32::from(backend) * 100, ports };
            let mut walk = shared;
            assert!(seen.insert((backend, walk.go(1))));
        }
        assert_ne!(walks.of(&hash, &pair(3), ports).begin, walks.of(&hash, &pair(4), ports).begin);
    }

    #[test]
    fn where_a_walk_begins_depends_on_the_pair_and_the_secret() {
        let begins: HashSet<u16> = (1..=8)
            .flat_map(|secret| {
                let hash = FlowHash::new(&[secret; 32]);
                (1..=8).map(move |backend| PortWalks::new().of(&hash, &pair(backend), 64512).go(1))
            })
            .collect();
        assert!(begins.len() >= 62, "64 walks begin at {} places", begins.len());
    }
}
