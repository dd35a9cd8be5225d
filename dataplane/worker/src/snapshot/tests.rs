//! What a translation promises: who is refused, what is built anew, which numbers stay.

use std::{net::Ipv4Addr, path::Path, sync::atomic::Ordering};

use penstock_feed::{Listener as FedListener, Member as FedMember, PortRange};
use penstock_forward::{BACKEND_COLUMNS, MacAddr, counters::BackendColumn};

use super::*;
use crate::{
    config::Config,
    kernel::{Address, Ifindex},
};

const SNAT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200));

struct Bench {
    translator: Translator,
    statistics: Statistics,
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let config = "ports: [{ name: lan, device: net_null0, companion: pst0 }]";
        let config = Config::parse("test.yaml", config).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path: &Path = &directory.path().join("dataplane.stats");
        let port = PortConfig { mac: MacAddr([2, 0, 0, 0, 0, 1]), vlan: None, mtu: 1500 };
        Self {
            translator: Translator::new(vec![port], [SNAT].into(), Timeouts::default(), 1),
            statistics: Statistics::create(path, &config).unwrap(),
            _directory: directory,
        }
    }

    fn translate(&mut self, state: &Arc<State>) -> Translation {
        self.translate_under(&KernelView::default(), state)
    }

    fn translate_under(&mut self, view: &KernelView, state: &Arc<State>) -> Translation {
        self.translator.translate(state, view, &mut self.statistics)
    }

    fn set_flows(&self, id: BackendId, flows: u64) {
        let cell = id.0 as usize * BACKEND_COLUMNS.len() + BackendColumn::Flows as usize;
        self.statistics.counters(0).backends[cell].store(flows, Ordering::Relaxed);
    }
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

fn web(backends: &[&str]) -> Arc<State> {
    state(&[("web", listener("192.0.2.1", feed::Mode::FullNat, "g"))], &[("g", backends)])
}

fn served(snapshot: &Snapshot, vip: &str) -> Option<(ListenerSlot, Arc<Group>)> {
    let listener = snapshot.listener_of(vip.parse().unwrap(), Protocol::Tcp)?;
    Some((listener.slot, Arc::clone(&listener.group)))
}

#[test]
fn an_object_that_cannot_be_served_is_refused_alone() {
    let rows = [
        ("v6", listener("2001:db8::1", feed::Mode::FullNat, "g"), "IPv6 is not forwarded yet"),
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
fn an_address_that_serves_others_is_not_the_boxs_own() {
    let rows = [
        ("an administrator's", "192.0.2.9", false, true),
        ("a VIP's, whoever put it there", "192.0.2.1", false, false),
        ("a VIP's that is refused", "2001:db8::1", false, false),
        ("a SNAT address", "10.0.0.200", false, false),
        ("of a listener that has just gone", "192.0.2.7", true, false),
    ];
    let address = |(_, address, ours, _): &(_, &str, bool, _)| Address {
        index: Ifindex(7),
        port: Some(0),
        address: address.parse().unwrap(),
        prefix_len: 24,
        ours: *ours,
    };
    let view =
        KernelView { addresses: rows.iter().map(address).collect(), ..KernelView::default() };
    let listeners = [
        ("web", listener("192.0.2.1", feed::Mode::FullNat, "g")),
        ("v6", listener("2001:db8::1", feed::Mode::FullNat, "g")),
    ];
    let state = state(&listeners, &[("g", &["10.0.0.1:80"])]);
    let snapshot = Bench::new().translate_under(&view, &state).snapshot;
    for (promise, address, _, own) in rows {
        let address = address.parse().unwrap();
        assert_eq!(snapshot.is_own(address), own, "{promise}");
        assert!(snapshot.is_local(address), "{promise}");
    }
}

#[test]
fn full_nat_without_a_snat_address_says_where_to_write_one() {
    let mut bench = Bench::new();
    bench.translator.box_snat.clear();
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
    bench.translator.release_unused(&mut bench.statistics);
    let back = bench.translate(&with_both).snapshot;
    assert_eq!(served(&back, "192.0.2.1:80").unwrap().1.members(), members);

    bench.set_flows(members[1].id, 0);
    bench.translate(&web(&["10.0.0.1:80"]));
    bench.translator.release_unused(&mut bench.statistics);
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
        bench.translator.release_unused(&mut bench.statistics);
        let snapshot = bench.translate(&dnat(&["10.0.0.1:80"])).snapshot;
        assert_eq!(snapshot.is_dnat_backend(gone, Protocol::Tcp), known, "{flows} flows");
    }
}
