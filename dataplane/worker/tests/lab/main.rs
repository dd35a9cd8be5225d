//! The promises of the whole line, from YAML in a folder to packets between real hosts.
//!
//! Each test builds the lab of `scripts/lab` with the programs as a user would run them, drives real
//! traffic through it, and takes it down again. So they need root, hugepages and what
//! `scripts/setup` installs, and are ignored unless asked for: `scripts/test lab` runs them all,
//! `scripts/test restart` one file of them. They run one at a time, since there is one lab.
//!
//! | file          | promise                                                                       |
//! |---------------|-------------------------------------------------------------------------------|
//! | `forwarding`  | what goes through, in which shares, and what is refused and counted            |
//! | `announce`    | neighbours are told whose a VIP is now, before they ask                         |
//! | `addresses`   | 128 Gateways, a VIP each: all answer, and keep theirs over restarts             |
//! | `ipv6`        | IPv6 is served as IPv4 is, beside it                                            |
//! | `kernel_nat`  | the same packets through our NAT and the kernel's give the same packets       |
//! | `admit`       | clients outside a listener's source ranges hear nothing of it                  |
//! | `change`      | a drained and an added backend disturb no connection that exists               |
//! | `checks`      | a backend that is not well gets no new connections, and keeps those it has     |
//! | `companion`   | a companion that is renamed serves on, one that is deleted comes again         |
//! | `removal`     | connections of a backend or listener that is removed end as the Gateway says   |
//! | `restart`     | either process may be killed at any moment                                     |
//! | `spreading`   | a port with one queue serves several workers                                  |
//! | `throughput`  | long TCP streams stay whole, also when replies meet the wrong worker           |
//! | `leak`        | ten thousand connections leave nothing behind                                  |
//! | `odd`         | packets that no host sends, built by Scapy, end as promised                     |
//! | `pmtu`        | what a router says of packets that do not fit reaches their sender             |
//! | `l7`          | HTTP and HTTPS end on the VIP; the L7 tier may be killed, and no L4 flow notices |
//! | `boxes`       | three boxes told what to do by a controller elsewhere serve alike, and outlive it |
//! | `cluster`     | objects from an API server and real pods; `scripts/test cluster` alone runs it  |
//!
//! `network` is the lab as a value, `site` the Gateway API objects that a test puts in the folder,
//! `counters` what the programs say about themselves.

mod addresses;
mod admit;
mod announce;
mod boxes;
mod change;
mod checks;
mod churn;
mod cluster;
mod companion;
mod counters;
mod dsr;
mod flood;
mod forwarding;
mod fragments;
mod ipv6;
mod kernel_nat;
mod l7;
mod leak;
mod network;
mod odd;
mod pmtu;
mod removal;
mod restart;
mod site;
mod spreading;
mod throughput;

/// The VIP of the tests' full NAT listeners, and that of their DNAT listeners.
const FULL_NAT_VIP: &str = "10.10.0.100";
const DNAT_VIP: &str = "10.10.0.101";
/// The same in IPv6.
const FULL_NAT_VIP6: &str = "2001:db8:10::100";
const DNAT_VIP6: &str = "2001:db8:10::101";

/// The backends' addresses; `BACKENDS[0]` is `backend1`.
const BACKENDS: [&str; 4] = ["10.10.0.11", "10.10.0.12", "10.10.0.13", "10.10.0.14"];
const BACKENDS6: [&str; 4] =
    ["2001:db8:10::11", "2001:db8:10::12", "2001:db8:10::13", "2001:db8:10::14"];
