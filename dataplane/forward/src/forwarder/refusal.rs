//! Packets that get no flow, and how their senders are told.

use crate::answer::{Answer, Limit};
use crate::counters::WorkerColumn;
use crate::exit::ShortExit;
use crate::pin::{self, Refusal};
use crate::policy::OnUnknown;
use crate::rewrite::reset;
use crate::snapshot::{Listener, Snapshot};
use crate::wire::tcp::RST;
use crate::{Burst, DropReason, Forwarder, Protocol, Tick};

/// RSTs for segments of no flow that one worker sends: enough for the connections of before to begin anew within
/// seconds of a restart.
pub(crate) const RSTS: Limit = Limit { at_once: 1000, per_second: 10_000 };

impl Forwarder<'_> {
    /// A client's packet that was refused.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        at: usize,
        burst: &mut Burst,
        refusal: Refusal,
        listener: &Listener,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        let key = self.walk.keys[at];
        match refusal {
            Refusal::Exit(exit) => burst.leave(at, exit),
            Refusal::Stateless => {
                let hash = self.walk.hashes[at];
                match self.pinning(snapshot, now).without_state(&key, hash, listener) {
                    Some(flow) => self.carry_stateless(at, burst, &flow, snapshot, now),
                    None => burst.leave(at, DropReason::NoBackend.into()),
                }
            }
            Refusal::Reset => {
                if self.reset(at, burst).is_none() {
                    burst.leave(at, DropReason::Truncated.into());
                }
            }
            Refusal::Unreachable(reason) => {
                burst.leave(at, reason.into());
                self.tell(at, burst, &key, Answer::PortUnreachable, now);
            }
            Refusal::Expired => {
                burst.leave(at, DropReason::TtlExpired.into());
                if !pin::is_nobodys(&key, snapshot) {
                    self.tell(at, burst, &key, Answer::TimeExceeded, now);
                }
            }
            Refusal::Unknown(policy) => {
                self.leave_unknown(at, burst, policy, DropReason::NoFlow.into(), snapshot, now);
            }
        }
    }

    /// A packet that would belong to a flow, and there is none: it leaves so, unless it is a segment to be answered.
    #[cold]
    pub(super) fn leave_unknown(
        &mut self,
        at: usize,
        burst: &mut Burst,
        policy: OnUnknown,
        exit: ShortExit,
        snapshot: &Snapshot,
        now: Tick,
    ) {
        burst.leave(at, exit);
        let key = &self.walk.keys[at];
        if policy == OnUnknown::Reset && !pin::is_nobodys(key, snapshot) {
            self.reset_segment(at, burst, now);
        }
    }

    /// Answers a segment of no flow by RST, if another may be sent: a RST is never answered, and of a segment in
    /// pieces nobody knows the length. Who forges a source makes us send there no more than he sent, and no more often
    /// than this.
    pub(super) fn reset_segment(&mut self, at: usize, burst: &mut Burst, now: Tick) -> Option<()> {
        let (headers, key) = (&self.walk.headers[at], &self.walk.keys[at]);
        let is_segment = key.protocol == Protocol::Tcp.number() && self.walk.tuples.contains(at);
        if !is_segment || headers.tcp_flags & RST != 0 || !self.rst_allowance.take(RSTS, now) {
            return None;
        }
        self.reset(at, burst)?;
        self.counters.worker(WorkerColumn::UnknownReset, 1);
        Some(())
    }

    fn reset(&mut self, at: usize, burst: &mut Burst) -> Option<()> {
        reset::answer(&mut burst.slots[at], &self.walk.headers[at], &self.walk.keys[at])
    }
}
