//! How long a listener's flows may be silent, where that is not the box's to say.

use std::fmt;
use std::num::NonZeroU32;

/// What a flow has lived through, as far as it matters for how long it may be silent. The names are those of
/// `flows.timeouts` in the data plane's own configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silence {
    /// TCP after the handshake.
    TcpEstablished,
    /// TCP before the handshake is complete.
    TcpHalfOpen,
    /// TCP of which both sides have sent FIN.
    TcpClosing,
    /// TCP of which a RST was seen, or sent by us.
    TcpReset,
    /// UDP of which only the client has spoken.
    UdpOneWay,
    /// UDP of which the backend has answered.
    UdpReplied,
}

impl Silence {
    /// Each, in the order in which they are offered to people.
    pub const ALL: [Self; 6] = [
        Self::TcpEstablished,
        Self::TcpHalfOpen,
        Self::TcpClosing,
        Self::TcpReset,
        Self::UdpOneWay,
        Self::UdpReplied,
    ];

    /// The name by which people say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpEstablished => "tcp-established",
            Self::TcpHalfOpen => "tcp-half-open",
            Self::TcpClosing => "tcp-closing",
            Self::TcpReset => "tcp-reset",
            Self::UdpOneWay => "udp-one-way",
            Self::UdpReplied => "udp-replied",
        }
    }
}

/// How long flows may be silent, by what they have lived through; what is not said is the box's to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeouts([Option<NonZeroU32>; Silence::ALL.len()]);

impl Timeouts {
    /// What the sweep, which comes round each second, can tell from nothing.
    pub const LEAST_MS: u32 = 1000;
    /// A week: beyond that it is as good as forever.
    pub const MOST_MS: u32 = 7 * 24 * 3600 * 1000;

    /// These, with another that is at least [`Self::LEAST_MS`] and at most [`Self::MOST_MS`].
    #[must_use]
    pub fn with(mut self, silence: Silence, timeout_ms: u32) -> Option<Self> {
        let bounds = Self::LEAST_MS..=Self::MOST_MS;
        let timeout_ms = NonZeroU32::new(timeout_ms).filter(|ms| bounds.contains(&ms.get()))?;
        self.0[silence as usize] = Some(timeout_ms);
        Some(self)
    }

    /// What is said of it, in milliseconds.
    #[must_use]
    pub fn get(self, silence: Silence) -> Option<u32> {
        self.0[silence as usize].map(NonZeroU32::get)
    }

    /// These, and where they say nothing, what `others` say.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        let of = |silence: Silence| self.0[silence as usize].or(others.0[silence as usize]);
        Self(Silence::ALL.map(of))
    }
}

/// `tcp-established/1h`, with a comma between several; `usual` if nothing is said.
impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Silence::ALL.into_iter().filter_map(|it| Some((it.name(), self.get(it)?)));
        let Some((name, ms)) = said.next() else { return f.write_str("usual") };
        write!(f, "{name}/{}", Span(ms))?;
        said.try_for_each(|(name, ms)| write!(f, ",{name}/{}", Span(ms)))
    }
}

/// Milliseconds in the largest unit of which they are a whole number.
struct Span(u32);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
        match units.into_iter().find(|(unit, _)| self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_second_at_least_and_a_week_at_most() {
        for (ms, expected) in [
            (0, None),
            (999, None),
            (1000, Some("udp-one-way/1s")),
            (90_500, Some("udp-one-way/90500ms")),
            (7_200_000, Some("udp-one-way/2h")),
            (604_800_000, Some("udp-one-way/168h")),
            (604_800_001, None),
        ] {
            let found = Timeouts::default().with(Silence::UdpOneWay, ms).map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{ms} ms");
        }
        assert_eq!(Timeouts::default().to_string(), "usual");
    }

    #[test]
    fn each_is_its_own_and_what_is_not_said_is_left_to_others() {
        let all = |first: u32| {
            (first..).zip(Silence::ALL).fold(Timeouts::default(), |all, (seconds, silence)| {
                all.with(silence, seconds * 1000).unwrap()
            })
        };
        let own = Timeouts::default().with(Silence::TcpReset, 60_000).unwrap();
        let both = own.or(all(1));
        let expected = "tcp-established/1s,tcp-half-open/2s,tcp-closing/3s,tcp-reset/1m,udp-one-way/5s,udp-replied/6s";
        assert_eq!(both.to_string(), expected);
        assert_eq!(all(1).or(own), all(1));
    }
}
