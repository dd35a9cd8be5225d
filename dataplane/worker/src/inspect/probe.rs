//! The worker's end: requests taken and answered between two bursts.

use penstock_forward::{Explanation, FlowInfo, FlowKey, Forwarder, Snapshot, Tick};
use rtrb::{Consumer, Producer, RingBuffer};

use super::Desk;
use super::tracer::{Tracer, Watch, tracer_and_sightings};

/// Requests that may wait. A desk has one under way; what it gave up waiting for may still lie there.
const WAITING: usize = 8;

/// What a worker is asked, with the buffer for its answer.
#[derive(Debug)]
pub(super) struct Request {
    /// The number of the request; its answer bears it.
    pub(super) serial: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The flows among the next records.
    Flows { from: u32, page: Vec<FlowInfo> },
    /// What would become of a packet.
    Explain(FlowKey, bool),
    /// Watch this from now on, or nothing.
    Watch(Option<Watch>),
}

/// A worker's answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) serial: u64,
    pub(super) now: Tick,
    pub(super) what: Told,
}

#[derive(Debug)]
pub(super) enum Told {
    Flows {
        page: Vec<FlowInfo>,
        next: Option<u32>,
    },
    Explained(Explanation),
    /// So many were missed of what was watched before.
    Watches {
        missed: u64,
    },
}

/// The worker's ends of the rings.
#[derive(Debug)]
pub struct Probe {
    requests: Consumer<Request>,
    replies: Producer<Reply>,
}

/// The two ends of one worker's rings, and what copies the packets that are watched.
#[must_use]
pub fn desk_and_probe() -> (Desk, Probe, Tracer) {
    let (ask, requests) = RingBuffer::new(WAITING);
    // A reply has its place as long as its request had one, or lies in the ring beside it.
    let (replies, told) = RingBuffer::new(2 * WAITING);
    let (tracer, sightings) = tracer_and_sightings();
    (Desk::new(ask, told, sightings), Probe { requests, replies }, tracer)
}

impl Probe {
    /// Answers the next request, if there is one and room for the answer.
    pub fn answer_one(
        &mut self,
        forwarder: &Forwarder<'_>,
        snapshot: &Snapshot,
        tracer: &mut Tracer,
        now: Tick,
    ) {
        if self.replies.is_full() {
            return;
        }
        let Ok(Request { serial, what }) = self.requests.pop() else { return };
        let what = match what {
            What::Flows { from, mut page } => {
                let next = forwarder.flow_page(from, &mut page);
                Told::Flows { page, next }
            }
            What::Explain(key, handed) => {
                Told::Explained(forwarder.explain(&key, snapshot, handed))
            }
            What::Watch(watch) => Told::Watches { missed: tracer.watch(watch) },
        };
        let pushed = self.replies.push(Reply { serial, now, what });
        debug_assert!(pushed.is_ok(), "there was room");
    }
}
