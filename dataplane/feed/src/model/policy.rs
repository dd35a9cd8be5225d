//! What a listener does where it cannot do what is asked, what it lets SYNs offer, and how long its flows may be silent.

use std::fmt;

use super::Timeouts;

/// What becomes of the connections of a backend that leaves its group, and of a listener that is removed. A backend
/// that drains, or whose weight is 0, has not left. UDP has no connections: the next datagram goes to a backend that
/// is there, whatever the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnRemoval {
    /// They go on until they end by themselves.
    #[default]
    Keep,
    /// Both ends are told by RST, at once.
    Reset,
    /// They have this long to end by themselves; then as [`Self::Reset`].
    Expire {
        /// At least 1, at most [`Self::MOST_GRACE_MS`].
        grace_ms: u32,
    },
}

impl OnRemoval {
    /// A week: beyond that it is as good as forever.
    pub const MOST_GRACE_MS: u32 = 7 * 24 * 3600 * 1000;

    /// Connections that have so long to end, if they may have so long, and some time at all.
    #[must_use]
    pub fn expire(grace_ms: u32) -> Option<Self> {
        (1..=Self::MOST_GRACE_MS).contains(&grace_ms).then_some(Self::Expire { grace_ms })
    }
}

impl fmt::Display for OnRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::Reset => f.write_str("reset"),
            Self::Expire { grace_ms } if grace_ms % 1000 == 0 => {
                write!(f, "expire/{}s", grace_ms / 1000)
            }
            Self::Expire { grace_ms } => write!(f, "expire/{grace_ms}ms"),
        }
    }
}

/// How a client is answered for whom there is no SNAT address, or no L4 port towards its backend; and who sends a
/// datagram that no backend is to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnExhaustion {
    /// A SYN by RST, a datagram not at all.
    #[default]
    Reset,
    /// Either by ICMP "port unreachable".
    Icmp,
    /// Not at all.
    Drop,
}

impl OnExhaustion {
    /// Every policy, in the order in which they are offered to people.
    pub const ALL: [Self; 3] = [Self::Reset, Self::Icmp, Self::Drop];

    /// The name by which people choose it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Icmp => "icmp",
            Self::Drop => "drop",
        }
    }
}

/// How a TCP segment is answered that is from the middle of a connection nobody knows, as all are after a restart.
/// With DSR it goes by Maglev, and the backend answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnUnknown {
    /// Not at all.
    #[default]
    Drop,
    /// By RST, so that its sender begins anew at once.
    Reset,
}

impl OnUnknown {
    /// Every policy, in the order in which they are offered to people.
    pub const ALL: [Self; 2] = [Self::Drop, Self::Reset];

    /// The name by which people choose it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reset => "reset",
        }
    }
}

/// How far the MSS option of SYNs and their answers is lowered (RFC 9293 §3.7.1), on the way through. With DSR it is
/// not: answers of its backends do not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MssClamp {
    /// To what fits the routes of a connection, both ways.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// To so many bytes, and to what fits.
    Most {
        /// [`MssClamp::LEAST_BYTES`] to [`MssClamp::MOST_BYTES`].
        bytes: u16,
    },
}

impl MssClamp {
    /// What who offers nothing takes in any case, over IPv4.
    pub const LEAST_BYTES: u16 = 536;
    /// What fits the largest MTU of a port, over IPv4.
    pub const MOST_BYTES: u16 = 9560;

    /// To so many bytes, if they may be so many.
    #[must_use]
    pub fn most(bytes: u16) -> Option<Self> {
        (Self::LEAST_BYTES..=Self::MOST_BYTES).contains(&bytes).then_some(Self::Most { bytes })
    }
}

impl fmt::Display for MssClamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Most { bytes } => write!(f, "{bytes}"),
        }
    }
}

/// All of a listener's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policies {
    /// When a backend leaves its group, or the listener is removed.
    pub on_removal: OnRemoval,
    /// When no SNAT address or port is free.
    pub on_exhaustion: OnExhaustion,
    /// When nobody knows the connection of a segment.
    pub on_unknown: OnUnknown,
    /// What SYNs may offer.
    pub mss_clamp: MssClamp,
    /// How long flows may be silent.
    pub timeouts: Timeouts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_some_time_and_no_more_than_a_week() {
        for (grace_ms, expected) in [
            (0, None),
            (1, Some("expire/1ms")),
            (1500, Some("expire/1500ms")),
            (30_000, Some("expire/30s")),
            (604_800_000, Some("expire/604800s")),
            (604_800_001, None),
        ] {
            let found = OnRemoval::expire(grace_ms).map(|policy| policy.to_string());
            assert_eq!(found.as_deref(), expected, "{grace_ms} ms");
        }
    }

    #[test]
    fn an_mss_is_not_less_than_everyone_takes_and_not_more_than_any_port() {
        for (bytes, expected) in
            [(0, None), (535, None), (536, Some("536")), (9560, Some("9560")), (9561, None)]
        {
            let found = MssClamp::most(bytes).map(|policy| policy.to_string());
            assert_eq!(found.as_deref(), expected, "{bytes} bytes");
        }
        assert_eq!([MssClamp::Auto, MssClamp::Off].map(|p| p.to_string()), ["auto", "off"]);
    }
}
