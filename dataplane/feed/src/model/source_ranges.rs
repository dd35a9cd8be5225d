//! The networks whose clients a listener lets in.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// A network: its address, and how many leading bits of it count. The others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The network that `address` is in, with those of the same leading bits; nothing if an address of its family has
    /// not so many.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) => {
                let host_bits = 32_u32.checked_sub(length.into())?;
                let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let host_bits = 128_u32.checked_sub(length.into())?;
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Some(Self { address, length })
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether all of another network is in this one.
    fn has(self, other: Self) -> bool {
        self.length <= other.length && Self::new(other.address, self.length) == Some(self)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Networks of clients, in order and none within another: one meaning has one list. Of none, nobody is let in.
/// Cloning is a reference count.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRanges(Arc<[Prefix]>);

impl SourceRanges {
    /// The most that a listener has.
    pub const MOST: usize = 256;

    /// Those networks, in any order.
    ///
    /// # Errors
    /// [`TooManyRanges`] if more than [`Self::MOST`] are left of them without those within others.
    pub fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Result<Self, TooManyRanges> {
        let mut prefixes: Vec<Prefix> = prefixes.into_iter().collect();
        prefixes.sort_unstable(); // one network comes before those within it
        prefixes.dedup_by(|later, kept| kept.has(*later));
        match prefixes.len() {
            found if found > Self::MOST => Err(TooManyRanges { found }),
            _ => Ok(Self(prefixes.into())),
        }
    }

    /// The networks.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Prefix> {
        self.0.iter().copied()
    }

    /// The first that is not of the family of `vip`, from which no client of it can come.
    pub(crate) fn foreign_to(&self, vip: IpAddr) -> Option<Prefix> {
        self.iter().find(|prefix| prefix.address.is_ipv4() != vip.is_ipv4())
    }
}

/// More networks than a listener can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found} networks, none within another, where {} are the most: join some of them",
    SourceRanges::MOST
)]
pub struct TooManyRanges {
    /// How many there are.
    pub found: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Option<Prefix> {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::new(address.parse().unwrap(), length.parse().unwrap())
    }

    #[test]
    fn a_network_has_no_host_bits_and_no_more_bits_than_its_family() {
        for (written, expected) in [
            ("192.0.2.129/25", Some("192.0.2.128/25")),
            ("192.0.2.1/32", Some("192.0.2.1/32")),
            ("192.0.2.1/0", Some("0.0.0.0/0")),
            ("192.0.2.1/33", None),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("2001:db8::1/128", Some("2001:db8::1/128")),
            ("2001:db8::1/0", Some("::/0")),
            ("::/129", None),
        ] {
            assert_eq!(prefix(written).map(|it| it.to_string()).as_deref(), expected, "{written}");
        }
    }

    #[test]
    fn one_meaning_has_one_list() {
        let list = |text: &str| {
            let prefixes = text.split_whitespace().map(|it| prefix(it).unwrap());
            let ranges = SourceRanges::new(prefixes).unwrap();
            ranges.iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" ")
        };
        for (written, expected) in [
            ("", ""),
            ("10.1.0.0/16 10.0.0.0/16", "10.0.0.0/16 10.1.0.0/16"),
            ("10.0.0.0/16 10.0.9.0/24 10.0.0.0/8 10.0.0.0/8 11.0.0.0/8", "10.0.0.0/8 11.0.0.0/8"),
            ("10.0.0.0/32 10.0.0.0/31 10.0.0.2/32", "10.0.0.0/31 10.0.0.2/32"),
            ("::/0 2001:db8::/32 0.0.0.0/0", "0.0.0.0/0 ::/0"),
        ] {
            assert_eq!(list(written), expected, "{written}");
        }
        let many = |count: u32| (0..count).map(|n| Prefix::new(IpAddr::V4(n.into()), 32).unwrap());
        assert_eq!(SourceRanges::new(many(256)).map(|it| it.iter().len()), Ok(256));
        assert_eq!(SourceRanges::new(many(257)), Err(TooManyRanges { found: 257 }));
        let within_one = many(300).chain(prefix("0.0.0.0/8"));
        assert_eq!(SourceRanges::new(within_one).map(|it| it.iter().len()), Ok(1));
    }
}
