//! `decap`: a backend's end of a tunnel, in user space.
//!
//! Takes IPIP, IP6IP6, both mixtures, and GUE of either variant from raw sockets, and gives the inner packet to
//! the host's own stack by another raw socket: a host that has the inner destination on its loopback interface
//! answers as if the packet had come by itself. Needs no tunnel driver in the kernel. What is not understood is
//! counted and thrown away.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use clap::Args;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketType};
use serde::Serialize;

use crate::print_json;

/// Protocol numbers of IANA.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
const UDP: u8 = 17;
/// Header included: for sending only.
const RAW: u8 = 255;
const GUE_PORT: u16 = 6080;
/// How often a waiting thread looks whether it shall stop.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// Take packets out of IPIP and GUE and give them to the host, until SIGTERM
#[derive(Args)]
pub(crate) struct Arguments {}

/// The first line: packets are taken from now on.
#[derive(Serialize)]
struct Ready {
    ready: bool,
}

/// The last line.
#[derive(Default, Serialize)]
struct Report {
    ipip: AtomicU64,
    gue: AtomicU64,
    gue_variant_0: AtomicU64,
    not_understood: AtomicU64,
    not_delivered: AtomicU64,
}

/// Serves until `stop` is raised.
pub(crate) fn run(_: &Arguments, stop: &AtomicBool) -> io::Result<()> {
    let report = Report::default();
    let to_host = Host::open()?;
    let sockets = [AddressFamily::INET, AddressFamily::INET6]
        .into_iter()
        .flat_map(|family| [IPV4, IPV6, UDP].map(|protocol| (family, protocol)))
        .map(|(family, protocol)| Ok((family, protocol, raw(family, protocol)?)))
        .collect::<io::Result<Vec<_>>>()?;
    print_json(&Ready { ready: true })?;
    thread::scope(|scope| {
        for (family, protocol, socket) in &sockets {
            let (report, to_host) = (&report, &to_host);
            scope.spawn(move || serve(*family, *protocol, socket, to_host, report, stop));
        }
    });
    print_json(&report)
}

fn raw(family: AddressFamily, protocol: u8) -> io::Result<OwnedFd> {
    let protocol = std::num::NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    let socket = rustix::net::socket(family, SocketType::RAW, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(STOP_CHECK))?;
    Ok(socket)
}

fn serve(
    family: AddressFamily,
    protocol: u8,
    socket: &OwnedFd,
    to_host: &Host,
    report: &Report,
    stop: &AtomicBool,
) {
    let mut packet = vec![0; 65_536];
    while !stop.load(Relaxed) {
        let Ok((len, _)) = rustix::net::recv(socket, &mut packet[..], RecvFlags::empty()) else {
            continue; // a time-out
        };
        // A raw socket of IPv4 shows the header, one of IPv6 does not.
        let header_len =
            if family == AddressFamily::INET { usize::from(packet[0] & 0xf) * 4 } else { 0 };
        let outer_payload = packet.get(header_len..len).unwrap_or_default();
        let (inner, counter) = match protocol {
            UDP => match gue(outer_payload) {
                Gue::Other => continue,
                Gue::Variant1(inner) => (Some(inner), &report.gue),
                Gue::Variant0(inner) => (inner, &report.gue_variant_0),
            },
            _ => (Some(outer_payload), &report.ipip),
        };
        match inner.map(|inner| to_host.deliver(inner)) {
            Some(Ok(())) => counter.fetch_add(1, Relaxed),
            Some(Err(_)) => report.not_delivered.fetch_add(1, Relaxed),
            None => report.not_understood.fetch_add(1, Relaxed),
        };
    }
}

/// What a UDP datagram is.
#[derive(Debug, PartialEq, Eq)]
enum Gue<'p> {
    /// For another port.
    Other,
    /// The inner packet follows the UDP header: its version is the variant.
    Variant1(&'p [u8]),
    /// The inner packet behind the GUE header, unless that is a control message or names no IP.
    Variant0(Option<&'p [u8]>),
}

fn gue(datagram: &[u8]) -> Gue<'_> {
    let Some(([_, _, high, low, ..], payload)) = datagram.split_first_chunk::<8>() else {
        return Gue::Other;
    };
    match payload {
        _ if u16::from_be_bytes([*high, *low]) != GUE_PORT => Gue::Other,
        [first, ..] if first >> 6 == 1 => Gue::Variant1(payload),
        [first, protocol, ..] if first & 0x20 == 0 && [IPV4, IPV6].contains(protocol) => {
            Gue::Variant0(payload.get(4 + usize::from(first & 0x1f) * 4..))
        }
        _ => Gue::Variant0(None),
    }
}

/// The way into the host's own stack.
struct Host {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Host {
    fn open() -> io::Result<Self> {
        Ok(Self { v4: raw(AddressFamily::INET, RAW)?, v6: raw(AddressFamily::INET6, RAW)? })
    }

    fn deliver(&self, packet: &[u8]) -> io::Result<()> {
        let flags = SendFlags::empty();
        match packet.first().map(|first| first >> 4) {
            Some(4) => {
                let to = packet.get(16..).and_then(|rest| rest.first_chunk::<4>());
                let to = to.ok_or(io::ErrorKind::UnexpectedEof)?;
                let to = SocketAddrV4::new(Ipv4Addr::from(*to), 0);
                rustix::net::sendto(&self.v4, packet, flags, &to)?;
            }
            Some(6) => {
                let to = packet.get(24..).and_then(|rest| rest.first_chunk::<16>());
                let to = to.ok_or(io::ErrorKind::UnexpectedEof)?;
                let to = SocketAddrV6::new(Ipv6Addr::from(*to), 0, 0, 0);
                rustix::net::sendto(&self.v6, packet, flags, &to)?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gue_is_told_from_other_datagrams_and_its_variants_from_each_other() {
        let datagram = |port: u16, payload: &[u8]| {
            let [high, low] = port.to_be_bytes();
            [&[0xc0, 1, high, low, 0, 0, 0, 0], payload].concat()
        };
        let rows: &[(u16, &[u8], Gue)] = &[
            (53, b"\x45", Gue::Other),
            (6080, b"\x45x", Gue::Variant1(b"\x45x")),
            (6080, b"\x60x", Gue::Variant1(b"\x60x")),
            (6080, b"\0\x04\0\0x", Gue::Variant0(Some(b"x"))),
            (6080, b"\x01\x29\0\0oooox", Gue::Variant0(Some(b"x"))),
            (6080, b"\x20\x04\0\0x", Gue::Variant0(None)),
            (6080, b"\0\x06\0\0x", Gue::Variant0(None)),
            (6080, b"", Gue::Variant0(None)),
        ];
        for (port, payload, expected) in rows {
            assert_eq!(gue(&datagram(*port, payload)), *expected, "{port} {payload:?}");
        }
        assert_eq!(gue(b"short"), Gue::Other);
    }
}
