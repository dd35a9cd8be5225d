//! rte_flow: replies of full NAT to their owner, on ports whose RSS we do not know.
//!
//! Where the box has no spread, the L4 port of a SNAT address names the owner: a range a worker. NICs match masks
//! rather than ranges, so a range becomes a few blocks whose size is a power of two, as routes are cut into
//! prefixes. What a NIC takes saves hand-overs; it need not take any.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use penstock_dpdk::{Port, PortError, Steering};
use penstock_forward::{Protocol, WorkerIdx, owner::snat_ports};

/// Gives a port the rules for replies to these addresses; how many it took before it refused one.
///
/// # Errors
/// Beside that number, why it takes no more.
pub fn replies<'a>(
    port: &mut Port,
    addresses: impl IntoIterator<Item = &'a IpAddr>,
    workers: u8,
) -> (usize, Result<(), PortError>) {
    let mut taken = 0;
    for rule in rules(addresses, workers) {
        match port.steer(&rule) {
            Ok(()) => taken += 1,
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

fn rules<'a>(
    addresses: impl IntoIterator<Item = &'a IpAddr>,
    workers: u8,
) -> impl Iterator<Item = Steering> {
    let protocols = [Protocol::Tcp, Protocol::Udp].map(Protocol::number);
    let by_address = addresses.into_iter().flat_map(move |address| {
        let of = move |protocol| (0..workers).map(move |worker| (*address, protocol, worker));
        protocols.into_iter().flat_map(of)
    });
    by_address.flat_map(move |(address, protocol, worker)| {
        let blocks = blocks(snat_ports(WorkerIdx(worker), workers));
        blocks.into_iter().map(move |(l4_port, l4_port_mask)| Steering {
            address,
            protocol,
            l4_port,
            l4_port_mask,
            queue: worker.into(),
        })
    })
}

/// The range as blocks: a number and a mask each, the largest that fit.
fn blocks(range: RangeInclusive<u16>) -> Vec<(u16, u16)> {
    let (mut next, last) = (u32::from(*range.start()), u32::from(*range.end()));
    let mut blocks = Vec::new();
    while next <= last {
        let mut size = 1 << next.trailing_zeros().min(16);
        while next + size - 1 > last {
            size /= 2;
        }
        blocks.push((next as u16, !(size - 1) as u16));
        next += size;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_into_the_fewest_blocks() {
        type Row = (RangeInclusive<u16>, &'static [(u16, u16)]);
        let rows: [Row; 5] = [
            (0..=u16::MAX, &[(0, 0)]),
            (1024..=2047, &[(1024, 0xfc00)]),
            (7..=7, &[(7, 0xffff)]),
            (5..=9, &[(5, 0xffff), (6, 0xfffe), (8, 0xfffe)]),
            (65534..=65535, &[(65534, 0xfffe)]),
        ];
        for (range, expected) in rows {
            assert_eq!(blocks(range.clone()), expected, "{range:?}");
        }
    }

    #[test]
    fn each_port_of_an_address_goes_to_its_owner_by_one_rule() {
        let address: IpAddr = "10.0.0.200".parse().unwrap();
        for workers in [2, 3, 7, 8, 64] {
            let rules: Vec<_> = rules([&address], workers).collect();
            assert!(rules.len() < usize::from(workers) * 2 * 22, "{} rules", rules.len());
            for port in 0..=u16::MAX {
                let hit = |rule: &&Steering| {
                    rule.protocol == 6 && port & rule.l4_port_mask == rule.l4_port
                };
                let queues: Vec<_> = rules.iter().filter(hit).map(|rule| rule.queue).collect();
                let owner = penstock_forward::owner::owner_of_snat_port(port, workers);
                let expected: Vec<_> = owner.iter().map(|owner| u16::from(owner.0)).collect();
                assert_eq!(queues, expected, "port {port} of {workers} workers");
            }
        }
    }
}
