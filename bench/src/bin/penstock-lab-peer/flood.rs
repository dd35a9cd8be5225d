//! `flood`: SYNs from random sources, none of which will ever be heard of again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Args;
use penstock_forward::testing::TestPacket;
use penstock_forward::wire::tcp::SYN;
use penstock_forward::{Protocol, wire::ethernet};
use rustix::net::{AddressFamily, SendFlags, SocketType};
use serde::Serialize;

use crate::print_json;

/// Header included: for sending only.
const RAW: u32 = 255;
/// SYNs between two looks at the clock.
const BATCH: u64 = 64;

/// Send SYNs from random IPv4 sources in 100.64.0.0/10, as fast as they go, until time is up or SIGTERM
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to: a VIP and its L4 port
    address: SocketAddr,
    /// For so many seconds
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// At most this many a second; 0 is as fast as they go
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

/// The first line: the flood begins.
#[derive(Serialize)]
struct Begins {
    ready: bool,
}

/// The last line.
#[derive(Serialize)]
struct Report {
    sent: u64,
    /// The socket's buffer was full, or the neighbour not known yet.
    not_sent: u64,
    seconds: f64,
    per_second: f64,
}

/// Runs until time is up or `stop` is raised.
pub(crate) fn run(arguments: &Arguments, stop: &AtomicBool) -> io::Result<()> {
    let IpAddr::V4(vip) = arguments.address.ip() else {
        return Err(io::Error::other(format!("{}: only IPv4 is flooded", arguments.address)));
    };
    let socket = open()?;
    print_json(&Begins { ready: true })?;
    let (begin, limit) = (Instant::now(), Duration::from_secs(arguments.seconds));
    let (mut sent, mut not_sent, mut random) = (0, 0, Random(0x9e37_79b9_7f4a_7c15));
    while !stop.load(Relaxed) && begin.elapsed() < limit {
        for _ in 0..BATCH {
            let source = random.source();
            let mut packet = TestPacket::between(source, arguments.address, Protocol::Tcp);
            packet.flags = SYN;
            let packet = &packet.bytes()[ethernet::HEADER_LEN..];
            let to = SocketAddrV4::new(vip, 0);
            match rustix::net::sendto(&socket, packet, SendFlags::empty(), &to) {
                Ok(_) => sent += 1,
                Err(_) => not_sent += 1,
            }
        }
        pause(arguments.rate, sent, begin);
    }
    let seconds = begin.elapsed().as_secs_f64();
    print_json(&Report { sent, not_sent, seconds, per_second: sent as f64 / seconds })
}

/// Waits where more was sent than `rate` allows.
fn pause(rate: u64, sent: u64, begin: Instant) {
    if rate > 0 {
        let due = Duration::from_secs_f64(sent as f64 / rate as f64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
}

fn open() -> io::Result<OwnedFd> {
    let protocol = std::num::NonZeroU32::new(RAW).map(rustix::net::Protocol::from_raw);
    Ok(rustix::net::socket(AddressFamily::INET, SocketType::RAW, protocol)?)
}

/// Xorshift64.
struct Random(u64);

impl Random {
    fn source(&mut self) -> SocketAddr {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let host = u32::from(Ipv4Addr::new(100, 64, 0, 0)) | (self.0 >> 42) as u32;
        SocketAddr::new(Ipv4Addr::from(host).into(), (self.0 as u16).max(1024))
    }
}
