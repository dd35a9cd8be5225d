//! A new flow: Maglev says which backend, the listener's mode says what replies will look like, and
//! the flow table remembers both.

use std::net::{IpAddr, Ipv6Addr};

use crate::counters::{BackendColumn, Counters, ListenerColumn, WorkerColumn};
use crate::exit::ShortExit;
use crate::flow::state::FlowState;
use crate::flow::{Entry, FlowKey, FlowTable, Full, NewFlow, track};
use crate::group::{Member, Pick};
use crate::journey::Headers;
use crate::owner::Ownership;
use crate::rewrite::port_walk::PortWalks;
use crate::rewrite::{dnat, full_nat, tunnel};
use crate::snapshot::{Listener, Snapshot};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{DropReason, Mode, OnExhaustion, OnUnknown, Protocol, Tick};

/// What one worker needs to pin a flow.
pub(crate) struct Pinning<'p, 'm> {
    pub(crate) ownership: &'p Ownership,
    pub(crate) flows: &'p mut FlowTable<'m>,
    pub(crate) walks: &'p mut PortWalks,
    pub(crate) counters: &'p Counters<'m>,
    pub(crate) snapshot: &'p Snapshot,
    pub(crate) now: Tick,
}

/// What a flow will be, if nothing comes in between.
#[derive(Clone, Copy)]
pub(crate) struct Proposal<'p> {
    /// Its backend.
    pub(crate) member: &'p Member,
    /// What that one's packets will look like, and their hash.
    pub(crate) reply: &'p FlowKey,
    pub(crate) reply_hash: u64,
}

/// A client's packet that gets no flow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// It leaves so.
    Exit(ShortExit),
    /// It is a SYN, to be answered by RST.
    Reset,
    /// It is lost for this reason, and its sender is told so by ICMP, as often as allowed.
    Unreachable(DropReason),
    /// It has no hop left.
    Expired,
    /// It is from the middle of a connection that no flow knows.
    Unknown(OnUnknown),
    /// It goes to a backend without state.
    Stateless,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self::Exit(reason.into())
    }
}

impl Pinning<'_, '_> {
    /// The flow of a client's packet that had none when its burst was looked up.
    ///
    /// # Errors
    /// How the packet leaves instead.
    pub(crate) fn pin(
        &mut self,
        headers: &Headers,
        key: &FlowKey,
        hash: u64,
        listener: &Listener,
        proposed: Option<Proposal>,
    ) -> Result<Entry, Refusal> {
        // An earlier packet of this burst may have made the flow.
        let entry = self.flows.find_new(key, hash);
        if headers.ttl <= 1 {
            return Err(Refusal::Expired);
        }
        if entry.is_some() && track::follow(entry, headers, self.flows, self.snapshot, self.now) {
            return Ok(entry);
        }
        if self.flows.is_cut(entry) {
            return Err(DropReason::NoFlow.into()); // a piece: whole segments were answered before
        }
        if let Some(Proposal { member, reply, reply_hash }) = proposed {
            let (keys, hashes) = ([*key, *reply], [hash, reply_hash]);
            let flow = self.flow_of(keys, hashes, listener, member, first_state(key));
            if self.flows.has_no_reply_of(&flow) {
                return self.insert(&flow, listener);
            }
        }
        let protocol = key.protocol().ok_or(DropReason::NoFlow)?;
        let opens = opens(headers, protocol);
        if let Some(reason) = listener.shuts_out(key, self.snapshot) {
            self.counters.listener(listener.slot, ListenerColumn::Refused, opens.into());
            return Err(reason.into());
        }
        if !opens && !listener.mode.is_dsr() {
            return Err(Refusal::Unknown(listener.on_unknown));
        }
        if is_nobodys(key, self.snapshot) {
            return Err(DropReason::Martian.into());
        }
        let Pick::Backend(member) = listener.pick(key) else {
            return Err(if opens {
                self.refuse(protocol, listener)
            } else {
                DropReason::NoFlow.into()
            });
        };
        let state = match protocol {
            // Of a connection that outlived our knowledge of it.
            Protocol::Tcp if headers.tcp_flags & FIN != 0 => FlowState::Closing,
            // Or such a one that goes on, as its next packet will say.
            Protocol::Tcp => FlowState::SynSent,
            Protocol::Udp => FlowState::UdpOneWay,
        };
        let flow = self.flow_to(member, key, hash, protocol, listener, state);
        let flow =
            flow.map_err(|reason| self.exhausted(reason, opens.then_some(protocol), listener))?;
        if headers.tcp_flags & RST != 0 {
            return Err(Refusal::Stateless); // it ends what it is about
        }
        self.insert(&flow, listener)
    }

    /// Whether a packet for `listener` that has no flow opens one, as far as it says itself.
    #[inline]
    pub(crate) fn may_open(&self, headers: &Headers, key: &FlowKey, listener: &Listener) -> bool {
        key.protocol().is_some_and(|protocol| opens(headers, protocol))
            && headers.ttl > 1
            && !is_nobodys(key, self.snapshot)
            && listener.admits(key)
    }

    /// What the replies to a packet that [may open](Self::may_open) a flow will look like, with a member of the
    /// listener's group as its backend, unless something is in its way.
    #[inline]
    pub(crate) fn propose(
        &mut self,
        key: &FlowKey,
        hash: u64,
        listener: &Listener,
        member: &Member,
    ) -> Option<FlowKey> {
        let protocol = key.protocol()?;
        match listener.mode {
            Mode::FullNat => {
                let sources = full_nat::Sources { pool: &listener.snat, ownership: self.ownership };
                let hasher = &self.flows.hash;
                full_nat::first(hasher, self.walks, &sources, hash, member.address, protocol)
            }
            Mode::Dnat => FlowKey::new(member.address, key.source(), protocol),
            _ => self.reply_key(key, hash, protocol, listener, member).ok(),
        }
    }

    fn insert(&mut self, flow: &NewFlow, listener: &Listener) -> Result<Entry, Refusal> {
        let listeners = self.snapshot.listener_count();
        let entry = match self.flows.insert(flow, listeners, self.now) {
            Ok(entry) => entry,
            Err(_) if listener.mode.is_dsr() => return Err(Refusal::Stateless),
            Err(full) => return Err(self.no_room(full, listener)),
        };
        self.counters.listener(listener.slot, ListenerColumn::FlowsNew, 1);
        self.counters.backend(flow.backend, BackendColumn::FlowsNew, 1);
        Ok(entry)
    }

    #[cold]
    fn no_room(&self, full: Full, listener: &Listener) -> Refusal {
        self.counters.listener(listener.slot, ListenerColumn::Refused, 1);
        match full {
            Full::Table => DropReason::FlowTableFull.into(),
            Full::Share => DropReason::ListenerShare.into(),
        }
    }

    fn flow_of(
        &self,
        keys: [FlowKey; 2],
        hashes: [u64; 2],
        listener: &Listener,
        member: &Member,
        state: FlowState,
    ) -> NewFlow {
        NewFlow {
            keys,
            hashes,
            mode: listener.mode,
            state,
            listener: listener.slot,
            backend: member.id,
            snapshot_version: self.snapshot.version(),
        }
    }

    /// What a client's DSR flow would be, by Maglev alone; `None` if there is none.
    pub(crate) fn without_state(
        &mut self,
        key: &FlowKey,
        hash: u64,
        listener: &Listener,
    ) -> Option<NewFlow> {
        let (protocol, Pick::Backend(member)) = (key.protocol()?, listener.pick(key)) else {
            return None;
        };
        let is_dsr = listener.mode.is_dsr();
        let flow = is_dsr
            .then(|| self.flow_to(member, key, hash, protocol, listener, FlowState::SynSent))?;
        flow.ok()
    }

    fn flow_to(
        &mut self,
        member: &Member,
        key: &FlowKey,
        hash: u64,
        protocol: Protocol,
        listener: &Listener,
        state: FlowState,
    ) -> Result<NewFlow, DropReason> {
        let reply = self.reply_key(key, hash, protocol, listener, member)?;
        let hashes = [hash, self.reply_hash(&reply, listener)];
        Ok(self.flow_of([*key, reply], hashes, listener, member, state))
    }

    /// The hash of what a backend's packets will look like; of no meaning where they do not come to us.
    #[inline]
    pub(crate) fn reply_hash(&self, reply: &FlowKey, listener: &Listener) -> u64 {
        if listener.mode.is_dsr() { 0 } else { self.flows.hash.tuple(reply) }
    }

    /// What the backend's packets will look like.
    fn reply_key(
        &mut self,
        key: &FlowKey,
        hash: u64,
        protocol: Protocol,
        listener: &Listener,
        member: &Member,
    ) -> Result<FlowKey, DropReason> {
        match listener.mode {
            Mode::FullNat => {
                let sources = full_nat::Sources { pool: &listener.snat, ownership: self.ownership };
                full_nat::reply_key(
                    self.flows,
                    self.walks,
                    &sources,
                    hash,
                    member.address,
                    protocol,
                    self.now,
                )
            }
            Mode::Dnat => dnat::reply_key(
                self.flows,
                self.walks,
                self.ownership,
                key.source(),
                member.address,
                protocol,
            ),
            Mode::L2Dsr => {
                FlowKey::new(member.address, key.source(), protocol).ok_or(DropReason::NoBackend)
            }
            Mode::Ipip | Mode::Gue | Mode::GueVariant0 => {
                tunnel::reply_key(&listener.snat, hash, member.address, protocol)
            }
        }
    }

    /// The refusal of a new flow that no backend is to take.
    fn refuse(&self, protocol: Protocol, listener: &Listener) -> Refusal {
        self.counters.listener(listener.slot, ListenerColumn::Refused, 1);
        match (protocol, listener.on_exhaustion) {
            (Protocol::Tcp, _) => self.reset(),
            (Protocol::Udp, OnExhaustion::Icmp) => Refusal::Unreachable(DropReason::NoBackend),
            (Protocol::Udp, OnExhaustion::Reset | OnExhaustion::Drop) => {
                DropReason::NoBackend.into()
            }
        }
    }

    /// The refusal of a flow whose packets could not be told from those of others on their way back; `opens` is the
    /// protocol of a packet that begins one.
    #[cold]
    fn exhausted(
        &self,
        reason: DropReason,
        opens: Option<Protocol>,
        listener: &Listener,
    ) -> Refusal {
        self.counters.listener(listener.slot, ListenerColumn::Refused, 1);
        self.counters.worker(WorkerColumn::Exhausted, 1);
        match (listener.on_exhaustion, opens) {
            (OnExhaustion::Reset, Some(Protocol::Tcp)) => self.reset(),
            (OnExhaustion::Icmp, Some(_)) => Refusal::Unreachable(reason),
            _ => reason.into(),
        }
    }

    fn reset(&self) -> Refusal {
        self.counters.worker(WorkerColumn::Refused, 1);
        Refusal::Reset
    }
}

/// The state of a flow after the packet that opened it.
#[inline]
fn first_state(key: &FlowKey) -> FlowState {
    match key.protocol() {
        Some(Protocol::Udp) => FlowState::UdpOneWay,
        _ => FlowState::SynSent,
    }
}

/// Whether a packet begins a flow where there is none.
#[inline]
fn opens(headers: &Headers, protocol: Protocol) -> bool {
    protocol == Protocol::Udp || headers.tcp_flags & (SYN | ACK | RST | FIN) == SYN
}

/// Whether the source of a packet with L4 ports can be nobody's, and so is not to be answered.
#[inline]
pub(crate) fn is_nobodys(key: &FlowKey, snapshot: &Snapshot) -> bool {
    key.source().port() == 0 || is_from_nobody(key, snapshot)
}

/// Whether a packet's source address can be nobody's.
#[inline]
pub(crate) fn is_from_nobody(key: &FlowKey, snapshot: &Snapshot) -> bool {
    is_martian(key) || snapshot.is_no_source(key.source().ip())
}

/// Whether a source can be nobody's (RFC 1812 §5.3.7; RFC 4291 §2.5.2, §2.5.3, §2.5.5.2 and §2.7) or
/// is the destination's own, or either end lives on one link only (RFC 4291 §2.5.6: "Routers must
/// not forward").
#[inline]
fn is_martian(key: &FlowKey) -> bool {
    let (source, destination) = (key.source().ip(), key.destination().ip());
    let link_local = |ip| matches!(ip, IpAddr::V6(v6) if Ipv6Addr::is_unicast_link_local(&v6));
    let nobody = match source {
        IpAddr::V4(v4) => {
            // 224/4 groups, 240/4 reserved, 255.255.255.255 among them
            v4.octets()[0] >= 224 || v4.is_loopback() || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_multicast()
                || v6.is_loopback()
                || v6.is_unspecified()
                || v6.to_ipv4_mapped().is_some()
        }
    };
    nobody || link_local(source) || link_local(destination) || source == destination
}
