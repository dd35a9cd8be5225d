//! What a flow has lived through, and how long it may be silent.
//!
//! ```text
//!            client SYN          backend SYN-ACK        client ACK
//!   (none) ────────────▶ SynSent ───────────▶ SynAcked ───────────▶ Established
//!                                                                  FIN │    │ FIN
//!                                                             (client) ▼    ▼ (backend)
//!      any ── RST, either way ──▶ Reset               FinClient ───▶ Closing ◀─── FinBackend
//!                                                            the other FIN
//!   (none) ── client datagram ──▶ UdpOneWay ── backend datagram ──▶ UdpReplied
//! ```
//! A SYN of the client on `Closing` or `Reset` begins a new connection, pinned anew; in full NAT the SNAT port of one
//! that was closing stays taken meanwhile, since its backend may be in TIME-WAIT (`Quarantine`).
//! One FIN alone
//! shortens nothing: the other direction may stream for hours (RFC 9293 §3.6). A RST shortens the
//! timeout but does not remove the flow, and as the timeout counts silence, one that the ends ignore
//! does not cut a connection that keeps talking; one whose number is not about what the other end expects
//! next was sent blindly and changes nothing (`track`).

use crate::wire::tcp::{ACK, FIN, RST, SYN};

/// The state of a flow; one byte of its record. Zero is a free record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// The client's SYN has been forwarded. Half-open: may give way when the table is full.
    SynSent = 1,
    /// The backend answered SYN-ACK. Still half-open: the client's address is proven by what it acknowledges.
    SynAcked = 2,
    /// The three-way handshake is complete.
    Established = 3,
    /// The client has sent its FIN; the backend may go on.
    FinClient = 4,
    /// The backend has sent its FIN; the client may go on.
    FinBackend = 5,
    /// Both have sent a FIN.
    Closing = 6,
    /// One end has sent a RST.
    Reset = 7,
    /// Datagrams of the client only.
    UdpOneWay = 8,
    /// Datagrams both ways.
    UdpReplied = 9,
    /// Out of the table; the record lives until the sweep, for packets of the burst that hold it.
    Unlinked = 10,
    /// The client has begun a new connection over this one that was `Closing`. Only what the backend sends would still
    /// find it, so that no other flow to this backend gets its SNAT port.
    Quarantine = 11,
    /// We have reset it, since nobody serves it any more. Its ends are answered by RST until they believe it.
    Cut = 12,
}

/// Which way a packet goes, as an index into the pairs of a flow record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    /// Client to backend.
    Forward = 0,
    /// Backend to client.
    Reply = 1,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Reply,
            Self::Reply => Self::Forward,
        }
    }
}

impl FlowState {
    /// The state of a record's byte, if it is one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::SynSent,
            2 => Self::SynAcked,
            3 => Self::Established,
            4 => Self::FinClient,
            5 => Self::FinBackend,
            6 => Self::Closing,
            7 => Self::Reset,
            8 => Self::UdpOneWay,
            9 => Self::UdpReplied,
            10 => Self::Unlinked,
            11 => Self::Quarantine,
            12 => Self::Cut,
            _ => return None,
        })
    }

    /// The name shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "syn-sent",
            Self::SynAcked => "syn-acked",
            Self::Established => "established",
            Self::FinClient => "fin-client",
            Self::FinBackend => "fin-backend",
            Self::Closing => "closing",
            Self::Reset => "reset",
            Self::UdpOneWay => "udp-one-way",
            Self::UdpReplied => "udp-replied",
            Self::Unlinked => "unlinked",
            Self::Quarantine => "quarantine",
            Self::Cut => "cut",
        }
    }

    /// Whether anyone could have begun it from any address: the flow may give way to a newer one.
    #[must_use]
    pub const fn is_unproven(self) -> bool {
        self.is_half_open() || matches!(self, Self::UdpOneWay)
    }

    /// Whether the handshake is not complete.
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynAcked)
    }

    /// Whether a SYN of the client begins a new connection, and the flow may give way when the table is full.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closing | Self::Reset | Self::Quarantine | Self::Cut)
    }

    /// Whether packets belong to the flow.
    #[must_use]
    pub const fn is_live(self) -> bool {
        self.is_shown() && !matches!(self, Self::Cut)
    }

    /// Whether the flow is counted, and shown to people.
    #[must_use]
    pub const fn is_shown(self) -> bool {
        !matches!(self, Self::Unlinked | Self::Quarantine)
    }

    /// Whether it is a state of a UDP flow.
    #[must_use]
    pub const fn is_udp(self) -> bool {
        matches!(self, Self::UdpOneWay | Self::UdpReplied)
    }

    /// The state after a TCP segment with `flags`.
    #[must_use]
    pub const fn after_tcp(self, flags: u8, direction: Direction) -> Self {
        if flags & RST != 0 {
            return Self::Reset;
        }
        match (self, direction) {
            (Self::SynSent, Direction::Reply) if flags & (SYN | ACK) == SYN | ACK => Self::SynAcked,
            (Self::SynAcked, Direction::Forward) if flags & (SYN | ACK) == ACK => {
                Self::Established.after_tcp(flags, direction)
            }
            (Self::Established, Direction::Forward) if flags & FIN != 0 => Self::FinClient,
            (Self::Established, Direction::Reply) if flags & FIN != 0 => Self::FinBackend,
            (Self::FinClient, Direction::Reply) if flags & FIN != 0 => Self::Closing,
            (Self::FinBackend, Direction::Forward) if flags & FIN != 0 => Self::Closing,
            _ => self,
        }
    }

    /// The state of a DSR flow after a TCP segment of the client with `flags`; the backend's are not seen. The
    /// client's acknowledgement says that the handshake went on, and its FIN that half of the rest is over: what
    /// the backend still sends is acknowledged, and that keeps the flow.
    #[must_use]
    pub const fn after_tcp_alone(self, flags: u8) -> Self {
        match self {
            _ if flags & RST != 0 => Self::Reset,
            Self::SynSent | Self::Established if flags & FIN != 0 => Self::Closing,
            Self::SynSent if flags & (SYN | ACK) == ACK => Self::Established,
            _ => self,
        }
    }

    /// The state after a datagram.
    #[must_use]
    pub const fn after_udp(self, direction: Direction) -> Self {
        match (self, direction) {
            (Self::UdpOneWay, Direction::Reply) => Self::UdpReplied,
            _ => self,
        }
    }
}

/// How long a flow may be silent before it is removed, in milliseconds. At most 49 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Half-open: the SYN was forwarded, the handshake is not complete. RFC 5382 REQ-5 asks for
    /// 4 minutes of a NAT before strangers; we stand before our own backends and under SYN floods,
    /// and a client's retransmitted SYN finds a backend again by Maglev. Default 30 s.
    pub tcp_half_open_ms: u32,
    /// Established, and half-closed. RFC 5382 REQ-5: at least 2 h 4 min, the default.
    pub tcp_established_ms: u32,
    /// Both FINs were seen. RFC 5382 REQ-5: at least 4 min ("transitory"), the default. As long as other SNAT ports
    /// are free, the flow's goes to no other.
    pub tcp_closing_ms: u32,
    /// A RST was seen, or sent by us; long enough for what is still in flight. Default 5 s.
    pub tcp_reset_ms: u32,
    /// Datagrams of the client only. RFC 4787 REQ-5: not under 2 min, the default.
    pub udp_one_way_ms: u32,
    /// Datagrams both ways. RFC 4787 REQ-5: 5 min or more recommended, the default.
    pub udp_replied_ms: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_half_open_ms: 30_000,
            tcp_established_ms: (2 * 60 + 4) * 60_000,
            tcp_closing_ms: 4 * 60_000,
            tcp_reset_ms: 5_000,
            udp_one_way_ms: 2 * 60_000,
            udp_replied_ms: 5 * 60_000,
        }
    }
}

impl Timeouts {
    /// The timeout of a state.
    #[must_use]
    pub const fn of(&self, state: FlowState) -> u32 {
        match state {
            FlowState::SynSent | FlowState::SynAcked => self.tcp_half_open_ms,
            FlowState::Established | FlowState::FinClient | FlowState::FinBackend => {
                self.tcp_established_ms
            }
            FlowState::Closing | FlowState::Quarantine => self.tcp_closing_ms,
            FlowState::Reset | FlowState::Cut => self.tcp_reset_ms,
            FlowState::UdpOneWay => self.udp_one_way_ms,
            FlowState::UdpReplied => self.udp_replied_ms,
            FlowState::Unlinked => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Forward, Reply};
    use super::FlowState::*;
    use super::*;

    #[test]
    fn tcp_states_follow_the_handshake_and_both_fins() {
        let rows: &[(&str, FlowState, u8, Direction, FlowState)] = &[
            ("a repeated SYN changes nothing", SynSent, SYN, Forward, SynSent),
            ("an ACK before the SYN-ACK proves nothing", SynSent, ACK, Forward, SynSent),
            ("the SYN-ACK is noted", SynSent, SYN | ACK, Reply, SynAcked),
            ("the client's ACK completes the handshake", SynAcked, ACK, Forward, Established),
            ("a backend's ACK does not", SynAcked, ACK, Reply, SynAcked),
            ("the ACK may bring the FIN along", SynAcked, ACK | FIN, Forward, FinClient),
            ("one FIN closes one half", Established, ACK | FIN, Forward, FinClient),
            ("or the other", Established, ACK | FIN, Reply, FinBackend),
            ("a repeated FIN is the same FIN", FinClient, ACK | FIN, Forward, FinClient),
            ("both FINs close", FinClient, ACK | FIN, Reply, Closing),
            ("in either order", FinBackend, ACK | FIN, Forward, Closing),
            ("a SYN does not disturb an established flow", Established, SYN, Forward, Established),
            ("RST from the client", Established, RST, Forward, Reset),
            ("RST from the backend", SynSent, RST | ACK, Reply, Reset),
            ("what follows a RST does not revive it", Reset, ACK, Forward, Reset),
        ];
        for (promise, before, flags, direction, after) in rows {
            assert_eq!(before.after_tcp(*flags, *direction), *after, "{promise}");
        }
    }

    #[test]
    fn every_state_survives_its_byte() {
        for byte in 0..=u8::MAX {
            if let Some(state) = FlowState::from_byte(byte) {
                assert_eq!(state as u8, byte);
            }
        }
    }
}
