//! ICMP errors on their journey: to the end that is to hear them.

use crate::answer::Answer;
use crate::classify::Class;
use crate::exit::ShortExit;
use crate::flow::{Direction, Entry, Flow, FlowRecord, Wide};
use crate::icmp::{self, About, IcmpError};
use crate::rewrite::tunnel::Quoted;
use crate::snapshot::Snapshot;
use crate::{Burst, CameBy, DropReason, Forwarder, Tick, next_hop, pin};

impl Forwarder<'_> {
    /// An ICMP error: written anew for the end it is about, handed to the owner of the flow it quotes, or gone.
    #[cold]
    pub(super) fn receive_icmp_error(
        &mut self,
        at: usize,
        burst: &mut Burst,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let (outer, headers) = (self.walk.keys[at], self.walk.headers[at]);
        let error = match icmp::read(burst.frame_mut(at), &headers, &outer, snapshot) {
            Ok(error) => error,
            Err(exit) => return burst.leave(at, exit),
        };
        let entry = self.flows.find_live(&error.key, self.flows.hash.tuple(&error.key));
        let handed = burst.came_by() == CameBy::Handed;
        let (record, wide) = match self.flow_of_error(&error, entry, handed, snapshot, now) {
            Ok(Some(flow)) => flow,
            Ok(None) => {
                let exit = icmp::unclaimed(&outer, snapshot, DropReason::IcmpNoFlow);
                return burst.leave(at, exit);
            }
            Err(exit) => return burst.leave(at, exit),
        };
        if headers.ttl <= 1 {
            return burst.leave(at, DropReason::TtlExpired.into());
        }
        let flow = Flow::new(&record, &wide);
        let gone = match error.about {
            About::Tunnelled(packet) => {
                self.tell_of_tunnel(at, burst, flow, &packet, snapshot, now)
            }
            _ if flow.is_dsr() => return self.carry_alone(at, burst, flow, snapshot, now),
            About::Packet(quote) => {
                let [forward, reply] =
                    [Direction::Forward, Direction::Reply].map(|way| flow.key(way));
                let ends = icmp::Ends::of(forward, reply, entry.direction());
                let rewritten = icmp::rewrite(burst.frame_mut(at), &headers, &quote, &ends);
                rewritten.ok_or(DropReason::Truncated).map(|()| {
                    next_hop::send_on(burst, at, headers.ip_len, ends.leaving(), snapshot);
                })
            }
        };
        if let Err(reason) = gone {
            burst.leave(at, reason.into());
        }
    }

    /// The flow that an error is about, or that a packet of its tuple would have without state.
    ///
    /// # Errors
    /// The flow may be another worker's.
    fn flow_of_error(
        &mut self,
        error: &IcmpError,
        entry: Entry,
        handed: bool,
        snapshot: &Snapshot,
        now: Tick,
    ) -> Result<Option<(FlowRecord, Wide)>, ShortExit> {
        if entry.is_some() {
            return Ok(Some(self.flows.flow(entry).copied()));
        }
        let class = icmp::class(error, snapshot);
        if let Some(next) = self.next_worker(&class, &error.key, snapshot, handed) {
            return Err(ShortExit::hand_over(next));
        }
        let Class::Listener(listener) = class else { return Ok(None) };
        if pin::is_nobodys(&error.key, snapshot) {
            return Err(DropReason::Martian.into());
        }
        if let Some(reason) = listener.shuts_out(&error.key, snapshot) {
            return Err(reason.into());
        }
        let hash = self.flows.hash.tuple(&error.key);
        let flow = self.pinning(snapshot, now).without_state(&error.key, hash, listener);
        Ok(flow.map(|flow| (flow.record(now), flow.wide())))
    }

    /// A router on the way to a backend says that a packet in a tunnel was too big: the client, as the packet in it
    /// tells, is told what would have fitted (RFC 2003 §5.1, RFC 2473 §7.1).
    fn tell_of_tunnel(
        &mut self,
        at: usize,
        burst: &mut Burst,
        flow: Flow,
        packet: &Quoted,
        snapshot: &Snapshot,
        now: Tick,
    ) -> Result<(), DropReason> {
        let mtu = packet.fits_inside(flow)?;
        let arrived = flow.key(Direction::Forward);
        let headers = &mut self.walk.headers[at];
        *headers = packet.bare(&mut burst.slots[at], headers).ok_or(DropReason::Truncated)?;
        let l3 = headers.l3;
        self.tell(at, burst, &arrived, Answer::TooBig { mtu }, now)
            .ok_or(DropReason::IcmpTunnel)?;
        let ip_len = burst.slots[at].len - l3;
        next_hop::send_on(burst, at, ip_len, &arrived.mirror(), snapshot);
        Ok(())
    }
}
