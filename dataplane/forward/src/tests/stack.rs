//! TCP of another author (smoltcp) at both ends of the box, on links that lose, repeat and reorder, with windows
//! and segments as small as nobody's: what was sent arrives, whatever the mode. Both ends verify every checksum.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::families;
use crate::testing::{BOX_MAC, Family, TestLb, mac_towards};
use crate::{Exit, FlowState, Timeouts, WorkerIdx};

/// A mode, whether the backend answers clients by way of the box, and how deep a packet lies in its tunnel behind
/// the outer IP header, if there is one.
const MODES: [(&str, bool, Option<usize>); 6] = [
    ("full-nat", true, None),
    ("dnat", true, None),
    ("l2-dsr", false, None),
    ("ipip", false, Some(0)),
    ("gue", false, Some(8)),
    ("gue-variant-0", false, Some(12)),
];
const CLIENT: &str = "203.0.113.7";
const VIP: &str = "192.0.2.10";
const BACKEND: &str = "10.0.0.3";
const PORT: u16 = 80;
/// The longest that a connection may take, on its own clock.
const PATIENCE_MS: u64 = 3_600_000;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// How long each leg of a way takes, and how much longer for a packet that others overtake.
const LEG_MS: u64 = 1;
const DETOUR_MS: u64 = 3;

/// What is odd about a connection.
#[derive(Clone, Copy)]
struct Oddity {
    mss: usize,
    window: usize,
    /// Sent each way.
    bytes: usize,
    /// Packets of a thousand, each leg.
    lost: u64,
    repeated: u64,
    overtaken: u64,
}

const PLAIN: Oddity =
    Oddity { mss: 1340, window: 65_535, bytes: 1 << 20, lost: 0, repeated: 0, overtaken: 0 };

/// One host's link: IP packets, since the frames around them are the test's.
struct Link {
    mtu: usize,
    arriving: VecDeque<Vec<u8>>,
    leaving: Vec<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Leaving<'l>(&'l mut Vec<Vec<u8>>);

impl phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let written = write(&mut packet);
        self.0.push(packet);
        written
    }
}

impl Device for Link {
    type RxToken<'l> = Arrived;
    type TxToken<'l> = Leaving<'l>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        Some((Arrived(self.arriving.pop_front()?), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// The byte at a place of what one end sends.
fn pattern(at: usize, salt: u8) -> u8 {
    (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ salt
}

/// One end of the connection.
struct Host {
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    salt: u8,
    sent: usize,
    received: usize,
}

impl Host {
    fn new(address: IpAddr, oddity: Oddity, salt: u8) -> Self {
        let headers = if address.is_ipv4() { 40 } else { 60 };
        let mut link =
            Link { mtu: headers + oddity.mss, arriving: VecDeque::new(), leaving: Vec::new() };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut link, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), 32)).expect("room for one");
        });
        match IpAddress::from(address) {
            IpAddress::Ipv4(v4) => interface.routes_mut().add_default_ipv4_route(v4).map(drop),
            IpAddress::Ipv6(v6) => interface.routes_mut().add_default_ipv6_route(v6).map(drop),
        }
        .expect("room for one");
        let buffer = || tcp::SocketBuffer::new(vec![0; oddity.window]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::new());
        let socket = sockets.add(socket);
        Self { link, interface, sockets, socket, salt, sent: 0, received: 0 }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn state(&self) -> State {
        self.sockets.get::<tcp::Socket>(self.socket).state()
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(now, &mut self.link, &mut self.sockets);
    }

    /// Sends what fits of `bytes` altogether, and reads what came, which must be what the other end sent.
    fn talk(&mut self, bytes: usize, theirs: u8) {
        let (salt, mut sent, mut received) = (self.salt, self.sent, self.received);
        let socket = self.socket();
        while sent < bytes && socket.can_send() {
            let more = socket.send(|room| {
                let len = room.len().min(bytes - sent);
                (0..len).for_each(|at| room[at] = pattern(sent + at, salt));
                (len, len)
            });
            sent += more.expect("it can send");
        }
        while socket.can_recv() {
            let more = socket.recv(|data| {
                for (at, byte) in data.iter().enumerate() {
                    let at = received + at;
                    assert_eq!(*byte, pattern(at, theirs), "byte {at} of what arrives");
                }
                (data.len(), data.len())
            });
            received += more.expect("it can receive");
        }
        (self.sent, self.received) = (sent, received);
    }
}

/// Where a packet on its way arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Box,
    Client,
    Backend,
}

/// The two ends, the box between them, and what is on its way.
struct Net {
    lb: TestLb<'static>,
    client: Host,
    backend: Host,
    mode: (&'static str, bool, Option<usize>),
    oddity: Oddity,
    /// By when they arrive, then in the order they were sent.
    under_way: BTreeMap<(u64, u64), (At, Vec<u8>)>,
    packets: u64,
    now_ms: u64,
    random: u64,
    dropped: Vec<Exit>,
}

impl Net {
    fn new(
        family: Family,
        mode: (&'static str, bool, Option<usize>),
        oddity: Oddity,
        seed: u32,
    ) -> Self {
        let (name, by_us, _) = mode;
        let snat = if name == "dnat" || name == "l2-dsr" { "" } else { "snat=10.0.0.200" };
        let lb =
            family.lb(&format!("{VIP}:{PORT}/tcp mode={name} backend={BACKEND}:{PORT} {snat}"));
        let serves = if by_us { BACKEND } else { VIP }; // a DSR backend has the VIP
        let client = Host::new(family.address(CLIENT), oddity, 0x00);
        let backend = Host::new(family.address(serves), oddity, 0x5a);
        let under_way = BTreeMap::new();
        let mut net = Self {
            lb,
            client,
            backend,
            mode,
            oddity,
            under_way,
            packets: 0,
            now_ms: 0,
            random: SEED.rotate_left(seed),
            dropped: Vec::new(),
        };
        net.backend.socket().listen(PORT).expect("a port to listen on");
        let Host { interface, sockets, socket, .. } = &mut net.client;
        let socket = sockets.get_mut::<tcp::Socket>(*socket);
        let vip = (IpAddress::from(family.address(VIP)), PORT);
        socket.connect(interface.context(), vip, 40_000).expect("a connection");
        net
    }

    /// xorshift64: Marsaglia, "Xorshift RNGs", 2003.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// One leg of a packet's way, with what can befall it there.
    fn put(&mut self, at: At, packet: &[u8]) {
        let Oddity { lost, repeated, overtaken, .. } = self.oddity;
        if self.random(1000) < lost {
            return;
        }
        let copies = if self.random(1000) < repeated { 2 } else { 1 };
        for _ in 0..copies {
            let detour = if self.random(1000) < overtaken { DETOUR_MS } else { 0 };
            self.packets += 1;
            let due = (self.now_ms + LEG_MS + detour, self.packets);
            self.under_way.insert(due, (at, packet.to_vec()));
        }
    }

    /// A millisecond.
    fn step(&mut self) {
        self.now_ms += 1;
        self.lb.wait_ms(1);
        let later = self.under_way.split_off(&(self.now_ms + 1, 0));
        let due = std::mem::replace(&mut self.under_way, later);
        for (at, packet) in due.into_values() {
            match at {
                At::Box => self.forward(&packet),
                At::Client => self.client.link.arriving.push_back(packet),
                At::Backend => self.backend.link.arriving.push_back(packet),
            }
        }
        let now = Instant::from_millis(i64::try_from(self.now_ms).expect("an hour at most"));
        self.client.poll(now);
        self.backend.poll(now);
        for packet in std::mem::take(&mut self.client.link.leaving) {
            self.put(At::Box, &packet);
        }
        let by_us = self.mode.1;
        for packet in std::mem::take(&mut self.backend.link.leaving) {
            self.put(if by_us { At::Box } else { At::Client }, &packet);
        }
    }

    fn forward(&mut self, packet: &[u8]) {
        let ether_type: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
        let frame = [&BOX_MAC.0[..], &[2, 0, 0, 0, 0, 1], &ether_type, packet].concat();
        for (exit, left) in self.lb.carry(WorkerIdx(0), frame) {
            let Exit::Send(_) = exit else {
                self.dropped.push(exit);
                continue;
            };
            let router = [Family::V4, Family::V6].map(|family| mac_towards(family.address(CLIENT)));
            if router.iter().any(|mac| left[..6] == mac.0) {
                self.put(At::Client, &left[14..]);
            } else {
                let outer = if left[14] >> 4 == 4 { 20 } else { 40 };
                let tunnel = self.mode.2.map_or(0, |behind| outer + behind);
                self.put(At::Backend, &left[14 + tunnel..]);
            }
        }
    }

    /// Both ends talk until each has all of the other's, then close in the same millisecond.
    fn exchange(&mut self) {
        let bytes = self.oddity.bytes;
        while self.client.received < bytes || self.backend.received < bytes {
            assert!(self.now_ms < PATIENCE_MS, "stuck: {}", self.said());
            self.step();
            self.client.talk(bytes, self.backend.salt);
            self.backend.talk(bytes, self.client.salt);
            let opening = [State::Listen, State::SynSent, State::SynReceived, State::Established];
            for state in [self.client.state(), self.backend.state()] {
                assert!(opening.contains(&state), "ended early: {}", self.said());
            }
        }
    }

    fn close(&mut self) {
        self.client.socket().close();
        self.backend.socket().close();
        let over = |host: &Host| [State::Closed, State::TimeWait].contains(&host.state());
        while !over(&self.client) || !over(&self.backend) {
            assert!(self.now_ms < PATIENCE_MS, "does not end: {}", self.said());
            self.step();
        }
    }

    fn said(&self) -> String {
        let (client, backend) = (self.client.state(), self.backend.state());
        let received = (self.client.received, self.backend.received);
        let (mode, ms, dropped) = (self.mode.0, self.now_ms, &self.dropped);
        format!("{mode} after {ms} ms: {client} {backend}, {received:?} bytes, lost: {dropped:?}")
    }
}

#[test]
fn what_odd_ends_send_on_bad_links_arrives() {
    let small = 1 << 16;
    let rows = [
        ("a megabyte each way", PLAIN),
        ("segments of 536 bytes", Oddity { mss: 536, bytes: 1 << 18, ..PLAIN }),
        ("segments of 88 bytes", Oddity { mss: 88, bytes: small, ..PLAIN }),
        ("a window of 300 bytes", Oddity { window: 300, bytes: small, ..PLAIN }),
        ("a window of one byte", Oddity { window: 1, bytes: 1000, ..PLAIN }),
        (
            "links that lose, repeat and reorder",
            Oddity { lost: 20, repeated: 20, overtaken: 50, ..PLAIN },
        ),
        (
            "links that lose a tenth, with segments of 536 bytes",
            Oddity { mss: 536, lost: 100, repeated: 100, overtaken: 200, bytes: small, ..PLAIN },
        ),
    ];
    for (family, mode) in families().flat_map(|f| MODES.map(|mode| (f, mode))) {
        for (seed, (promise, oddity)) in (1..).zip(rows) {
            let mut net = Net::new(family, mode, oddity, seed);
            net.exchange();
            net.close();
            if oddity.lost == 0 {
                assert_eq!(net.dropped, [], "{promise}: {}", net.said());
            }
            net.lb.sleep_ms(100_000_000);
            assert_eq!(net.lb.flows(), [], "{promise}: {}", net.said());
        }
    }
}

/// Both FINs are under way at once, and the flow is over, whichever comes first.
#[test]
fn a_simultaneous_close_ends_the_flow() {
    for (family, mode) in families().flat_map(|f| MODES.map(|mode| (f, mode))) {
        let mut net = Net::new(family, mode, Oddity { bytes: 5000, ..PLAIN }, 1);
        net.exchange();
        for _ in 0..20 {
            net.step(); // the last acknowledgements
        }
        net.client.socket().close();
        net.backend.socket().close();
        net.step();
        assert_eq!(net.client.state(), State::FinWait1);
        assert_eq!(net.backend.state(), State::FinWait1);
        net.close();
        let states: Vec<_> = net.lb.flows().iter().map(|flow| flow.state).collect();
        if mode.1 {
            assert!(matches!(states[..], [FlowState::Closing]), "{states:?}: {}", net.said());
        }
        assert_eq!(net.dropped, [], "{}", net.said());
    }
}

/// Keep-alive segments are of the flow, though they carry a number that was acknowledged long ago.
#[test]
fn keep_alive_keeps_a_flow() {
    for (family, mode) in families().flat_map(|f| MODES.map(|mode| (f, mode))) {
        let mut net = Net::new(family, mode, Oddity { bytes: 5000, ..PLAIN }, 1);
        net.lb.set_timeouts(Timeouts { tcp_established_ms: 20_000, ..Timeouts::default() });
        net.client.socket().set_keep_alive(Some(Duration::from_secs(8)));
        net.exchange();
        for _ in 0..70_000 {
            net.step();
        }
        assert_eq!(net.lb.flows().len(), 1, "{}", net.said());
        net.client.socket().set_keep_alive(None);
        for _ in 0..70_000 {
            net.step();
        }
        assert_eq!(net.lb.flows(), [], "without them it is idle: {}", net.said());
    }
}
