//! Pieces of datagrams that came before the first, which has the L4 ports: they wait here, as they came.
//!
//! How many may wait, how many of one source, and how long, is the forwarder's to say: it names a datagram
//! when its first piece has come, or will not come any more.

use penstock_forward::{DatagramIdx, WAITING};

/// The waiting room of one worker, and what has left it to be forwarded.
#[derive(Debug)]
pub struct Pieces<P> {
    waiting: Vec<(DatagramIdx, P)>,
    known: Vec<P>,
}

impl<P> Pieces<P> {
    /// An empty room; the only allocation it ever makes.
    #[expect(clippy::new_without_default, reason = "a default would hide that it allocates")]
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(WAITING), known: Vec::with_capacity(WAITING) }
    }

    /// Lets a piece wait for the first of its datagram.
    ///
    /// # Errors
    /// The piece back if the room is full: more wait, or are yet to be forwarded, than the forwarder allows.
    pub fn admit(&mut self, datagram: DatagramIdx, piece: P) -> Result<(), P> {
        if self.waiting.len() + self.known.len() >= WAITING {
            return Err(piece);
        }
        self.waiting.push((datagram, piece));
        Ok(())
    }

    /// The pieces of a datagram are known now: each, changed by `tell`, is to be forwarded.
    pub fn release(&mut self, datagram: DatagramIdx, mut tell: impl FnMut(&mut P)) {
        for (_, mut piece) in self.waiting.extract_if(.., |(waits_for, _)| *waits_for == datagram) {
            tell(&mut piece);
            self.known.push(piece);
        }
    }

    /// The pieces of a datagram are lost; how many there were.
    pub fn discard(&mut self, datagram: DatagramIdx) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(waits_for, _)| *waits_for != datagram);
        before - self.waiting.len()
    }

    /// Takes at most `room` pieces that are to be forwarded, in the order in which they came.
    pub fn take_known(&mut self, room: usize) -> impl Iterator<Item = P> {
        let count = self.known.len().min(room);
        self.known.drain(..count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagrams() -> [DatagramIdx; 2] {
        [1, 2].map(DatagramIdx::for_test)
    }

    #[test]
    fn pieces_leave_in_order_when_their_datagram_is_known() {
        let (mut pieces, [this, other]) = (Pieces::new(), datagrams());
        for (datagram, piece) in [(this, 1), (other, 2), (this, 3)] {
            assert_eq!(pieces.admit(datagram, piece), Ok(()));
        }
        pieces.release(this, |piece| *piece *= 10);
        assert_eq!(pieces.take_known(1).collect::<Vec<_>>(), [10]);
        assert_eq!(pieces.take_known(32).collect::<Vec<_>>(), [30]);
        assert_eq!((pieces.discard(other), pieces.discard(other)), (1, 0));
        assert_eq!(pieces.take_known(32).count(), 0);
    }

    #[test]
    fn the_room_is_bounded() {
        let (mut pieces, [this, other]) = (Pieces::new(), datagrams());
        for piece in 0..WAITING {
            assert_eq!(pieces.admit(this, piece), Ok(()));
        }
        assert_eq!(pieces.admit(other, 999), Err(999));
        pieces.release(this, |_| {});
        assert_eq!(pieces.admit(other, 999), Err(999), "those that are known are still there");
        assert_eq!(pieces.take_known(32).count(), 32);
        assert_eq!(pieces.admit(other, 999), Ok(()));
    }
}
