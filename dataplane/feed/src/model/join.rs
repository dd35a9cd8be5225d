//! Two ordered maps walked side by side.

use std::cmp::Ordering;

/// Every key of the one map or of the other, in order, with its value in each. Both iterators must be
/// in the order of their keys. Costs a comparison a key.
pub fn join<'m, K: Ord + 'm, V: 'm>(
    one: impl IntoIterator<Item = (&'m K, &'m V)>,
    other: impl IntoIterator<Item = (&'m K, &'m V)>,
) -> impl Iterator<Item = (&'m K, Option<&'m V>, Option<&'m V>)> {
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    std::iter::from_fn(move || {
        let order = match (one.peek(), other.peek()) {
            (Some((key, _)), Some((other, _))) => key.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let taken = one.next_if(|_| order.is_le());
        let (key, value) = other.next_if(|_| order.is_ge()).unzip();
        let (one_key, one_value) = taken.unzip();
        Some((one_key.or(key)?, one_value, value))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_key_is_met_once_with_its_values() {
        let map = |text: &'static str| -> BTreeMap<char, usize> {
            text.chars().enumerate().map(|(at, key)| (key, at)).collect()
        };
        for (one, other, expected) in [
            ("", "", ""),
            ("ab", "", "a0- b1-"),
            ("", "ab", "a-0 b-1"),
            ("ace", "bcd", "a0- b-0 c11 d-2 e2-"),
            ("ab", "ab", "a00 b11"),
        ] {
            let (one_map, other_map) = (map(one), map(other));
            let shown = |value: Option<&usize>| value.map_or("-".into(), ToString::to_string);
            let joined = join(&one_map, &other_map)
                .map(|(key, one, other)| format!("{key}{}{}", shown(one), shown(other)));
            assert_eq!(joined.collect::<Vec<_>>().join(" "), expected, "{one} and {other}");
        }
    }
}
