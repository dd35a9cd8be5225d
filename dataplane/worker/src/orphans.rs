//! When flows lost those who served them: since when a backend is in no group, and a listener has its group or none.
//!
//! Noted only while some listener, served or departed, does not keep such flows, and from then on: what happened before
//! counts from there. The flows themselves are the workers' to find.

use std::collections::HashMap;

use penstock_feed::{Name, OnRemoval};
use penstock_forward::{BackendId, ListenerSlot, Removal, Removals, Tick};

/// A listener that workers may have flows of.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// Its number.
    pub slot: u32,
    /// Its group; none if it has gone.
    pub group: Option<&'k Name>,
    /// What becomes of its flows, by its last configuration.
    pub on_removal: OnRemoval,
}

/// What is known of listeners and backends that may have such flows.
#[derive(Debug, Default)]
pub struct Orphans {
    /// By listener: its group, and since when.
    groups: HashMap<u32, (Option<Name>, Tick)>,
    /// By backend.
    left: HashMap<u32, Tick>,
}

impl Orphans {
    /// Takes note of a configuration: the listeners, and the backends that are in no group. What workers are to do by
    /// it, from snapshot `version` on.
    pub fn follow<'k>(
        &mut self,
        listeners: impl Iterator<Item = Known<'k>> + Clone,
        gone: impl Iterator<Item = u32>,
        version: u32,
        now: Tick,
    ) -> Option<Removals> {
        if listeners.clone().all(|listener| listener.on_removal == OnRemoval::Keep) {
            *self = Self::default();
            return None;
        }
        self.groups = listeners
            .clone()
            .map(|listener| {
                let before = self.groups.get(&listener.slot);
                let same = before.filter(|(group, _)| group.as_ref() == listener.group);
                let since = same.map_or(now, |(_, since)| in_reach(*since, now));
                (listener.slot, (listener.group.cloned(), since))
            })
            .collect();
        self.left = gone
            .map(|id| (id, self.left.get(&id).map_or(now, |since| in_reach(*since, now))))
            .collect();
        let removals = listeners.filter_map(|listener| {
            let grace_ms = match listener.on_removal {
                OnRemoval::Keep => return None,
                OnRemoval::Reset => 0,
                OnRemoval::Expire { grace_ms } => grace_ms,
            };
            let since = self.groups.get(&listener.slot).map_or(now, |(_, since)| *since);
            Some((ListenerSlot(listener.slot), Removal { since, grace_ms }))
        });
        let left = self.left.iter().map(|(id, since)| (BackendId(*id), *since));
        Removals::new(version, removals, left)
    }
}

/// A moment, or the longest grace ago if it was before that: ticks wrap.
fn in_reach(moment: Tick, now: Tick) -> Tick {
    let most = OnRemoval::MOST_GRACE_MS;
    if now.since(moment) > most { Tick(now.0.wrapping_sub(most)) } else { moment }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRE: OnRemoval = OnRemoval::Expire { grace_ms: 500 };

    fn removals(
        version: u32,
        listeners: &[(u32, u32, u32)],
        left: &[(u32, u32)],
    ) -> Option<Removals> {
        let listener = |(slot, since, grace_ms): &(u32, u32, u32)| {
            (ListenerSlot(*slot), Removal { since: Tick(*since), grace_ms: *grace_ms })
        };
        let left = left.iter().map(|(id, since)| (BackendId(*id), Tick(*since)));
        Removals::new(version, listeners.iter().map(listener), left)
    }

    /// A story, a change a row: listeners by slot, group and policy; backends that are gone; what workers are told.
    #[test]
    fn moments_stay_until_what_they_are_about_changes() {
        type Listeners = &'static [(u32, &'static str, OnRemoval)];
        type Told = Option<(&'static [(u32, u32, u32)], &'static [(u32, u32)])>;
        type Row = (&'static str, u32, Listeners, &'static [u32], Told);
        let rows: [Row; 10] = [
            ("nothing to tell", 10, &[(0, "g", OnRemoval::Keep)], &[7], None),
            ("a policy", 20, &[(0, "g", EXPIRE)], &[7], Some((&[(0, 20, 500)], &[(7, 20)]))),
            ("the same again", 30, &[(0, "g", EXPIRE)], &[7], Some((&[(0, 20, 500)], &[(7, 20)]))),
            (
                "another left",
                40,
                &[(0, "g", EXPIRE)],
                &[7, 8],
                Some((&[(0, 20, 500)], &[(7, 20), (8, 40)])),
            ),
            ("one is back", 50, &[(0, "g", EXPIRE)], &[8], Some((&[(0, 20, 500)], &[(8, 40)]))),
            (
                "and leaves again",
                60,
                &[(0, "g", EXPIRE)],
                &[7, 8],
                Some((&[(0, 20, 500)], &[(7, 60), (8, 40)])),
            ),
            (
                "another group, beside one that keeps",
                70,
                &[(0, "h", EXPIRE), (1, "g", OnRemoval::Keep)],
                &[],
                Some((&[(0, 70, 500)], &[])),
            ),
            ("it is removed", 80, &[(0, "", OnRemoval::Reset)], &[], Some((&[(0, 80, 0)], &[]))),
            ("and stays so", 90, &[(0, "", OnRemoval::Reset)], &[], Some((&[(0, 80, 0)], &[]))),
            ("it is no more", 99, &[], &[], None),
        ];
        let mut orphans = Orphans::default();
        for (version, (promise, now, listeners, gone, told)) in (1..).zip(rows) {
            let names: Vec<_> =
                listeners.iter().map(|(_, group, _)| Name::new(group).ok()).collect();
            let known = listeners.iter().zip(&names).map(|((slot, _, on_removal), group)| Known {
                slot: *slot,
                group: group.as_ref(),
                on_removal: *on_removal,
            });
            let found = orphans.follow(known, gone.iter().copied(), version, Tick(now));
            let expected = told.and_then(|(listeners, left)| removals(version, listeners, left));
            assert_eq!(found, expected, "{promise}");
        }
    }

    /// Ticks wrap after 49 days, and half of that is all that can be told apart.
    #[test]
    fn what_is_long_ago_stays_long_ago() {
        let mut orphans = Orphans::default();
        let group = Name::new("g").unwrap();
        let known = || [Known { slot: 0, group: Some(&group), on_removal: EXPIRE }].into_iter();
        let mut now = Tick(0);
        for days in 0..100 {
            let found = orphans.follow(known(), [7].into_iter(), 1, now);
            let age = days.min(7) * 24 * 3600 * 1000;
            let since = now.0.wrapping_sub(age);
            assert_eq!(found, removals(1, &[(0, since, 500)], &[(7, since)]), "{days} days");
            now = now.plus_ms(24 * 3600 * 1000);
        }
    }
}
