//! What a Gateway says of what cannot be done as asked: annotations, until there is a kind of our own.

use std::collections::BTreeMap;

use penstock_feed::model::{Mode, OnExhaustion, OnRemoval, OnUnknown, Policies};
use penstock_gateway_types::Gateway;

use super::verdict::Refusal;

/// What becomes of the connections of a backend that leaves, or of a listener that is removed.
pub const ON_REMOVAL_ANNOTATION: &str = "penstock.dev/on-removal";
/// How a client is answered for whom no SNAT address or port is free.
pub const ON_EXHAUSTION_ANNOTATION: &str = "penstock.dev/on-exhaustion";
/// How a segment is answered of a connection that nobody knows.
pub const ON_UNKNOWN_ANNOTATION: &str = "penstock.dev/on-unknown";

/// The grace of `expire` where none is given.
const GRACE_MS: u32 = 30_000;

/// The policies of a Gateway's listeners.
///
/// # Errors
/// A refusal for its `Accepted`, of the first annotation that says nothing known.
pub(super) fn policies(gateway: &Gateway) -> Result<Policies, Refusal> {
    let annotations = gateway.metadata.annotations.as_ref();
    Ok(Policies {
        on_removal: read(annotations, ON_REMOVAL_ANNOTATION, on_removal, || {
            "keep, reset, expire, or expire/30s with a time of up to a week".to_owned()
        })?,
        on_exhaustion: read(annotations, ON_EXHAUSTION_ANNOTATION, on_exhaustion, || {
            OnExhaustion::ALL.map(OnExhaustion::name).join(", ")
        })?,
        on_unknown: read(annotations, ON_UNKNOWN_ANNOTATION, on_unknown, || {
            OnUnknown::ALL.map(OnUnknown::name).join(", ")
        })?,
    })
}

/// What the operator should know who wrote a policy that does nothing in a mode.
pub(super) fn note(policies: Policies, mode: Mode) -> Option<String> {
    let in_vain = mode.is_dsr() && policies.on_unknown != OnUnknown::default();
    in_vain.then(|| {
        format!(
            "annotation {ON_UNKNOWN_ANNOTATION} does nothing with mode {mode}: segments of connections that nobody \
             knows go to a backend, which answers; remove it"
        )
    })
}

fn read<T: Default>(
    annotations: Option<&BTreeMap<String, String>>,
    key: &str,
    known: fn(&str) -> Option<T>,
    offered: impl FnOnce() -> String,
) -> Result<T, Refusal> {
    let Some(wanted) = annotations.and_then(|annotations| annotations.get(key)) else {
        return Ok(T::default());
    };
    known(wanted).ok_or_else(|| {
        let message =
            format!("annotation {key}: {wanted:?} is no policy: write one of {}", offered());
        Refusal::new("Invalid", message)
    })
}

fn on_removal(text: &str) -> Option<OnRemoval> {
    match text {
        "keep" => Some(OnRemoval::Keep),
        "reset" => Some(OnRemoval::Reset),
        "expire" => OnRemoval::expire(GRACE_MS),
        _ => {
            let grace = humantime::parse_duration(text.strip_prefix("expire/")?).ok()?;
            OnRemoval::expire(u32::try_from(grace.as_millis()).ok()?)
        }
    }
}

fn on_exhaustion(text: &str) -> Option<OnExhaustion> {
    OnExhaustion::ALL.into_iter().find(|policy| policy.name() == text)
}

fn on_unknown(text: &str) -> Option<OnUnknown> {
    OnUnknown::ALL.into_iter().find(|policy| policy.name() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_written_as_people_write_durations() {
        let expire = |grace_ms| Some(OnRemoval::Expire { grace_ms });
        for (text, expected) in [
            ("keep", Some(OnRemoval::Keep)),
            ("reset", Some(OnRemoval::Reset)),
            ("expire", expire(30_000)),
            ("expire/30s", expire(30_000)),
            ("expire/1h30m", expire(5_400_000)),
            ("expire/1500ms", expire(1500)),
            ("expire/7d", expire(604_800_000)),
            ("expire/8d", None),
            ("expire/0s", None),
            ("expire/1us", None),
            ("expire/30", None),
            ("expire/", None),
            ("expire/-1s", None),
            ("expire/99999999999999999999s", None),
            ("reset/30s", None),
            ("Reset", None),
            ("", None),
        ] {
            assert_eq!(on_removal(text), expected, "{text:?}");
        }
    }
}
