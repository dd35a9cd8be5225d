//! The weights of backendRefs as weights of single backends.
//!
//! A backendRef of weight *w* over *k* ready endpoints gives each of them *w/k*. One scale makes all of these
//! whole numbers, the least common multiple of the *k*; dividing by what they share keeps them small. A
//! reference without endpoints keeps its share: it is refused, never given to the others.
//!
//! The scale is exact while every weight fits 32 bits, which takes unlucky endpoint counts to break (say
//! 997 and 991 and 983 under one rule). Beyond that, weights are rounded to a scale that fits, to within
//! one part in 2³⁰ of the sum, and a backend with any share keeps at least 1.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use penstock_feed::model::{Group, Member};

/// Whether an endpoint takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readiness {
    /// It serves, but only what it has.
    Draining,
    /// It serves.
    Ready,
}

/// One backendRef: its weight, and its endpoints; none if it is invalid.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub(super) weight: u32,
    pub(super) endpoints: BTreeMap<SocketAddr, Readiness>,
}

impl Share {
    fn ready(&self) -> u128 {
        self.endpoints.values().filter(|readiness| **readiness == Readiness::Ready).count() as u128
    }
}

/// The sum of the exact weights must stay below this, so that sums of weights fit 32 bits too.
const MOST: u128 = 1 << 31;

/// The group that serves these backendRefs.
pub(super) fn group(shares: &[Share]) -> Group {
    let scale = scale(shares);
    let mut refused = 0;
    let mut members: BTreeMap<SocketAddr, (u128, Readiness)> = BTreeMap::new();
    for share in shares {
        let ready = share.ready();
        if ready == 0 {
            refused += scale.of(share.weight, 1);
        }
        for (address, readiness) in &share.endpoints {
            let (weight, known) = members.entry(*address).or_insert((0, *readiness));
            *known = (*known).max(*readiness); // ready by one reference is ready
            if *readiness == Readiness::Ready {
                *weight += scale.of(share.weight, ready);
            }
        }
    }
    reduced(refused, members)
}

/// Divides all weights by what they share.
fn reduced(refused: u128, members: BTreeMap<SocketAddr, (u128, Readiness)>) -> Group {
    let weights = members.values().map(|(weight, _)| *weight);
    let divisor = weights.fold(refused, greatest_common_divisor).max(1);
    // `Scale` keeps the sum below 2³² even after rounding, so nothing saturates.
    let small = |weight: u128| u32::try_from(weight / divisor).unwrap_or(u32::MAX);
    let member = |(weight, readiness)| Member {
        weight: small(weight),
        draining: readiness == Readiness::Draining,
    };
    Group {
        members: members.into_iter().map(|(address, m)| (address, member(m))).collect(),
        refused_weight: small(refused),
    }
}

/// What a weight of 1 becomes: `numerator / denominator`.
struct Scale {
    numerator: u128,
    denominator: u128,
}

impl Scale {
    /// `weight` over `ready` endpoints, at least 1 if `weight` is.
    fn of(&self, weight: u32, ready: u128) -> u128 {
        let share = u128::from(weight) * self.numerator;
        let parts = ready * self.denominator;
        ((share + parts / 2) / parts).max(u128::from(weight > 0))
    }
}

fn scale(shares: &[Share]) -> Scale {
    let total: u128 = shares.iter().map(|share| u128::from(share.weight)).sum::<u128>().max(1);
    let counts = shares.iter().filter(|share| share.weight > 0).map(Share::ready);
    let multiple = counts.filter(|ready| *ready > 0).try_fold(1, |multiple, ready| {
        let next = multiple / greatest_common_divisor(multiple, ready) * ready;
        (next * total <= MOST * 1_000_000).then_some(next)
    });
    let weights = shares.iter().filter(|share| share.weight > 0);
    let common = weights.fold(0, |gcd, share| greatest_common_divisor(gcd, share.weight.into()));
    match multiple {
        Some(multiple) if multiple * (total / common.max(1)) <= MOST => {
            Scale { numerator: multiple, denominator: common.max(1) }
        }
        _ => Scale { numerator: MOST / 2, denominator: total },
    }
}

fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `weight` over endpoints in a network of its own; `ready` of them ready, `draining` not.
    fn share(network: u8, weight: u32, ready: u16, draining: u16) -> Share {
        let endpoint = |i: u16, readiness| {
            let [high, low] = i.to_be_bytes();
            (SocketAddr::from(([10, network, high, low], 80)), readiness)
        };
        let all = (0..ready).map(|i| endpoint(i, Readiness::Ready));
        let rest = (ready..ready + draining).map(|i| endpoint(i, Readiness::Draining));
        Share { weight, endpoints: all.chain(rest).collect() }
    }

    /// The distinct weights of each network, and the refused weight.
    fn weights(shares: &[Share]) -> (Vec<(u8, u32)>, u32) {
        let group = group(shares);
        let mut weights: Vec<(u8, u32)> = Vec::new();
        for (address, member) in &group.members {
            let SocketAddr::V4(v4) = address else { continue };
            weights.push((v4.ip().octets()[1], member.weight));
        }
        weights.dedup();
        (weights, group.refused_weight)
    }

    #[test]
    fn a_weight_is_shared_exactly_among_its_endpoints() {
        for (promise, shares, expected) in [
            ("one reference needs no scale", vec![share(1, 7, 3, 0)], (vec![(1, 1)], 0)),
            (
                "70 over 2, 30 over 1",
                vec![share(1, 70, 2, 0), share(2, 30, 1, 0)],
                (vec![(1, 7), (2, 6)], 0),
            ),
            (
                "3 over 2, 1 over 3",
                vec![share(1, 3, 2, 0), share(2, 1, 3, 0)],
                (vec![(1, 9), (2, 2)], 0),
            ),
            (
                "no endpoints keep their share",
                vec![share(1, 3, 3, 0), share(2, 1, 0, 0)],
                (vec![(1, 1)], 1),
            ),
            (
                "weight zero is known and gets none",
                vec![share(1, 5, 2, 0), share(2, 0, 1, 0)],
                (vec![(1, 1), (2, 0)], 0),
            ),
            ("a draining one gets none", vec![share(1, 1, 1, 1)], (vec![(1, 1), (1, 0)], 0)),
            (
                "all draining is refused",
                vec![share(1, 1, 0, 2), share(2, 1, 1, 0)],
                (vec![(1, 0), (2, 1)], 1),
            ),
            ("all zero is all zero", vec![share(1, 0, 2, 0), share(2, 0, 0, 0)], (vec![(1, 0)], 0)),
            ("nothing is nothing", vec![], (vec![], 0)),
        ] {
            assert_eq!(weights(&shares), expected, "{promise}");
        }
    }

    #[test]
    fn an_endpoint_of_two_references_gets_both_shares() {
        let both = [share(1, 1, 1, 0), share(1, 2, 2, 0)];
        let found: Vec<_> = group(&both).members.values().map(|member| member.weight).collect();
        assert_eq!(found, [2, 1]);
    }

    #[test]
    fn unlucky_counts_are_rounded_and_not_refused() {
        let shares: Vec<_> = [997, 991, 983, 977, 971, 967, 953, 947]
            .iter()
            .enumerate()
            .map(|(network, ready)| share(network as u8, 1_000_000, *ready, 0))
            .collect();
        let (found, _) = weights(&shares);
        for ((_, weight), ready) in found.iter().zip([997.0, 991.0, 983.0]) {
            let part = f64::from(*weight) * ready / f64::from(1 << 30);
            assert!((part - 0.125).abs() < 1e-4, "{part}");
        }
    }

    proptest! {
        #[test]
        fn shares_are_kept_and_sums_fit(
            refs in proptest::collection::vec((0_u32..=1_000_000, 0_u16..12, 0_u16..3), 0..16)
        ) {
            let shares: Vec<_> = refs.iter().enumerate()
                .map(|(network, (weight, ready, draining))| share(network as u8, *weight, *ready, *draining))
                .collect();
            let group = group(&shares);
            let sum: u64 = group.members.values().map(|m| u64::from(m.weight)).sum::<u64>()
                + u64::from(group.refused_weight);
            prop_assert!(sum <= u64::from(u32::MAX));
            let total: u32 = refs.iter().map(|(weight, ..)| weight).sum();
            for (network, (weight, ready, _)) in refs.iter().enumerate() {
                if *ready == 0 { continue }
                let own: u64 = group.members.iter()
                    .filter(|(a, _)| matches!(a, SocketAddr::V4(v4) if usize::from(v4.ip().octets()[1]) == network))
                    .map(|(_, m)| u64::from(m.weight)).sum();
                prop_assert_eq!(own > 0, *weight > 0);
                if total > 0 {
                    let error = own as f64 / sum as f64 - f64::from(*weight) / f64::from(total);
                    prop_assert!(error.abs() < 1e-4, "{} of {} is off by {}", weight, total, error);
                }
            }
        }
    }
}
