//! Each policy on removal with each change that concerns connections, from the feed's state to packets.

use penstock_feed::OnRemoval;
use penstock_forward::{
    Exit, FlowInfo, FlowState, PortIdx, WorkerIdx,
    testing::{TestLb, mac_towards, tcp, udp},
    wire::tcp::{ACK, SYN},
};

use super::*;
use crate::kernel::{self, Neighbour, Prefix, Route, RouteKind, Table};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
/// The time in which the sweep sees every record, and a bit.
const ROUND_MS: u32 = 1001;
const GRACE_MS: u32 = 30_000;
const CLIENT: &str = "203.0.113.7:40000";
const OLD: &str = "10.0.0.3";
const NEW: &str = "10.0.0.4";

/// What is done to the listeners `web` and `dns`, whose one backend is [`OLD`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    BackendRemoved,
    GroupReplaced,
    ListenersRemoved,
    VipRemoved,
    VipMoved,
    ShutOut,
    WeightZero,
    Draining,
    GroupRenamed,
    OtherSnatPool,
    OtherRanges,
}

use Change::*;

/// Changes after which nobody serves their connections.
const ENDING: [Change; 6] =
    [BackendRemoved, GroupReplaced, ListenersRemoved, VipRemoved, VipMoved, ShutOut];
/// Changes after which somebody does.
const HARMLESS: [Change; 5] = [WeightZero, Draining, GroupRenamed, OtherSnatPool, OtherRanges];

fn policies() -> [OnRemoval; 3] {
    [OnRemoval::Keep, OnRemoval::Reset, OnRemoval::Expire { grace_ms: GRACE_MS }]
}

fn one(address: &str, member: FedMember) -> Arc<feed::Group> {
    let members = [(format!("{address}:80").parse().unwrap(), member)].into();
    Arc::new(feed::Group { members, refused_weight: 0 })
}

/// The configuration before a change, or after it. Another VIP, and another port of the same, are in it always.
fn configuration(mode: feed::Mode, on_removal: OnRemoval, change: Option<Change>) -> Arc<State> {
    let full = FedMember { weight: 1, draining: false };
    let mut state = State::default();
    let ranges = match change {
        Some(ShutOut) => Some(ip("198.51.100.0")),
        Some(OtherRanges) => Some(ip("203.0.113.0")),
        _ => None,
    };
    let ranges = ranges.map(|network| feed::SourceRanges::new(feed::Prefix::new(network, 24)));
    let mut put = |key: &str, vip: &str, protocol, port, group: &str| {
        let listener = FedListener {
            protocol,
            ports: PortRange::single(port).unwrap(),
            policies: feed::Policies { on_removal, ..feed::Policies::default() },
            snat_pool: (change == Some(OtherSnatPool)).then(|| name("pool")),
            source_ranges: ranges.clone().filter(|_| group != "other").and_then(Result::ok),
            ..listener(vip, mode, group)
        };
        state.listeners.insert_mut(name(key), listener);
    };
    let vip = if change == Some(VipMoved) { "192.0.2.7" } else { "192.0.2.1" };
    let group = if matches!(change, Some(GroupReplaced | GroupRenamed)) { "h" } else { "g" };
    if !matches!(change, Some(ListenersRemoved | VipRemoved)) {
        put("web", vip, feed::Protocol::Tcp, 80, group);
        put("dns", vip, feed::Protocol::Udp, 53, group);
    }
    if !matches!(change, Some(VipRemoved | VipMoved)) {
        put("rest", "192.0.2.1", feed::Protocol::Tcp, 81, "other");
    }
    put("other", "192.0.2.2", feed::Protocol::Tcp, 80, "other");
    let addresses = [ip("10.0.0.201")].into();
    state.snat_pools.insert_mut(name("pool"), feed::SnatPool { addresses });
    let member = match change {
        Some(BackendRemoved | GroupReplaced) => one(NEW, full),
        Some(WeightZero) => one(OLD, FedMember { weight: 0, ..full }),
        Some(Draining) => one(OLD, FedMember { draining: true, ..full }),
        _ => one(OLD, full),
    };
    state.groups.insert_mut(name(group), member);
    state.groups.insert_mut(name("other"), one(OLD, full));
    Arc::new(state)
}

/// The hosts of 10.0.0.0/24 on a link of ours, everything else by a router.
fn network() -> KernelView {
    let route = |prefix: &str, len, gateway: Option<&str>| Route {
        table: Table::Main,
        prefix: Prefix { address: ip(prefix), len },
        kind: RouteKind::Unicast,
        next_hops: vec![kernel::NextHop {
            port: 0,
            index: Ifindex(7),
            gateway: gateway.map(ip),
            weight: 1,
        }],
        mtu_bytes: None,
    };
    let neighbour = |address: &str| {
        let mac = Some(kernel::MacAddr(mac_towards(ip(address)).0));
        Neighbour { port: 0, address: ip(address), mac, failed: false }
    };
    KernelView {
        routes: [route("0.0.0.0", 0, Some("192.0.2.254")), route("10.0.0.0", 24, None)].into(),
        neighbours: [neighbour(OLD), neighbour(NEW), neighbour("192.0.2.254")].into(),
        ..KernelView::default()
    }
}

/// A load balancer that does what the translator says.
struct Site {
    bench: Bench,
    lb: TestLb<'static>,
}

impl Site {
    fn new(state: &Arc<State>) -> Self {
        let mut site = Self { bench: Bench::new(), lb: TestLb::with("") };
        site.configure(state);
        site
    }

    fn configure(&mut self, state: &Arc<State>) {
        self.bench.now = self.lb.now;
        let translation = self.bench.translate_under(&network(), state);
        assert!(translation.errors.is_empty(), "{:?}", translation.errors);
        self.lb.snapshot = translation.snapshot;
    }

    /// Opens a connection, as far as its backend is heard.
    fn connect(&mut self, vip: &str) -> FlowInfo {
        self.send(tcp(CLIENT, vip, SYN).bytes());
        let flow = self.flow(vip).expect("a flow");
        if flow.outside.port() != 0 && !self.is_dsr() {
            let (backend, outside) = (flow.backend.to_string(), flow.outside.to_string());
            self.send(tcp(&backend, &outside, SYN | ACK).bytes());
        }
        self.send(tcp(CLIENT, vip, ACK).bytes());
        assert_eq!(self.flow(vip).map(|flow| flow.state), Some(FlowState::Established));
        flow
    }

    fn is_dsr(&self) -> bool {
        let vip = "192.0.2.2:80".parse().unwrap();
        self.lb.snapshot.listener_of(vip, Protocol::Tcp).is_some_and(|other| other.mode.is_dsr())
    }

    fn send(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let (exit, left) = self.lb.send_to(SERVED, frame);
        assert_eq!(exit, SENT);
        left
    }

    fn flow(&self, vip: &str) -> Option<FlowInfo> {
        let vip: SocketAddr = vip.parse().unwrap();
        self.lb.flows().into_iter().find(|flow| flow.vip == vip)
    }

    fn state(&self, vip: &str) -> Option<FlowState> {
        self.flow(vip).map(|flow| flow.state)
    }
}

#[test]
fn what_becomes_of_connections_by_policy_and_change() {
    let established = Some(FlowState::Established);
    for mode in [feed::Mode::FullNat, feed::Mode::Dnat, feed::Mode::Ipip] {
        for on_removal in policies() {
            for change in ENDING.into_iter().chain(HARMLESS) {
                eprintln!("{mode}, {on_removal}, {change:?}");
                let mut site = Site::new(&configuration(mode, on_removal, None));
                let (vip, other) = ("192.0.2.1:80", "192.0.2.2:80");
                site.connect(vip);
                site.connect(other);
                site.lb.sleep_ms(2 * GRACE_MS); // a grace begins with the change
                site.configure(&configuration(mode, on_removal, Some(change)));
                let ends = ENDING.contains(&change) && on_removal != OnRemoval::Keep;
                let (rsts, cut) = (if site.is_dsr() { 0 } else { 2 }, Some(FlowState::Cut));
                if let OnRemoval::Expire { grace_ms } = on_removal {
                    site.lb.sleep_ms(grace_ms - 1);
                    assert_eq!(site.lb.take_resets(SERVED), [], "not before its time");
                    assert_eq!(site.state(vip), established);
                    site.send(tcp(CLIENT, vip, ACK).bytes());
                }
                site.lb.sleep_ms(ROUND_MS);
                assert_eq!(site.lb.take_resets(SERVED).len(), if ends { rsts } else { 0 });
                assert_eq!(site.state(vip), if ends { cut } else { established });
                assert_eq!(site.state(other), established, "the other VIP's is not concerned");
                if !ends {
                    site.send(tcp(CLIENT, vip, ACK).bytes());
                }
                site.send(tcp(CLIENT, other, ACK).bytes());
            }
        }
    }
}

#[test]
fn where_datagrams_go_by_policy_and_change() {
    for mode in [feed::Mode::FullNat, feed::Mode::Dnat, feed::Mode::Ipip] {
        for on_removal in policies() {
            for change in [BackendRemoved, GroupReplaced].into_iter().chain(HARMLESS) {
                eprintln!("{mode}, {on_removal}, {change:?}");
                for after_a_round in [false, true] {
                    let mut site = Site::new(&configuration(mode, on_removal, None));
                    let datagram = || udp(CLIENT, "192.0.2.1:53", b"?").bytes();
                    site.send(datagram());
                    site.configure(&configuration(mode, on_removal, Some(change)));
                    if after_a_round {
                        site.lb.sleep_ms(ROUND_MS);
                    }
                    let left = site.send(datagram());
                    let to = if ENDING.contains(&change) { NEW } else { OLD };
                    assert_eq!(left[..6], mac_towards(ip(to)).0, "at once, whatever the policy");
                    assert_eq!(site.lb.flows().len(), 1);
                }
            }
        }
    }
}

/// A policy is what it is now, for what happened before it came too; of a listener that is gone, what it was.
#[test]
fn a_policy_that_changes_concerns_what_nobody_serves_already() {
    let mode = feed::Mode::FullNat;
    let reset = OnRemoval::Reset;
    let mut site = Site::new(&configuration(mode, OnRemoval::Keep, None));
    site.connect("192.0.2.1:80");
    site.configure(&configuration(mode, OnRemoval::Keep, Some(BackendRemoved)));
    site.lb.sleep_ms(60_000);
    assert_eq!(site.state("192.0.2.1:80"), Some(FlowState::Established));
    let expire = OnRemoval::Expire { grace_ms: GRACE_MS };
    site.configure(&configuration(mode, expire, Some(BackendRemoved)));
    site.lb.sleep_ms(GRACE_MS - 1);
    assert_eq!(site.lb.take_resets(SERVED), [], "the grace begins with the policy");
    site.lb.sleep_ms(ROUND_MS);
    assert_eq!(site.lb.take_resets(SERVED).len(), 2);

    for (before, after, rsts) in [(OnRemoval::Keep, reset, 0), (reset, OnRemoval::Keep, 2)] {
        let mut site = Site::new(&configuration(mode, before, None));
        site.connect("192.0.2.1:80");
        site.configure(&configuration(mode, after, Some(ListenersRemoved)));
        site.lb.sleep_ms(ROUND_MS);
        assert_eq!(site.lb.take_resets(SERVED).len(), rsts, "gone when {before}, then {after}");
    }
}

/// What comes back in time is as if it had never been away.
#[test]
fn a_backend_that_is_back_within_its_grace_keeps_its_connections() {
    let (mode, expire) = (feed::Mode::FullNat, OnRemoval::Expire { grace_ms: GRACE_MS });
    for change in ENDING {
        let mut site = Site::new(&configuration(mode, expire, None));
        site.connect("192.0.2.1:80");
        site.configure(&configuration(mode, expire, Some(change)));
        site.lb.sleep_ms(GRACE_MS / 2);
        site.configure(&configuration(mode, expire, None));
        site.lb.sleep_ms(GRACE_MS + ROUND_MS);
        assert_eq!(site.lb.take_resets(SERVED), [], "{change:?}");
        site.send(tcp(CLIENT, "192.0.2.1:80", ACK).bytes());
    }
}
