//! Turns, in order of time: members of one weight claim together, so that turns are sorted and not claims.
//!
//! Of a thousand equal members there are 66 turns, of unequal ones as many as slots. Times are spread evenly,
//! so turns are taken window by window of time, and sorted there by the leading digits of their times.

use std::cmp::Ordering;

/// Members of one weight. Their shares differ by one at most, and it is the first of them that have more.
pub(super) struct Equals<'o> {
    weight: u32,
    members: &'o [u16],
    pub(super) first: u16,
    /// Turns in which all of them claim.
    pub(super) whole: u32,
    /// How many of them claim once more.
    more: usize,
    /// Turns that were taken into a window.
    taken: u32,
    /// What a turn adds to the key, in units of 2^-[`FRACTION`].
    step: u64,
}

impl<'o> Equals<'o> {
    /// One member or more.
    pub(super) fn new(weight: u32, members: &'o [u16], shares: &[u32]) -> Self {
        let share = |member: &u16| shares[usize::from(*member)];
        let whole = members.iter().map(share).min().unwrap_or(0);
        let more = members.iter().filter(|member| share(member) > whole).count();
        Self { weight, members, first: members[0], whole, more, taken: 0, step: 0 }
    }

    fn turns(&self) -> u32 {
        self.whole + u32::from(self.more > 0)
    }

    /// Who claims in a turn.
    pub(super) fn who_claim(&self, number: u32) -> &'o [u16] {
        if number <= self.whole { self.members } else { &self.members[..self.more] }
    }
}

/// The `number`-th claim of all members of a weight, as a number to be sorted by: the time within its window
/// in 28 bits, which group in 16, which number in 20.
#[derive(Clone, Copy)]
pub(super) struct Turn(u64);

const KEY_BITS: u32 = 28;
const NUMBER_BITS: u32 = 20;
/// Bits of a group's step below one unit of the key: with 129 windows' keys, they fit in 64.
const FRACTION: u32 = 28;

impl Turn {
    fn new(key: u64, group: u16, number: u32) -> Self {
        Self(key << (64 - KEY_BITS) | u64::from(group) << NUMBER_BITS | u64::from(number))
    }

    fn key(self) -> u64 {
        self.0 >> (64 - KEY_BITS)
    }

    pub(super) fn group(self) -> usize {
        usize::from((self.0 >> NUMBER_BITS) as u16)
    }

    pub(super) fn number(self) -> u32 {
        self.0 as u32 % (1 << NUMBER_BITS)
    }
}

/// All turns of all groups.
pub(super) struct Turns<'o> {
    groups: Vec<Equals<'o>>,
    /// Turns in a window, but for what rounding does.
    window: u64,
    /// The end of the window, in average turns.
    until: u64,
    /// The sum of the groups' weights: so many turns in a unit of time.
    rate: u64,
    /// When all that an exact share holds has been claimed, in average turns.
    horizon: u64,
    /// The turns of the window, in order, and how many of them were given out.
    turns: Vec<Turn>,
    given: usize,
    scratch: Vec<Turn>,
}

impl<'o> Turns<'o> {
    /// `slots` and `total` are the sums of the shares and of the weights of all members.
    pub(super) fn new(mut groups: Vec<Equals<'o>>, slots: u64, total: u64) -> Self {
        let rate: u64 = groups.iter().map(|group| u64::from(group.weight)).sum();
        let window = (groups.len() as u64 * 4).max(1 << 13); // 16 or more turns of 1000 groups
        let unit = (1_u64 << (KEY_BITS + FRACTION)) as f64 / window as f64;
        for group in &mut groups {
            group.step = (rate as f64 / f64::from(group.weight) * unit) as u64;
        }
        let horizon = (u128::from(slots) * u128::from(rate)).div_ceil(total.into()) as u64;
        let turns: u64 = groups.iter().map(|group| u64::from(group.turns())).sum();
        let turns = Vec::with_capacity(turns.min(window + groups.len() as u64) as usize);
        Self { groups, window, until: 0, rate, horizon, turns, given: 0, scratch: Vec::new() }
    }

    /// Whether each group is of one member.
    pub(super) fn are_single(&self) -> bool {
        self.groups.iter().all(|group| group.members.len() == 1)
    }

    /// The next turns, at most so many, of which those at one time are in order of their first members; none
    /// if there are no more.
    pub(super) fn next(&mut self, most: usize) -> (&[Turn], &[Equals<'o>]) {
        if self.given == self.turns.len() {
            self.next_window();
        }
        let begin = self.given;
        self.given = self.turns.len().min(begin + most);
        (&self.turns[begin..self.given], &self.groups)
    }

    /// The next turn and those at its time; none if there are no more.
    pub(super) fn next_at_once(&mut self) -> (&[Turn], &[Equals<'o>]) {
        if self.given == self.turns.len() {
            self.next_window();
        }
        let begin = self.given;
        let same = |turns: &&[Turn]| time(turns[0], turns[1], &self.groups).is_eq();
        let more = self.turns[begin..].windows(2).take_while(same).count();
        self.given = self.turns.len().min(begin + 1 + more);
        (&self.turns[begin..self.given], &self.groups)
    }

    /// Two windows have no time in common.
    fn next_window(&mut self) {
        self.turns.clear();
        self.given = 0;
        while self.turns.is_empty() && self.until < self.horizon {
            self.take_window();
        }
        if self.turns.is_empty() {
            self.take_the_rest();
        }
    }

    fn take_window(&mut self) {
        let begin = (self.until / self.window) << KEY_BITS;
        self.until += self.window;
        for (at, group) in (0..).zip(&mut self.groups) {
            let due = u64::from(group.weight) * self.until / self.rate; // 32 bits by 21
            let due = (due as u32).min(group.turns());
            for number in group.taken + 1..=due {
                // Rounding is wrong by less than one unit of the key.
                let key = ((u64::from(number) * group.step) >> FRACTION).saturating_sub(begin);
                self.turns.push(Turn::new(key.min((1 << KEY_BITS) - 1), at, number));
            }
            group.taken = due;
        }
        if self.turns.len() < 2 * DIGITS {
            self.turns.sort_unstable_by(|one, other| in_time(*one, *other, &self.groups));
        } else {
            sort_by_digits(&mut self.turns, &mut self.scratch);
            sort_nearly_sorted(&mut self.turns, &self.groups);
        }
    }

    /// Those who get a slot more than their exact share: at most one turn a group.
    fn take_the_rest(&mut self) {
        for (at, group) in (0..).zip(&mut self.groups) {
            let turns = group.taken + 1..=group.turns();
            self.turns.extend(turns.map(|number| Turn::new(0, at, number)));
            group.taken = group.turns();
        }
        self.turns.sort_unstable_by(|one, other| in_time(*one, *other, &self.groups));
    }
}

/// Which of two turns of a window is first; of turns at one time, that of the first member.
#[inline]
fn in_time(one: Turn, other: Turn, groups: &[Equals<'_>]) -> Ordering {
    let first = |turn: Turn| groups[turn.group()].first;
    time(one, other, groups).then_with(|| first(one).cmp(&first(other)))
}

/// Keys that differ by two or more are in order of time; number / weight decides between others, without
/// rounding.
#[inline]
fn time(one: Turn, other: Turn, groups: &[Equals<'_>]) -> Ordering {
    if one.key().abs_diff(other.key()) > 1 {
        return one.key().cmp(&other.key());
    }
    let weight = |turn: Turn| u64::from(groups[turn.group()].weight);
    let crosswise =
        (u64::from(one.number()) * weight(other), u64::from(other.number()) * weight(one));
    crosswise.0.cmp(&crosswise.1)
}

/// Values of a digit of eleven bits.
const DIGITS: usize = 1 << 11;

/// Sorts by the upper 22 bits of the key, as two digits (Knuth, *The Art of Computer Programming* 3, §5.2.5).
fn sort_by_digits(turns: &mut Vec<Turn>, scratch: &mut Vec<Turn>) {
    let high = |turn: Turn| (turn.0 >> 53) as usize % DIGITS;
    let low = |turn: Turn| (turn.0 >> 42) as usize % DIGITS;
    let (mut highs, mut lows) = ([0_u32; DIGITS], [0_u32; DIGITS]);
    for turn in &*turns {
        highs[high(*turn)] += 1;
        lows[low(*turn)] += 1;
    }
    distribute(turns, &mut lows, low, scratch);
    distribute(scratch, &mut highs, high, turns);
}

/// Puts turns in order of one digit, of which there are so many of each value, and keeps their order otherwise.
fn distribute(
    turns: &[Turn],
    counts: &mut [u32; DIGITS],
    digit: impl Fn(Turn) -> usize,
    to: &mut Vec<Turn>,
) {
    let mut sum = 0;
    for count in &mut *counts {
        (*count, sum) = (sum, sum + *count);
    }
    to.resize(turns.len(), Turn(0));
    for turn in turns {
        let place = &mut counts[digit(*turn) % DIGITS];
        to[*place as usize] = *turn;
        *place += 1;
    }
}

/// Insertion: a turn is moved by few places, if at all.
fn sort_nearly_sorted(turns: &mut [Turn], groups: &[Equals<'_>]) {
    let mut last_key = 0;
    for end in 0..turns.len() {
        let turn = turns[end];
        if turn.key() > last_key + 1 {
            last_key = turn.key();
            continue;
        }
        let mut at = end;
        while at > 0 && in_time(turn, turns[at - 1], groups).is_lt() {
            turns[at] = turns[at - 1];
            at -= 1;
        }
        turns[at] = turn;
        last_key = turns[end].key();
    }
}
