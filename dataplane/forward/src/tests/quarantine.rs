//! A SNAT port is not used again towards a backend that may keep the old connection in TIME-WAIT, as long as others
//! are free.

use super::{BACKEND, CLIENT, VIP, families};
use crate::testing::{Family, TestLb};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::{BackendId, DropReason, Exit, FlowState, PortIdx, Timeouts, WorkerIdx};

const SERVED: WorkerIdx = WorkerIdx(0);
const SENT: Exit = Exit::Send(PortIdx(0));
/// Each has 253 ports.
const WORKERS: u8 = 255;
const PORTS: usize = 253;
const SPEC: &str = "192.0.2.10:80/tcp backend=10.0.0.3:8080 snat=10.0.0.200";

fn lb(family: Family) -> TestLb<'static> {
    TestLb::sized(WORKERS, 4096, &family.text(SPEC))
}

/// Clients whose flows the first worker owns, each another.
fn clients(family: Family) -> impl Iterator<Item = String> {
    let mut probe = lb(family);
    let all = (0_u32..).map(|n| {
        let [_, high, middle, low] = n.to_be_bytes();
        format!("203.{high}.{middle}.{low}:4000")
    });
    all.filter(move |client| probe.send_to(SERVED, family.tcp(client, VIP, SYN).into()).0 == SENT)
}

/// Sends a client's SYN; the SNAT port of its flow, if it got one.
fn syn(lb: &mut TestLb, family: Family, client: &str) -> Result<u16, Exit> {
    let (exit, left) = lb.send_to(SERVED, family.tcp(client, VIP, SYN).into());
    let port = [left[family.l4()], left[family.l4() + 1]];
    if exit == SENT && left[family.l4() + 13] == SYN {
        Ok(u16::from_be_bytes(port))
    } else {
        Err(exit)
    }
}

/// The handshake, then segments as (from the client?, flags); the SNAT port.
fn live(lb: &mut TestLb, family: Family, client: &str, segments: &[(bool, u8)]) -> u16 {
    let port = syn(lb, family, client).expect("a flow");
    let outside = format!("10.0.0.200:{port}");
    for (from_client, flags) in [(false, SYN | ACK), (true, ACK)].iter().chain(segments) {
        let (from, to) = if *from_client { (client, VIP) } else { (BACKEND, &*outside) };
        lb.send_to(SERVED, family.tcp(from, to, *flags).into());
    }
    port
}

const CLOSE: [(bool, u8); 2] = [(false, ACK | FIN), (true, ACK | FIN)];

/// The client comes again at the same port, as one does whose backend closed first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Again {
    No,
    SameBackend,
    OtherBackend,
}

#[test]
fn no_port_is_handed_out_again_while_its_connection_closes() {
    let closing_ms = Timeouts::default().tcp_closing_ms;
    let half_open_ms = Timeouts::default().tcp_half_open_ms;
    for (family, again) in families()
        .flat_map(|f| [Again::No, Again::SameBackend, Again::OtherBackend].map(|again| (f, again)))
    {
        let (mut lb, mut clients) = (lb(family), clients(family));
        let closer = clients.next().unwrap();
        let port = live(&mut lb, family, &closer, &CLOSE);
        let closed = lb.now;
        lb.sleep_ms(1000);
        if again == Again::OtherBackend {
            lb.reconfigure(&family.text(&SPEC.replace("10.0.0.3:", "10.0.0.4:")));
        }
        if again != Again::No {
            assert_ne!(syn(&mut lb, family, &closer), Ok(port), "{again:?}: it gets another");
            assert_eq!(lb.flows().len(), 1, "and the old flow is no more");
        }
        lb.reconfigure(&family.text(SPEC));
        // Seven times as many as half of the ports: the walk comes round three times.
        let mut rounds = 0;
        while lb.now.since(closed) + half_open_ms + 1000 < closing_ms {
            for client in clients.by_ref().take(PORTS / 2) {
                assert_ne!(syn(&mut lb, family, &client), Ok(port), "{again:?}, round {rounds}");
            }
            lb.sleep_ms(half_open_ms + 1);
            rounds += 1;
        }
        assert!(rounds >= 6, "{rounds}");
        lb.sleep_ms(half_open_ms + 2000);
        let taken_again = clients.take(PORTS).any(|one| syn(&mut lb, family, &one) == Ok(port));
        assert!(taken_again, "{again:?}: then it is a port as any");
    }
}

/// What the backend sends late, a FIN for instance, is of no flow: least of all of the new one.
#[test]
fn a_port_in_quarantine_lets_nothing_through() {
    for family in families() {
        let mut lb = family.lb(SPEC);
        let port = live(&mut lb, family, CLIENT, &CLOSE);
        assert_eq!(lb.backend_gauge(BackendId(3), 0), 1);
        lb.sleep_ms(1000);
        let new = syn(&mut lb, family, CLIENT).unwrap();
        let late = family.tcp(BACKEND, &format!("10.0.0.200:{port}"), ACK | FIN);
        assert_eq!(lb.send_to(SERVED, late.into()).0, Exit::Drop(DropReason::NoFlow));
        let flows = lb.flows();
        assert_eq!((flows.len(), flows[0].outside.port()), (1, new));
        assert_eq!(flows[0].state, FlowState::SynSent);
        assert_eq!(lb.backend_gauge(BackendId(3), 0), 1, "one flow is counted");
        lb.sleep_ms(Timeouts::default().tcp_closing_ms + 1001);
        assert_eq!((lb.backend_gauge(BackendId(3), 0), lb.worker(SERVED).live_flows()), (0, 0));
    }
}

/// A connection that was reset leaves nothing behind at either end (RFC 9293 §3.10.7.4).
#[test]
fn a_rst_leaves_nothing_to_wait_for() {
    for family in families() {
        let mut lb = family.lb(SPEC);
        live(&mut lb, family, CLIENT, &[(true, RST)]);
        lb.sleep_ms(1000);
        syn(&mut lb, family, CLIENT).unwrap();
        lb.sleep_ms(1001);
        assert_eq!(lb.worker(SERVED).live_flows(), 1);
    }
}

/// In DNAT the port is the client's own, and nobody else's to take.
#[test]
fn dnat_keeps_the_clients_port() {
    for family in families() {
        let mut lb = family.lb(super::DNAT);
        for (from, to, flags) in [
            (CLIENT, VIP, SYN),
            (BACKEND, CLIENT, SYN | ACK),
            (CLIENT, VIP, ACK),
            (BACKEND, CLIENT, ACK | FIN),
            (CLIENT, VIP, ACK | FIN),
            (CLIENT, VIP, SYN),
        ] {
            let (exit, left) = lb.send_to(SERVED, family.tcp(from, to, flags).into());
            assert_eq!(exit, SENT);
            if from == CLIENT {
                assert_eq!(left, family.tcp(CLIENT, BACKEND, flags).leaving().bytes());
            }
        }
    }
}

#[test]
fn where_no_port_is_free_one_whose_connection_is_over_is_taken_before_anyone_is_refused() {
    for family in families() {
        let (mut lb, mut clients) = (lb(family), clients(family));
        let mut refused = 0;
        // A search does not see every port: the last few free ones may be missed.
        while refused < 10 {
            let client = clients.next().unwrap();
            match syn(&mut lb, family, &client) {
                Ok(port) => {
                    let outside = format!("10.0.0.200:{port}");
                    lb.send_to(SERVED, family.tcp(BACKEND, &outside, SYN | ACK).into());
                    lb.send_to(SERVED, family.tcp(&client, VIP, ACK).into());
                }
                Err(SENT) => refused += 1, // by RST
                Err(exit) => panic!("{exit:?}"),
            }
        }
        let before = lb.flows();
        assert!(before.len() > PORTS * 9 / 10, "{}", before.len());
        for flow in before.iter().take(100) {
            for (from, to) in [(flow.client, flow.vip), (flow.backend, flow.outside)] {
                let fin = family.tcp(&from.to_string(), &to.to_string(), ACK | FIN);
                lb.send_to(SERVED, fin.into());
            }
            lb.now = lb.now.plus_ms(1);
        }
        for client in clients.take(20) {
            syn(&mut lb, family, &client).expect("a port of one that is over");
        }
        assert_eq!(lb.worker_counter(SERVED, "flows_evicted"), 20);
        let flows = lb.flows();
        let live = |flow: &&crate::FlowInfo| flow.state == FlowState::Established;
        assert_eq!(flows.iter().filter(live).count(), before.len() - 100, "no other gave way");
    }
}
