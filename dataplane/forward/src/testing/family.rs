//! The address family that a test speaks: a promise holds in both, so its table is written once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{TestLb, TestPacket, tcp, udp};

/// Tables are written in IPv4 addresses; for IPv6 each stands for the one that embeds it in
/// 2001:db8::/96.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The addresses as they are written.
    V4,
    /// 192.0.2.10 is 2001:db8::c000:20a.
    V6,
}

/// 2001:db8::/96, whose last four octets are those of an IPv4 address.
#[must_use]
pub(super) fn in_v6(v4: Ipv4Addr) -> Ipv6Addr {
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
    Ipv6Addr::from_bits(prefix.to_bits() | u128::from(v4.to_bits()))
}

impl Family {
    /// One after the other.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// An address of this family.
    #[must_use]
    pub fn of(self, v4: Ipv4Addr) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(v4),
            Self::V6 => IpAddr::V6(in_v6(v4)),
        }
    }

    /// An address of this family, from the text of an IPv4 address.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn address(self, v4: &str) -> IpAddr {
        self.of(v4.parse().unwrap_or_else(|error| panic!("{v4}: {error}")))
    }

    /// The text with every IPv4 address in it as one of this family: `192.0.2.10:80` is
    /// `[2001:db8::c000:20a]:80`.
    #[must_use]
    pub fn text(self, text: &str) -> String {
        if self == Self::V4 {
            return text.to_owned();
        }
        let (mut said, mut word) = (String::new(), String::new());
        for letter in text.chars().map(Some).chain([None]) {
            match letter {
                Some(letter) if letter.is_ascii_digit() || letter == '.' => word.push(letter),
                other => {
                    match word.parse() {
                        Ok(v4) => said += &format!("[{}]", in_v6(v4)),
                        Err(_) => said += &word,
                    }
                    word.clear();
                    said.extend(other);
                }
            }
        }
        said
    }

    /// A TCP segment, towards us.
    #[must_use]
    pub fn tcp(self, source: &str, destination: &str, flags: u8) -> TestPacket {
        tcp(&self.text(source), &self.text(destination), flags)
    }

    /// A UDP datagram, towards us.
    #[must_use]
    pub fn udp(self, source: &str, destination: &str, payload: &[u8]) -> TestPacket {
        udp(&self.text(source), &self.text(destination), payload)
    }

    /// One worker with the listeners of `spec`.
    #[must_use]
    pub fn lb(self, spec: &str) -> TestLb<'static> {
        TestLb::with(&self.text(spec))
    }

    /// Where the TCP or UDP header of an untagged frame without IP options lies.
    #[must_use]
    pub fn l4(self) -> usize {
        match self {
            Self::V4 => 34,
            Self::V6 => 54,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_the_same_in_both_families() {
        let spec = "192.0.2.10:80-90/tcp backend=10.0.0.3:8080*2 snat=10.0.0.200";
        assert_eq!(Family::V4.text(spec), spec);
        assert_eq!(
            Family::V6.text(spec),
            "[2001:db8::c000:20a]:80-90/tcp backend=[2001:db8::a00:3]:8080*2 snat=[2001:db8::a00:c8]"
        );
        assert_eq!(Family::V6.text("mode=dnat"), "mode=dnat");
    }
}
