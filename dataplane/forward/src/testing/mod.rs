//! For tests, benches and fuzz targets: packets made from what they should say, and a load balancer
//! in a table.
//!
//! * [`TestPacket`]: fields in, bytes out, every checksum computed in full; then, if the test wants
//!   a liar, bytes overwritten or cut off. What must leave is written the same way, so a comparison
//!   byte for byte checks the incremental checksums against full ones.
//! * [`TestLb`]: forwarders around a small network, and rows of promises to check against them.
//! * [`spread`](fn@spread): how a NIC with RSS would spread packets over the workers.
//! * [`Family`]: the same rows for IPv4 and for IPv6.
//!
//! Failed expectations panic, as in any test.

mod family;
mod fragments;
mod lb;
mod network;
mod packet;
mod spread;

pub use family::Family;
pub use fragments::fragmented;
pub use lb::{Dropped, Handed, Held, Leaves, Punted, Row, TestLb, TestMemory, Tx, buffer_of};
pub use network::{NOWHERE, fib_of};
pub use packet::{ANY_PORT, BOX_MAC, ROUTER, TestPacket, arp_who_has, mac_towards, tcp, udp};
pub use spread::spread;
