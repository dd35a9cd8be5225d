//! How far a packet came is what it went through.

use std::net::Ipv4Addr;

use super::{BACKEND, CLIENT, FULL_NAT, VIP};
use crate::testing::{Family, TestLb, arp_who_has, tcp};
use crate::wire::tcp::{ACK, SYN};
use crate::{DropReason, Exit, FlowState, ListenerSlot, Traced, WorkerIdx, tuple_of};

#[test]
fn how_far_a_packet_came_is_told_after_its_burst() {
    let mut lb = TestLb::with(FULL_NAT);
    let worker = WorkerIdx(0);
    let mut traced = |frame: Vec<u8>| {
        lb.send_to(worker, frame);
        lb.worker(worker).traced(0, &lb.snapshot)
    };
    assert_eq!(traced(arp_who_has(Ipv4Addr::new(192, 0, 2, 10))), Traced::Parsed);
    assert_eq!(traced(tcp(CLIENT, VIP, ACK).into()), Traced::ForListener(ListenerSlot(0)));
    let Traced::New(flow) = traced(tcp(CLIENT, VIP, SYN).into()) else { panic!("a new flow") };
    assert_eq!((flow.client.to_string(), flow.state), (CLIENT.into(), FlowState::SynSent));
    let outside = flow.outside.to_string();
    let Traced::Hit(flow) = traced(tcp(BACKEND, &outside, SYN | ACK).into()) else {
        panic!("its flow")
    };
    assert_eq!(flow.state, FlowState::SynAcked);
    assert_eq!(traced(tcp(BACKEND, "10.0.0.200:9", ACK).into()), Traced::FlowElsewhere);
    assert_eq!(traced(tcp(CLIENT, "192.0.2.2:22", SYN).into()), Traced::Unclaimed);
    assert_eq!(traced(super::icmp::ping_to_vip(Family::V4)), Traced::Echo);
    let (exit, _) = lb.send_to(worker, tcp(CLIENT, "198.51.100.1:22", SYN).into());
    assert_eq!(exit, Exit::Drop(DropReason::NotRouted));
    assert_eq!(lb.worker(worker).traced(0, &lb.snapshot), Traced::Unclaimed);
}

#[test]
fn a_frame_tells_its_tuple() {
    let key = tuple_of(&tcp(CLIENT, VIP, SYN).bytes()).unwrap();
    assert_eq!(
        (key.source().to_string(), key.destination().to_string()),
        (CLIENT.into(), VIP.into())
    );
    assert_eq!(tuple_of(&arp_who_has(Ipv4Addr::new(192, 0, 2, 10))), None);
    assert_eq!(tuple_of(&[]), None);
}
