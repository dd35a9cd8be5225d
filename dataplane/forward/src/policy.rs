//! What a listener does where it cannot do what is asked. What becomes of connections that nobody serves any more
//! is with [`removal`](crate::removal).

/// How a client is answered for whom no SNAT address or port is free, and who sends a datagram that no backend is
/// to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExhaustion {
    /// A SYN by RST, a datagram not at all.
    #[default]
    Reset,
    /// Either by ICMP "port unreachable".
    Icmp,
    /// Not at all.
    Drop,
}

/// How a TCP segment is answered that is from the middle of a connection that no flow knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// Not at all.
    #[default]
    Drop,
    /// By RST (RFC 9293 §3.10.7.1), as often as allowed.
    Reset,
}

/// How far the MSS option of SYNs is lowered, on their way to a backend and back. With DSR it is not: what a client
/// offers is about answers that do not pass here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// To what fits the way of the connection, both ways.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// To so many bytes, and to what fits.
    Most(u16),
}
