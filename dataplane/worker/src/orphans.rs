//! When flows lost those who served them: since when a backend is in no group, and a listener has its group or none, and
//! its source ranges.
//!
//! Noted as it happens, and counted from when some listener first did not keep such flows: what happened before counts
//! from there. The flows themselves are the workers' to find.

use std::collections::HashMap;

use penstock_feed::{Name, OnRemoval, SourceRanges};
use penstock_forward::{BackendId, ListenerSlot, Removal, Removals, Tick};

/// A listener that workers may have flows of.
#[derive(Debug)]
struct Known {
    /// Its group; none if it has gone.
    group: Option<Name>,
    /// Since when.
    since_ms: u64,
    /// Whom it lets in.
    ranges: Option<SourceRanges>,
    /// Since when.
    ranges_since_ms: u64,
    /// What becomes of its flows, by its last configuration.
    on_removal: OnRemoval,
}

/// What is known of listeners and backends that may have such flows.
#[derive(Debug, Default)]
pub struct Orphans {
    /// By number.
    listeners: HashMap<u32, Known>,
    /// Backends that are in no group, and since when.
    left: HashMap<u32, u64>,
    /// How many listeners do not keep their flows.
    ending: usize,
    /// Since when there are any.
    ending_since_ms: Option<u64>,
    removals: Removals,
    clock: Clock,
    refreshed_ms: u64,
}

/// The workers' clock, which wraps, gone on with.
#[derive(Debug, Default)]
struct Clock {
    tick: Tick,
    ms: u64,
}

/// How often old moments are written anew: a tick says when for half of 49 days.
const REFRESH_MS: u64 = 24 * 3600 * 1000;

impl Orphans {
    /// It is `now`. To be called every few days at least.
    pub fn turn(&mut self, now: Tick) {
        self.clock.ms += u64::from(now.since(self.clock.tick));
        self.clock.tick = now;
        if self.clock.ms - self.refreshed_ms >= REFRESH_MS {
            self.refreshed_ms = self.clock.ms;
            self.write_anew();
        }
    }

    /// A listener has this group, or none any more, lets these clients in, and has this policy.
    pub fn note(
        &mut self,
        slot: u32,
        group: Option<&Name>,
        ranges: Option<&SourceRanges>,
        on_removal: OnRemoval,
    ) {
        let before = self.listeners.remove(&slot);
        self.ending -= usize::from(before.as_ref().is_some_and(Known::ends));
        let before = before.as_ref();
        let same_group = before.filter(|before| before.group.as_ref() == group);
        let since_ms = same_group.map_or(self.clock.ms, |before| before.since_ms);
        let same_ranges = before.filter(|before| before.ranges.as_ref() == ranges);
        let ranges_since_ms = same_ranges.map_or(self.clock.ms, |before| before.ranges_since_ms);
        let (group, ranges) = (group.cloned(), ranges.cloned());
        let known = Known { group, since_ms, ranges, ranges_since_ms, on_removal };
        if known.ends() {
            self.ending += 1;
            self.ending_since_ms.get_or_insert(self.clock.ms);
        }
        self.removals.set_listener(ListenerSlot(slot), self.removal(&known));
        self.listeners.insert(slot, known);
    }

    /// No flow names a listener any more, and it is not served.
    pub fn forget(&mut self, slot: u32) {
        let before = self.listeners.remove(&slot);
        self.ending -= usize::from(before.as_ref().is_some_and(Known::ends));
        self.removals.set_listener(ListenerSlot(slot), None);
    }

    /// A backend is in no group any more, or in one, or no flow names it.
    pub fn note_backend(&mut self, id: u32, has_left: bool) {
        let left = has_left.then(|| *self.left.entry(id).or_insert(self.clock.ms));
        if left.is_none() {
            self.left.remove(&id);
        }
        self.removals.set_left(BackendId(id), left.map(|left_ms| self.clock.at(left_ms)));
    }

    /// What workers are to do from snapshot `version` on.
    pub fn removals(&mut self, version: u32) -> Option<Removals> {
        if self.ending == 0 {
            self.ending_since_ms = None;
        }
        self.removals.from_version(version)
    }

    fn removal(&self, known: &Known) -> Option<Removal> {
        let grace_ms = match known.on_removal {
            OnRemoval::Keep => return None,
            OnRemoval::Reset => 0,
            OnRemoval::Expire { grace_ms } => grace_ms,
        };
        let first_ms = self.ending_since_ms.unwrap_or(0);
        let [since, ranges_since] = [known.since_ms, known.ranges_since_ms]
            .map(|since_ms| self.clock.at(since_ms.max(first_ms)));
        Some(Removal { since, ranges_since, grace_ms })
    }

    fn write_anew(&mut self) {
        for (slot, known) in &self.listeners {
            let removal = self.removal(known);
            self.removals.set_listener(ListenerSlot(*slot), removal);
        }
        for (id, left_ms) in &self.left {
            self.removals.set_left(BackendId(*id), Some(self.clock.at(*left_ms)));
        }
    }
}

impl Known {
    fn ends(&self) -> bool {
        self.on_removal != OnRemoval::Keep
    }
}

impl Clock {
    /// A moment, or the longest grace ago if it was before that.
    fn at(&self, moment_ms: u64) -> Tick {
        let age_ms = (self.ms - moment_ms).min(OnRemoval::MOST_GRACE_MS.into());
        Tick(self.tick.0.wrapping_sub(age_ms as u32))
    }
}

#[cfg(test)]
mod tests {
    use penstock_feed::Prefix;

    use super::*;

    const EXPIRE: OnRemoval = OnRemoval::Expire { grace_ms: 500 };

    /// Listeners by slot, since when they have their group and their ranges, and grace.
    fn removals(
        version: u32,
        listeners: &[(u32, [u32; 2], u32)],
        left: &[(u32, u32)],
    ) -> Option<Removals> {
        let listener = |(slot, since, grace_ms): &(u32, [u32; 2], u32)| {
            let [since, ranges_since] = since.map(Tick);
            (ListenerSlot(*slot), Removal { since, ranges_since, grace_ms: *grace_ms })
        };
        let left = left.iter().map(|(id, since)| (BackendId(*id), Tick(*since)));
        Removals::new(version, listeners.iter().map(listener), left)
    }

    /// A story, a change a row: listeners by slot, group, length of their one source range and policy; backends that are gone; what workers are told.
    #[test]
    fn moments_stay_until_what_they_are_about_changes() {
        type Listeners = &'static [(u32, &'static str, u8, OnRemoval)];
        type Told = Option<(&'static [(u32, [u32; 2], u32)], &'static [(u32, u32)])>;
        type Row = (&'static str, u32, Listeners, &'static [u32], Told);
        let rows: [Row; 11] = [
            ("nothing to tell", 10, &[(0, "g", 0, OnRemoval::Keep)], &[7], None),
            (
                "a policy",
                20,
                &[(0, "g", 0, EXPIRE)],
                &[7],
                Some((&[(0, [20, 20], 500)], &[(7, 10)])),
            ),
            (
                "the same again",
                30,
                &[(0, "g", 0, EXPIRE)],
                &[7],
                Some((&[(0, [20, 20], 500)], &[(7, 10)])),
            ),
            (
                "another left",
                40,
                &[(0, "g", 0, EXPIRE)],
                &[7, 8],
                Some((&[(0, [20, 20], 500)], &[(7, 10), (8, 40)])),
            ),
            (
                "one is back",
                50,
                &[(0, "g", 0, EXPIRE)],
                &[8],
                Some((&[(0, [20, 20], 500)], &[(8, 40)])),
            ),
            (
                "and leaves again",
                60,
                &[(0, "g", 0, EXPIRE)],
                &[7, 8],
                Some((&[(0, [20, 20], 500)], &[(7, 60), (8, 40)])),
            ),
            (
                "other ranges",
                65,
                &[(0, "g", 8, EXPIRE)],
                &[7, 8],
                Some((&[(0, [20, 65], 500)], &[(7, 60), (8, 40)])),
            ),
            (
                "another group, beside one that keeps",
                70,
                &[(0, "h", 8, EXPIRE), (1, "g", 0, OnRemoval::Keep)],
                &[],
                Some((&[(0, [70, 65], 500)], &[])),
            ),
            (
                "it is removed",
                80,
                &[(0, "", 8, OnRemoval::Reset)],
                &[],
                Some((&[(0, [80, 65], 0)], &[])),
            ),
            (
                "and stays so",
                90,
                &[(0, "", 8, OnRemoval::Reset)],
                &[],
                Some((&[(0, [80, 65], 0)], &[])),
            ),
            ("it is no more", 99, &[], &[], None),
        ];
        let mut orphans = Orphans::default();
        for (version, (promise, now, listeners, gone, told)) in (1..).zip(rows) {
            orphans.turn(Tick(now));
            for slot in (0..2).filter(|slot| listeners.iter().all(|(known, ..)| known != slot)) {
                orphans.forget(slot);
            }
            for (slot, group, length, on_removal) in listeners {
                let range = Prefix::new([10, 0, 0, 0].into(), *length).filter(|_| *length > 0);
                let ranges = range.map(|range| SourceRanges::new([range]).unwrap());
                let group = Name::new(group).ok();
                orphans.note(*slot, group.as_ref(), ranges.as_ref(), *on_removal);
            }
            (7..9).for_each(|id| orphans.note_backend(id, gone.contains(&id)));
            let expected = told.and_then(|(listeners, left)| removals(version, listeners, left));
            assert_eq!(orphans.removals(version), expected, "{promise}");
        }
    }

    /// Ticks wrap after 49 days, and half of that is all that can be told apart.
    #[test]
    fn what_is_long_ago_stays_long_ago() {
        let mut orphans = Orphans::default();
        let mut now = Tick(0);
        orphans.note(0, Some(&Name::new("g").unwrap()), None, EXPIRE);
        orphans.note_backend(7, true);
        for days in 0..100 {
            orphans.turn(now);
            let age = days.min(7) * 24 * 3600 * 1000;
            let since = now.0.wrapping_sub(age);
            assert_eq!(
                orphans.removals(1),
                removals(1, &[(0, [since, since], 500)], &[(7, since)]),
                "{days} days"
            );
            now = now.plus_ms(24 * 3600 * 1000);
        }
    }
}
