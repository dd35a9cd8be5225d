//! Which bytes of a datagram have been seen.

/// Disjoint ranges of 8-byte units, in order. Those that touch become one, so that pieces which come in order
/// take one range, however many they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ranges {
    ranges: [(u16, u16); MOST],
    len: u8,
    /// Where the datagram ends, once its last piece has come; 0 before.
    end: u16,
}

/// Ranges of one datagram: as many gaps, less one, may be open at a time.
const MOST: usize = 8;

/// Why a piece is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All of it was seen before: a duplicate, or what would have been an overlap.
    Seen,
    /// Part of it was seen before, or it lies beyond the end.
    Contradicts,
    /// Too many gaps are open.
    Gaps,
}

impl Ranges {
    /// Adds the bytes of a piece.
    pub(super) fn add(&mut self, offset: usize, len: usize, more: bool) -> Result<(), Refused> {
        let units =
            |bytes: usize| u16::try_from(bytes.div_ceil(8)).map_err(|_| Refused::Contradicts);
        let (first, end) = (units(offset)?, units(offset + len)?);
        let held = &self.ranges[..usize::from(self.len)];
        let at = held.iter().take_while(|range| range.1 <= first).count();
        if let Some(next) = held.get(at).filter(|next| next.0 < end) {
            let inside = next.0 <= first && end <= next.1;
            return Err(if inside { Refused::Seen } else { Refused::Contradicts });
        }
        let is_beyond = self.end > 0 && end > self.end;
        let ends_before = !more && held.last().is_some_and(|last| last.1 > end);
        if is_beyond || ends_before || (!more && self.end > 0) {
            return Err(Refused::Contradicts);
        }
        self.insert(at, first, end)?;
        if !more {
            self.end = end;
        }
        Ok(())
    }

    /// A range that lies before the one at `at` and behind all earlier ones.
    fn insert(&mut self, at: usize, first: u16, end: u16) -> Result<(), Refused> {
        let len = usize::from(self.len);
        let after = at > 0 && self.ranges[at - 1].1 == first;
        let before = at < len && self.ranges[at].0 == end;
        match (after, before) {
            (true, true) => {
                self.ranges[at - 1].1 = self.ranges[at].1;
                self.ranges.copy_within(at + 1..len, at);
                self.len -= 1;
            }
            (true, false) => self.ranges[at - 1].1 = end,
            (false, true) => self.ranges[at].0 = first,
            (false, false) if len == MOST => return Err(Refused::Gaps),
            (false, false) => {
                self.ranges.copy_within(at..len, at + 1);
                self.ranges[at] = (first, end);
                self.len += 1;
            }
        }
        Ok(())
    }

    /// Whether every byte has been seen.
    pub(super) fn is_complete(&self) -> bool {
        self.end > 0 && self.len == 1 && self.ranges[0] == (0, self.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a bit for each unit of 8 bytes.
        #[test]
        fn ranges_say_what_a_bitmap_says(
            pieces in prop::collection::vec((0..40_usize, 1..8_usize, 0..12_u8), 1..60),
        ) {
            let (mut ranges, mut seen, mut total) = (Ranges::default(), [false; 64], 0);
            for (first, len, last) in pieces {
                let (end, more) = (first + len, last > 0);
                let here = seen[first..end].iter().filter(|seen| **seen).count();
                let beyond = total > 0 && end > total;
                let shorter = !more && (total > 0 || seen[end..].contains(&true));
                match ranges.add(first * 8, len * 8, more) {
                    Ok(()) => {
                        prop_assert!(here == 0 && !beyond && !shorter);
                        seen[first..end].fill(true);
                        total = if more { total } else { end };
                    }
                    Err(Refused::Seen) => prop_assert_eq!(here, len),
                    Err(Refused::Contradicts) => {
                        prop_assert!((1..len).contains(&here) || beyond || shorter);
                    }
                    Err(Refused::Gaps) => {
                        let starts = seen.windows(2).filter(|pair| !pair[0] && pair[1]).count();
                        prop_assert_eq!(starts + usize::from(seen[0]), MOST);
                    }
                }
                let all = total > 0 && seen[..total].iter().all(|seen| *seen);
                prop_assert_eq!(ranges.is_complete(), all);
            }
        }
    }
}
