//! By what of a packet its backend is chosen.

use std::collections::BTreeSet;

use super::families;
use crate::testing::{Family, TestLb};
use crate::wire::tcp::SYN;
use crate::{Explanation, FlowKey, Protocol, WorkerIdx};

const BACKENDS: &str = "backend=10.0.0.3:80 backend=10.0.0.4:80 backend=10.0.0.5:80
    backend=10.0.0.6:80 backend=10.0.0.7:80 snat=10.0.0.200";

fn lb(family: Family, affinity: &str) -> TestLb<'static> {
    let of = |listener: &str| format!("{listener} {affinity} {}", BACKENDS.replace('\n', " "));
    let listeners = ["192.0.2.10:80/tcp", "192.0.2.10:443/tcp", "192.0.2.10:80/udp"].map(of);
    TestLb::sized(1, 8192, &family.text(&listeners.join("\n")))
}

/// The backends of a client's flows: other ports of its own, other ports of ours, other protocols.
fn backends_of(lb: &mut TestLb, family: Family, client: &str) -> BTreeSet<std::net::SocketAddr> {
    for port in 1000..1020 {
        let client = format!("{client}:{port}");
        for vip in ["192.0.2.10:80", "192.0.2.10:443"] {
            lb.send_to(WorkerIdx(0), family.tcp(&client, vip, SYN).bytes());
        }
        lb.send_to(WorkerIdx(0), family.udp(&client, "192.0.2.10:80", b"x").bytes());
    }
    let address = family.address(client);
    let flows = lb.flows();
    flows.iter().filter(|flow| flow.client.ip() == address).map(|flow| flow.backend).collect()
}

#[test]
fn by_source_a_client_has_one_backend_whatever_it_asks() {
    for family in families() {
        let mut lb = lb(family, "affinity=128");
        let clients: Vec<_> = (1..30).map(|n| format!("203.0.113.{n}")).collect();
        let of_each: Vec<_> =
            clients.iter().map(|client| backends_of(&mut lb, family, client)).collect();
        assert!(of_each.iter().all(|backends| backends.len() == 1), "{of_each:?}");
        let all: BTreeSet<_> = of_each.into_iter().flatten().collect();
        assert_eq!(all.len(), 5, "and clients are spread");
    }
}

#[test]
fn by_prefix_a_network_has_one_backend() {
    for (family, bits) in [(Family::V4, 24), (Family::V6, 120)] {
        let mut lb = lb(family, &format!("affinity={bits}"));
        let of = |lb: &mut TestLb, client: &str| backends_of(lb, family, client);
        let here: BTreeSet<_> =
            ["203.0.113.1", "203.0.113.77", "203.0.113.254"].map(|c| of(&mut lb, c)).into();
        assert_eq!(here.len(), 1, "{family:?}");
        let everywhere: BTreeSet<_> =
            (1..40).map(|n| of(&mut lb, &format!("203.0.{n}.1"))).collect();
        assert_eq!(everywhere.len(), 5, "{family:?}");
    }
}

#[test]
fn by_tuple_each_flow_is_for_itself() {
    for family in families() {
        let backends = backends_of(&mut lb(family, ""), family, "203.0.113.1");
        assert_eq!(backends.len(), 5);
    }
}

#[test]
fn explain_knows_of_it() {
    for family in families() {
        let mut lb = lb(family, "affinity=128");
        let key = |port: u16| {
            let client = std::net::SocketAddr::new(family.address("203.0.113.1"), port);
            let vip = std::net::SocketAddr::new(family.address("192.0.2.10"), 80);
            FlowKey::new(client, vip, Protocol::Tcp).unwrap()
        };
        let expected = backends_of(&mut lb, family, "203.0.113.1");
        let Explanation::New { address, .. } = lb.explain(WorkerIdx(0), &key(9)) else {
            panic!("it has no flow yet");
        };
        assert!(expected.contains(&address));
    }
}
