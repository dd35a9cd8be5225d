//! How the packets of a burst leave. Taken off the burst, which borrows their buffers, before their mbufs go.

use arrayvec::ArrayVec;
use penstock_dpdk::{Mbuf, MbufBurst, MbufError};
use penstock_forward::{BURST, Burst, Exit, HEADROOM, Learned, Packet, PortIdx};

/// What became of a burst: little of each packet, since nearly all are sent.
pub(super) struct Departures {
    places: [Place; BURST],
    /// Of packets that are sent.
    ports: [PortIdx; BURST],
    /// The exits of the others, in order, and what is known of them if they are pieces of a datagram.
    others: ArrayVec<Other, BURST>,
    len: usize,
}

impl Departures {
    /// Of a burst that has been forwarded.
    #[inline]
    pub(super) fn of(burst: &Burst) -> Self {
        let mut departures = Self {
            places: [Place::default(); BURST],
            ports: [PortIdx::default(); BURST],
            others: ArrayVec::new_const(),
            len: burst.len(),
        };
        let Self { places, ports, others, .. } = &mut departures;
        for (at, ((place, port), packet)) in
            places.iter_mut().zip(ports).zip(burst.iter()).enumerate()
        {
            *place = Place::of(&packet);
            match packet.sent_on() {
                Some(sent_on) => *port = sent_on,
                None => others.push(Other { at, exit: packet.exit(), learned: packet.learned() }),
            }
        }
        departures
    }

    /// The port by which all of them are sent, if there is one.
    #[inline]
    pub(super) fn all_by(&self) -> Option<PortIdx> {
        let ports = self.ports.get(..self.len).filter(|_| self.others.is_empty())?;
        let port = ports.first()?;
        ports.iter().all(|other| other == port).then_some(*port)
    }

    /// How many are other workers'.
    #[inline]
    pub(super) fn handed_over(&self) -> u64 {
        let is_handed_over = |other: &&Other| matches!(other.exit, Exit::HandOver(_));
        self.others.iter().filter(is_handed_over).count() as u64
    }

    /// Makes every frame the packet of its mbuf; those that cannot be that are freed. How many they were.
    #[inline]
    pub(super) fn place_all(&self, mbufs: &mut MbufBurst) -> usize {
        let (before, mut places) = (mbufs.len(), self.places.iter());
        mbufs.retain(|mbuf| places.next().is_some_and(|place| place.apply(mbuf).is_ok()));
        before - mbufs.len()
    }

    /// How each leaves, where it is, and what is known of it if it is a piece of a datagram, in order.
    pub(super) fn each(&self) -> impl Iterator<Item = (Exit, Place, Option<Learned>)> {
        let mut others = self.others.iter().peekable();
        self.places[..self.len].iter().zip(&self.ports).enumerate().map(
            move |(at, (place, port))| match others.next_if(|other| other.at == at) {
                Some(other) => (other.exit, *place, other.learned),
                None => (Exit::Send(*port), *place, None),
            },
        )
    }
}

/// A packet that is not just sent.
struct Other {
    at: usize,
    exit: Exit,
    learned: Option<Learned>,
}

/// Where in its buffer a frame is after its journey.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    len: u16,
    start: u16,
}

impl Place {
    /// A burst cuts frames to what 16 bits hold.
    #[inline]
    fn of(packet: &Packet<'_>) -> Self {
        Self { len: packet.len() as u16, start: packet.start() as u16 }
    }

    /// Makes that the mbuf's packet, which began at [`HEADROOM`].
    #[inline]
    pub(super) fn apply(self, mbuf: &mut Mbuf) -> Result<(), MbufError> {
        const ARRIVED: u16 = HEADROOM as u16;
        if self.start == ARRIVED && mbuf.len() == usize::from(self.len) {
            return Ok(());
        }
        if self.start < ARRIVED {
            mbuf.prepend(ARRIVED - self.start)?;
        } else if self.start > ARRIVED {
            mbuf.trim_front(self.start - ARRIVED)?;
        }
        mbuf.set_len(self.len)
    }
}
