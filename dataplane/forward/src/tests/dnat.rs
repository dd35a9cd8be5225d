//! DNAT: the backend sees the client.

use super::{BACKEND, CLIENT, DNAT, FROM, NEW, TO, VIP, families};
use crate::testing::{Dropped, Punted, Tx};
use crate::wire::tcp::{ACK, SYN};
use crate::{DropReason, PuntClass};

#[test]
fn a_tcp_connection_through_dnat() {
    for family in families() {
        let mut lb = family.lb(DNAT);
        lb.check(&[
            (
                "a SYN reaches its backend, from the client",
                family.tcp(CLIENT, VIP, SYN).into(),
                Tx(family.tcp(CLIENT, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "the answer comes from the VIP",
                family.tcp(BACKEND, CLIENT, SYN | ACK).into(),
                Tx(family.tcp(VIP, CLIENT, SYN | ACK).leaving()),
                FROM,
            ),
            (
                "data",
                family.tcp(CLIENT, VIP, ACK).carrying(b"abc").into(),
                Tx(family.tcp(CLIENT, BACKEND, ACK).carrying(b"abc").leaving()),
                TO,
            ),
            (
                "the backend's other connections are not ours",
                family.tcp(BACKEND, "203.0.113.9:5", ACK).into(),
                Dropped(DropReason::NotRouted),
                &["flow_misses", "dropped", "drop_not_routed"],
            ),
            (
                "what it answers to the box is the kernel's",
                family.tcp(BACKEND, "192.0.2.2:5000", SYN | ACK).into(),
                Punted(PuntClass::Other),
                &["flow_misses", "punted"],
            ),
        ]);
    }
}

#[test]
fn two_vips_one_backend_and_one_client_port_do_not_collide() {
    for family in families() {
        let mut lb = family.lb("192.0.2.10:80/tcp mode=dnat backend=10.0.0.3:8080
         192.0.2.11:80/tcp mode=dnat backend=10.0.0.3:8080");
        const OTHER_VIP: &str = "192.0.2.11:80";
        const CHANGED: &str = "203.0.113.7:0";
        lb.check(&[
            (
                "the first keeps the client's port",
                family.tcp(CLIENT, VIP, SYN).into(),
                Tx(family.tcp(CLIENT, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "the second gets another",
                family.tcp(CLIENT, OTHER_VIP, SYN).into(),
                Tx(family.tcp(CHANGED, BACKEND, SYN).leaving()),
                NEW,
            ),
            (
                "an answer to the first",
                family.tcp(BACKEND, CLIENT, SYN | ACK).into(),
                Tx(family.tcp(VIP, CLIENT, SYN | ACK).leaving()),
                FROM,
            ),
            (
                "an answer to the second",
                family.tcp(BACKEND, CHANGED, SYN | ACK).into(),
                Tx(family.tcp(OTHER_VIP, CLIENT, SYN | ACK).leaving()),
                FROM,
            ),
        ]);
    }
}
