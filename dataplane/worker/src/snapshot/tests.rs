//! What a translation promises: who is refused, what is built anew, which numbers stay.

use std::{net::Ipv4Addr, path::Path, sync::atomic::Ordering};

use penstock_feed::stats::StatsReader;
use penstock_feed::{Listener as FedListener, Member as FedMember, PortRange};
use penstock_forward::{
    BACKEND_COLUMNS, LISTENER_COLUMNS,
    counters::{BackendColumn, ListenerColumn},
    testing::BOX_MAC,
};

use penstock_forward::{BackendId, Member, maglev};

use super::*;
use crate::{
    config::{Config, Icmp},
    kernel::{Address, Ifindex, OurAddresses},
};

mod agreement;
mod removal;
mod whole;

const SNAT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200));

struct Bench {
    translator: Translator,
    statistics: Statistics,
    now: Tick,
    state: Arc<State>,
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::with_snat(snat(&[SNAT]))
    }

    fn with_snat(snat: Snat) -> Self {
        let config = "ports: [{ name: lan, device: net_null0, companion: pst0 }]";
        let config = Config::parse("test.yaml", config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path: &Path = &directory.path().join("dataplane.stats");
        let port = PortConfig { mac: BOX_MAC, mtu: 1500 };
        Self {
            translator: Translator::new(vec![port], snat, Icmp::default(), Timeouts::default(), 1),
            statistics: Statistics::create(path, &config).unwrap(),
            now: Tick(1000),
            state: Arc::default(),
            directory,
        }
    }

    fn translate(&mut self, state: &Arc<State>) -> Translation {
        self.translate_under(&KernelView::default(), state)
    }

    fn translate_under(&mut self, view: &KernelView, state: &Arc<State>) -> Translation {
        let touched = Touched::between(&self.state, state);
        self.state = Arc::clone(state);
        self.translator.translate(state, &touched, view, &mut self.statistics, self.now)
    }

    fn release_unused(&mut self) -> bool {
        self.translator.release_unused(&mut self.statistics, self.now)
    }

    fn set_listener_flows(&self, slot: ListenerSlot, flows: u64) {
        let cell = slot.0 as usize * LISTENER_COLUMNS.len() + ListenerColumn::Flows as usize;
        self.statistics.counters(0).listeners[cell].store(flows, Ordering::Relaxed);
    }

    fn set_flows(&self, id: BackendId, flows: u64) {
        let cell = id.0 as usize * BACKEND_COLUMNS.len() + BackendColumn::Flows as usize;
        self.statistics.counters(0).backends[cell].store(flows, Ordering::Relaxed);
    }
}

fn snat(addresses: &[IpAddr]) -> Snat {
    Snat { addresses: addresses.iter().copied().collect(), ..Snat::default() }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn listener(vip: &str, mode: feed::Mode, group: &str) -> FedListener {
    FedListener {
        vip: vip.parse().unwrap(),
        protocol: feed::Protocol::Tcp,
        ports: PortRange::single(80).unwrap(),
        mode,
        group: name(group),
        affinity: feed::Affinity::Tuple,
        policies: feed::Policies::default(),
        source_ranges: None,
        snat_pool: None,
    }
}

fn group(backends: &[&str]) -> Arc<feed::Group> {
    let member = |text: &&str| (text.parse().unwrap(), FedMember { weight: 1, draining: false });
    Arc::new(feed::Group { members: backends.iter().map(member).collect(), refused_weight: 0 })
}

fn state(listeners: &[(&str, FedListener)], groups: &[(&str, &[&str])]) -> Arc<State> {
    Arc::new(State {
        listeners: listeners.iter().map(|(key, listener)| (name(key), listener.clone())).collect(),
        groups: groups.iter().map(|(key, members)| (name(key), group(members))).collect(),
        ..State::default()
    })
}

/// What is kept on the companion for the L7 tier, a step each.
#[test]
fn a_vip_of_the_l7_tier_is_on_the_companion_while_it_or_a_listener_needs_it() {
    let (l7, l4) = (ip("192.0.2.7"), ip("192.0.2.1"));
    let of = |base: &Arc<State>, vips: &[IpAddr]| {
        let mut state = State::clone(base);
        vips.iter().for_each(|vip| state.vips.insert_mut(*vip, ()));
        Arc::new(state)
    };
    let (nothing, web) = (Arc::default(), web(&["10.0.0.1:80"]));
    let mut bench = Bench::new();
    for (promise, state, on_companion) in [
        ("alone", of(&nothing, &[l7]), [true, false]),
        ("beside a listener", of(&web, &[l7, l4]), [true, true]),
        ("the listener goes", of(&nothing, &[l7, l4]), [true, true]),
        ("the listener alone", of(&web, &[]), [false, true]),
        ("nothing, while flows of the listener may live", of(&nothing, &[]), [false, true]),
    ] {
        let now = bench.translate(&state);
        assert_eq!([l7, l4].map(|vip| now.addresses.contains(&vip)), on_companion, "{promise}");
        let kept = [l7, l4].map(|vip| state.vips.contains_key(&vip));
        assert_eq!([l7, l4].map(|vip| now.snapshot.is_kept(vip)), kept, "{promise}");
        assert_eq!([l7, l4].map(|vip| now.snapshot.is_local(vip)), on_companion, "{promise}");
        assert!(!now.snapshot.is_vip(l7), "{promise}: its packets are the kernel's");
    }
    assert!(bench.release_unused());
    assert_eq!(bench.translate(&of(&nothing, &[])).addresses.size(), 1, "the SNAT address");
}

fn web(backends: &[&str]) -> Arc<State> {
    state(&[("web", listener("192.0.2.1", feed::Mode::FullNat, "g"))], &[("g", backends)])
}

/// An address that another gave the box, `ADDRESS/LEN`, on the companion (interface 7) or elsewhere.
fn kernel_address(index: u32, address: &str) -> Address {
    let (address, prefix_len) = address.split_once('/').unwrap();
    let prefix_len = prefix_len.parse().unwrap();
    let port = (index == 7).then_some(0);
    Address { index: Ifindex(index), port, address: ip(address), prefix_len }
}

/// Addresses that we put on the companion.
fn ours(addresses: &[&str]) -> OurAddresses {
    addresses.iter().map(|address| (ip(address), Ifindex(7), 32)).collect()
}

/// A box that is 192.0.2.9 and goes by the router 192.0.2.254.
fn on_the_lan() -> KernelView {
    KernelView {
        addresses: [kernel_address(7, "192.0.2.9/24")].into(),
        routers: [ip("192.0.2.254")].into(),
        ..KernelView::default()
    }
}

fn served(snapshot: &Snapshot, vip: &str) -> Option<(ListenerSlot, Arc<Group>)> {
    let listener = snapshot.listener_of(vip.parse().unwrap(), Protocol::Tcp)?;
    Some((listener.slot, Arc::clone(&listener.group)))
}

/// How many slots the Maglev table of the only listener has, and its digest, as its row says.
fn maglev_of(bench: &Bench) -> [String; 2] {
    let reader = StatsReader::open(&bench.directory.path().join("dataplane.stats")).unwrap();
    let rows = reader.rows(reader.table("listeners").unwrap());
    ["maglev_slots", "maglev_digest"].map(|key| rows[0].label(key).unwrap().to_owned())
}

/// As another box says that was told this only.
#[test]
fn a_listener_says_by_which_maglev_table_it_picks() {
    let rows: [(&str, &[&str]); 4] = [
        ("two", &["10.0.0.1:80", "10.0.0.2:80"]),
        ("three", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]),
        ("a group that is refused: the last", &["192.0.2.1:80"]),
        ("nobody", &[]),
    ];
    let mut bench = Bench::new();
    let mut last = String::new();
    for (promise, backends) in rows {
        let translation = bench.translate(&web(backends));
        let (_, group) = served(&translation.snapshot, "192.0.2.1:80").unwrap();
        let found = maglev_of(&bench);
        let expected = [group.table_size().to_string(), format!("{:016x}", group.digest())];
        assert_eq!(found, expected, "{promise}");
        let mut other = Bench::new();
        let refused = !translation.errors.is_empty();
        other.translate(&web(if refused { rows[1].1 } else { backends }));
        assert_eq!(found, maglev_of(&other), "{promise}");
        assert_eq!(found[1] == last, refused, "{promise}");
        last.clone_from(&found[1]);
    }
}

#[test]
fn an_object_that_cannot_be_served_is_refused_alone() {
    let rows = [
        ("link", listener("fe80::1", feed::Mode::FullNat, "g"), "is link-local"),
        ("v6", listener("2001:db8::1", feed::Mode::FullNat, "g"), "its family, IPv6"),
        ("snat", listener("10.0.0.200", feed::Mode::FullNat, "g"), "is a SNAT address of this box"),
        ("lost", listener("192.0.2.2", feed::Mode::FullNat, "nowhere"), "no such group"),
        ("zweb", listener("192.0.2.1", feed::Mode::Dnat, "g"), "192.0.2.1"),
    ];
    let mut listeners = vec![("web", listener("192.0.2.1", feed::Mode::FullNat, "g"))];
    listeners.extend(rows.iter().map(|(name, listener, _)| (*name, listener.clone())));
    let mut bench = Bench::new();
    let translation = bench.translate(&state(&listeners, &[("g", &["10.0.0.1:80"])]));
    assert!(served(&translation.snapshot, "192.0.2.1:80").is_some());
    let errors: Vec<String> = translation.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), rows.len(), "{errors:#?}");
    for (_, _, expected) in rows {
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:#?}");
    }
}

#[test]
fn a_vip_that_is_something_else_already_is_refused_alone() {
    let rows = [
        ("192.0.2.9", "192.0.2.9 is the box's own address on interface 7; use another"),
        ("192.0.2.254", "192.0.2.254 is the router of a route of this box; use another"),
        ("192.0.2.0", "192.0.2.0 is the network address of the subnet 192.0.2.0/24; use another"),
        ("192.0.2.255", "192.0.2.255 is the broadcast address of the subnet 192.0.2.0/24"),
        ("10.0.0.1", "10.0.0.1 is the address of backend 10.0.0.1:80 of g, which packets"),
        ("10.0.0.8", "10.0.0.8 is the router of the next hop to 203.0.113.5, which packets"),
    ];
    let good = ("web", listener("192.0.2.1", feed::Mode::FullNat, "g"));
    for (vip, expected) in rows {
        let bad = ("bad", listener(vip, feed::Mode::Dnat, "g"));
        let mut state = state(&[good.clone(), bad], &[("g", &["10.0.0.1:80"])]);
        let hint = feed::NextHop { via: ip("10.0.0.8") };
        Arc::make_mut(&mut state).next_hops.insert_mut(ip("203.0.113.5"), hint);
        let now = Bench::new().translate_under(&on_the_lan(), &state);
        let errors: Vec<String> = now.errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{expected}: {errors:#?}");
        assert!(served(&now.snapshot, "192.0.2.1:80").is_some(), "{vip}: the other serves");
        assert!(!now.snapshot.is_vip(ip(vip)) && !now.addresses.contains(&ip(vip)), "{vip}");
    }
}

#[test]
fn a_vip_is_judged_anew_when_the_kernel_knows_it_no_more() {
    let state = state(
        &[("web", listener("192.0.2.254", feed::Mode::FullNat, "g"))],
        &[("g", &["10.0.0.1:80"])],
    );
    let mut bench = Bench::new();
    let refused = bench.translate_under(&on_the_lan(), &state);
    assert_eq!(refused.errors.len(), 1);
    let without = KernelView { routers: [].into(), ..on_the_lan() };
    let now = bench.translate_under(&without, &state);
    assert!(now.errors.is_empty(), "{:?}", now.errors);
    assert!(served(&now.snapshot, "192.0.2.254:80").is_some());
}

#[test]
fn a_vip_that_becomes_something_else_while_it_is_served_goes_on() {
    let view = |kept: &[&str]| KernelView {
        routers: [ip("192.0.2.1")].into(),
        addresses: [kernel_address(7, "192.0.2.1/24")].into(),
        ours: ours(kept),
        ..KernelView::default()
    };
    let mut served_before = Bench::new();
    served_before.translate(&web(&["10.0.0.1:80"]));
    let rows = [
        ("by this process", served_before, view(&[])),
        ("by the one before", Bench::new(), view(&["192.0.2.1"])),
    ];
    for (by_whom, mut bench, view) in rows {
        for backends in [["10.0.0.1:80"], ["10.0.0.2:80"]] {
            let now = bench.translate_under(&view, &web(&backends));
            assert!(now.errors.is_empty(), "{by_whom}: {:?}", now.errors);
            let (_, group) = served(&now.snapshot, "192.0.2.1:80").unwrap();
            assert_eq!(group.members()[0].address.to_string(), backends[0], "{by_whom}");
            assert!(!now.snapshot.is_own(ip("192.0.2.1")), "what strangers send there is no BGP");
        }
        assert_eq!(bench.translator.overtaken.len(), 1, "{by_whom}: and is told of");
    }
}

#[test]
fn listeners_of_both_families_are_served_side_by_side() {
    let mut bench = Bench::with_snat(snat(&[SNAT, ip("2001:db8::200")]));
    let listeners = [
        ("web", listener("192.0.2.1", feed::Mode::FullNat, "g")),
        ("web6", listener("2001:db8::1", feed::Mode::FullNat, "g6")),
        ("direct6", listener("2001:db8::2", feed::Mode::Dnat, "g6")),
        ("mixed", listener("2001:db8::3", feed::Mode::Dnat, "g")),
    ];
    let groups: [(&str, &[&str]); 2] = [("g", &["10.0.0.1:80"]), ("g6", &["[2001:db8::11]:80"])];
    let translation = bench.translate(&state(&listeners, &groups));
    let errors: Vec<String> = translation.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(
        errors[0].contains("mixed") && errors[0].contains("other address family"),
        "{errors:?}"
    );
    let snapshot = &translation.snapshot;
    for (vip, snat) in [
        ("192.0.2.1:80", Some("10.0.0.200")),
        ("[2001:db8::1]:80", Some("2001:db8::200")),
        ("[2001:db8::2]:80", None),
    ] {
        let listener = snapshot.listener_of(vip.parse().unwrap(), Protocol::Tcp).expect(vip);
        assert_eq!(listener.snat.to_vec(), snat.map(ip).into_iter().collect::<Vec<_>>(), "{vip}");
        assert!(snapshot.is_local(listener.vip), "{vip}");
    }
    assert!(snapshot.is_dnat_backend("[2001:db8::11]:80".parse().unwrap(), Protocol::Tcp));
}

#[test]
fn an_address_that_serves_others_is_not_the_boxs_own() {
    let rows = [
        ("an administrator's", "192.0.2.9/24", true),
        ("one that is refused as a VIP for that", "192.0.2.2/24", true),
        ("a VIP's, whoever put it there", "192.0.2.1/32", false),
        ("a VIP's that is refused", "2001:db8::1/128", false),
        ("a SNAT address", "10.0.0.200/24", false),
    ];
    let address = |(_, address, _): &(_, &str, _)| kernel_address(2, address);
    let view =
        KernelView { addresses: rows.iter().map(address).collect(), ..KernelView::default() };
    let listeners = [
        ("web", listener("192.0.2.1", feed::Mode::FullNat, "g")),
        ("own", listener("192.0.2.2", feed::Mode::FullNat, "g")),
        ("v6", listener("2001:db8::1", feed::Mode::FullNat, "g")),
    ];
    let state = state(&listeners, &[("g", &["10.0.0.1:80"])]);
    let snapshot = Bench::new().translate_under(&view, &state).snapshot;
    for (promise, address, own) in rows {
        let address = ip(address.split('/').next().unwrap());
        assert_eq!(snapshot.is_own(address), own, "{promise}");
        assert!(snapshot.is_local(address), "{promise}");
    }
}

#[test]
fn full_nat_without_a_snat_address_says_where_to_write_one() {
    let mut bench = Bench::with_snat(snat(&[]));
    let translation = bench.translate(&web(&["10.0.0.1:80"]));
    assert!(translation.errors[0].message.contains("snat.addresses"), "{}", translation.errors[0]);
}

#[test]
fn a_group_that_did_not_change_is_not_built_anew() {
    let mut bench = Bench::new();
    let first = bench.translate(&web(&["10.0.0.1:80", "10.0.0.2:80"])).snapshot;
    let again = bench.translate(&web(&["10.0.0.1:80", "10.0.0.2:80"])).snapshot;
    let other = bench.translate(&web(&["10.0.0.1:80"])).snapshot;
    let table = |snapshot| served(snapshot, "192.0.2.1:80").unwrap().1;
    assert!(Arc::ptr_eq(&table(&first), &table(&again)));
    assert!(!Arc::ptr_eq(&table(&again), &table(&other)));
}

#[test]
fn a_backend_keeps_its_number_while_a_flow_names_it() {
    let mut bench = Bench::new();
    let with_both = web(&["10.0.0.1:80", "10.0.0.2:80"]);
    let first = bench.translate(&with_both).snapshot;
    let members = served(&first, "192.0.2.1:80").unwrap().1.members().to_vec();
    bench.set_flows(members[1].id, 1);
    bench.translate(&web(&["10.0.0.1:80"]));
    bench.release_unused();
    let back = bench.translate(&with_both).snapshot;
    assert_eq!(served(&back, "192.0.2.1:80").unwrap().1.members(), members);

    bench.set_flows(members[1].id, 0);
    bench.translate(&web(&["10.0.0.1:80"]));
    bench.release_unused();
    let other = bench.translate(&web(&["10.0.0.1:80", "10.0.0.9:80"])).snapshot;
    let reused = served(&other, "192.0.2.1:80").unwrap().1.members()[1];
    assert_eq!((reused.id, reused.address.to_string().as_str()), (members[1].id, "10.0.0.9:80"));
}

#[test]
fn replies_of_a_dnat_backend_are_known_until_its_last_flow_ends() {
    let mut bench = Bench::new();
    let dnat = |backends| {
        state(&[("web", listener("192.0.2.1", feed::Mode::Dnat, "g"))], &[("g", backends)])
    };
    let gone: SocketAddr = "10.0.0.2:80".parse().unwrap();
    let first = bench.translate(&dnat(&["10.0.0.1:80", "10.0.0.2:80"])).snapshot;
    let id = served(&first, "192.0.2.1:80").unwrap().1.members()[1].id;
    bench.set_flows(id, 1);
    for (flows, known) in [(1, true), (0, false)] {
        bench.set_flows(id, flows);
        bench.translate(&dnat(&["10.0.0.1:80"]));
        bench.release_unused();
        let snapshot = bench.translate(&dnat(&["10.0.0.1:80"])).snapshot;
        assert_eq!(snapshot.is_dnat_backend(gone, Protocol::Tcp), known, "{flows} flows");
    }
}

/// In DNAT, flows have other owners: the flows of before must be told from those after.
#[test]
fn a_listener_that_changes_to_dnat_or_from_it_is_another() {
    use feed::Mode::{Dnat, FullNat, Ipip, L2Dsr};
    let vip: SocketAddr = "192.0.2.1:80".parse().unwrap();
    let web =
        |mode| state(&[("web", listener("192.0.2.1", mode, "g"))], &[("g", &["10.0.0.1:80"])]);
    for (before, after, departs) in [
        (L2Dsr, Dnat, true),
        (Dnat, L2Dsr, true),
        (FullNat, Dnat, true),
        (Dnat, FullNat, true),
        (FullNat, Ipip, false),
    ] {
        let mut bench = Bench::new();
        let (slot, _) = served(&bench.translate(&web(before)).snapshot, "192.0.2.1:80").unwrap();
        bench.set_listener_flows(slot, 1);
        let snapshot = bench.translate(&web(after)).snapshot;
        assert!(snapshot.listener_of(vip, Protocol::Tcp).is_some());
        let departed = snapshot.is_departed(vip, Protocol::Tcp);
        assert_eq!(departed, departs, "{before:?} to {after:?}");
    }
}

/// A web server whose full NAT takes its source from a pool.
fn pooled(vip: &str, pool: &[&str]) -> Arc<State> {
    let mut state = State::clone(&web(&["10.0.0.1:80"]));
    let listener = state.listeners.get_mut("web").unwrap();
    *listener =
        FedListener { snat_pool: Some(name("p")), ..self::listener(vip, feed::Mode::FullNat, "g") };
    let addresses = pool.iter().map(|address| ip(address)).collect();
    state.snat_pools.insert_mut(name("p"), feed::SnatPool { addresses });
    Arc::new(state)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_a_flow_needs_is_known_until_it_ends() {
    let before = pooled("192.0.2.1", &["10.0.0.50", "10.0.0.51"]);
    let rows = [
        ("an address left the pool", pooled("192.0.2.1", &["10.0.0.51"])),
        ("the VIP has moved", pooled("192.0.2.9", &["10.0.0.50", "10.0.0.51"])),
        ("the listener has gone", Arc::default()),
    ];
    for (what, after) in rows {
        let mut bench = Bench::new();
        let first = bench.translate(&before).snapshot;
        let (slot, _) = served(&first, "192.0.2.1:80").unwrap();
        let old_vip: SocketAddr = "192.0.2.1:80".parse().unwrap();
        for (flows, known) in [(3, true), (0, false)] {
            bench.set_listener_flows(slot, flows);
            bench.translate(&after);
            assert_eq!(bench.release_unused(), !known, "{what}");
            let now = bench.translate(&after);
            let listens = now.snapshot.listener_of(old_vip, Protocol::Tcp).is_some();
            let departed = now.snapshot.is_departed(old_vip, Protocol::Tcp);
            assert_eq!(departed || listens, known || listens, "{what}: to the VIP, {flows} flows");
            let all_used = ["10.0.0.50", "10.0.0.51", "192.0.2.1"].map(ip);
            for address in all_used {
                let configured = after.listeners.values().any(|listener| listener.vip == address)
                    || after.snat_pools.values().any(|pool| pool.addresses.contains(&address));
                let kept = now.addresses.contains(&address);
                assert_eq!(kept, configured || known, "{what}: {address}, {flows} flows");
                if address != ip("192.0.2.1") {
                    assert_eq!(now.snapshot.is_snat(address), kept, "{what}: {address}");
                }
            }
        }
    }
}

#[test]
fn a_pools_address_can_be_a_vip_once_no_flow_has_it_for_snat() {
    let mut bench = Bench::new();
    let first = bench.translate(&pooled("192.0.2.1", &["10.0.0.50"])).snapshot;
    let (slot, _) = served(&first, "192.0.2.1:80").unwrap();
    let mut next = State::clone(&pooled("192.0.2.1", &["10.0.0.50"]));
    next.listeners.remove_mut("web");
    next.listeners.insert_mut(name("new"), listener("10.0.0.50", feed::Mode::Dnat, "g"));
    let next = Arc::new(next);
    for (flows, serves) in [(1, false), (0, true)] {
        bench.set_listener_flows(slot, flows);
        bench.translate(&next);
        bench.release_unused();
        let now = bench.translate(&next);
        let errors: Vec<String> = now.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            served(&now.snapshot, "10.0.0.50:80").is_some(),
            serves,
            "{flows} flows: {errors:#?}"
        );
        let expected =
            if serves { "is a VIP of this box and left out" } else { "flows still use it as one" };
        assert!(errors.len() == 1 && errors[0].contains(expected), "{flows} flows: {errors:#?}");
    }
}

#[test]
fn a_change_that_cannot_be_served_leaves_what_was_served() {
    let good = pooled("192.0.2.1", &["10.0.0.50"]);
    let change = |change: &dyn Fn(&mut State)| {
        let mut state = State::clone(&good);
        change(&mut state);
        Arc::new(state)
    };
    let with_group = |backends: &[&str]| {
        let group = group(backends);
        change(&|state| state.groups.insert_mut(name("g"), Arc::clone(&group)))
    };
    let too_many: Vec<String> = (0..101).map(|n| format!("10.1.0.{n}:80")).collect();
    let too_many: Vec<&str> = too_many.iter().map(String::as_str).collect();
    let set_vip =
        |vip: &str| change(&|state| state.listeners.get_mut("web").unwrap().vip = ip(vip));
    let rows = [
        (
            "a backend of the other family",
            with_group(&["[2001:db8::7]:80"]),
            "other address family",
        ),
        ("too many backends", with_group(&too_many), "100 backends are counted already"),
        ("a VIP of a family without a SNAT address", set_vip("2001:db8::1"), "its family, IPv6"),
        ("a VIP of one link only", set_vip("fe80::1"), "is link-local"),
        ("a VIP that is the box's SNAT address", set_vip("10.0.0.200"), "is a SNAT address"),
        ("a VIP that is the box's own address", set_vip("192.0.2.9"), "is the box's own address"),
        ("a VIP that is a router", set_vip("192.0.2.254"), "is the router of a route"),
        ("a VIP that is a broadcast", set_vip("192.0.2.255"), "is the broadcast address"),
        ("a VIP that is a backend", set_vip("10.0.0.1"), "is the address of backend 10.0.0.1:80"),
        (
            "a backend that is the VIP",
            with_group(&["10.0.0.1:80", "192.0.2.1:80"]),
            "has the address of a VIP that this box serves",
        ),
        ("a pool without an address", pooled("192.0.2.1", &[]), "needs a SNAT address"),
        ("a pool that holds the VIP", pooled("192.0.2.1", &["192.0.2.1"]), "is a VIP of this box"),
    ];
    for (what, bad, expected) in rows {
        let mut bench = Bench::new();
        bench.translator.groups = Groups::new(100);
        let first = bench.translate_under(&on_the_lan(), &good).snapshot;
        let (slot, group) = served(&first, "192.0.2.1:80").unwrap();
        for _ in 0..2 {
            let now = bench.translate_under(&on_the_lan(), &bad);
            let errors: Vec<String> = now.errors.iter().map(ToString::to_string).collect();
            assert!(errors.iter().any(|error| error.contains(expected)), "{what}: {errors:#?}");
            let (slot_now, group_now) = served(&now.snapshot, "192.0.2.1:80").expect(what);
            assert_eq!((slot_now, group_now.members()), (slot, group.members()), "{what}");
            bench.release_unused();
        }
        let mended = bench.translate_under(&on_the_lan(), &good);
        assert!(mended.errors.is_empty(), "{what}: {:?}", mended.errors);
        assert_eq!(served(&mended.snapshot, "192.0.2.1:80").unwrap().0, slot, "{what}");
    }
}

#[test]
fn a_listener_that_is_refused_does_not_stand_in_the_way_of_its_heir() {
    let mut bench = Bench::new();
    bench.translate(&web(&["10.0.0.1:80"]));
    let heir = listener("192.0.2.1", feed::Mode::FullNat, "h");
    let moved = listener("2001:db8::1", feed::Mode::FullNat, "g");
    let swapped = state(
        &[("web", moved), ("xen", heir)],
        &[("g", &["10.0.0.1:80"]), ("h", &["10.0.0.2:80"])],
    );
    let snapshot = bench.translate(&swapped).snapshot;
    let (_, group) = served(&snapshot, "192.0.2.1:80").unwrap();
    assert_eq!(group.members()[0].address.to_string(), "10.0.0.2:80");
}

#[test]
fn a_change_in_the_kernel_builds_no_listener_anew() {
    let mut bench = Bench::new();
    let state = web(&["10.0.0.1:80"]);
    bench.translate(&state);
    bench.translator.served.clear(); // would be filled again by a state that is taken
    let own = kernel_address(1, "198.51.100.7/24");
    let view = KernelView { addresses: [own].into(), ..KernelView::default() };
    bench.now = Tick(2000);
    let snapshot = bench.translate_under(&view, &state).snapshot;
    assert!(bench.translator.served.is_empty());
    assert!(served(&snapshot, "192.0.2.1:80").is_some());
    assert!(snapshot.is_local(ip("198.51.100.7")) && snapshot.is_local(ip("192.0.2.1")));
}
