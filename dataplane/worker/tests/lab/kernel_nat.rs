//! The same packets through our NAT and through the kernel's: the same packets come out.
//!
//! ```text
//!  namespace "ends": c1 ── c0 namespace "nat": nftables DNAT, SNAT  b0 ── b1 namespace "ends"
//! ```
//! Ours runs first, in memory and in the network of `penstock_forward::testing`, and chooses its SNAT port; the
//! kernel's rules then name that port, so that what differs are MAC addresses, and the id of a datagram in
//! pieces. Needs neither hugepages nor the lab, but root.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use penstock_forward::testing::{BOX_MAC, Family, TestLb, TestPacket, fragmented, mac_towards};
use penstock_forward::{Exit, Protocol, WorkerIdx};

const NAT: &str = "pst-nat";
const ENDS: &str = "pst-nat-ends";
const CLIENT: &str = "203.0.113.7:40000";
const TCP_VIP: &str = "192.0.2.10:80";
const UDP_VIP: &str = "192.0.2.10:53";
const ROUTER: &str = "198.51.100.1";
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;

/// A side of the box, as its interface of the namespace "ends" is called.
const CLIENTS: &str = "c1";
const BACKENDS: &str = "b1";

/// What is sent: its sentence, from which side, and the frames.
type Row = (String, &'static str, Vec<Vec<u8>>);
/// That, and what our NAT made of it, without MAC addresses.
type Done = (String, &'static str, Vec<Vec<u8>>, Vec<Vec<u8>>);

#[test]
#[ignore = "needs root and nftables"]
fn our_nat_and_the_kernels_give_the_same_packets() {
    let mut compared = 0;
    for family in Family::BOTH {
        for mode in ["full-nat", "dnat"] {
            let snat = if mode == "dnat" { "" } else { "snat=10.0.0.200" };
            let listener = |vip, protocol, port| {
                format!("{vip}/{protocol} mode={mode} backend=10.0.0.3:{port} {snat}\n")
            };
            let spec = listener(TCP_VIP, "tcp", 8080) + &listener(UDP_VIP, "udp", 5300);
            let mut lb = TestLb::with(&family.text(&spec));
            let rows = rows(&mut lb, family);
            let mut kernel = Kernel::new(family, &lb, mode);
            for (promise, side, frames, ours) in rows {
                let theirs = kernel.pass(side, &frames);
                let what = format!("{family:?} {mode}: {promise}");
                assert_eq!(ours.len(), frames.len(), "{what}");
                if frames.len() > 1 {
                    assert_eq!(joined(&ours), joined(&theirs), "{what}, ours and the kernel's");
                } else {
                    assert_eq!(hex(&ours), hex(&theirs), "{what}, ours and the kernel's");
                }
                compared += 1;
            }
        }
    }
    eprintln!("  {compared} exchanges compared");
}

/// The rows of a protocol: the first begins the flow, and all others are there once it is.
type Rows = fn(Family, Outside) -> Vec<Row>;

/// Every row with what our NAT makes of it, without MAC addresses.
fn rows(lb: &mut TestLb, family: Family) -> Vec<Done> {
    let mut done = Vec::new();
    let kinds: [(Protocol, Rows); 2] = [(Protocol::Tcp, tcp_rows), (Protocol::Udp, udp_rows)];
    for (protocol, rows) in kinds {
        let begin = rows(family, None).swap_remove(0);
        pass_row(lb, begin, &mut done);
        let flows = lb.flows();
        let flow = flows.iter().find(|flow| flow.protocol == protocol);
        let outside = flow.map(|flow| (flow.backend, flow.outside));
        for row in rows(family, outside).into_iter().skip(1) {
            pass_row(lb, row, &mut done);
        }
    }
    done
}

fn pass_row(lb: &mut TestLb, (promise, side, frames): Row, done: &mut Vec<Done>) {
    let mut ours = Vec::new();
    for frame in &frames {
        for (exit, left) in lb.carry(WorkerIdx(0), frame.clone()) {
            assert!(matches!(exit, Exit::Send(_)), "{promise}: {exit:?}");
            ours.push(left[12..].to_vec());
        }
    }
    done.push((promise, side, frames, ours));
}

/// Backend and outside of the flow, once it is there.
type Outside = Option<(SocketAddr, SocketAddr)>;

fn tcp_rows(family: Family, outside: Outside) -> Vec<Row> {
    let forth = |flags, sequence, acknowledgement| {
        family.tcp(CLIENT, TCP_VIP, flags).numbered(sequence, acknowledgement)
    };
    let syn = options(forth(SYN, 1000, 0), family);
    let mut rows = vec![("a SYN with options".to_owned(), CLIENTS, vec![syn])];
    let Some((backend, outside)) = outside else { return rows };
    let back = |flags, sequence, acknowledgement| {
        let mut packet = TestPacket::between(backend, outside, Protocol::Tcp);
        packet.flags = flags;
        packet.numbered(sequence, acknowledgement)
    };
    let quote = |packet: TestPacket| packet.bytes()[14..].to_vec();
    let sent = quote(forth(ACK | PUSH, 1001, 5001).ttl(60).carrying(b"GET /"));
    let answered = quote(back(ACK | PUSH, 5001, 1006).ttl(60).carrying(b"200 OK!"));
    let mut add = |promise: &str, side, frame: Vec<u8>| {
        rows.push((promise.to_owned(), side, vec![frame]));
    };
    add("a SYN-ACK", BACKENDS, options(back(SYN | ACK, 5000, 1001), family));
    add("an ACK", CLIENTS, forth(ACK, 1001, 5001).bytes());
    add("data of odd length", CLIENTS, forth(ACK | PUSH, 1001, 5001).carrying(b"GET /").bytes());
    add("an answer", BACKENDS, back(ACK | PUSH, 5001, 1006).carrying(b"200 OK!").bytes());
    add("a full segment", BACKENDS, back(ACK, 5008, 1006).carrying(&[0x5a; 1400]).bytes());
    add("ECN and DSCP", CLIENTS, with_class(forth(ACK, 1006, 5008).bytes(), 0xbb));
    add("a hop limit of 2", CLIENTS, forth(ACK, 1006, 5008).ttl(2).bytes());
    for (name, kind) in ERRORS {
        for len in [8, 20, usize::MAX] {
            let promise = |from: &str| format!("{name} about the {from}'s, {len} bytes of L4");
            let about_ours = with_ends(&sent, outside, backend);
            add(&promise("client"), BACKENDS, error(family, kind, &about_ours, len));
            let about_theirs = as_client_got(&answered, family);
            add(&promise("backend"), CLIENTS, error(family, kind, &about_theirs, len));
        }
    }
    add("the client's FIN", CLIENTS, forth(ACK | FIN, 1006, 6408).bytes());
    add("the backend's FIN", BACKENDS, back(ACK | FIN, 6408, 1007).bytes());
    add("the last ACK", CLIENTS, forth(ACK, 1007, 6409).bytes());
    add("a RST", BACKENDS, back(RST | ACK, 6409, 1007).bytes());
    rows
}

fn udp_rows(family: Family, outside: Outside) -> Vec<Row> {
    let forth = |payload: &[u8]| family.udp(CLIENT, UDP_VIP, payload);
    let first = forth(b"query").bytes();
    let mut rows = vec![("a datagram".to_owned(), CLIENTS, vec![first])];
    let Some((backend, outside)) = outside else { return rows };
    let back =
        |payload: &[u8]| TestPacket::between(backend, outside, Protocol::Udp).carrying(payload);
    let mut add = |promise: &str, side, frames: Vec<Vec<u8>>| {
        rows.push((promise.to_owned(), side, frames));
    };
    add("its answer", BACKENDS, vec![back(b"an answer").bytes()]);
    add("an empty one", CLIENTS, vec![forth(b"").bytes()]);
    if family == Family::V4 {
        add("one without checksum", CLIENTS, vec![forth(b"x").without_checksum().bytes()]);
    }
    let sent = forth(b"query").ttl(60).bytes()[14..].to_vec();
    for (name, kind) in ERRORS {
        for len in [8, usize::MAX] {
            let about = with_ends(&sent, outside, backend);
            let promise = format!("{name} about it, {len} bytes of L4");
            add(&promise, BACKENDS, vec![error(family, kind, &about, len)]);
        }
    }
    // Sizes of which each but the last fills a link of 1500 bytes in IPv6.
    let payload: Vec<u8> = (0..4000_u16).map(|at| (at / 7) as u8).collect();
    let sizes = [1448, 1448, 1112];
    for (name, side, packet) in
        [("a datagram", CLIENTS, forth(&payload)), ("an answer", BACKENDS, back(&payload))]
    {
        let pieces = fragmented(&packet.bytes(), 0x1234, &sizes);
        add(&format!("{name} in pieces"), side, pieces.clone());
        let pieces = fragmented(&packet.bytes(), 0x1235, &sizes);
        add(&format!("{name} in pieces, the last first"), side, pieces.into_iter().rev().collect());
    }
    rows
}

/// Unreachable, too big, and time exceeded: type and code in either family, and the MTU.
const ERRORS: [(&str, [(u8, u8); 2]); 3] = [
    ("unreachable", [(3, 1), (1, 3)]),
    ("too big", [(3, 4), (2, 0)]),
    ("time exceeded", [(11, 0), (3, 0)]),
];

/// An error of a router on the way about a packet, of which it quotes so many bytes of L4.
fn error(family: Family, kind: [(u8, u8); 2], about: &[u8], l4_len: usize) -> Vec<u8> {
    let (header_len, protocol, (kind, code)) = match family {
        Family::V4 => (20, 1, kind[0]),
        Family::V6 => (40, 58, kind[1]),
    };
    let mtu = if matches!((family, kind, code), (Family::V4, 3, 4) | (Family::V6, 2, 0)) {
        1300
    } else {
        0
    };
    let quote = &about[..about.len().min(header_len + l4_len.min(1000))];
    let to: IpAddr = match family {
        Family::V4 => <[u8; 4]>::try_from(&about[12..16]).expect("a source").into(),
        Family::V6 => <[u8; 16]>::try_from(&about[8..24]).expect("a source").into(),
    };
    let from = SocketAddr::new(family.address(ROUTER), 0);
    let udp = Protocol::Udp;
    let mut frame = TestPacket::between(from, (to, 0).into(), udp).bytes();
    frame.truncate(14 + header_len);
    let mut message = vec![kind, code, 0, 0, 0, 0];
    message.extend(u16::to_be_bytes(mtu));
    message.extend(quote);
    let len = message.len() as u16;
    if family == Family::V4 {
        frame[16..18].copy_from_slice(&(20 + len).to_be_bytes());
        frame[23] = protocol;
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum);
    } else {
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame[20] = protocol;
        let sum = checksum(&[&frame[22..54], &len.to_be_bytes(), &[0, protocol], &message]);
        message[2..4].copy_from_slice(&sum);
    }
    frame.extend(message);
    frame
}

/// RFC 1071, of pieces of even lengths but for the last.
fn checksum(pieces: &[&[u8]]) -> [u8; 2] {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let sum: u64 = words
        .map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0)))
        .sum();
    let fold = |sum: u64| (sum & 0xffff) + (sum >> 16);
    (!(fold(fold(fold(sum))) as u16)).to_be_bytes()
}

/// A packet of the backend with the ends that the client saw.
fn as_client_got(packet: &[u8], family: Family) -> Vec<u8> {
    let end = |end: &str| family.text(end).parse().expect("an address and a port");
    with_ends(packet, end(TCP_VIP), end(CLIENT))
}

/// The same bytes between two other ends, with right checksums.
fn with_ends(packet: &[u8], source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let is_v4 = packet[0] >> 4 == 4;
    let l4 = if is_v4 { 20 } else { 40 };
    let protocol = if is_v4 { packet[9] } else { packet[6] };
    let udp = protocol == 17;
    let kind = if udp { Protocol::Udp } else { Protocol::Tcp };
    let header_len = if udp { 8 } else { 20 };
    let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"));
    let mut again =
        TestPacket::between(source, destination, kind).carrying(&packet[l4 + header_len..]);
    again.ttl = if is_v4 { packet[8] } else { packet[7] };
    if !udp {
        again.flags = packet[l4 + 13];
        again = again.numbered(word(l4 + 4), word(l4 + 8));
    }
    again.bytes()[14..].to_vec()
}

/// A segment that offers an MSS, which fits both ways, SACK, timestamps and a window scale.
fn options(packet: TestPacket, family: Family) -> Vec<u8> {
    const OPTIONS: [u8; 20] = [2, 4, 5, 0xa0, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7];
    let mut frame = packet.carrying(&OPTIONS).bytes();
    let l4 = family.l4();
    frame[l4 + 12] = 10 << 4;
    frame[l4 + 16..l4 + 18].fill(0);
    let addresses = if family == Family::V4 { 26..34 } else { 22..54 };
    let len = ((frame.len() - l4) as u16).to_be_bytes();
    let sum = checksum(&[&frame[addresses], &len, &[0, 6], &frame[l4..]]);
    frame[l4 + 16..l4 + 18].copy_from_slice(&sum);
    frame
}

fn with_class(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    if frame[14] >> 4 == 4 {
        frame[15] = class;
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        frame[14] = 0x60 | class >> 4;
        frame[15] = class << 4 | 0x0a; // and the beginning of a flow label
    }
    frame
}

fn hex(packets: &[Vec<u8>]) -> Vec<String> {
    packets.iter().map(|packet| packet.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}

/// The datagram that pieces make, without their id: addresses, and all that follows the IP headers.
fn joined(pieces: &[Vec<u8>]) -> String {
    let mut parts: Vec<(u16, Vec<u8>)> = Vec::new();
    let mut ends = Vec::new();
    for piece in pieces {
        let ip = &piece[2..];
        if ip[0] >> 4 == 4 {
            let len = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
            parts.push(((u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff) * 8, ip[20..len].to_vec()));
            ends = [&ip[8..10], &ip[12..20]].concat();
        } else {
            assert_eq!(ip[6], 44, "a fragment header");
            let len = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            parts.push((u16::from_be_bytes([ip[42], ip[43]]) & 0xfff8, ip[48..len].to_vec()));
            ends = [&ip[7..8], &ip[8..41]].concat();
        }
    }
    parts.sort();
    let mut whole = Vec::new();
    for (offset, part) in parts {
        assert_eq!(usize::from(offset), whole.len(), "no gap, nothing twice");
        whole.extend(part);
    }
    hex(&[ends, whole]).join(" ")
}

/// The kernel's NAT, and both its ends.
struct Kernel {
    wires: Child,
    tell: ChildStdin,
    said: BufReader<ChildStdout>,
    macs: [Vec<u8>; 2],
}

impl Kernel {
    fn new(family: Family, lb: &TestLb, mode: &str) -> Self {
        take_down();
        let script = script(family, lb, mode);
        run(&["bash", "-euc", &script]);
        let wires = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/wires.py");
        let mut wires = Command::new("ip")
            .args(["netns", "exec", ENDS])
            .arg(wires)
            .args([CLIENTS, BACKENDS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip starts");
        let tell = wires.stdin.take().expect("it was asked for");
        let said = BufReader::new(wires.stdout.take().expect("it was asked for"));
        let mac = |interface: &str| {
            let said = run(&["ip", "-n", NAT, "-o", "link", "show", interface]);
            let at = said.find("link/ether ").expect("an address") + 11;
            said[at..at + 17]
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
                .collect()
        };
        let macs = [mac("c0"), mac("b0")];
        Self { wires, tell, said, macs }
    }

    /// What comes out for frames that come in by a side, without MAC addresses.
    fn pass(&mut self, side: &str, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mac = &self.macs[usize::from(side == BACKENDS)];
        let frames: Vec<_> = frames.iter().map(|frame| [&mac[..], &frame[6..]].concat()).collect();
        writeln!(self.tell, "{side} {}", hex(&frames).join(" ")).expect("it listens");
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it answers");
        let came: Vec<(String, String)> =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        let other = if side == CLIENTS { BACKENDS } else { CLIENTS };
        came.into_iter()
            .map(|(at, frame)| {
                assert_eq!(at, other, "{frame}");
                let byte = |at| u8::from_str_radix(&frame[at..at + 2], 16).expect("hex");
                (0..frame.len()).step_by(2).map(byte).skip(12).collect()
            })
            .collect()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.wires.kill();
        let _ = self.wires.wait();
        take_down();
    }
}

fn take_down() {
    for namespace in [NAT, ENDS] {
        // It may not be there, which is not wrong.
        let _ = Command::new("ip").args(["netns", "del", namespace]).output();
    }
}

/// The namespaces, and rules that give each flow the ends that ours has given it.
fn script(family: Family, lb: &TestLb, mode: &str) -> String {
    let table = if family == Family::V4 { "ip" } else { "ip6" };
    let bare = |v4: &str| family.address(v4).to_string();
    let (mut dnat, mut snat) = (String::new(), String::new());
    for flow in lb.flows() {
        let protocol = if flow.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let (vip, port) = (flow.vip.ip(), flow.vip.port());
        dnat += &format!("{table} daddr {vip} {protocol} dport {port} dnat to {}\n", flow.backend);
        if mode == "full-nat" {
            let (backend, port) = (flow.backend.ip(), flow.backend.port());
            snat += &format!(
                "{table} daddr {backend} {protocol} dport {port} snat to {}\n",
                flow.outside
            );
        }
    }
    let (router, backend) = (bare("192.0.2.1"), bare("10.0.0.3"));
    let (clients, on_link) = match family {
        Family::V4 => ("0.0.0.0/0".to_owned(), "10.0.0.0/8".to_owned()),
        Family::V6 => ("::/0".to_owned(), format!("{}/104", bare("10.0.0.0"))),
    };
    let addresses = match family {
        Family::V4 => ["192.0.2.2/24".to_owned(), "10.0.0.2/8".to_owned()],
        Family::V6 => [format!("{}/120", bare("192.0.2.2")), format!("{}/104", bare("10.0.0.2"))],
    };
    let colons = |octets: [u8; 6]| octets.map(|octet| format!("{octet:02x}")).join(":");
    let router_mac = colons(mac_towards(family.address("192.0.2.1")).0);
    let backend_mac = colons(mac_towards(family.address("10.0.0.3")).0);
    assert_ne!(router_mac, colons(BOX_MAC.0));
    format!(
        "ip netns add {NAT}; ip netns add {ENDS}
ip netns exec {ENDS} sysctl -qw net.ipv6.conf.default.disable_ipv6=1
ip netns exec {NAT} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
  net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv6.conf.default.accept_dad=0
for side in c b; do
  ip -n {NAT} link add ${{side}}0 type veth peer name ${{side}}1 netns {ENDS}
  ip netns exec {NAT} ethtool -K ${{side}}0 tx off rx off tso off gso off gro off >/dev/null
  ip -n {NAT} link set ${{side}}0 up; ip -n {ENDS} link set ${{side}}1 up
done
ip -n {NAT} link set lo up
ip -n {NAT} address add {} dev c0 {nodad}; ip -n {NAT} address add {} dev b0 {nodad}
ip -n {NAT} route replace {on_link} dev b0
ip -n {NAT} neigh replace {router} lladdr {router_mac} dev c0 nud permanent
ip -n {NAT} neigh replace {backend} lladdr {backend_mac} dev b0 nud permanent
ip -n {NAT} route add {clients} via {router} dev c0
ip netns exec {NAT} nft -f - <<'RULES'
table {table} nat {{
chain before {{
type nat hook prerouting priority dstnat;
{dnat}}}
chain after {{
type nat hook postrouting priority srcnat;
{snat}}}
}}
RULES
",
        addresses[0],
        addresses[1],
        nodad = if family == Family::V6 { "nodad" } else { "" },
    )
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{error}");
    said
}
