//! Up to [`BURST`] packets, in order, in an array.

use std::fmt;
use std::mem::MaybeUninit;
use std::slice;

use penstock_dpdk_sys as c;

use crate::mbuf::Mbuf;

/// The most packets that one call moves.
pub const BURST: usize = 64;

/// Up to [`BURST`] packets with one owner, in order. No method allocates.
pub struct MbufBurst {
    mbufs: [MaybeUninit<Mbuf>; BURST],
    len: usize, // the first `len` of `mbufs` are initialised
}

impl MbufBurst {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { mbufs: [const { MaybeUninit::uninit() }; BURST], len: 0 }
    }

    /// How many packets it holds.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it holds [`BURST`] packets.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == BURST
    }

    /// Adds a packet at the end.
    ///
    /// # Errors
    /// Gives the packet back if the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let Some(slot) = self.mbufs.get_mut(self.len) else {
            return Err(mbuf);
        };
        slot.write(mbuf);
        self.len += 1;
        Ok(())
    }

    /// Moves all packets of `other` behind its own, if it has room for all of them; else does nothing. Whether it did.
    #[inline]
    #[must_use]
    pub fn append(&mut self, other: &mut Self) -> bool {
        let Some(room) = self.mbufs.get_mut(self.len..self.len + other.len) else { return false };
        // SAFETY: the first `len` of `other` are initialised, and forgotten below, so that each has one owner still;
        // `room` has as many places, and the two are not one, since both are `&mut`.
        unsafe { room.as_mut_ptr().copy_from_nonoverlapping(other.mbufs.as_ptr(), other.len) };
        self.len += std::mem::take(&mut other.len);
        true
    }

    /// Takes the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: it was below the old `len`, so initialised; below the new one it is no more.
        Some(unsafe { self.mbufs[self.len].assume_init_read() })
    }

    /// Takes all packets, first to last. Those the iterator did not hand out are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let len = std::mem::take(&mut self.len);
        Drain { mbufs: &mut self.mbufs[..len], taken: 0 }
    }

    /// The packets in order.
    #[inline]
    pub fn iter(&self) -> slice::Iter<'_, Mbuf> {
        self.as_slice().iter()
    }

    /// The packets in order, to be written.
    #[inline]
    pub fn iter_mut(&mut self) -> slice::IterMut<'_, Mbuf> {
        self.as_mut_slice().iter_mut()
    }

    /// The packets in order.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { self.mbufs[..self.len].assume_init_ref() }
    }

    /// The packets in order, to be written.
    #[inline]
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` are initialised.
        unsafe { self.mbufs[..self.len].assume_init_mut() }
    }

    /// Frees the packets for which `keep` says no, which it sees in order; the others stay in order.
    #[inline]
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Mbuf) -> bool) {
        let (mbufs, mut kept) = (self.as_mut_slice(), 0);
        for at in 0..mbufs.len() {
            if keep(&mut mbufs[at]) {
                mbufs.swap(kept, at);
                kept += 1;
            }
        }
        let len = std::mem::replace(&mut self.len, kept);
        free(&mut self.mbufs[kept..len]);
    }

    /// Frees all packets, in one call.
    #[inline]
    pub fn clear(&mut self) {
        let len = std::mem::take(&mut self.len);
        free(&mut self.mbufs[..len]);
    }

    /// Lets `fill` write packets into the places left, and say how many it wrote.
    ///
    /// # Safety
    /// `fill` initialises as many places from the front as it says.
    #[inline]
    pub(crate) unsafe fn fill(
        &mut self,
        fill: impl FnOnce(&mut [MaybeUninit<Mbuf>]) -> usize,
    ) -> usize {
        let filled = fill(&mut self.mbufs[self.len..]);
        debug_assert!(
            filled <= BURST - self.len,
            "{filled} packets do not fit behind {}",
            self.len
        );
        self.len += filled;
        filled
    }

    /// Lets `take` take packets from the front, and say how many; the others move up.
    ///
    /// # Safety
    /// The packets that `take` says it took belong to somebody else now.
    #[inline]
    pub(crate) unsafe fn take_front(&mut self, take: impl FnOnce(&mut [Mbuf]) -> usize) -> usize {
        let taken = take(self.as_mut_slice());
        debug_assert!(taken <= self.len, "{taken} packets taken of {}", self.len);
        self.mbufs[..self.len].rotate_left(taken); // places that were taken from are forgotten below
        self.len -= taken;
        taken
    }
}

/// Frees initialised packets, each of which the caller has forgotten already.
fn free(mbufs: &mut [MaybeUninit<Mbuf>]) {
    if mbufs.is_empty() {
        return;
    }
    // SAFETY: `Mbuf` is a pointer to an `rte_mbuf` (`repr(transparent)`); these are initialised and
    // owned by the caller, who does not use them again. At most `BURST`, so the count fits.
    unsafe { c::rte_pktmbuf_free_bulk(mbufs.as_mut_ptr().cast(), mbufs.len() as u32) }
}

impl Default for MbufBurst {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MbufBurst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for MbufBurst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a mut MbufBurst {
    type Item = &'a mut Mbuf;
    type IntoIter = slice::IterMut<'a, Mbuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<'a> IntoIterator for &'a MbufBurst {
    type Item = &'a Mbuf;
    type IntoIter = slice::Iter<'a, Mbuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The packets of a burst on their way out. See [`MbufBurst::drain`].
pub struct Drain<'a> {
    mbufs: &'a mut [MaybeUninit<Mbuf>], // all were initialised; the burst has forgotten them
    taken: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        let place = self.mbufs.get(self.taken)?;
        self.taken += 1;
        // SAFETY: initialised, and `taken` has moved past it, so that it is read once.
        Some(unsafe { place.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.mbufs.len() - self.taken;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        free(&mut self.mbufs[self.taken..]);
    }
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("left", &self.len()).finish_non_exhaustive()
    }
}
