//! Packets in buffers that lie as a mempool's do, and the tuples of connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use memmap2::{Advice, MmapMut};
use penstock_forward::flow::FlowKey;
use penstock_forward::testing::{Family, TestPacket};
use penstock_forward::{
    BURST, Burst, Forwarder, HEADROOM, PortIdx, Protocol, RxChecks, Snapshot, Tick,
};

use crate::network::{BOX, VIP};
use crate::timing::clock;

/// Packets a round: 16 bursts, so that reading the clock costs nothing per packet.
pub(crate) const PACKETS: usize = 16 * BURST;
/// Bytes from one packet to the next, as in a mempool.
const STRIDE: usize = 2176;
/// The least TCP frame of each family without its FCS: 64 bytes with it, and 78.
const FRAME: [usize; 2] = [60, 74];

/// Packet buffers that lie as a mempool's do.
pub(crate) struct Packets {
    family: Family,
    memory: MmapMut,
    template: Vec<u8>,
    now: Tick,
}

impl Packets {
    pub(crate) fn new(family: Family) -> std::io::Result<Self> {
        let memory = MmapMut::map_anon(PACKETS * STRIDE)?;
        memory.advise(Advice::HugePage)?;
        let any = SocketAddr::new(family.of(VIP), 80);
        let template = TestPacket::between(any, any, Protocol::Tcp).to_mac(BOX);
        let template = template.padded_to(FRAME[family as usize]).bytes();
        Ok(Self { family, memory, template, now: Tick(1) })
    }

    /// Writes a packet of `key` with a right header checksum. The TCP checksum stays the template's:
    /// it is updated, not read.
    pub(crate) fn write(&mut self, at: usize, key: &FlowKey, flags: u8) {
        let frame = &mut self.memory[at * STRIDE + HEADROOM..][..self.template.len()];
        frame.copy_from_slice(&self.template);
        let l4 = self.family.l4();
        for (nth, end) in [key.source(), key.destination()].into_iter().enumerate() {
            match end.ip() {
                IpAddr::V4(v4) => frame[26 + 4 * nth..][..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => frame[22 + 16 * nth..][..16].copy_from_slice(&v6.octets()),
            }
            frame[l4 + 2 * nth..][..2].copy_from_slice(&end.port().to_be_bytes());
        }
        frame[l4 + 13] = flags;
        if self.family == Family::V4 {
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = !penstock_forward::wire::checksum::sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_ne_bytes());
        }
    }

    /// The frames, for another loop than the forwarder's.
    pub(crate) fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let len = self.template.len();
        self.memory.chunks_exact_mut(STRIDE).map(move |buffer| &mut buffer[HEADROOM..][..len])
    }

    /// Lets a tick pass, without which no flow gives way to another.
    pub(crate) fn wait(&mut self) {
        self.now.0 += 1;
    }

    /// Forwards all packets in bursts, and returns the time it took.
    pub(crate) fn forward(&mut self, forwarder: &mut Forwarder, snapshot: &Snapshot) -> u64 {
        let len = HEADROOM + self.template.len();
        let mut frames = self.memory.chunks_exact_mut(STRIDE);
        let mut sent = 0;
        let begin = clock();
        for _ in 0..PACKETS / BURST {
            let mut burst = Burst::new();
            for buffer in frames.by_ref().take(BURST) {
                burst.push(&mut buffer[..len], PortIdx(0), RxChecks::default());
            }
            forwarder.forward(&mut burst, snapshot, self.now);
            sent += burst.iter().filter(|packet| packet.sent_on().is_some()).count();
        }
        let took = clock() - begin;
        assert_eq!(sent, PACKETS, "every packet is sent");
        took
    }
}

/// The packets of the `n`th connection's client.
pub(crate) fn client_key(family: Family, n: usize) -> FlowKey {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) + n / 1024);
    let port = u16::try_from(20_000 + n % 1024).unwrap_or(u16::MAX);
    let client = SocketAddr::new(family.of(address), port);
    FlowKey::new(client, SocketAddr::new(family.of(VIP), 80), Protocol::Tcp).unwrap_or_default()
}
