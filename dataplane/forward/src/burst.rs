//! Up to [`BURST`] packets that walk together, borrowed from whoever received them.

use crate::exit::ShortExit;
use crate::fragment::Learned;
use crate::{Exit, NextHopKey, PortIdx, PuntClass};

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

/// One frame of a burst, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'b> {
    frame: &'b [u8],
    ingress: PortIdx,
    exit: Exit,
    learned: Option<Learned>,
}

impl<'b> Packet<'b> {
    /// How the journey ended. Before [`Forwarder::forward`](crate::Forwarder::forward) it is a punt.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// What is known of the datagram of which this is a piece; travels with it to its owner, for
    /// [`Burst::push_piece`].
    #[must_use]
    pub fn learned(&self) -> Option<Learned> {
        self.learned
    }

    /// Bytes of the frame now; never more than came in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// Whether the frame has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frame.is_empty()
    }

    /// The frame as it is now, cut to [`Self::len`].
    #[must_use]
    pub fn frame(&self) -> &'b [u8] {
        self.frame
    }

    /// The port the frame came in by.
    #[must_use]
    pub fn ingress(&self) -> PortIdx {
        self.ingress
    }
}

/// What travels beside a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slip {
    /// Bytes of the frame now.
    pub(crate) len: u16,
    pub(crate) ingress: PortIdx,
    pub(crate) checks: RxChecks,
    pub(crate) exit: ShortExit,
}

/// A fixed-size vector of packets; making and filling one allocates nothing.
///
/// A burst is made for every poll of a queue, so it is small: 28 bytes a packet to clear, where
/// whole packets with whole exits took 24 TSC cycles each (bench `l4_full_nat/64B/64_flows`).
#[derive(Debug)]
pub struct Burst<'a> {
    pub(crate) frames: [&'a mut [u8]; BURST],
    pub(crate) slips: [Slip; BURST],
    /// Where those wait that are held; made when the first one is.
    holds: Option<[NextHopKey; BURST]>,
    /// What is known of pieces of datagrams; made when the first one is.
    learned: Option<[Option<Learned>; BURST]>,
    len: usize,
}

impl<'a> Burst<'a> {
    /// An empty burst.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self {
            frames: std::array::from_fn(|_| Default::default()),
            slips: [Slip::default(); BURST],
            holds: None,
            learned: None,
            len: 0,
        }
    }

    /// Adds a whole Ethernet frame without FCS, writable in place.
    ///
    /// Returns whether there was room. A frame longer than 65 535 bytes is seen cut to that.
    #[inline]
    pub fn push(&mut self, frame: &'a mut [u8], ingress: PortIdx, checks: RxChecks) -> bool {
        let (Some(place), Some(slip)) =
            (self.frames.get_mut(self.len), self.slips.get_mut(self.len))
        else {
            return false;
        };
        let len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
        *slip = Slip { len, ingress, checks, exit: ShortExit::default() };
        *place = frame;
        self.len += 1;
        true
    }

    /// Adds a frame as [`Self::push`] does, with what is known of it if it is a piece of a datagram: it was
    /// handed over with that, or waited for it.
    #[inline]
    pub fn push_piece(
        &mut self,
        frame: &'a mut [u8],
        ingress: PortIdx,
        checks: RxChecks,
        learned: Option<Learned>,
    ) -> bool {
        let pushed = self.push(frame, ingress, checks);
        if let Some(learned) = learned.filter(|_| pushed) {
            self.learn(self.len - 1, learned);
        }
        pushed
    }

    /// Packets in the burst.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The packets in the order they were pushed.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        (0..self.len).map(|at| {
            let slip = &self.slips[at];
            let exit = match slip.exit.long() {
                Some(exit) => exit,
                None => {
                    self.holds.map_or(Exit::Punt(PuntClass::Other), |holds| Exit::Hold(holds[at]))
                }
            };
            let frame = self.frames[at].get(..usize::from(slip.len)).unwrap_or_default();
            let learned = self.learned(at);
            Packet { frame, ingress: slip.ingress, exit, learned }
        })
    }

    /// How a packet leaves.
    #[inline]
    pub(crate) fn leave(&mut self, at: usize, exit: ShortExit) {
        self.slips[at % BURST].exit = exit;
    }

    /// What is known of the datagram of which a packet is a piece.
    #[inline]
    pub(crate) fn learned(&self, at: usize) -> Option<Learned> {
        self.learned.as_ref().and_then(|learned| learned[at % BURST])
    }

    #[cold]
    pub(crate) fn learn(&mut self, at: usize, learned: Learned) {
        self.learned.get_or_insert([None; BURST])[at % BURST] = Some(learned);
    }

    /// A packet leaves to wait for a next hop.
    #[cold]
    pub(crate) fn hold(&mut self, at: usize, key: NextHopKey) {
        self.holds.get_or_insert([key; BURST])[at % BURST] = key;
        self.slips[at % BURST].exit = ShortExit::HOLD;
    }
}

impl Default for Burst<'_> {
    fn default() -> Self {
        Self::new()
    }
}
