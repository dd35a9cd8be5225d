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
