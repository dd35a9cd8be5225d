//! Durations as the Gateway API writes them (GEP-2257): `10s`, `1h30m`, `500ms`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration as Time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a duration looks like: up to four numbers, of up to five digits, each with its unit.
pub(crate) const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A duration as it was written: what is none decodes too, and is refused by whoever reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Duration(pub String);

impl Duration {
    /// How long it is, to the millisecond; `None` if it is no duration of GEP-2257.
    #[must_use]
    pub fn get(&self) -> Option<Time> {
        let (mut total_ms, mut rest, mut parts) = (0_u64, self.0.as_str(), 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let unit = after.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, after) = after.split_at(unit);
            let unit_ms = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1000,
                "ms" => 1,
                _ => return None,
            };
            parts += 1;
            if !(1..=5).contains(&digits) || parts > 4 {
                return None;
            }
            total_ms += number.parse::<u64>().ok()? * unit_ms;
            rest = after;
        }
        (parts > 0).then_some(Time::from_millis(total_ms))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_numbers_with_units() {
        for (text, expected_ms) in [
            ("10s", Some(10_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("0s", Some(0)),
            ("99999h", Some(359_996_400_000)),
            ("1h2m3s4ms5ms", None),
            ("123456s", None),
            ("10", None),
            ("s", None),
            ("1d", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("", None),
        ] {
            let found = Duration(text.to_owned()).get();
            assert_eq!(found, expected_ms.map(Time::from_millis), "{text:?}");
        }
    }
}
