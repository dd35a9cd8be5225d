//! Packets on their way in: what comes with them, and how they get into the burst that the forwarder takes.

use arrayvec::ArrayVec;
use penstock_dpdk::{MbufBurst, RxChecksum, RxChecksums};
use penstock_forward::{BURST, Burst, CameBy, Checked, HEADROOM, Learned, PortIdx, RxChecks};

use super::{Departures, Handed};

/// A burst, and beside each packet what came with it.
pub(super) struct Arrivals {
    pub(super) mbufs: MbufBurst,
    pub(super) ingress: [PortIdx; BURST],
    /// Of pieces of datagrams, which are few: one of each packet would be written for every burst.
    learned: ArrayVec<(usize, Learned), BURST>,
}

impl Arrivals {
    /// A burst to be received from a port.
    #[inline]
    pub(super) fn from(port: PortIdx) -> Self {
        Self { mbufs: MbufBurst::new(), ingress: [port; BURST], learned: ArrayVec::new_const() }
    }

    pub(super) fn push(&mut self, Handed { mbuf, ingress, learned }: Handed) {
        let at = self.mbufs.len();
        self.ingress[at] = ingress;
        self.learned.extend(learned.map(|learned| (at, learned)));
        let overflow = self.mbufs.push(mbuf);
        debug_assert!(overflow.is_ok(), "a burst has room for BURST packets");
    }

    /// Lets the packets walk together, and says how they leave.
    #[inline]
    pub(super) fn walk(&mut self, came_by: CameBy, walk: impl FnOnce(&mut Burst)) -> Departures {
        let mut burst = Burst::that_came_by(came_by);
        self.lend(&mut burst);
        walk(&mut burst);
        Departures::of(&burst)
    }

    /// Adds the packets to a burst.
    #[inline]
    fn lend<'b>(&'b mut self, burst: &mut Burst<'b>) {
        let (mut said, mut checks) = (RxChecksums::UNKNOWN, RxChecks::default());
        for (mbuf, ingress) in self.mbufs.iter_mut().zip(self.ingress) {
            if mbuf.rx_checksums() != said {
                said = mbuf.rx_checksums();
                checks = rx_checks(said);
            }
            // Every pool leaves room; a frame that has none is seen as an empty one.
            let buffer = mbuf.data_with_headroom_mut(HEADROOM as u16).unwrap_or_default();
            let pushed = burst.push(buffer, ingress, checks);
            debug_assert!(pushed, "both bursts hold BURST packets");
        }
        for &(at, learned) in &self.learned {
            burst.learn(at, learned);
        }
    }
}

/// What the NIC has verified of a frame.
fn rx_checks(said: RxChecksums) -> RxChecks {
    let checked = |checksum| match checksum {
        RxChecksum::Unknown | RxChecksum::Unfilled => Checked::Unknown,
        RxChecksum::Good => Checked::Good,
        RxChecksum::Bad => Checked::Bad,
    };
    RxChecks { ip: checked(said.ip()), l4: checked(said.l4()) }
}
