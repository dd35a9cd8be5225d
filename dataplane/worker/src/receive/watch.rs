//! Whether a NIC does what it says of its RSS.
//!
//! A worker compares where a packet came with where it should have, whenever it computes that anyway: for packets
//! without a flow. An honest NIC has no exceptions among those that are counted, so a few suffice; but queues may
//! hold packets of before its table was set, and a table may change under way.

use super::{Manner, Reception};

/// So many mismatches within [`Watch::look`]'s period, and so large a part of what was compared, are no accident.
const MISMATCHES: u64 = 64;
const PART: u64 = 8;

/// One port's counts as they were when they were looked at last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    matched: u64,
    mismatched: u64,
}

impl Watch {
    /// Looks at the port's counts, a few times a second. Whether it is found out now: its reception trusts RSS no
    /// longer then, and never again.
    pub fn look(&mut self, reception: &Reception, matched: u64, mismatched: u64) -> bool {
        let lies = self.finds_lies(matched, mismatched) && reception.manner() == Manner::Rss;
        if lies {
            reception.disprove();
        }
        lies
    }

    fn finds_lies(&mut self, matched: u64, mismatched: u64) -> bool {
        let (right, wrong) =
            (matched.saturating_sub(self.matched), mismatched.saturating_sub(self.mismatched));
        *self = Self { matched, mismatched };
        wrong >= MISMATCHES && wrong * PART >= right + wrong
    }
}

#[cfg(test)]
mod tests {
    use penstock_forward::{CameBy, spread::Hashed};

    use super::*;

    #[test]
    fn a_nic_is_found_out_by_many_mismatches_at_once() {
        type Row = (&'static str, &'static [(u64, u64)], bool);
        let rows: [Row; 6] = [
            ("an honest one", &[(1000, 0), (100_000, 0)], false),
            ("a few packets of before", &[(100, 63), (200, 100)], false),
            ("half of four", &[(64, 64)], true),
            ("all of them", &[(0, 64)], true),
            ("one in eight", &[(70_000, 10_000)], true),
            ("a change of tables under way", &[(1_000_000, 64)], false),
        ];
        for (promise, looks, expected) in rows {
            let mut watch = Watch::default();
            let reception = Reception::by_rss(Hashed::ALL);
            let found = looks.iter().any(|(right, wrong)| watch.look(&reception, *right, *wrong));
            assert_eq!(found, expected, "{promise}");
            let came_by = if expected { CameBy::Unspread } else { CameBy::Rss(Hashed::ALL) };
            assert_eq!(reception.came_by(), came_by, "{promise}");
            let again = watch.look(&reception, 1 << 40, 1 << 40);
            assert_eq!(again, !expected, "{promise}: said once");
        }
    }

    #[test]
    fn a_port_that_was_not_trusted_is_not_found_out() {
        for manner in [Manner::Alone, Manner::Queues, Manner::Software] {
            let reception = Reception::new(manner);
            assert!(!Watch::default().look(&reception, 0, 1000));
            assert_eq!(reception.manner(), manner);
        }
    }
}
