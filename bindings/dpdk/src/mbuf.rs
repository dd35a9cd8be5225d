//! One packet and the buffer it lives in.
//!
//! ```text
//! buf_addr      data_off                   data_off + data_len            buf_len
//!    |  headroom  |          the packet           |        tailroom          |
//! ```
//!
//! A packet is usually one segment. Where a PMD chained several, [`Mbuf::data`] is the first one
//! and [`Mbuf::is_contiguous`] says no; calls that change lengths then refuse, until
//! [`Mbuf::make_contiguous`].

mod vlan;

use std::fmt;
use std::ptr::NonNull;
use std::slice;

use penstock_dpdk_sys as c;
use penstock_dpdk_sys::MbufHead;

pub use vlan::VlanTcis;

/// A packet with one owner. Dropped, it goes back to its mempool. One pointer in size.
#[repr(transparent)]
pub struct Mbuf {
    head: NonNull<MbufHead>,
}

// SAFETY: an mbuf is plain memory with one owner; freeing it is allowed on any thread.
unsafe impl Send for Mbuf {}

/// Why a packet's length stayed as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MbufError {
    /// The buffer ends before.
    #[error("{asked} bytes asked, the mbuf has room for {room}")]
    NoRoom {
        /// What was asked.
        asked: usize,
        /// What would have fitted.
        room: usize,
    },
    /// The packet is shorter than that.
    #[error("{asked} bytes to take away, the packet has {len}")]
    TooShort {
        /// What was asked.
        asked: usize,
        /// The packet's length.
        len: usize,
    },
    /// Lengths of a chain are not ours to change.
    #[error("the packet is spread over {0} segments, only one can be resized")]
    Chained(u16),
    /// A packet can be spread over so many segments, and no more.
    #[error("{0} segments asked, DPDK allows 65535")]
    Segments(u32),
}

/// What the NIC found out about a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// It did not look, or cannot.
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// The field is not filled in, yet the bytes are whole (virtio between guests of one host).
    Unfilled,
}

/// What the NIC found out about both checksums of a packet, in one word: compare it with the last packet's, which
/// nearly always has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxChecksums {
    flags: u64,
}

impl RxChecksums {
    /// Of a packet at which no NIC looked.
    pub const UNKNOWN: Self = Self { flags: 0 };

    /// What the NIC says of the IPv4 header checksum.
    #[inline]
    #[must_use]
    pub fn ip(self) -> RxChecksum {
        match self.flags & c::PENSTOCK_MBUF_RX_IP_CKSUM_MASK {
            c::PENSTOCK_MBUF_RX_IP_CKSUM_GOOD => RxChecksum::Good,
            c::PENSTOCK_MBUF_RX_IP_CKSUM_BAD => RxChecksum::Bad,
            c::PENSTOCK_MBUF_RX_IP_CKSUM_NONE => RxChecksum::Unfilled,
            _ => RxChecksum::Unknown,
        }
    }

    /// What the NIC says of the TCP or UDP checksum.
    #[inline]
    #[must_use]
    pub fn l4(self) -> RxChecksum {
        match self.flags & c::PENSTOCK_MBUF_RX_L4_CKSUM_MASK {
            c::PENSTOCK_MBUF_RX_L4_CKSUM_GOOD => RxChecksum::Good,
            c::PENSTOCK_MBUF_RX_L4_CKSUM_BAD => RxChecksum::Bad,
            c::PENSTOCK_MBUF_RX_L4_CKSUM_NONE => RxChecksum::Unfilled,
            _ => RxChecksum::Unknown,
        }
    }
}

impl Mbuf {
    /// # Safety
    /// `mbuf` is a whole `rte_mbuf` taken from a mempool or received from a PMD, whose mempool lives
    /// until the mbuf is freed, and nobody else holds it.
    pub(crate) unsafe fn from_raw(mbuf: NonNull<c::rte_mbuf>) -> Self {
        Self { head: mbuf.cast() }
    }

    #[inline]
    fn head(&self) -> &MbufHead {
        // SAFETY: `from_raw` got a whole mbuf of which `MbufHead` is the prefix (asserted beside its
        // definition), ours alone and initialised by its pool or its PMD.
        unsafe { self.head.as_ref() }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut MbufHead {
        // SAFETY: as in `head`, and `&mut self` makes this the only reference.
        unsafe { self.head.as_mut() }
    }

    /// The packet's bytes, as far as the first segment has them.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let head = self.head();
        // SAFETY: see `data_mut`.
        unsafe { slice::from_raw_parts(self.start(), usize::from(head.data_len)) }
    }

    /// The packet's bytes, as far as the first segment has them, to be written in place.
    #[inline]
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.head().data_len);
        // SAFETY: pools and PMDs keep `data_off + data_len <= buf_len`, and so does every method
        // here; the buffer is mapped memory that the kernel or the NIC filled, so no byte of it is
        // uninitialised; one owner, and `&mut self`, so no one else reads or writes it meanwhile.
        unsafe { slice::from_raw_parts_mut(self.start(), len) }
    }

    /// As [`Self::data_mut`], with `headroom` bytes before it; nothing where the packet has fewer.
    ///
    /// What is written there becomes part of the packet by [`Self::prepend`].
    #[inline]
    #[must_use]
    pub fn data_with_headroom_mut(&mut self, headroom: u16) -> Option<&mut [u8]> {
        let start = self.headroom().checked_sub(headroom)?;
        let len = usize::from(headroom) + usize::from(self.head().data_len);
        // SAFETY: `start` comes before `data_off`, which is inside the buffer.
        let start = unsafe { self.head().buf_addr.cast::<u8>().add(usize::from(start)) };
        // SAFETY: it ends where `data_mut`'s does; for the rest see there. Headroom that no packet has used yet
        // is zeroed memory of the pool's.
        Some(unsafe { slice::from_raw_parts_mut(start, len) })
    }

    /// Bytes of the packet, all segments counted.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.head().pkt_len as usize
    }

    /// Whether it has no bytes, as fresh from [`Mempool::alloc`](crate::Mempool::alloc).
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many segments it is spread over.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> u16 {
        self.head().nb_segs
    }

    /// Whether [`data`](Self::data) is all of it.
    #[inline]
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.segments() == 1
    }

    /// Moves all segments into the first, whose tailroom they take; the others are freed. Nothing is done where
    /// there is but one.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`] beyond the tailroom; nothing is changed.
    #[inline]
    pub fn make_contiguous(&mut self) -> Result<(), MbufError> {
        if self.is_contiguous() { Ok(()) } else { self.linearize() }
    }

    #[cold]
    fn linearize(&mut self) -> Result<(), MbufError> {
        // SAFETY: ours alone, and a whole chain of a PMD's or of `append_segments`.
        let code = unsafe { c::penstock_pktmbuf_linearize(self.head.as_ptr().cast()) };
        if code != 0 {
            return Err(MbufError::NoRoom { asked: self.len(), room: self.capacity().into() });
        }
        Ok(())
    }

    /// Adds another packet's segments behind our own, as some PMDs do with packets that one buffer does not hold.
    /// Not every PMD sends such a packet.
    ///
    /// # Errors
    /// [`MbufError::Segments`] if they are too many; `tail` is freed then.
    pub fn append_segments(&mut self, tail: Self) -> Result<(), MbufError> {
        let segments = u32::from(self.segments()) + u32::from(tail.segments());
        // SAFETY: both are ours alone, and two, since an mbuf has one owner.
        let code = unsafe {
            c::penstock_pktmbuf_chain(self.head.as_ptr().cast(), tail.head.as_ptr().cast())
        };
        if code != 0 {
            return Err(MbufError::Segments(segments));
        }
        std::mem::forget(tail); // it belongs to the chain, and is freed with it
        Ok(())
    }

    /// Bytes free before the packet.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> u16 {
        self.head().data_off
    }

    /// Bytes free after the packet's first segment.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> u16 {
        self.capacity() - self.head().data_len
    }

    /// Makes the packet `len` bytes long. Bytes gained are whatever was in the buffer before.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`] beyond the tailroom, [`MbufError::Chained`]; nothing is changed.
    #[inline]
    pub fn set_len(&mut self, len: u16) -> Result<(), MbufError> {
        self.check_single()?;
        let room = self.capacity();
        if len > room {
            return Err(MbufError::NoRoom { asked: len.into(), room: room.into() });
        }
        let head = self.head_mut();
        head.data_len = len;
        head.pkt_len = len.into();
        Ok(())
    }

    /// Opens `count` bytes before the packet; they hold whatever was in the headroom.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`] beyond the headroom, [`MbufError::Chained`]; nothing is changed.
    #[inline]
    pub fn prepend(&mut self, count: u16) -> Result<(), MbufError> {
        self.check_single()?;
        let headroom = self.headroom();
        let (Some(data_off), Some(len)) =
            (headroom.checked_sub(count), self.head().data_len.checked_add(count))
        else {
            return Err(MbufError::NoRoom { asked: count.into(), room: headroom.into() });
        };
        self.head_mut().data_off = data_off;
        self.set_len(len)
    }

    /// Cuts `count` bytes off the packet's front, which become headroom.
    ///
    /// # Errors
    /// [`MbufError::TooShort`], [`MbufError::Chained`]; nothing is changed.
    #[inline]
    pub fn trim_front(&mut self, count: u16) -> Result<(), MbufError> {
        self.check_single()?;
        let len = self.head().data_len;
        let Some(left) = len.checked_sub(count) else {
            return Err(MbufError::TooShort { asked: count.into(), len: len.into() });
        };
        self.head_mut().data_off += count; // within `buf_len`, as `data_off + data_len` was
        self.set_len(left)
    }

    /// Adds `bytes` to the packet's end.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`] beyond the tailroom, [`MbufError::Chained`]; nothing is changed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), MbufError> {
        let before = self.head().data_len;
        let room = self.tailroom();
        let count = u16::try_from(bytes.len()).ok().filter(|count| *count <= room);
        let Some(count) = count else {
            return Err(MbufError::NoRoom { asked: bytes.len(), room: room.into() });
        };
        self.set_len(before + count)?;
        self.data_mut()[usize::from(before)..].copy_from_slice(bytes);
        Ok(())
    }

    /// Makes `bytes` the whole packet.
    ///
    /// # Errors
    /// [`MbufError::NoRoom`] if they do not fit, [`MbufError::Chained`]; nothing is changed.
    pub fn copy_from_slice(&mut self, bytes: &[u8]) -> Result<(), MbufError> {
        let len = u16::try_from(bytes.len());
        let len = len
            .map_err(|_| MbufError::NoRoom { asked: bytes.len(), room: self.capacity().into() })?;
        self.set_len(len)?;
        self.data_mut().copy_from_slice(bytes);
        Ok(())
    }

    /// What the NIC says of the checksums.
    #[inline]
    #[must_use]
    pub fn rx_checksums(&self) -> RxChecksums {
        let mask = c::PENSTOCK_MBUF_RX_IP_CKSUM_MASK | c::PENSTOCK_MBUF_RX_L4_CKSUM_MASK;
        RxChecksums { flags: self.head().ol_flags & mask }
    }

    /// The hash by which the NIC chose the RX queue, if it told.
    #[inline]
    #[must_use]
    pub fn rss_hash(&self) -> Option<u32> {
        (self.head().ol_flags & c::PENSTOCK_MBUF_RX_RSS_HASH != 0).then(|| self.head().hash[0])
    }

    /// Bytes from the packet's start to the end of the buffer.
    #[inline]
    fn capacity(&self) -> u16 {
        self.head().buf_len - self.head().data_off
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let head = self.head();
        // SAFETY: `data_off` never exceeds `buf_len`, so this stays inside the buffer or at its end.
        unsafe { head.buf_addr.cast::<u8>().add(usize::from(head.data_off)) }
    }

    #[inline]
    fn check_single(&self) -> Result<(), MbufError> {
        if self.is_contiguous() { Ok(()) } else { Err(MbufError::Chained(self.segments())) }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: ours alone, and not used after this; its pool lives as long as EAL, whose cleanup
        // refuses while mbufs are out.
        unsafe { c::penstock_pktmbuf_free(self.head.as_ptr().cast()) }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("segments", &self.segments())
            .finish_non_exhaustive()
    }
}
