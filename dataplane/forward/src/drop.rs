//! Every reason to lose a packet, one variant each. A drop is a counter and never a log line.

macro_rules! drop_reasons {
    ($( $variant:ident $name:literal $raised_by:ident $help:literal )*) => {
        /// Why a packet was lost. The order is the order of the rows in the counter table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $( #[doc = $help] $variant, )*
        }

        impl DropReason {
            /// Every reason, in order.
            pub const ALL: &'static [DropReason] = &[$( DropReason::$variant, )*];

            /// The metric label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// One sentence for the operator who sees the counter rise.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $( Self::$variant => $help, )* }
            }

            /// Who finds this reason.
            #[must_use]
            pub const fn raised_by(self) -> RaisedBy {
                match self { $( Self::$variant => RaisedBy::$raised_by, )* }
            }
        }
    };
}

/// Which part of the data plane finds a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaisedBy {
    /// The journey in this crate, from the packet's bytes; counted by it.
    Forwarder,
    /// The worker around it, from the state of rings and ports; counted by the worker.
    Worker,
}

drop_reasons! {
    UnknownPort "unknown_port" Forwarder
        "The frame came from a port that the configuration does not name."
    Truncated "truncated" Forwarder
        "Fewer bytes arrived than a header needs or claims."
    OtherHost "other_host" Forwarder
        "The destination MAC is another host's; a switch flooded the frame, or the port is promiscuous."
    VlanMismatch "vlan_mismatch" Forwarder
        "The frame's VLAN tags, or their absence, are not what the port is configured for."
    VlanStacked "vlan_stacked" Forwarder
        "The frame carries more VLAN tags than the port is configured for."
    UnknownEtherType "unknown_ether_type" Forwarder
        "A unicast frame that is neither ARP, IPv4 nor IPv6."
    IpHeader "ip_header" Forwarder
        "An IP header contradicts itself: version, header length or total length (RFC 1812 section 5.2.2); or it is a jumbogram's (RFC 2675)."
    ExtensionHeaders "extension_headers" Forwarder
        "More than 8 IPv6 extension headers or 256 bytes of them, or hop-by-hop options that are not the first."
    RoutingHeader "routing_header" Forwarder
        "An IPv6 routing header of type 0 (RFC 5095), or one with segments left: we are no stop on any route."
    IpChecksum "ip_checksum" Forwarder
        "The IPv4 header checksum is wrong."
    L4Header "l4_header" Forwarder
        "A TCP data offset or UDP length contradicts the IP packet around it."
    L4Checksum "l4_checksum" Forwarder
        "The NIC found the TCP or UDP checksum wrong, or a UDP datagram over IPv6 has none (RFC 8200 section 8.1)."
    FragmentLength "fragment_length" Forwarder
        "A fragment that is empty, is not the last and has no multiple of 8 bytes, or ends beyond what a datagram can hold."
    FragmentTiny "fragment_tiny" Forwarder
        "A first fragment that does not hold the whole TCP or UDP header, or a later one that begins inside it (RFC 1858, RFC 7112)."
    FragmentOverlap "fragment_overlap" Forwarder
        "A fragment whose bytes were in an earlier one, or one of a datagram whose fragments contradict each other (RFC 5722)."
    FragmentLimit "fragment_limit" Forwarder
        "Too many datagrams in fragments are under way, from this source or in all, or too many fragments wait for their first."
    FragmentTimeout "fragment_timeout" Worker
        "The first fragment of a datagram, which has its L4 ports, did not come in time for this one."
    IcmpQuote "icmp_quote" Forwarder
        "An ICMP error to a VIP or a SNAT address that quotes no TCP or UDP packet with its L4 ports."
    IcmpNoFlow "icmp_no_flow" Forwarder
        "An ICMP error to a VIP or a SNAT address about a packet of no flow."
    IcmpTunnel "icmp_tunnel" Forwarder
        "An ICMP error about a packet in a tunnel that the client is not told of: it does not say that the packet was too big, too little would have fitted, or too many came."
    EchoLimited "echo_limited" Forwarder
        "More echo requests to VIPs came than are answered: icmp.echo-per-second in dataplane.yaml says how many."
    Martian "martian" Forwarder
        "The source address can be nobody's: multicast, broadcast, reserved, loopback, zero, a VIP or SNAT address of this box, or L4 port 0; or an IPv6 address is link-local."
    TtlExpired "ttl_expired" Forwarder
        "The packet had no hop left and was not answered: an ICMP error, or one of more than may be."
    NotRouted "not_routed" Forwarder
        "The packet is for nobody we know: not an address of the box, no listener, no reply to a flow."
    NoFlow "no_flow" Forwarder
        "A packet from the middle of a connection that the flow table does not hold."
    SourceRange "source_range" Forwarder
        "A packet of a client whose address is in none of the listener's source ranges, and that has no flow."
    NoBackend "no_backend" Forwarder
        "A UDP datagram for a listener whose group has no backend to take it, or whose share is to be refused."
    NoSnatAddress "no_snat_address" Forwarder
        "The listener uses full NAT and its SNAT pool has no address of the family."
    SnatPortsExhausted "snat_ports_exhausted" Forwarder
        "No L4 port of this worker's share was free on the SNAT address towards this backend."
    DnatPortsExhausted "dnat_ports_exhausted" Forwarder
        "Two VIPs, one backend and one client port would collide, and no other client port was free."
    FlowTableFull "flow_table_full" Forwarder
        "The flow table is at its limit, and no half-open flow was left to give way."
    ListenerShare "listener_share" Forwarder
        "The flow table is nearly full, and what is left is for listeners with fewer flows than this one; none of its own gave way."
    NoRoute "no_route" Forwarder
        "No route leads to the packet's new destination through one of our ports."
    MtuExceeded "mtu_exceeded" Forwarder
        "The packet is larger than the MTU of the route it must take."
    HandOverFull "hand_over_full" Worker
        "The ring to the worker that owns the flow was full: that worker cannot keep up, or waits for a core that it shares."
    HoldFull "hold_full" Worker
        "Too many packets already wait for this next hop, or for all next hops together."
    HoldTimeout "hold_timeout" Worker
        "The next hop's link-layer address was not resolved in time."
    PuntFull "punt_full" Worker
        "The queue to the kernel was full."
    PuntPoliced "punt_policed" Worker
        "The policer of the queue to the kernel refused the packet."
    CompanionLost "companion_lost" Worker
        "The companion of the packet's port was deleted; it is opened anew every second until that succeeds."
    TransmitFull "transmit_full" Worker
        "The port's transmit queue took no more packets."
    NoMbuf "no_mbuf" Worker
        "No buffer was free for a frame of the kernel."
    Oversized "oversized" Worker
        "The packet did not fit one contiguous buffer."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_rows_in_order_with_labels_that_differ() {
        for (row, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, row);
            assert!(reason.help().ends_with('.'));
            assert!(
                reason
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
            );
            assert_eq!(DropReason::ALL.iter().filter(|r| r.name() == reason.name()).count(), 1);
        }
    }
}
