//! Who claims when: shares, and the order in which members take slots.
//!
//! A member of weight w claims its k-th slot at time k / w, until it has its share; of claims at one time the
//! first in order of members is first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Weighted;
use super::turns::{Equals, Turn, Turns};

/// How many slots each member gets: its exact share rounded down, and what is left over to the
/// largest remainders, the first in order where they are equal. `None` if all weights are zero.
pub(super) fn shares(size: usize, members: &[Weighted]) -> Option<Vec<u32>> {
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    if total == 0 {
        return None;
    }
    let exact = members.iter().map(|member| size as u64 * u64::from(member.weight)); // 20 bits by 32
    let mut shares: Vec<u32> = exact.clone().map(|slots| (slots / total) as u32).collect();
    let mut remainders: Vec<(Reverse<u64>, usize)> =
        exact.zip(0..).map(|(slots, member)| (Reverse(slots % total), member)).collect();
    let left_over = size - shares.iter().map(|share| *share as usize).sum::<usize>();
    if left_over > 0 {
        remainders.select_nth_unstable(left_over - 1);
    }
    for (_, member) in &remainders[..left_over] {
        shares[*member] += 1;
    }
    Some(shares)
}

/// The members that have weight, by weight.
pub(super) fn by_weight(members: &[Weighted]) -> Vec<u16> {
    let weights = members.iter().map(|member| member.weight).zip(0_u16..);
    let mut sorted: Vec<(u32, u16)> = weights.filter(|(weight, _)| *weight > 0).collect();
    sorted.sort_unstable();
    sorted.into_iter().map(|(_, member)| member).collect()
}

/// Members in the order of their claims, of which there are as many as slots. Some thousand are put in order
/// at once, so that what is written and read again stays in the first caches.
pub(super) struct Claims<'o> {
    turns: Turns<'o>,
    /// Who claims in turns at one time, by their groups: the same groups meet again and again.
    at_once: BTreeMap<Vec<usize>, Vec<u16>>,
    order: Vec<u16>,
    /// How many of `order` have been given out.
    given: usize,
}

/// Claims put in order at once, if there are not more at one time.
const SOME: usize = 4096;

impl<'o> Claims<'o> {
    /// `sorted`: who has weight, by weight.
    pub(super) fn new(sorted: &'o [u16], members: &[Weighted], shares: &[u32]) -> Self {
        let weight = |member: &u16| members[usize::from(*member)].weight;
        let groups = sorted
            .chunk_by(|one, other| weight(one) == weight(other))
            .map(|members| Equals::new(weight(&members[0]), members, shares));
        let slots = shares.iter().map(|share| u64::from(*share)).sum();
        let total = members.iter().map(|member| u64::from(member.weight)).sum();
        let turns = Turns::new(groups.collect(), slots, total);
        Self { turns, at_once: BTreeMap::new(), order: Vec::new(), given: 0 }
    }

    /// The next claims, at least one and at most `most`; none after as many as there are slots.
    pub(super) fn next(&mut self, most: usize) -> &[u16] {
        if self.given == self.order.len() {
            self.order.clear();
            self.given = 0;
            while self.order.len() < SOME && self.put_in_order() {}
        }
        let begin = self.given;
        self.given = self.order.len().min(begin + most);
        &self.order[begin..self.given]
    }

    /// Puts the claims of the next turns in order; false if there are none.
    fn put_in_order(&mut self) -> bool {
        if self.turns.are_single() {
            let (turns, groups) = self.turns.next(SOME); // those at one time are in order of members
            self.order.extend(turns.iter().map(|turn| groups[turn.group()].first));
            return !turns.is_empty();
        }
        let (turns, groups) = self.turns.next_at_once();
        let is_whole = |turn: &Turn| turn.number() <= groups[turn.group()].whole;
        if turns.len() <= 1 || !turns.iter().all(is_whole) {
            claim_at_once(turns, groups, &mut self.order);
            return !turns.is_empty();
        }
        let known = self.at_once.entry(turns.iter().map(|turn| turn.group()).collect());
        self.order.extend_from_slice(known.or_insert_with(|| {
            let mut claims = Vec::new();
            claim_at_once(turns, groups, &mut claims);
            claims
        }));
        true
    }
}

/// Appends who claims in turns at one time.
fn claim_at_once(turns: &[Turn], groups: &[Equals<'_>], order: &mut Vec<u16>) {
    let begin = order.len();
    for turn in turns {
        order.extend_from_slice(groups[turn.group()].who_claim(turn.number()));
    }
    if turns.len() > 1 {
        order[begin..].sort(); // runs in order, which this sort merges
    }
}
