//! Durations as a person compares them.

use std::time::Duration;

use serde_json::{Value, json};

/// Median, 99th percentile and the longest, in milliseconds; nothing of none.
pub(crate) fn spread(mut all: Vec<Duration>) -> Value {
    all.sort_unstable();
    let at = |percent: usize| {
        let position = (all.len() * percent).div_ceil(100).saturating_sub(1);
        all.get(position).map(|one| milliseconds(*one))
    };
    json!({"count": all.len(), "median": at(50), "p99": at(99), "max": at(100)})
}

/// With three decimals.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_values_themselves() {
        for (promise, count, expected) in [
            ("none", 0, json!({"count": 0, "median": null, "p99": null, "max": null})),
            ("one is all", 1, json!({"count": 1, "median": 1.0, "p99": 1.0, "max": 1.0})),
            (
                "nearest rank",
                200,
                json!({"count": 200, "median": 100.0, "p99": 198.0, "max": 200.0}),
            ),
        ] {
            let all = (1..=count).rev().map(Duration::from_millis).collect();
            assert_eq!(spread(all), expected, "{promise}");
        }
    }
}
