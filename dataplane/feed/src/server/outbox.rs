//! Acknowledgements on their way to a producer that may be slow to read them.
//!
//! Bounded whatever the producer does: one acknowledgement being written, the newest one after it,
//! and the newest refusal. An acknowledgement overtakes an older one that was not begun, since it
//! says all that the older one would.

use std::collections::VecDeque;

use crate::ack::Ack;
use crate::encode::encode;
use crate::ring::{RingError, RingMemory, Writer};

#[derive(Debug)]
pub(super) struct Outbox {
    ring: Writer<RingMemory>,
    under_way: VecDeque<Vec<u8>>, // encoded records of one acknowledgement
    next: Option<Ack>,
    next_refusal: Option<Ack>,
}

impl Outbox {
    pub(super) fn new(memory: RingMemory, capacity: usize) -> Self {
        Self {
            ring: Writer::new(memory, capacity),
            under_way: VecDeque::new(),
            next: None,
            next_refusal: None,
        }
    }

    pub(super) fn post(&mut self, ack: Ack) {
        let slot = if ack.refused.is_some() { &mut self.next_refusal } else { &mut self.next };
        *slot = Some(ack);
    }

    /// Writes what there is room for; whether that was anything.
    pub(super) fn flush(&mut self) -> Result<bool, RingError> {
        let mut written = false;
        loop {
            let Some(record) = self.under_way.front() else {
                match self.next.take().or_else(|| self.next_refusal.take()) {
                    Some(ack) => self.under_way.extend(ack.into_records().map(|record| {
                        let mut bytes = Vec::new();
                        encode(&record, &mut bytes);
                        bytes
                    })),
                    None => return Ok(written),
                }
                continue;
            };
            if !self.ring.push(record)? {
                return Ok(written);
            }
            self.under_way.pop_front();
            written = true;
        }
    }
}
