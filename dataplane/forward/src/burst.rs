//! Up to [`BURST`] packets that walk together, borrowed from whoever received them.

use arrayvec::ArrayVec;

use crate::exit::ShortExit;
use crate::fragment::Learned;
use crate::spread::Hashed;
use crate::wire::ethernet;
use crate::{Exit, NextHopKey, PortIdx, PuntClass};

/// The most packets in a burst.
pub const BURST: usize = 64;

/// Bytes before each frame that are the forwarder's to write: for the headers of a tunnel, or of an ICMP error.
pub const HEADROOM: usize = 64;

/// What the NIC already verified of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxChecks {
    /// The IPv4 header checksum.
    pub ip: Checked,
    /// The TCP or UDP checksum.
    pub l4: Checked,
}

/// How a packet came: what nearly all packets of a burst have in common, in one word, to be compared with the last
/// packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival(u32);

impl Arrival {
    #[inline]
    fn new(ingress: PortIdx, checks: RxChecks) -> Self {
        Self(u32::from(ingress.0) | (checks.ip as u32) << 16 | (checks.l4 as u32) << 24)
    }

    #[inline]
    pub(crate) fn ingress(self) -> PortIdx {
        PortIdx(self.0 as u16)
    }

    pub(crate) fn checks(self) -> RxChecks {
        let [.., ip, l4] = self.0.to_le_bytes();
        let verdict = |byte| match byte {
            1 => Checked::Good,
            2 => Checked::Bad,
            _ => Checked::Unknown,
        };
        RxChecks { ip: verdict(ip), l4: verdict(l4) }
    }
}

/// A verdict of the NIC on a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Checked {
    /// Nobody looked: an IPv4 header is verified here, an L4 checksum is left to the receiver,
    /// since an incremental update keeps a wrong checksum wrong.
    #[default]
    Unknown = 0,
    /// Verified.
    Good = 1,
    /// Found wrong.
    Bad = 2,
}

/// What brought a burst to the worker that forwards it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CameBy {
    /// A queue of its own; what chose it may have had its reasons, or not.
    #[default]
    Queue,
    /// A queue of its own, chosen by RSS as the box's [`Spread`](crate::Spread) has it, for the packets of which that
    /// port's NIC hashes the L4 ports. That is checked.
    Rss(Hashed),
    /// A queue to which packets of all workers come.
    Unspread,
    /// Other workers.
    Handed,
}

/// One frame of a burst, as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'b> {
    burst: &'b Burst<'b>,
    slot: &'b Slot<'b>,
    at: usize,
}

impl<'b> Packet<'b> {
    /// How the journey ended. Before [`Forwarder::forward`](crate::Forwarder::forward) it is a punt.
    #[must_use]
    #[inline]
    pub fn exit(&self) -> Exit {
        self.slot.exit.long().unwrap_or_else(|| self.burst.held(self.at))
    }

    /// The port to transmit it on, if that is its exit: [`Self::exit`] of nearly every packet, sooner told.
    #[must_use]
    #[inline]
    pub fn sent_on(&self) -> Option<PortIdx> {
        self.slot.exit.sent_on()
    }

    /// What is known of the datagram of which this is a piece; travels with it to its owner, for
    /// [`Burst::learn`].
    #[must_use]
    #[inline]
    pub fn learned(&self) -> Option<Learned> {
        self.burst.learned(self.at)
    }

    /// Where in its buffer the frame begins now: it came in at [`HEADROOM`].
    #[must_use]
    #[inline]
    pub fn start(&self) -> usize {
        self.slot.start.into()
    }

    /// Bytes of the frame now.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.slot.len.into()
    }

    /// Whether the frame has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame as it is now.
    #[must_use]
    pub fn frame(&self) -> &'b [u8] {
        self.slot.buffer.get(self.start()..self.start() + self.len()).unwrap_or_default()
    }

    /// The port the frame came in by.
    #[must_use]
    #[inline]
    pub fn ingress(&self) -> PortIdx {
        self.slot.arrival.ingress()
    }
}

/// One packet: its buffer, where in that the frame lies now, and what else travels with it.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    /// The headroom and the frame as it came in; empty if there is less than the headroom.
    pub(crate) buffer: &'a mut [u8],
    /// Bytes of the frame now.
    pub(crate) len: u16,
    /// Where in its buffer it begins now.
    pub(crate) start: u16,
    pub(crate) arrival: Arrival,
    pub(crate) exit: ShortExit,
}

impl Slot<'_> {
    /// The frame as it came in.
    #[inline]
    pub(crate) fn frame(&self) -> &[u8] {
        self.buffer.get(HEADROOM..).unwrap_or_default()
    }

    /// The frame as it came in.
    #[inline]
    pub(crate) fn frame_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// The buffer from where the frame begins now.
    #[inline]
    pub(crate) fn front_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(usize::from(self.start)..).unwrap_or_default()
    }

    /// Moves the beginning of the frame by so many bytes towards the front, whose bytes are then anything.
    pub(crate) fn grow(&mut self, count: usize) -> Option<()> {
        let count = u16::try_from(count).ok()?;
        self.len = self.len.checked_add(count)?;
        self.start = self.start.checked_sub(count)?;
        Some(())
    }

    /// Takes bytes off the front.
    pub(crate) fn shrink(&mut self, count: usize) -> Option<()> {
        let count = u16::try_from(count).ok()?;
        self.len = self.len.checked_sub(count)?;
        self.start += count;
        Some(())
    }

    /// Cuts off what lies behind the largest IP packet of an untagged frame: padding, of one that fits.
    #[inline]
    pub(crate) fn cut_to(&mut self, mtu: u16) {
        self.len = self.len.min(mtu.saturating_add(ethernet::HEADER_LEN as u16));
    }
}

/// A fixed-size vector of packets; making and filling one allocates nothing.
///
/// A burst is made for every poll of a queue, so nothing is written before it is needed.
#[derive(Debug)]
pub struct Burst<'a> {
    pub(crate) slots: ArrayVec<Slot<'a>, BURST>,
    /// Where those wait that are held; made when the first one is.
    holds: Option<[NextHopKey; BURST]>,
    /// What is known of pieces of datagrams; made when the first one is.
    learned: Option<[Option<Learned>; BURST]>,
    came_by: CameBy,
}

impl<'a> Burst<'a> {
    /// An empty burst.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self::that_came_by(CameBy::Queue)
    }

    /// An empty burst of packets that came in so.
    #[must_use]
    #[inline]
    pub fn that_came_by(came_by: CameBy) -> Self {
        Self { slots: ArrayVec::new_const(), holds: None, learned: None, came_by }
    }

    pub(crate) fn came_by(&self) -> CameBy {
        self.came_by
    }

    /// Adds a whole Ethernet frame without FCS, writable in place, that begins [`HEADROOM`] bytes into its buffer.
    ///
    /// Returns whether there was room. A frame longer than 65 535 bytes is seen cut to that, and one whose
    /// buffer has no headroom as an empty one.
    #[inline]
    pub fn push(&mut self, buffer: &'a mut [u8], ingress: PortIdx, checks: RxChecks) -> bool {
        let len = u16::try_from(buffer.len().saturating_sub(HEADROOM)).unwrap_or(u16::MAX);
        let (start, exit) = (HEADROOM as u16, ShortExit::default());
        let arrival = Arrival::new(ingress, checks);
        self.slots.try_push(Slot { buffer, len, start, arrival, exit }).is_ok()
    }

    /// Packets in the burst.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The packets in the order they were pushed.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        self.slots.iter().enumerate().map(|(at, slot)| Packet { burst: self, slot, at })
    }

    /// Where a packet waits that says it is held.
    #[cold]
    fn held(&self, at: usize) -> Exit {
        let key = self.holds.as_ref().map(|holds| holds[at % BURST]);
        key.map_or(Exit::Punt(PuntClass::Other), Exit::Hold)
    }

    /// A frame as it came in.
    #[inline]
    pub(crate) fn frame_mut(&mut self, at: usize) -> &mut [u8] {
        self.slots[at].frame_mut()
    }

    /// How a packet leaves.
    #[inline]
    pub(crate) fn leave(&mut self, at: usize, exit: ShortExit) {
        self.slots[at].exit = exit;
    }

    /// What is known of the datagram of which a packet is a piece.
    #[inline]
    pub(crate) fn learned(&self, at: usize) -> Option<Learned> {
        self.learned.as_ref().and_then(|learned| learned[at % BURST])
    }

    /// What is known of a packet that was pushed and is a piece of a datagram: it was handed over with that, or waited
    /// for it.
    #[cold]
    pub fn learn(&mut self, at: usize, learned: Learned) {
        self.learned.get_or_insert([None; BURST])[at % BURST] = Some(learned);
    }

    /// A packet leaves to wait for a next hop.
    #[cold]
    pub(crate) fn hold(&mut self, at: usize, key: NextHopKey) {
        self.holds.get_or_insert([key; BURST])[at % BURST] = key;
        self.leave(at, ShortExit::HOLD);
    }
}

impl Default for Burst<'_> {
    fn default() -> Self {
        Self::new()
    }
}
