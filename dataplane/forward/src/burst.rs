//! Up to [`BURST`] packets that walk together, borrowed from whoever received them.

use crate::{Exit, PortIdx, PuntClass};

/// The most packets in a burst.
pub const BURST: usize = 32;

/// What the NIC already verified of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxChecks {
    /// The IPv4 header checksum.
    pub ip: Checked,
    /// The TCP or UDP checksum.
    pub l4: Checked,
}

/// A verdict of the NIC on a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checked {
    /// Nobody looked: an IPv4 header is verified here, an L4 checksum is left to the receiver,
    /// since an incremental update keeps a wrong checksum wrong.
    #[default]
    Unknown,
    /// Verified.
    Good,
    /// Found wrong.
    Bad,
}

/// One frame on its journey.
#[derive(Debug)]
pub struct Packet<'a> {
    pub(crate) frame: &'a mut [u8],
    pub(crate) len: u16,
    pub(crate) ingress: PortIdx,
    pub(crate) checks: RxChecks,
    pub(crate) exit: Exit,
}

impl Packet<'_> {
    /// How the journey ended. Before [`Forwarder::forward`](crate::Forwarder::forward) it is a punt.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Bytes of the frame now; never more than came in.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the frame has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The frame as it is now, cut to [`Self::len`].
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        self.frame.get(..self.len()).unwrap_or_default()
    }

    /// The port the frame came in by.
    #[must_use]
    pub fn ingress(&self) -> PortIdx {
        self.ingress
    }
}

impl Default for Packet<'_> {
    fn default() -> Self {
        Self {
            frame: &mut [],
            len: 0,
            ingress: PortIdx(0),
            checks: RxChecks::default(),
            exit: Exit::Punt(PuntClass::Other),
        }
    }
}

/// A fixed-size vector of packets; making and filling one allocates nothing.
#[derive(Debug)]
pub struct Burst<'a> {
    pub(crate) packets: [Packet<'a>; BURST],
    len: usize,
}

impl<'a> Burst<'a> {
    /// An empty burst.
    #[must_use]
    pub fn new() -> Self {
        Self { packets: std::array::from_fn(|_| Packet::default()), len: 0 }
    }

    /// Adds a whole Ethernet frame without FCS, writable in place.
    ///
    /// Returns whether there was room. A frame longer than 65 535 bytes is seen cut to that.
    pub fn push(&mut self, frame: &'a mut [u8], ingress: PortIdx, checks: RxChecks) -> bool {
        let Some(packet) = self.packets.get_mut(self.len) else { return false };
        packet.len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
        packet.frame = frame;
        packet.ingress = ingress;
        packet.checks = checks;
        self.len += 1;
        true
    }

    /// Packets in the burst.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packets in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = &Packet<'a>> {
        self.packets[..self.len].iter()
    }
}

impl Default for Burst<'_> {
    fn default() -> Self {
        Self::new()
    }
}
