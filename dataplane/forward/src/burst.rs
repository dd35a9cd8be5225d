//! Up to [`BURST`] packets that walk together, borrowed from whoever received them.

use crate::exit::ShortExit;
use crate::fragment::Learned;
use crate::{Exit, NextHopKey, PortIdx, PuntClass};

/// The most packets in a burst.
pub const BURST: usize = 32;

/// Bytes before each frame that are the forwarder's to write: for the headers of a tunnel, and for a VLAN tag.
pub const HEADROOM: usize = 64;

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
    grown: &'b [u8],
    rest: &'b [u8],
    start: usize,
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

    /// Where in its buffer the frame begins now: it came in at [`HEADROOM`].
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes of the frame now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.grown.len() + self.rest.len()
    }

    /// Whether the frame has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame as it is now: what lies in the headroom, and what lies behind it.
    #[must_use]
    pub fn frame(&self) -> [&'b [u8]; 2] {
        [self.grown, self.rest]
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
    /// Where in its buffer it begins now.
    pub(crate) start: u16,
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
    heads: [Option<&'a mut [u8; HEADROOM]>; BURST],
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
            heads: [const { None }; BURST],
            slips: [Slip::default(); BURST],
            holds: None,
            learned: None,
            len: 0,
        }
    }

    /// Adds a whole Ethernet frame without FCS, writable in place, that begins [`HEADROOM`] bytes into its buffer.
    ///
    /// Returns whether there was room. A frame longer than 65 535 bytes is seen cut to that, and one whose
    /// buffer has no headroom as an empty one.
    #[inline]
    pub fn push(&mut self, buffer: &'a mut [u8], ingress: PortIdx, checks: RxChecks) -> bool {
        let at = self.len;
        if at == BURST {
            return false;
        }
        let start = HEADROOM as u16;
        self.slips[at] = Slip { len: 0, start, ingress, checks, exit: ShortExit::default() };
        if let Some((head, frame)) = buffer.split_first_chunk_mut() {
            self.slips[at].len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
            (self.heads[at], self.frames[at]) = (Some(head), frame);
        }
        self.len += 1;
        true
    }

    /// Adds a frame as [`Self::push`] does, with what is known of it if it is a piece of a datagram: it was
    /// handed over with that, or waited for it.
    #[inline]
    pub fn push_piece(
        &mut self,
        buffer: &'a mut [u8],
        ingress: PortIdx,
        checks: RxChecks,
        learned: Option<Learned>,
    ) -> bool {
        let pushed = self.push(buffer, ingress, checks);
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
            let (start, len) = (usize::from(slip.start), usize::from(slip.len));
            let head = self.heads[at].as_deref().and_then(|head| head.get(start..));
            let grown = head.map(|head| &head[..head.len().min(len)]).unwrap_or_default();
            let rest = start.saturating_sub(HEADROOM)..(start + len).saturating_sub(HEADROOM);
            let rest = self.frames[at].get(rest).unwrap_or_default();
            let learned = self.learned(at);
            Packet { grown, rest, start, ingress: slip.ingress, exit, learned }
        })
    }

    /// A frame as it came in, the room before it, and what travels beside it.
    pub(crate) fn buffer_mut(&mut self, at: usize) -> Buffer<'_> {
        let head = self.heads[at % BURST].as_deref_mut();
        Buffer { head, frame: self.frames[at % BURST], slip: &mut self.slips[at % BURST] }
    }

    /// The frame as it is now, from its beginning on, as far as it lies in one piece: the link header does, unless
    /// a VLAN tag was put into a frame that did not grow otherwise.
    #[inline]
    pub(crate) fn front_mut(&mut self, at: usize) -> &mut [u8] {
        let start = usize::from(self.slips[at].start);
        match &mut self.heads[at] {
            Some(head) if start < HEADROOM => &mut head[start..],
            _ => self.frames[at].get_mut(start - HEADROOM..).unwrap_or_default(),
        }
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

/// A frame whose beginning moves.
pub(crate) struct Buffer<'b> {
    head: Option<&'b mut [u8; HEADROOM]>,
    pub(crate) frame: &'b mut [u8],
    pub(crate) slip: &'b mut Slip,
}

impl Buffer<'_> {
    /// Moves the beginning of the frame by so many bytes towards the front, whose bytes are then anything.
    pub(crate) fn grow(&mut self, count: usize) -> Option<()> {
        let count = u16::try_from(count).ok()?;
        self.slip.len = self.slip.len.checked_add(count)?;
        self.slip.start = self.slip.start.checked_sub(count)?;
        Some(())
    }

    /// As [`Self::grow`], of a frame that begins where it came in; the bytes that it grew by.
    #[inline]
    pub(crate) fn grow_from_arrival(&mut self, count: usize) -> Option<&mut [u8]> {
        let start = HEADROOM.checked_sub(count)?;
        self.slip.len = self.slip.len.checked_add(count as u16)?;
        self.slip.start = start as u16;
        self.head.as_deref_mut()?.get_mut(start..)
    }

    /// Takes bytes off the front.
    pub(crate) fn shrink(&mut self, count: usize) -> Option<()> {
        let count = u16::try_from(count).ok()?;
        self.slip.len = self.slip.len.checked_sub(count)?;
        self.slip.start += count;
        Some(())
    }

    /// Writes bytes of the frame as it is now, from `at` on.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) -> Option<()> {
        let at = usize::from(self.slip.start) + at;
        let in_head = HEADROOM.saturating_sub(at).min(bytes.len());
        let (before, after) = bytes.split_at(in_head);
        if in_head > 0 {
            self.head.as_deref_mut()?.get_mut(at..at + in_head)?.copy_from_slice(before);
        }
        if !after.is_empty() {
            let at = at + in_head - HEADROOM;
            self.frame.get_mut(at..at + after.len())?.copy_from_slice(after);
        }
        Some(())
    }

    /// Reads bytes of the frame as it is now, from `at` on.
    pub(crate) fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let at = usize::from(self.slip.start) + at;
        let byte = |at: usize| match at.checked_sub(HEADROOM) {
            Some(at) => self.frame.get(at).copied(),
            None => self.head.as_deref()?.get(at).copied(),
        };
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(at..) {
            *to = byte(from)?;
        }
        Some(bytes)
    }
}

impl Default for Burst<'_> {
    fn default() -> Self {
        Self::new()
    }
}
