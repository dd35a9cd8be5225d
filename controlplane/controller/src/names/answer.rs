//! What answers about a name come to. No clock, no sockets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::observed::Named;

/// What was answered about the addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These.
    Addresses(BTreeSet<IpAddr>),
    /// The name has none of that family.
    NoAddress,
    /// There is no such name.
    NoName,
    /// Nobody knows.
    Fault(String),
}

/// What a name comes to by answers about IPv4 and IPv6, where it came to `before`. What is not known is as it was; so is
/// a name that is gone or has no address at all, which is more often a mistake than meant: a Backend that is to have none
/// says so itself.
pub(super) fn merge(before: &Named, answers: [Answer; 2]) -> Named {
    let found = |answer: &Answer| matches!(answer, Answer::Addresses(found) if !found.is_empty());
    let any = answers.iter().any(found);
    let (mut addresses, mut trouble) = (BTreeSet::new(), None);
    for (ipv6, answer) in [false, true].into_iter().zip(answers) {
        let kept = || before.addresses.iter().filter(|address| address.is_ipv6() == ipv6).copied();
        let fault = match answer {
            Answer::Addresses(found) if !found.is_empty() => {
                addresses.extend(found);
                continue;
            }
            Answer::Addresses(_) | Answer::NoAddress if any => continue,
            Answer::Addresses(_) | Answer::NoAddress => "it has no address".to_owned(),
            Answer::NoName if any => continue,
            Answer::NoName => "there is no such name".to_owned(),
            Answer::Fault(fault) => fault,
        };
        addresses.extend(kept());
        trouble.get_or_insert(fault);
    }
    Named { addresses, trouble }
}

#[cfg(test)]
mod tests {
    use super::Answer::{Addresses, NoAddress, NoName};
    use super::*;

    fn all(text: &str) -> BTreeSet<IpAddr> {
        text.split_whitespace().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_not_known_is_as_it_was() {
        let (v4, v6) = (|| Addresses(all("192.0.2.1 192.0.2.2")), || Addresses(all("2001:db8::1")));
        let fault = || Answer::Fault("timed out".into());
        for (promise, before, answers, after, trouble) in [
            (
                "both are answered",
                "192.0.2.9",
                [v4(), v6()],
                "192.0.2.1 192.0.2.2 2001:db8::1",
                None,
            ),
            ("IPv4 alone", "192.0.2.9 2001:db8::9", [v4(), NoAddress], "192.0.2.1 192.0.2.2", None),
            ("IPv6 alone", "192.0.2.9", [NoAddress, v6()], "2001:db8::1", None),
            (
                "one is not known",
                "192.0.2.9 2001:db8::9",
                [v4(), fault()],
                "192.0.2.1 192.0.2.2 2001:db8::9",
                Some("timed out"),
            ),
            (
                "neither is",
                "192.0.2.9 2001:db8::9",
                [fault(), fault()],
                "192.0.2.9 2001:db8::9",
                Some("timed out"),
            ),
            (
                "the name is gone",
                "192.0.2.9",
                [NoName, NoName],
                "192.0.2.9",
                Some("there is no such name"),
            ),
            (
                "it has no address",
                "192.0.2.9",
                [NoAddress, NoAddress],
                "192.0.2.9",
                Some("it has no address"),
            ),
            ("it never had one", "", [NoAddress, NoAddress], "", Some("it has no address")),
            (
                "an empty answer is none",
                "192.0.2.9",
                [Addresses(all("")), NoAddress],
                "192.0.2.9",
                Some("it has no address"),
            ),
        ] {
            let before = Named { addresses: all(before), trouble: Some("earlier".into()) };
            let found = merge(&before, answers);
            let expected = Named { addresses: all(after), trouble: trouble.map(str::to_owned) };
            assert_eq!(found, expected, "{promise}");
        }
    }
}
