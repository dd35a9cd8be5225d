//! Echo requests to a VIP, answered by us: a host that is there says so (RFC 1122 §3.2.2.6, RFC 4443 §4.2), whatever
//! becomes of its backends, and no flood of them disturbs the kernel. Those that come in pieces, or with options, are
//! the kernel's.

use crate::answer::Limit;
use crate::burst::Slot;
use crate::classify::Class;
use crate::counters::WorkerColumn;
use crate::exit::ShortExit;
use crate::flow::{FlowKey, V6};
use crate::journey::{Headers, Kind, Walk};
use crate::rewrite::reset::TTL;
use crate::snapshot::Snapshot;
use crate::wire::{checksum, ethernet, icmp, ipv4, ipv6};
use crate::{Burst, DropReason, Forwarder, Tick, pin};

impl Walk {
    /// Whether it is one that is answered.
    pub(crate) fn is_echo_to_vip(&self, at: usize, snapshot: &Snapshot) -> bool {
        let (headers, key) = (&self.headers[at], &self.keys[at]);
        let plain = if key.family == V6 { ipv6::HEADER_LEN } else { ipv4::MIN_HEADER_LEN };
        headers.kind == Kind::Echo
            && snapshot.is_vip(key.destination().ip())
            && usize::from(headers.l4 - headers.l3) == plain
    }
}

impl Forwarder<'_> {
    /// An echo request: answered if it is for a VIP.
    #[cold]
    pub(super) fn receive_echo(
        &mut self,
        at: usize,
        class: Class,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let (headers, key) = (self.walk.headers[at], self.walk.keys[at]);
        if !self.walk.is_echo_to_vip(at, snapshot) {
            return self.receive_stranger(at, class, None, burst, snapshot, now);
        }
        if let Err(reason) = self.answer_echo(&headers, &key, &mut burst.slots[at], snapshot, now) {
            burst.leave(at, reason.into());
        }
    }

    fn answer_echo(
        &mut self,
        headers: &Headers,
        key: &FlowKey,
        slot: &mut Slot,
        snapshot: &Snapshot,
        now: Tick,
    ) -> Result<(), DropReason> {
        if pin::is_from_nobody(key, snapshot) || ethernet::is_from_group(slot.frame()) {
            return Err(DropReason::Martian);
        }
        let end = usize::from(headers.l3) + usize::from(headers.ip_len);
        let message =
            slot.frame().get(usize::from(headers.l4)..end).ok_or(DropReason::Truncated)?;
        if !icmp::checksum_is_right(message, key) {
            return Err(DropReason::L4Checksum);
        }
        let per_second = snapshot.echo_per_second();
        if !self.echo_allowance.take(Limit { at_once: per_second, per_second }, now) {
            return Err(DropReason::EchoLimited);
        }
        turn_round(slot.frame_mut(), headers, key).ok_or(DropReason::Truncated)?;
        slot.exit = ShortExit::send(slot.arrival.ingress());
        self.counters.worker(WorkerColumn::Echoed, 1);
        Ok(())
    }
}

/// Makes the reply of a request, where it lies: back by the way it came, with its tag, and its type of service.
fn turn_round(frame: &mut [u8], headers: &Headers, key: &FlowKey) -> Option<()> {
    let [_, reply] = icmp::echo(key.protocol)?;
    ethernet::turn_round(frame)?;
    let (head, message) = frame.split_at_mut_checked(usize::from(headers.l4))?;
    let ip = head.get_mut(usize::from(headers.l3)..)?;
    if key.family == V6 {
        ip[7] = TTL;
        ip.get_mut(8..40)?.rotate_left(16);
    } else {
        ip[8] = TTL;
        ip.get_mut(12..20)?.rotate_left(4);
        ip.get_mut(10..12)?.fill(0);
        let checksum = !checksum::sum(ip);
        ip.get_mut(10..)?.first_chunk_mut().map(|field| *field = checksum.to_ne_bytes())?;
    }
    let [kind, code, sum @ ..] = message.first_chunk_mut::<4>()?;
    let delta =
        checksum::delta(u16::from_ne_bytes([*kind, *code]), u16::from_ne_bytes([reply, *code]));
    *kind = reply;
    *sum = checksum::update(u16::from_ne_bytes(*sum), delta).to_ne_bytes();
    Some(())
}
