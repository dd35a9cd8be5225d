#!/usr/bin/python3
"""Odd packets against a data plane that runs, a row each: what it says, what came, what must become of it.

Packets are built, and those that leave are read and their checksums computed anew, by Scapy. They go
straight to the data plane's port in the lab, since bridges and routers on the way would lose many of
them. Prints a line a row and one of JSON with the number of rows; a broken promise ends it with what
was seen. Run by `odd.rs`, in the lab's namespace "fabric".

    odd_packets.py INTERFACE BOX_MAC SOURCE_MAC RUN_DIR
"""

import json
import socket
import subprocess
import sys
import time

from scapy.compat import raw
from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

conf.verb = 0
INTERFACE, BOX_MAC, SOURCE_MAC, RUN_DIR = sys.argv[1:5]
# The VIPs of odd.rs: full NAT and IPIP, and a listener that nobody serves on TCP port 81.
VIP, TUNNEL_VIP, SNAT, BACKEND = "10.10.0.100", "10.10.0.112", "10.10.0.200", "10.10.0.11"
VIP6, TUNNEL_VIP6, SNAT6, BACKEND6 = (f"2001:db8:10::{n}" for n in ("100", "112", "200", "11"))
ROUTER, ROUTER6 = "10.10.8.1", "2001:db8:18::1"
PATIENCE_S = 3.0
QUIET_S = 0.15


class Broken(Exception):
    """A promise that was not kept."""


class Family:
    """The same packets in IPv4 and in IPv6. Every row speaks of a client of its own."""

    def __init__(self, is_v6):
        self.is_v6 = is_v6
        self.vip, self.tunnel_vip = (VIP6, TUNNEL_VIP6) if is_v6 else (VIP, TUNNEL_VIP)
        self.snat, self.backend = (SNAT6, BACKEND6) if is_v6 else (SNAT, BACKEND)
        self.router = ROUTER6 if is_v6 else ROUTER
        self.clients = 0

    def client(self):
        self.clients += 1
        return f"2001:db8:19::{self.clients:x}" if self.is_v6 else f"10.10.9.{self.clients}"

    def ip(self, src=None, dst=None, hops=61, **fields):
        src, dst = src or self.client(), dst or self.vip
        if self.is_v6:
            return IPv6(src=src, dst=dst, hlim=hops, **fields)
        return IP(src=src, dst=dst, ttl=hops, flags="DF", **fields)

    def error(self, kind):
        """An ICMP error without its quote: too-big, unreachable or exceeded."""
        if self.is_v6:
            return {
                "too-big": ICMPv6PacketTooBig(mtu=1300),
                "unreachable": ICMPv6DestUnreach(code=1),
                "exceeded": ICMPv6TimeExceeded(),
            }[kind]
        return {
            "too-big": ICMP(type=3, code=4, nexthopmtu=1300),
            "unreachable": ICMP(type=3, code=1),
            "exceeded": ICMP(type=11),
        }[kind]

    def layer(self):
        return IPv6 if self.is_v6 else IP


V4, V6 = Family(False), Family(True)


def syn(**fields):
    return TCP(**{"sport": 40000, "dport": 80, "flags": "S", "seq": 1000, **fields})


def datagram(**fields):
    return UDP(**{"sport": 40000, "dport": 5300, **fields})


def framed(packet, **fields):
    """As bytes: `packet` may be bytes already, where no layer of Scapy says what is meant."""
    kind = 0x86DD if bytes(packet)[:1] and bytes(packet)[0] >> 4 == 6 else 0x0800
    link = Ether(**{"dst": BOX_MAC, "src": SOURCE_MAC, "type": kind, **fields})
    return raw(link / packet if not isinstance(packet, bytes) else link / Raw(packet))


def put(packet, at, data):
    """The packet's bytes, some of them overwritten."""
    whole = bytearray(raw(packet))
    whole[at : at + len(data)] = data
    return bytes(whole)


def header_sum(packet):
    """The packet's bytes with the right IPv4 header checksum, whatever else is wrong."""
    whole = bytearray(packet)
    whole[10:12] = b"\0\0"
    total = sum(int.from_bytes(whole[at : at + 2], "big") for at in range(0, 20, 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    whole[10:12] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(whole)


class Box:
    """The data plane's port, and its counters."""

    def __init__(self):
        self.port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.port.bind((INTERFACE, 0))
        self.port.settimeout(0.02)

    def counters(self):
        command = ["penstock", "status", "--output", "json", "--run-dir", RUN_DIR]
        said = json.loads(subprocess.run(command, check=False, capture_output=True).stdout)
        sums = {f"drop {row['reason']}": row["counters"]["packets"] for row in said["drops"]}
        for name in ("punted", "echoed", "too_big", "refused"):
            sums[name] = sum(worker["counters"][name] for worker in said["workers"])
        return sums

    def forget(self):
        """What the port has sent up to now."""
        self.sent_for(0.0)

    def sent_for(self, seconds):
        """The IP packets that the box sends meanwhile, each as Scapy reads it."""
        end, seen = time.monotonic() + seconds, []
        while True:
            try:
                frame, (_, _, kind, _, source) = self.port.recvfrom(65535)
            except TimeoutError:
                if time.monotonic() >= end:
                    return seen
                continue
            ours = source == bytes.fromhex(BOX_MAC.replace(":", ""))
            packet = Ether(frame)
            if ours and kind != socket.PACKET_OUTGOING and (IP in packet or IPv6 in packet):
                seen.append(packet)

    def send(self, frames):
        for frame in frames:
            self.port.send(frame)


def rose(before, after):
    names = set(before) | set(after)
    change = {name: after.get(name, 0) - before.get(name, 0) for name in names}
    return {name: by for name, by in change.items() if by}


def lost(reason, *frames, count=None):
    """Each is lost for this reason, and nothing for another."""

    def check(box):
        expected = {f"drop {reason}": len(frames) if count is None else count}
        before = box.counters()
        box.send(frames)
        end = time.monotonic() + PATIENCE_S
        while True:
            seen = rose(before, box.counters())
            drops = {name: by for name, by in seen.items() if name.startswith("drop ")}
            if drops == expected:
                return
            if time.monotonic() > end:
                raise Broken(f"{expected} expected, {seen} seen")

    return check


def kernels(*frames):
    """Each goes to the kernel, which may have something to say to its own."""

    def check(box):
        before = box.counters()
        box.send(frames)
        end = time.monotonic() + PATIENCE_S
        while (seen := rose(before, box.counters())).get("punted", 0) < len(frames):
            if time.monotonic() > end:
                raise Broken(f"{len(frames)} to the kernel expected, {seen} seen")
        if any(name.startswith("drop ") for name in seen):
            raise Broken(f"none lost expected, {seen} seen")

    return check


def leaves(frames, *wanted, counted=None):
    """For each of `wanted` a packet leaves that it takes, and nothing is lost."""

    def check(box):
        box.forget()
        before = box.counters()
        box.send(frames)
        left, end = [], time.monotonic() + PATIENCE_S
        while not all(any(takes(packet) for packet in left) for takes in wanted):
            if time.monotonic() > end:
                drops = rose(before, box.counters())
                raise Broken(f"not what was to leave: {[p.summary() for p in left]}, {drops}")
            left += box.sent_for(QUIET_S)
        for takes in wanted:
            honest(next(packet for packet in left if takes(packet)), takes.__doc__)
        seen = rose(before, box.counters())
        if any(name.startswith("drop ") for name in seen):
            raise Broken(f"none lost expected, {seen} seen")
        if counted and seen.get(counted) != 1:
            raise Broken(f"{counted} once expected, {seen} seen")

    return check


def honest(packet, liar):
    """Every checksum of a packet is what Scapy computes, but for one that came wrong."""
    again = packet.copy()
    layer = again
    while layer:
        for field in ("chksum", "cksum"):
            # Quotes of errors are as their senders made them, but for what NAT changes.
            if field in layer.fields and not (layer.name == "UDP" and layer.chksum == 0):
                if "in ICMP" in layer.name or liar == "wrong as it came":
                    continue
                delattr(layer, field)
        layer = layer.payload
    if raw(Ether(raw(again))) != raw(packet):
        raise Broken(f"checksums of {packet.show(dump=True)} should be {again.show2(dump=True)}")


def to_backend(family, **fields):
    """Takes the packet as the backend gets it, with these fields in its TCP or UDP header."""

    def takes(packet):
        ip = packet.getlayer(family.layer())
        l4 = packet.getlayer(TCP) or packet.getlayer(UDP)
        is_it = ip and (ip.src, ip.dst) == (family.snat, family.backend) and l4
        return is_it and all(l4.getfieldval(name) == value for name, value in fields.items())

    return takes


ROWS = []


def row(promise, check):
    ROWS.append((promise, check))


def lengths_that_lie(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    l4 = 40 if family.is_v6 else 20
    whole = raw(family.ip() / syn())
    row(f"{name}: half an IP header", lost("truncated", framed(whole[: l4 - 1])))
    row(f"{name}: half a TCP header", lost("truncated", framed(whole[: l4 + 10])))
    mend = (lambda packet: packet) if family.is_v6 else header_sum
    longer = (21 if family.is_v6 else 41).to_bytes(2, "big")
    at = 4 if family.is_v6 else 2
    row(f"{name}: a length beyond the frame", lost("truncated", framed(mend(put(whole, at, longer)))))
    row(f"{name}: a length of 65 535", lost("truncated", framed(mend(put(whole, at, b"\xff\xff")))))
    version = b"\x40" if family.is_v6 else b"\x65"
    kind = 0x86DD if family.is_v6 else 0x0800
    row(f"{name}: another version", lost("ip_header", framed(put(whole, 0, version), type=kind)))
    row(f"{name}: a TCP header of 16 bytes", lost("l4_header", framed(put(whole, l4 + 12, b"\x40"))))
    row(f"{name}: a TCP header beyond its packet", lost("l4_header", framed(put(whole, l4 + 12, b"\xf0"))))
    udp = raw(family.ip() / datagram() / b"query")
    row(f"{name}: a UDP length of 7", lost("l4_header", framed(put(udp, l4 + 4, b"\0\7"))))
    row(f"{name}: a UDP length beyond its packet", lost("truncated", framed(put(udp, l4 + 4, b"\0\xff"))))
    row(
        f"{name}: a UDP length below its packet's is let through",
        leaves([framed(family.ip() / datagram(sport=41001, len=10, chksum=0x1234) / b"query")], wrong(family, len=10)),
    )
    if not family.is_v6:
        row("IPv4: a header of 16 bytes", lost("ip_header", framed(header_sum(put(whole, 0, b"\x44")))))
        row("IPv4: a length below the header's", lost("ip_header", framed(header_sum(put(whole, 2, b"\0\x13")))))


def wrong(family, **fields):
    """A packet to the backend whose L4 checksum was wrong before."""
    takes = to_backend(family, **fields)

    def takes_wrong(packet):
        return takes(packet)

    takes_wrong.__doc__ = "wrong as it came"
    return takes_wrong


def checksums(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    lie = syn(sport=41002, seq=41002, chksum=0x1234)

    def takes(packet):
        wrong_still = packet.copy()
        if not to_backend(family, seq=41002)(packet):
            return False
        del wrong_still[TCP].chksum
        return Ether(raw(wrong_still))[TCP].chksum != packet[TCP].chksum

    takes.__doc__ = "wrong as it came"
    row(f"{name}: a wrong TCP checksum stays wrong", leaves([framed(family.ip() / lie)], takes))
    none = family.ip() / datagram(sport=41003, chksum=0) / b"no checksum"
    if family.is_v6:
        row("IPv6: UDP without a checksum", lost("l4_checksum", framed(none)))
    else:
        row("IPv4: UDP without a checksum has none afterwards", leaves([framed(none)], to_backend(family, chksum=0)))
        row("IPv4: a wrong header checksum", lost("ip_checksum", framed(family.ip(chksum=0xDEAD) / syn())))
    echo = ICMPv6EchoRequest(cksum=0x1234) if family.is_v6 else ICMP(chksum=0x1234)
    row(f"{name}: a ping with a wrong checksum", lost("l4_checksum", framed(family.ip() / echo)))


def sources_of_nobody(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    row(f"{name}: a land packet", lost("martian", framed(family.ip(src=family.vip) / syn(sport=80))))
    row(f"{name}: from port 0", lost("martian", framed(family.ip() / syn(sport=0))))
    sources = (
        ["::", "::1", "ff02::1", "ff0e::5", "::ffff:10.10.9.9", "fe80::9"]
        if family.is_v6
        else ["0.0.0.1", "127.0.0.1", "224.0.0.5", "240.0.0.1", "255.255.255.255", "10.10.0.255"]
    )
    frames = [framed(family.ip(src=source) / syn()) for source in sources]
    row(f"{name}: from {', '.join(sources)}", lost("martian", *frames))


def segments_of_no_connection(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    for kind, flags in {"null": "", "xmas": "FPU", "FIN": "F", "ACK": "A", "SYN and ACK": "SA", "RST": "R"}.items():
        row(f"{name}: a {kind} segment of no connection", lost("no_flow", framed(family.ip() / syn(flags=flags))))


def hops(family):
    name = "IPv6" if family.is_v6 else "IPv4"

    def told(client):
        def is_told(packet):
            ip = packet.getlayer(family.layer())
            ours = ip and (ip.src, ip.dst) == (family.vip, client)
            return ours and (ICMPv6TimeExceeded in packet if family.is_v6 else ICMP in packet and packet[ICMP].type == 11)

        return is_told

    for left in (0, 1):
        client = family.client()
        row(f"{name}: {left} hops left", leaves([framed(family.ip(src=client, hops=left) / syn())], told(client)))
    row(f"{name}: 2 hops left", leaves([framed(family.ip(hops=2) / syn(seq=41004))], to_backend(family, seq=41004)))


def links():
    packet = V4.ip() / syn(seq=41005)
    tagged = framed(Dot1Q(vlan=0, prio=5, type=0x0800) / packet, type=0x8100)

    def untagged(frame):
        return to_backend(V4, seq=41005)(frame) and Dot1Q not in frame

    row("a tag of priority alone", leaves([tagged], untagged))
    row("a tag of a VLAN", lost("vlan_mismatch", framed(Dot1Q(vlan=5, type=0x0800) / packet, type=0x8100)))
    stacked = Dot1Q(vlan=0, type=0x8100) / Dot1Q(vlan=5, type=0x0800) / packet
    row("two tags", lost("vlan_stacked", framed(stacked, type=0x8100)))
    row("another's MAC address", lost("other_host", framed(packet, dst="02:00:00:00:00:77")))
    row("an EtherType that nobody speaks", lost("unknown_ether_type", framed(packet, type=0x88B5)))
    row("half an Ethernet header", lost("truncated", framed(b"")[:14]))


def ipv4_options():
    for what, options in {"no-ops": [IPOption_NOP()] * 4, "record route": [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3)]}.items():
        seq = 41010 + len(what)
        packet = IP(raw(V4.ip(options=options) / syn(seq=seq)))
        came = raw(packet)[20 : packet.ihl * 4]

        def takes(frame, seq=seq, came=came):
            ip = frame.getlayer(IP)
            return to_backend(V4, seq=seq)(frame) and raw(ip)[20 : ip.ihl * 4] == came

        row(f"IPv4 options, {what}, ride along", leaves([framed(packet)], takes))
    ping = V4.ip(options=[IPOption_NOP()] * 4) / ICMP()
    row("a ping with options is the kernel's", kernels(framed(ping)))


def extension_headers():
    def chain(count):
        whole = V6.ip()
        for _ in range(count):
            whole = whole / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
        return whole

    def eight(frame):
        return to_backend(V6, seq=41020)(frame) and frame[IPv6].plen == 20 + 8 * 8

    row("8 extension headers ride along", leaves([framed(chain(8) / syn(seq=41020))], eight))
    row("9 extension headers", lost("extension_headers", framed(chain(9) / syn())))
    long = V6.ip() / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 252)] * 2)
    row("500 bytes of extension headers", lost("extension_headers", framed(long / syn())))
    late = chain(1) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / syn()
    row("hop-by-hop options that are not the first", lost("extension_headers", framed(late)))
    for kind, left in ((0, 0), (0, 1), (4, 1)):
        routed = V6.ip() / IPv6ExtHdrRouting(type=kind, segleft=left, addresses=["2001:db8::5"]) / syn()
        row(f"a routing header of type {kind}, {left} left", lost("routing_header", framed(routed)))
    atomic = V6.ip() / IPv6ExtHdrFragment(id=7) / syn(seq=41021)
    row("an atomic fragment is an ordinary packet", leaves([framed(atomic)], to_backend(V6, seq=41021)))


def pieces_of(family, ident, payload, at, more, first=None, src=None):
    """One piece: `payload` at an offset in bytes."""
    number = 17 if first is None else first
    if family.is_v6:
        head = family.ip(src=src) / IPv6ExtHdrFragment(nh=number, offset=at // 8, m=int(more), id=ident)
        return framed(head / Raw(payload))
    flags = "MF" if more else 0
    return framed(IP(src=src or family.client(), dst=family.vip, ttl=61, id=ident, flags=flags, frag=at // 8, proto=number) / Raw(payload))


def fragments(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    tcp = raw(syn())
    row(f"{name}: a first piece of 16 bytes of TCP", lost("fragment_tiny", pieces_of(family, 1, tcp[:16], 0, True, 6)))
    row(f"{name}: a piece that begins in the TCP header", lost("fragment_tiny", pieces_of(family, 2, tcp[8:16], 8, True, 6)))
    row(f"{name}: an empty piece", lost("fragment_length", pieces_of(family, 3, b"", 64, False)))
    row(f"{name}: a piece of 12 bytes that is not the last", lost("fragment_length", pieces_of(family, 4, b"a" * 12, 64, True)))
    row(f"{name}: a piece that ends beyond 65 535 bytes", lost("fragment_length", pieces_of(family, 5, b"a" * 64, 65528, False)))
    src = family.client()
    whole = raw(family.ip(src=src) / datagram(sport=41030) / (b"x" * 120))[40 if family.is_v6 else 20 :]
    first, last, across = (pieces_of(family, 6, whole[a:b], a, more, src=src) for a, b, more in ((0, 64, True), (64, 128, False), (40, 104, True)))
    row(f"{name}: a piece over two others, and all that follows", lost("fragment_overlap", first, across, last, count=2))
    src = family.client()
    first, last = (pieces_of(family, 7, whole[a:b], a, more, src=src) for a, b, more in ((0, 64, True), (64, 128, False)))

    def offset(packet):
        ip = packet.getlayer(family.layer())
        if not ip or (ip.src, ip.dst) != (family.snat, family.backend):
            return None
        piece = packet.getlayer(IPv6ExtHdrFragment) if family.is_v6 else ip
        return piece and (piece.offset if family.is_v6 else piece.frag)

    def is_first(packet):
        """wrong as it came"""  # over the whole datagram, which a piece has not
        return offset(packet) == 0 and packet.haslayer(UDP)

    def is_last(packet):
        return offset(packet) == 8 and raw(packet).endswith(b"x" * 64)

    row(f"{name}: the last piece first", leaves([last, first], is_first, is_last))


def errors(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    family_ip = family.layer()
    in_error = {True: "IPv6 in ICMPv6", False: "IP in ICMP"}[family.is_v6]
    client, seq = family.client(), 41040
    known = {}

    def begun(packet):
        if to_backend(family, seq=seq)(packet):
            known["sport"] = packet[TCP].sport
            return True
        return False

    row(f"{name}: a connection begins", leaves([framed(family.ip(src=client) / syn(seq=seq))], begun))

    def about(kind, quoted, change=lambda packet: packet):
        """An error of a router about the packet that the backend was sent, so many bytes of it quoted."""

        def check(box):
            sent = family.ip(src=family.snat, dst=family.backend) / syn(sport=known["sport"], seq=seq)
            error = family.error(kind)
            packet = family.ip(src=family.router, dst=family.snat) / error / Raw(raw(sent)[:quoted])
            frame = framed(change(packet))
            l4 = 40 if family.is_v6 else 20
            if quoted >= l4 + 8 and change is unchanged:
                leaves([frame], lambda left: told(left, kind, quoted))(box)
            elif change is not unchanged:
                lost("l4_checksum", frame)(box)
            else:
                lost("icmp_quote", frame)(box)

        return check

    def unchanged(packet):
        return packet

    def told(packet, kind, quoted):
        ip = packet.getlayer(family_ip)
        if not ip or (ip.src, ip.dst) != (family.vip, client):
            return False
        error, expected = ip.payload, family.error(kind)
        quote = raw(error)[8 : 8 + quoted]
        inner = family_ip(quote)
        ends = (inner.src, inner.dst) == (client, family.vip)
        at = 40 if family.is_v6 else 20
        ports = quote[at : at + 8] == raw(syn(seq=seq))[:8]
        if not family.is_v6 and quote[10:12] != header_sum(quote[:20])[10:12]:
            raise Broken(f"{in_error}: header checksum of the quote {quote.hex()}")
        return ends and ports and (error.type, error.code) == (expected.type, expected.code)

    l4 = 40 if family.is_v6 else 20
    for kind in ("too-big", "unreachable", "exceeded"):
        row(f"{name}: {kind}, with 8 bytes of TCP", about(kind, l4 + 8, unchanged))
    row(f"{name}: unreachable, with all of it", about("unreachable", l4 + 20, unchanged))
    for quoted in (0, l4 - 1, l4, l4 + 7):
        row(f"{name}: an error that quotes {quoted} bytes", about("unreachable", quoted, unchanged))

    def lie(packet):
        packet.payload.setfieldval("cksum" if family.is_v6 else "chksum", 0x1234)
        return packet

    row(f"{name}: an error with a wrong checksum", about("unreachable", l4 + 8, lie))
    stranger = family.ip(src=family.vip, dst=family.client()) / syn(sport=80, dport=9)
    error = family.ip(src=family.router) / family.error("unreachable") / Raw(raw(stranger))
    row(f"{name}: an error about nobody's connection", lost("icmp_no_flow", framed(error)))


def answers(family):
    name = "IPv6" if family.is_v6 else "IPv4"
    client = family.client()
    echo = ICMPv6EchoRequest(id=7, seq=9, data=b"ping") if family.is_v6 else ICMP(id=7, seq=9) / b"ping"

    def replied(packet):
        ip = packet.getlayer(family.layer())
        reply = packet.getlayer(ICMPv6EchoReply) if family.is_v6 else packet.getlayer(ICMP)
        return ip and (ip.src, ip.dst) == (family.vip, client) and reply and reply.type in (0, 129) and reply.seq == 9

    row(f"{name}: a ping is answered", leaves([framed(family.ip(src=client) / echo)], replied, counted="echoed"))

    def reset(packet):
        ip, tcp = packet.getlayer(family.layer()), packet.getlayer(TCP)
        return ip and tcp and (ip.src, ip.dst) == (family.vip, client) and (tcp.flags, tcp.ack) == ("RA", 1001)

    refused = family.ip(src=client) / syn(dport=81)
    row(f"{name}: a SYN that nobody takes is reset", leaves([framed(refused)], reset, counted="refused"))
    # A segment of 1500 bytes does not fit a tunnel of its own family.
    header = 40 if family.is_v6 else 20
    large = family.ip(src=client, dst=family.tunnel_vip) / syn() / (b"x" * (1480 - header))

    def too_big(packet):
        ip = packet.getlayer(family.layer())
        if not ip or (ip.src, ip.dst) != (family.tunnel_vip, client):
            return False
        error = packet.getlayer(ICMPv6PacketTooBig) if family.is_v6 else packet.getlayer(ICMP)
        return error and (error.mtu if family.is_v6 else error.nexthopmtu) == 1500 - header

    row(f"{name}: what does not fit its tunnel is too big", leaves([framed(large)], too_big, counted="too_big"))


def main():
    links()
    ipv4_options()
    extension_headers()
    for family in (V4, V6):
        lengths_that_lie(family)
        checksums(family)
        sources_of_nobody(family)
        segments_of_no_connection(family)
        hops(family)
        fragments(family)
        errors(family)
        answers(family)
    box = Box()
    broken = 0
    for promise, check in ROWS:
        try:
            check(box)
        except Broken as error:
            broken += 1
            print(f"BROKEN {promise}: {error}", file=sys.stderr)
    print(json.dumps({"rows": len(ROWS), "broken": broken}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
