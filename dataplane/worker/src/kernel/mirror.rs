//! The kernel's links, addresses, routes and neighbours, kept at hand.
//!
//! Netlink gives a dump and a stream of events. We subscribe first and dump second, so the events
//! that queue up meanwhile are newer than the dump, or older and repeated: applying them in order
//! after it ends in the kernel's state either way, since every message says what is, not what
//! changed.
//!
//! ```text
//!             lost (ENOBUFS)                emptied                all stages done
//!   Current ────────────────▶ Emptying ───────────────▶ Dumping ───────────────────▶ Current
//!      └────────── resync, or IPv4 routes in doubt ────────▲ └─▶ again, if interrupted
//! ```
//! * *Lost*: the kernel drops events while our buffer is full, and goes on dropping until we have
//!   emptied it once; so we empty it, forget what it said, and dump everything anew.
//! * *Interrupted* (`NLM_F_DUMP_INTR`): something changed under the dump; it starts again.
//! * *In doubt*: when a link goes down or up, a nexthop object goes, or (in older kernels) an IPv4
//!   address goes, the kernel removes and revives IPv4 routes without an event. The routes are then
//!   dumped again, with the links before them: that waits for the kernel's configuration lock, which
//!   whoever caused all this still holds.
//!
//! Whatever happens, the view is the last complete one: it is never half of a dump. Each step is
//! bounded ([`DATAGRAMS_A_STEP`] of at most 32 KiB). A route table of 1 M entries takes about 3 000
//! datagrams, so a dump of it spreads over some tens of steps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::neighbours::{self, Asked, Asking, NeighbourKey, Reason};
use super::netlink::{Channel, Received};
use super::tables::{Tables, Touched};
use super::view::{CompanionPorts, KernelView};
use super::{Ifindex, KernelError, PortIdx, link, nexthops};

/// What one step takes from a socket at most.
pub const DATAGRAMS_A_STEP: usize = 64;
/// Room for waiting events: some thousands, about what a link with as many routes makes when it
/// goes. The kernel doubles it for its own book-keeping.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// Dumps that [`Mirror::open`] starts before it gives up; a box would have to be in turmoil.
const OPENING_DUMPS: usize = 100;

// include/uapi/linux/rtnetlink.h, enum rtnetlink_groups
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_NEIGH: u32 = 3;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTNLGRP_IPV6_ROUTE: u32 = 11;
const GROUPS: [u32; 6] = [
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
];

/// The mirror. It looks at the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Mirror {
    events: Channel,
    dumps: Channel,
    requests: Channel,
    names: BTreeMap<String, PortIdx>,
    ports: CompanionPorts,
    tables: Tables,
    view: KernelView,
    progress: Progress,
    asking: Asking,
    dumps_started: u64,
    losses: u64,
    interruptions: u64,
}

/// Where the mirror stands; see the drawing above.
#[derive(Debug)]
enum Progress {
    Current,
    Emptying,
    Dumping(Box<Dump>),
}

/// A dump under way.
#[derive(Debug)]
struct Dump {
    plan: &'static [Stage],
    /// What `plan` has still to do, the current stage first.
    left: &'static [Stage],
    sequence: u32,
    interrupted: bool,
    fresh: Tables,
}

/// One request of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Links,
    Addresses,
    NextHops,
    Routes(AddressFamily),
    Neighbours,
}

const EVERYTHING: &[Stage] = &[
    Stage::Links,
    Stage::Addresses,
    Stage::NextHops,
    Stage::Routes(AddressFamily::Inet),
    Stage::Routes(AddressFamily::Inet6),
    Stage::Neighbours,
];
const ROUTES: &[Stage] = &[
    Stage::Links,
    Stage::NextHops,
    Stage::Routes(AddressFamily::Inet),
    Stage::Routes(AddressFamily::Inet6),
];

impl Mirror {
    /// Subscribes, dumps, and returns with a complete view.
    ///
    /// `companions` says which interface stands for which port; one that does not exist yet is
    /// recognised by its name when it comes. From then on it is known by its index, whatever it is
    /// called, for as long as it exists.
    ///
    /// # Errors
    /// [`KernelError`] if netlink cannot be used or the kernel's state does not hold still for 100
    /// dumps in a row.
    pub fn open(companions: &[(PortIdx, String)]) -> Result<Mirror, KernelError> {
        Mirror::with_receive_buffer(companions, RECEIVE_BUFFER_BYTES)
    }

    /// The same with another size of the buffer in which events wait.
    pub(super) fn with_receive_buffer(
        companions: &[(PortIdx, String)],
        bytes: usize,
    ) -> Result<Mirror, KernelError> {
        let mut events = Channel::open()?;
        events.set_receive_buffer(bytes)?;
        for group in GROUPS {
            events.subscribe(group)?;
        }
        if let Err(error) = events.subscribe(nexthops::RTNLGRP_NEXTHOP) {
            tracing::debug!(%error, "no nexthop objects in this kernel (before Linux 5.3)");
        }
        let mut mirror = Mirror {
            events,
            dumps: Channel::open()?,
            requests: Channel::open()?,
            names: companions.iter().map(|(port, name)| (name.clone(), *port)).collect(),
            ports: CompanionPorts::new(),
            tables: Tables::default(),
            view: KernelView::default(),
            progress: Progress::Current,
            asking: Asking::new(),
            dumps_started: 0,
            losses: 0,
            interruptions: 0,
        };
        mirror.resync()?;
        while !mirror.is_current() {
            mirror.step()?;
            if mirror.dumps_started > OPENING_DUMPS as u64 {
                let busy = "links or addresses change faster than they can be listed: try again";
                let source = std::io::Error::other(busy);
                return Err(KernelError::io("netlink: first dump", source));
            }
        }
        Ok(mirror)
    }

    /// Takes what the kernel has to say, up to a bound; whether the view changed.
    ///
    /// Call it when the descriptor is readable, and again while [`Mirror::is_current`] is false.
    ///
    /// # Errors
    /// A socket that failed. The view stays as it was and everything is dumped anew in later steps.
    pub fn step(&mut self) -> Result<bool, KernelError> {
        let stepped = match &self.progress {
            Progress::Current => self.follow(),
            Progress::Emptying => self.empty(),
            Progress::Dumping(_) => self.dump(),
        };
        match stepped {
            Ok(touched) => Ok(self.publish(touched)),
            Err(error) => {
                self.progress = Progress::Emptying;
                Err(error)
            }
        }
    }

    /// Whether nothing is being caught up on: what the kernel said is in the view, or still waits
    /// in the socket.
    pub fn is_current(&self) -> bool {
        matches!(self.progress, Progress::Current)
    }

    /// Has everything dumped anew, over the next steps. Events can only be lost with notice, so
    /// this is a belt for those who wear braces: once a minute costs nothing.
    ///
    /// # Errors
    /// A request that could not be sent.
    pub fn resync(&mut self) -> Result<(), KernelError> {
        self.start(EVERYTHING)
    }

    /// The kernel's state as of the last complete step.
    pub fn view(&self) -> &KernelView {
        &self.view
    }

    /// The addresses of [`KernelView::ours`] that came or went since the last call, and perhaps others.
    pub fn take_ours_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.tables.ours_changed)
    }

    /// How often events were lost and everything was dumped again.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// How often a dump was interrupted and started again.
    pub fn interruptions(&self) -> u64 {
        self.interruptions
    }

    /// Has the kernel ask for a neighbour that a packet waits for; at most once a second for each.
    /// Those that [`Mirror::keep_fresh`] was not told of have a small budget of their own.
    ///
    /// `now` is the time since any fixed start. The answer, or that there was none, shows in the
    /// view. Costs a system call or none.
    ///
    /// # Errors
    /// The kernel's refusal, with the interface and the address.
    pub fn resolve(
        &mut self,
        port: PortIdx,
        address: IpAddr,
        now: Duration,
    ) -> Result<Asked, KernelError> {
        match self.companion(port) {
            Some(index) => self.ask((index, address), Reason::Packet, now),
            None => Ok(Asked::NoCompanion),
        }
    }

    fn ask(
        &mut self,
        key: NeighbourKey,
        reason: Reason,
        now: Duration,
    ) -> Result<Asked, KernelError> {
        let asked = self.asking.decide(key, self.tables.neighbours.get(&key), reason, now);
        if asked == Asked::Now {
            neighbours::use_neighbour(&mut self.requests, key)?;
        }
        Ok(asked)
    }

    /// Keeps the neighbours in use alive: those that are stale are probed, those missing asked for,
    /// each at most every ten seconds. Returns how many the kernel was told of.
    ///
    /// Call it about once a second with every next hop that packets go to (a gateway, or a backend
    /// on the port's own subnet). Costs a look-up each, and a system call for each told of.
    ///
    /// # Errors
    /// The first refusal, after all have been tried.
    pub fn keep_fresh(
        &mut self,
        in_use: impl IntoIterator<Item = (PortIdx, IpAddr)>,
        now: Duration,
    ) -> Result<usize, KernelError> {
        let ports: BTreeMap<PortIdx, Ifindex> =
            self.view.links.iter().map(|link| (link.port, link.index)).collect();
        let keys: BTreeSet<NeighbourKey> = in_use
            .into_iter()
            .filter_map(|(port, address)| Some((*ports.get(&port)?, address)))
            .collect();
        self.asking.set_in_use(keys.clone());
        self.ask_for_all(keys, now)
    }

    /// The same with next hops that have come to be used since.
    ///
    /// # Errors
    /// The first refusal, after all have been tried.
    pub fn ask_for_new(
        &mut self,
        in_use: impl IntoIterator<Item = (PortIdx, IpAddr)>,
        now: Duration,
    ) -> Result<usize, KernelError> {
        let keys = in_use.into_iter();
        let keys: Vec<NeighbourKey> =
            keys.filter_map(|(port, address)| Some((self.companion(port)?, address))).collect();
        self.asking.add_in_use(keys.iter().copied());
        self.ask_for_all(keys, now)
    }

    fn ask_for_all(
        &mut self,
        keys: impl IntoIterator<Item = NeighbourKey>,
        now: Duration,
    ) -> Result<usize, KernelError> {
        let (mut told, mut refused) = (0, Ok(()));
        for key in keys {
            match self.ask(key, Reason::InUse, now) {
                Ok(asked) => told += usize::from(asked == Asked::Now),
                Err(error) => refused = refused.and(Err(error)),
            }
        }
        refused.map(|()| told)
    }

    /// The companion of `port`, if it exists at the moment.
    pub fn companion(&self, port: PortIdx) -> Option<Ifindex> {
        self.view.companion(port)
    }

    /// Applies events, and looks whether they leave routes in doubt.
    fn follow(&mut self) -> Result<Touched, KernelError> {
        let mut touched = Touched::default();
        for _ in 0..DATAGRAMS_A_STEP {
            match self.events.receive().map_err(events_failed)? {
                Received::Messages(messages) => {
                    for message in messages {
                        touched = touched.and(self.tables.apply(message, false));
                    }
                }
                Received::Nothing => break,
                Received::Lost => {
                    self.losses += 1;
                    tracing::warn!(losses = self.losses, "netlink events lost: dumping again");
                    self.progress = Progress::Emptying;
                    return Ok(touched);
                }
            }
        }
        if touched.routes_in_doubt {
            self.start(ROUTES)?;
        }
        Ok(touched)
    }

    /// Throws waiting events away until there are none: only then does the kernel queue new ones.
    fn empty(&mut self) -> Result<Touched, KernelError> {
        for _ in 0..DATAGRAMS_A_STEP {
            if let Received::Nothing = self.events.receive().map_err(events_failed)? {
                self.start(EVERYTHING)?;
                break;
            }
        }
        Ok(Touched::default())
    }

    /// Reads on in the dump.
    fn dump(&mut self) -> Result<Touched, KernelError> {
        for _ in 0..DATAGRAMS_A_STEP {
            let Progress::Dumping(dump) = &mut self.progress else { break };
            match dump.read(&mut self.dumps)? {
                Reading::More => {}
                Reading::StageDone if dump.interrupted => {
                    let plan = dump.plan;
                    self.interruptions += 1;
                    self.start(plan)?;
                }
                Reading::StageDone => {
                    dump.left = &dump.left[1..];
                    match dump.left.first() {
                        Some(stage) => dump.sequence = stage.ask(&mut self.dumps)?,
                        None => return Ok(self.adopt()),
                    }
                }
            }
        }
        Ok(Touched::default())
    }

    /// Takes over what the finished dump found.
    fn adopt(&mut self) -> Touched {
        let Progress::Dumping(dump) = std::mem::replace(&mut self.progress, Progress::Current)
        else {
            return Touched::default();
        };
        if dump.plan == EVERYTHING {
            self.tables.adopt(dump.fresh);
            return Touched::ALL;
        }
        self.tables.links = dump.fresh.links;
        self.tables.objects = dump.fresh.objects;
        self.tables.routes = dump.fresh.routes;
        Touched { links: true, routes: true, ..Touched::default() }
    }

    /// Starts a dump. A fresh socket each time: what an abandoned one still had to say is gone.
    fn start(&mut self, plan: &'static [Stage]) -> Result<(), KernelError> {
        // A dump of everything under way must not end as one of routes only.
        let everything =
            matches!(&self.progress, Progress::Dumping(dump) if dump.plan == EVERYTHING);
        let plan = if everything { EVERYTHING } else { plan };
        self.dumps_started += 1;
        self.dumps = Channel::open()?;
        let sequence = plan[0].ask(&mut self.dumps)?;
        let fresh = Tables::default();
        let dump = Dump { plan, left: plan, sequence, interrupted: false, fresh };
        self.progress = Progress::Dumping(Box::new(dump));
        Ok(())
    }

    /// Makes the view follow the tables; whether it changed.
    fn publish(&mut self, mut touched: Touched) -> bool {
        if touched.links {
            let ports = self.companion_ports();
            if ports != self.ports {
                self.ports = ports;
                touched = touched.and(Touched::ALL);
            }
        }
        let view = self.view.renewed(&self.tables, &self.ports, touched);
        let changed = !view.is(&self.view);
        tell_of_renamed(&self.view, &view);
        self.view = view;
        changed
    }

    /// Which interface stands for which port: the one that did, or else the one of the right name.
    fn companion_ports(&self) -> CompanionPorts {
        let links = &self.tables.links;
        let mut ports = self.ports.clone();
        ports.retain(|index, _| links.contains_key(index));
        let taken: BTreeSet<PortIdx> = ports.values().copied().collect();
        let named = links.iter().filter_map(|(index, facts)| {
            let port = self.names.get(&facts.name)?;
            (!taken.contains(port)).then_some((*index, *port))
        });
        let named: Vec<_> = named.filter(|(index, _)| !ports.contains_key(index)).collect();
        ports.extend(named);
        ports
    }
}

/// A companion is ours under any name, but the next start looks for it under the old one.
fn tell_of_renamed(before: &KernelView, now: &KernelView) {
    for link in &*now.links {
        let was = before.links.iter().find(|was| was.index == link.index && was.name != link.name);
        if let Some(was) = was {
            tracing::warn!(
                was = was.name,
                now = link.name,
                "companion renamed: it is used as before, but a restart opens it by the name in the configuration"
            );
        }
    }
}

impl AsFd for Mirror {
    /// Readable when events wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl AsRawFd for Mirror {
    fn as_raw_fd(&self) -> RawFd {
        self.events.as_raw_fd()
    }
}

fn events_failed(source: std::io::Error) -> KernelError {
    KernelError::io("netlink: receiving events", source)
}

/// How far a dump got.
enum Reading {
    More,
    StageDone,
}

impl Dump {
    fn read(&mut self, channel: &mut Channel) -> Result<Reading, KernelError> {
        let what = "netlink: receiving a dump";
        let messages = match channel.receive().map_err(|source| KernelError::io(what, source))? {
            Received::Messages(messages) => messages,
            Received::Nothing | Received::Lost => {
                let source = std::io::Error::other("the kernel's answer stopped half-way");
                return Err(KernelError::io(what, source));
            }
        };
        for message in messages.filter(|message| message.header.sequence_number == self.sequence) {
            self.interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.verdict() {
                None => drop(self.fresh.apply(message, true)),
                Some(Ok(())) => return Ok(Reading::StageDone),
                // A kernel without nexthop objects has none to list.
                Some(Err(_)) if self.left[0] == Stage::NextHops => return Ok(Reading::StageDone),
                Some(Err((Errno::INTR | Errno::AGAIN, _))) => {
                    self.interrupted = true;
                    return Ok(Reading::StageDone);
                }
                Some(Err((errno, reason))) => {
                    let what = format!("netlink: dumping {:?}", self.left[0]);
                    return Err(KernelError::refused(what, errno, reason));
                }
            }
        }
        Ok(Reading::More)
    }
}

impl Stage {
    /// Sends the request; returns its sequence number.
    fn ask(self, channel: &mut Channel) -> Result<u32, KernelError> {
        use RouteNetlinkMessage as M;
        match self {
            Stage::Links => channel.start_dump(M::GetLink(link::get_message())),
            Stage::Addresses => channel.start_dump(M::GetAddress(AddressMessage::default())),
            Stage::NextHops => channel.start_raw_dump(nexthops::RTM_GETNEXTHOP, &nexthops::GET_ALL),
            Stage::Routes(family) => {
                let mut message = RouteMessage::default();
                message.header.address_family = family;
                channel.start_dump(M::GetRoute(message))
            }
            Stage::Neighbours => channel.start_dump(M::GetNeighbour(NeighbourMessage::default())),
        }
    }
}
