//! What a Gateway says of what cannot be done as asked: annotations, until there is a kind of our own.

use std::collections::BTreeMap;

use penstock_feed::model::{Mode, MssClamp, OnExhaustion, OnRemoval, OnUnknown, Policies};
use penstock_gateway_types::Gateway;

use super::verdict::Refusal;

/// What becomes of the connections of a backend that leaves, or of a listener that is removed.
pub const ON_REMOVAL_ANNOTATION: &str = "penstock.dev/on-removal";
/// How a client is answered for whom no SNAT address or port is free.
pub const ON_EXHAUSTION_ANNOTATION: &str = "penstock.dev/on-exhaustion";
/// How a segment is answered of a connection that nobody knows.
pub const ON_UNKNOWN_ANNOTATION: &str = "penstock.dev/on-unknown";

/// How far the MSS option of SYNs is lowered.
pub const MSS_CLAMP_ANNOTATION: &str = "penstock.dev/mss-clamp";

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
        mss_clamp: read(annotations, MSS_CLAMP_ANNOTATION, mss_clamp, || {
            let (least, most) = (MssClamp::LEAST_BYTES, MssClamp::MOST_BYTES);
            format!("auto, off, or a number of bytes, {least} to {most}")
        })?,
    })
}

/// What the operator should know who wrote policies that do nothing in a mode.
pub(super) fn notes(policies: Policies, mode: Mode) -> impl Iterator<Item = String> {
    let rows = [
        (
            policies.on_unknown != OnUnknown::default(),
            ON_UNKNOWN_ANNOTATION,
            "segments of connections that nobody knows go to a backend, which answers; remove it",
        ),
        (
            policies.mss_clamp != MssClamp::default(),
            MSS_CLAMP_ANNOTATION,
            "what a client offers is about answers that go past us; give the backends' routes an MTU instead",
        ),
    ];
    let in_vain = rows.into_iter().filter(move |(written, ..)| *written && mode.is_dsr());
    in_vain.map(move |(_, annotation, why)| {
        format!("annotation {annotation} does nothing with mode {mode}: {why}")
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

fn mss_clamp(text: &str) -> Option<MssClamp> {
    match text {
        "auto" => Some(MssClamp::Auto),
        "off" => Some(MssClamp::Off),
        bytes => MssClamp::most(bytes.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mss_is_a_number_of_bytes_or_a_word() {
        for (text, expected) in [
            ("auto", Some(MssClamp::Auto)),
            ("off", Some(MssClamp::Off)),
            ("1400", Some(MssClamp::Most { bytes: 1400 })),
            ("536", Some(MssClamp::Most { bytes: 536 })),
            ("535", None),
            ("9561", None),
            ("65536", None),
            ("-1", None),
            ("1400 bytes", None),
            ("Auto", None),
            ("", None),
        ] {
            assert_eq!(mss_clamp(text), expected, "{text:?}");
        }
    }

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
