//! The two promises of a Maglev table, and the paper's own example.

use std::cmp::Reverse;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

/// Table 1 of the paper: M = 7, and (offset, skip) of three backends.
#[test]
fn the_papers_table_1_with_and_without_each_backend() {
    let paper = [(3, 4), (0, 2), (3, 1)].map(|(offset, skip): (u64, u64)| Weighted {
        offset,
        skip: skip - 1,
        weight: 1,
    });
    let rows: [(&str, [u32; 3], [u16; 7]); 4] = [
        ("all three", [1, 1, 1], [1, 0, 1, 0, 2, 2, 0]),
        ("without B1", [1, 0, 1], [0, 0, 0, 0, 2, 2, 2]),
        ("without B0", [0, 1, 1], [1, 1, 1, 2, 2, 2, 1]),
        ("without B2", [1, 1, 0], [1, 0, 1, 0, 0, 0, 1]),
    ];
    for (promise, weights, expected) in rows {
        let mut members = paper;
        for (member, weight) in members.iter_mut().zip(weights) {
            member.weight = weight;
        }
        let mut slots = [0; 7];
        build(&mut slots, &members).unwrap();
        assert_eq!(slots, expected, "{promise}");
    }
}

fn backend(n: u32) -> SocketAddr {
    let [_, _, high, low] = n.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], 8080))
}

/// The paper's table.
const SIZE: usize = 65537;

/// Owners of so many slots by address, for backends `0..count` without `gone`.
fn owners(size: usize, count: u32, gone: &[u32]) -> Vec<u32> {
    let present: Vec<u32> = (0..count).filter(|n| !gone.contains(n)).collect();
    let members: Vec<Weighted> =
        present.iter().map(|n| Weighted::backend(backend(*n), 1)).collect();
    let mut slots = vec![0; size];
    build(&mut slots, &members).unwrap();
    slots.into_iter().map(|slot| present[usize::from(slot)]).collect()
}

/// The share of the slots of backends that stay and that changed hands.
fn moved(before: &[u32], count: u32, gone: &[u32]) -> f64 {
    let after = owners(before.len(), count, gone);
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a && !gone.contains(b)).count();
    moved as f64 / before.len() as f64
}

#[test]
fn of_1000_backends_one_that_leaves_moves_few_flows_of_the_others_and_ten_not_many() {
    let before = owners(SIZE, 1000, &[]);
    for first in [0, 333, 500, 999] {
        let share = moved(&before, 1000, &[first]);
        assert!(share <= 0.0075, "without backend {first}: {:.2} %", share * 100.0);
    }
    for first in [0, 495, 990] {
        let ten: Vec<u32> = (first..first + 10).collect();
        let share = moved(&before, 1000, &ten);
        assert!(share <= 0.03, "without backends {ten:?}: {:.2} %", share * 100.0);
    }
}

#[test]
fn a_small_table_moves_no_more_than_a_large_one_of_as_many_slots_a_backend() {
    let before = owners(LEAST_SIZE, 81, &[]);
    for gone in [0, 27, 40, 80] {
        let share = moved(&before, 81, &[gone]);
        assert!(share <= 0.03, "without backend {gone}: {:.2} %", share * 100.0);
    }
}

#[test]
fn weights_are_exact() {
    let rows: &[(&[u32], &[f64])] = &[
        (&[100, 1], &[0.9901, 0.0099]),
        (&[2, 1, 1], &[0.5, 0.25, 0.25]),
        (&[1, 0, 3], &[0.25, 0.0, 0.75]),
        (&[u32::MAX, 1], &[1.0, 0.0]),
        (&[1_000_000, 1_000_000, 2_000_000], &[0.25, 0.25, 0.5]),
    ];
    for (weights, shares) in rows {
        let members: Vec<Weighted> =
            (0..).zip(*weights).map(|(n, weight)| Weighted::backend(backend(n), *weight)).collect();
        let mut slots = vec![0; SIZE];
        build(&mut slots, &members).unwrap();
        for (member, share) in shares.iter().enumerate() {
            let owned = slots.iter().filter(|slot| usize::from(**slot) == member).count();
            let owned = owned as f64 / SIZE as f64;
            assert!((owned - share).abs() < 0.0001, "{weights:?}: member {member} owns {owned}");
        }
    }
}

#[test]
fn a_table_that_cannot_be_is_refused_and_left_alone() {
    let members = [Weighted::backend(backend(1), 1)];
    let nobody = [Weighted::backend(backend(1), 0)];
    let many = vec![Weighted::backend(backend(1), 1); 8];
    let mut slots = [9; 7];
    assert_eq!(build(&mut slots, &nobody), Err(MaglevError::NobodyHasWeight { members: 1 }));
    assert_eq!(build(&mut slots, &[]), Err(MaglevError::NobodyHasWeight { members: 0 }));
    assert_eq!(build(&mut slots, &many), Err(MaglevError::TooManyMembers { members: 8, size: 7 }));
    assert_eq!(build(&mut slots[..6], &members), Err(MaglevError::SizeNotPrime { size: 6 }));
    assert_eq!(build(&mut [], &members), Err(MaglevError::SizeNotPrime { size: 0 }));
    assert_eq!(slots, [9; 7]);
    assert!(SIZES.iter().all(|size| is_prime(*size)));
}

#[test]
fn a_table_grows_when_it_must_and_shrinks_late() {
    let rows = [
        (0, None, 251),
        (1, None, 251),
        (2, None, 8191),
        (81, None, 8191),
        (82, None, 16381),
        (655, None, 65537),
        (656, None, 131_071),
        (1311, None, 655_373),
        (100_000, None, 655_373),
        (656, Some(65537), 131_071),
        (600, Some(131_071), 131_071),
        (327, Some(131_071), 32749),
        (80, Some(16381), 16381),
        (40, Some(16381), 8191),
        (2, Some(251), 8191),
    ];
    for (members, current, size) in rows {
        assert_eq!(size_for(members, current), size, "{members} members, now {current:?}");
    }
}

/// These numbers are a promise to the other boxes of a site: they change with no release.
#[test]
fn tables_and_flow_hashes_are_the_same_on_every_box() {
    let members: Vec<Weighted> = (0..5)
        .map(|n| Weighted::backend(backend(n), n + 1))
        .chain([Weighted::refused(2)])
        .collect();
    let mut slots = vec![0; 251];
    build(&mut slots, &members).unwrap();
    let v4 = FlowKey::new(
        "203.0.113.7:40000".parse().unwrap(),
        "192.0.2.10:80".parse().unwrap(),
        crate::Protocol::Tcp,
    );
    let v6 = FlowKey::new(
        "[2001:db8::7]:40000".parse().unwrap(),
        "[2001:db8::10]:80".parse().unwrap(),
        crate::Protocol::Udp,
    );
    let found = (digest(&slots), flow_hash(&v4.unwrap()), flow_hash(&v6.unwrap()));
    assert_eq!(
        found,
        (11_381_400_304_754_563_443, 6_700_820_721_007_220_588, 2_129_997_971_064_991_279)
    );
}

/// The table as the paper and the module's first page define it, and nothing done for speed.
fn reference(size: usize, members: &[Weighted]) -> Vec<u16> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let mut claims = Vec::new();
    let mut next_claims = Vec::new();
    for (member, Weighted { weight, .. }) in members.iter().enumerate() {
        let exact = size as u64 * u64::from(*weight);
        let share = exact / total;
        claims.extend((1..=share).map(|number| (number, *weight, member)));
        next_claims.push((Reverse(exact % total), member, (share + 1, *weight, member)));
    }
    next_claims.sort();
    let left_over = size - claims.len();
    claims.extend(next_claims.into_iter().take(left_over).map(|(.., claim)| claim));
    let time = |number: u64, weight: u32| (number as f64 / f64::from(weight)).to_bits();
    claims.sort_by_key(|(number, weight, member)| (time(*number, *weight), *member));
    let mut slots = vec![None; size];
    let mut at: Vec<u64> = members.iter().map(|member| member.offset % size as u64).collect();
    for (.., member) in claims {
        let skip = members[member].skip % (size as u64 - 1) + 1;
        while slots[at[member] as usize].is_some() {
            at[member] = (at[member] + skip) % size as u64;
        }
        slots[at[member] as usize] = Some(member as u16);
    }
    slots.into_iter().map(Option::unwrap).collect()
}

/// All that this CPU has, each alone and together, and nothing of it.
fn cpus() -> Vec<Cpu> {
    let all = Cpu::detect();
    #[cfg(target_arch = "x86_64")]
    return vec![Cpu { avx512: None, ..all }, Cpu { avx2: None, ..all }, all, Cpu::default()];
    #[cfg(not(target_arch = "x86_64"))]
    vec![all]
}

/// A thousand members of weights that are all different, and each claims some hundred times.
#[test]
fn the_largest_table_is_that_of_the_definition() {
    let size = SIZES[SIZES.len() - 1];
    let members: Vec<Weighted> =
        (0..1000).map(|n| Weighted::backend(backend(n), 1000 + n)).collect();
    let expected = reference(size, &members);
    for cpu in cpus() {
        let mut slots = vec![0; size];
        build_with(cpu, &mut slots, &members).unwrap();
        assert!(slots == expected, "{cpu:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_cpu_builds_the_table_of_the_definition(
        size in prop_oneof![prop::sample::select(&SIZES[..10]), prop::sample::select(&[2, 3, 5, 7, 11, 97][..])],
        kind in 0..5,
        count in prop_oneof![1..20_u32, 1..2000_u32],
        seed in any::<u64>(),
    ) {
        let weight = |n: u32| {
            let random = xxh3_64_with_seed(&n.to_be_bytes(), seed);
            match kind {
                0 => 1,
                1 => [7, 3][n as usize % 2],
                2 => (random % 11) as u32,
                3 => random as u32 >> ((random >> 32) % 32),
                _ => 1000 + n,
            }
        };
        let member = |n: u32| Weighted {
            offset: xxh3_64_with_seed(&n.to_be_bytes(), !seed),
            skip: xxh3_64_with_seed(&n.to_le_bytes(), !seed),
            weight: weight(n),
        };
        let members: Vec<Weighted> = (0..count.min(size as u32)).map(member).collect();
        prop_assume!(members.iter().any(|member| member.weight > 0));
        let expected = reference(size, &members);
        for cpu in cpus() {
            let mut slots = vec![0; size];
            build_with(cpu, &mut slots, &members).unwrap();
            prop_assert!(slots == expected, "{cpu:?}");
        }
    }

    #[test]
    fn every_member_owns_its_share_to_within_one_slot(
        weights in prop::collection::vec(prop_oneof![Just(0_u32), 1..10_u32, any::<u32>()], 1..40),
        size in prop::sample::select(&SIZES[..6]),
    ) {
        let members: Vec<Weighted> =
            (0..).zip(&weights).map(|(n, weight)| Weighted::backend(backend(n), *weight)).collect();
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        prop_assume!(total > 0.0);
        let mut slots = vec![0; size];
        build(&mut slots, &members).unwrap();
        for (member, weight) in weights.iter().enumerate() {
            let owned = slots.iter().filter(|slot| usize::from(**slot) == member).count();
            let exact = f64::from(*weight) * size as f64 / total;
            prop_assert!((owned as f64 - exact).abs() < 1.0 + 1e-6, "member {member} owns {owned} of {exact}");
        }
    }

    #[test]
    fn the_order_in_which_members_are_told_does_not_matter(order in Just((0..20_u32).collect::<Vec<_>>()).prop_shuffle()) {
        use crate::group::{Group, Member};
        let member = |n: u32| Member { id: crate::BackendId(n), address: backend(n), weight: n % 4, draining: n == 7 };
        let group = |order: &[u32]| Group::new(order.iter().copied().map(member).collect(), 1, Some(251)).unwrap();
        let sorted: Vec<u32> = (0..20).collect();
        prop_assert_eq!(group(&order).digest(), group(&sorted).digest());
    }
}
