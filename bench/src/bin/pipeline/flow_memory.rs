//! What twenty million connections take: bytes, and the time to have them at hand and zeroed.

use std::io::{Result, Write};
use std::time::Instant;

use penstock_forward::testing::Family;
use penstock_forward::wire::tcp::SYN;
use penstock_forward::{FlowCapacity, FlowMemory, Mode};

use crate::network::{self, Cells};
use crate::packets::{PACKETS, Packets, client_key};

const FLOWS: usize = 20_000_000;

/// A line for each family: the memory is mapped and populated as at start, and for IPv4 filled.
pub(crate) fn report(filter: &str, out: &mut impl Write) -> Result<()> {
    for (name, ipv6) in [("ipv4", 0), ("ipv6", FLOWS)] {
        let name = format!("flow_memory/20M_flows/{name}");
        if !name.contains(filter) {
            continue;
        }
        // All of them may be half-open, so that SYNs fill the table.
        let capacity = FlowCapacity { ipv6, half_open: FLOWS, ..FLOWS.into() };
        let bytes = FlowMemory::bytes_for(capacity);
        let begin = Instant::now();
        let mut memory = crate::map(capacity)?;
        let took = begin.elapsed();
        let family = if ipv6 == 0 { Family::V4 } else { Family::V6 };
        let cells = Cells::new();
        let mut forwarder = crate::forwarder(&mut memory, capacity, &cells)?;
        fill(&mut forwarder, family)?;
        let (gigabytes, took) = (bytes as f64 / 1e9, took.as_secs_f64());
        let held = forwarder.live_flows();
        writeln!(out, "{name:32} {gigabytes:7.2}  GB, {took:.2} s to allocate, {held} flows held")?;
    }
    Ok(())
}

/// Opens as many connections as there is room for.
fn fill(forwarder: &mut penstock_forward::Forwarder, family: Family) -> Result<()> {
    let snapshot = network::snapshot(family, Mode::Dnat);
    let mut packets = Packets::new(family)?;
    let mut clients = (0..FLOWS).map(|n| client_key(family, n));
    for _ in 0..FLOWS / PACKETS {
        for (at, key) in (0..PACKETS).zip(&mut clients) {
            packets.write(at, &key, SYN);
        }
        packets.forward(forwarder, &snapshot);
    }
    Ok(())
}
