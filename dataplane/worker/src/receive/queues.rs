//! How many queues a port gets, and which worker has which.

use penstock_dpdk::{Capabilities, RssHash};

use super::Manner;
use crate::config::{PortConfig, Receive};

/// The queues of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues.
    pub rx: u16,
    /// Transmit queues.
    pub tx: u16,
    /// The worker of the first of either; the others follow in order.
    pub first: usize,
    workers: usize,
}

impl Queues {
    /// As many as there are workers, if the port has them and may use them; `at` is its place among the ports.
    ///
    /// # Errors
    /// If the operator wants RSS of a port that cannot have it: what is missing, and the next move.
    pub fn of(
        port: &PortConfig,
        can: &Capabilities,
        driver: &str,
        at: usize,
        workers: usize,
    ) -> Result<Self, String> {
        let all = workers as u16; // at most MAX_WORKERS
        let (mut rx, mut tx) = (can.rx_queues.min(all), can.tx_queues.min(all));
        if port.receive == Receive::Software {
            rx = 1;
        }
        if driver == "net_tap" {
            (rx, tx) = (rx.min(tx), rx.min(tx)); // it has pairs
        }
        if port.receive == Receive::Rss && workers > 1 {
            let missing = match can {
                _ if rx < all => format!("{rx} receive queues for {workers} workers"),
                _ if can.rss == NONE || can.rss_table_len == 0 => {
                    "no RSS with a table that can be set".to_owned()
                }
                _ => String::new(),
            };
            if !missing.is_empty() {
                return Err(format!(
                    "port {}: receive: rss, but {driver} has {missing}; use receive: auto",
                    port.name
                ));
            }
        }
        // Ports with one queue are shared out: each is polled by another worker.
        let first = if rx < all { at % workers } else { 0 };
        Ok(Self { rx, tx, first, workers })
    }

    /// Whether there is a choice of queues for RSS to make.
    pub fn can_spread(&self, can: &Capabilities) -> bool {
        self.rx > 1 && can.rss != NONE
    }

    /// Whether each worker has a receive queue, the one of its number.
    pub fn for_all(&self) -> bool {
        usize::from(self.rx) == self.workers
    }

    /// How packets come to the workers, where RSS is not known to bring them.
    pub fn manner(&self) -> Manner {
        match self.for_all() {
            _ if self.workers == 1 => Manner::Alone,
            true => Manner::Queues,
            false => Manner::Software,
        }
    }

    /// The worker that has a queue of this number, of either kind.
    pub fn worker_of(&self, queue: usize) -> usize {
        (self.first + queue) % self.workers
    }

    /// The worker that sends for one that has no transmit queue.
    pub fn sender_for(&self, worker: usize) -> usize {
        self.worker_of(worker % usize::from(self.tx.max(1)))
    }
}

const NONE: RssHash = RssHash { ip: false, tcp: false, udp: false };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn port(receive: &str) -> PortConfig {
        let yaml = format!(
            "ports: [{{ name: lan, device: x, companion: c, receive: {receive} }}]\nworkers: {{ count: 4 }}"
        );
        Config::parse("test.yaml", &yaml).unwrap().ports.remove(0)
    }

    fn can(queues: u16, tx_queues: u16, has_rss: bool) -> Capabilities {
        Capabilities {
            rx_queues: queues,
            tx_queues,
            rss: RssHash { ip: has_rss, tcp: has_rss, udp: has_rss },
            rss_key_bytes: 40,
            rss_table_len: if has_rss { 128 } else { 0 },
        }
    }

    /// What a port has, what it gets with four workers, and who polls its first queue if it is the third.
    #[test]
    fn a_port_gets_what_it_has_and_the_operator_wants() {
        let rows = [
            // receive, driver, what it has, queues, first, manner
            ("auto", "net_ixgbe", can(64, 64, true), (4, 4), 0, Manner::Queues),
            ("rss", "net_ixgbe", can(64, 64, true), (4, 4), 0, Manner::Queues),
            ("software", "net_ixgbe", can(64, 64, true), (1, 4), 2, Manner::Software),
            ("auto", "net_memif", can(255, 255, false), (4, 4), 0, Manner::Queues),
            ("auto", "net_tap", can(16, 16, false), (4, 4), 0, Manner::Queues),
            ("software", "net_tap", can(16, 16, false), (1, 1), 2, Manner::Software),
            ("auto", "net_pcap", can(1, 1, false), (1, 1), 2, Manner::Software),
            ("auto", "net_e1000_igb_vf", can(2, 2, false), (2, 2), 2, Manner::Software),
        ];
        for (receive, driver, can, queues, first, manner) in rows {
            let found = Queues::of(&port(receive), &can, driver, 2, 4).unwrap();
            assert_eq!((found.rx, found.tx), queues, "{driver} {receive}");
            assert_eq!((found.first, found.manner()), (first, manner), "{driver} {receive}");
        }
        let alone = Queues::of(&port("rss"), &can(1, 1, false), "net_pcap", 2, 1).unwrap();
        assert_eq!((alone.rx, alone.first, alone.manner()), (1, 0, Manner::Alone));
    }

    #[test]
    fn rss_of_a_port_that_has_none_is_refused_with_the_reason() {
        let refused = |can| Queues::of(&port("rss"), &can, "net_pcap", 0, 4).unwrap_err();
        assert_eq!(
            refused(can(1, 1, true)),
            "port lan: receive: rss, but net_pcap has 1 receive queues for 4 workers; use receive: auto"
        );
        assert_eq!(
            refused(can(4, 4, false)),
            "port lan: receive: rss, but net_pcap has no RSS with a table that can be set; use receive: auto"
        );
    }

    #[test]
    fn who_has_no_transmit_queue_sends_through_one_who_has() {
        let one = Queues::of(&port("auto"), &can(1, 1, false), "net_pcap", 2, 4).unwrap();
        assert_eq!([0, 1, 2, 3].map(|worker| one.sender_for(worker)), [2; 4]);
        let two = Queues::of(&port("auto"), &can(2, 2, false), "net_virtio", 3, 4).unwrap();
        assert_eq!([0, 1].map(|queue| two.worker_of(queue)), [3, 0]);
        assert!([0, 1, 2, 3].iter().all(|worker| [3, 0].contains(&two.sender_for(*worker))));
    }
}
