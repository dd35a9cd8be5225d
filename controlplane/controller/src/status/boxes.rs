//! Boxes elsewhere: how far each is with what it should have, and the statuses of their objects.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_gateway_types::{BoxStatus, Time};

use super::{Progress, Stamp};
use crate::object::ObjectKey;
use crate::translate::{Refusal, Truth, Verdict};

/// So many names are told, and the rest counted.
const MOST_NAMES: usize = 8;

/// One box.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxProgress {
    /// Its name.
    pub name: String,
    /// The listeners that it should serve, by their names in the feed.
    pub listeners: Arc<BTreeSet<String>>,
    /// What its consumers said last.
    pub progress: Progress,
    /// Whether it is let in no more.
    pub revoked: bool,
    /// Whether it has been away for longer than a restart takes.
    pub lost: bool,
    /// Whether it has a link.
    pub connected: bool,
    /// Whether it has what it should, by the word of every consumer.
    pub in_sync: bool,
    /// What runs there.
    pub release: Option<String>,
    /// The number of what is in force there.
    pub version: u64,
    /// The digest of that.
    pub digest: Option<String>,
    /// The highest epoch that it knows.
    pub epoch: u64,
    /// When it connected, or was heard last before it was lost.
    pub last_seen: Option<Time>,
    /// How many Gateways it carries.
    pub gateways: usize,
    /// The version that is pinned.
    pub pinned: Option<String>,
}

/// Some names, as people read them.
pub(super) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The status of a Box object.
pub(super) fn status(
    it: &BoxProgress,
    generation: Option<i64>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> BoxStatus {
    let conditions = stamp.conditions(&verdicts(it), generation, stamp.of_box(key));
    let number = |value: u64| i64::try_from(value).ok().filter(|value| *value > 0);
    BoxStatus {
        conditions,
        connected: it.connected,
        release: it.release.clone(),
        version: number(it.version),
        digest: it.digest.clone(),
        epoch: number(it.epoch),
        last_seen: it.last_seen.clone(),
        gateways: i32::try_from(it.gateways).unwrap_or(i32::MAX),
    }
}

fn verdicts(it: &BoxProgress) -> Vec<Verdict> {
    let fails = |type_, reason, message: &str| {
        Verdict::fails(type_, Refusal::new(reason, message.to_owned()))
    };
    let connected = match (it.connected, it.revoked) {
        (_, true) => fails("Connected", "Revoked", "spec.revoked is true: it is not let in"),
        (true, _) => Verdict::holds("Connected", "Connected", "it has a link to this controller"),
        (false, _) if it.digest.is_none() && it.last_seen.is_none() => fails(
            "Connected",
            "NeverSeen",
            "no link yet: let it join (penstock token, penstock join), and start its agent",
        ),
        (false, _) => fails(
            "Connected",
            "Away",
            "no link: it goes on with what it has, and its log says why it does not come",
        ),
    };
    let in_sync = in_sync(it);
    let pinned = it.pinned.as_ref().map(|version| Verdict {
        status: Truth::True,
        ..Verdict::holds(
            "Pinned",
            "RolledBack",
            format!("version {version} is in force until `penstock rollback --release`"),
        )
    });
    [connected, in_sync].into_iter().chain(pinned).collect()
}

fn in_sync(it: &BoxProgress) -> Verdict {
    let fails = |reason, message: String| Verdict::fails("InSync", Refusal::new(reason, message));
    let errors = it.progress.errors.len() + it.progress.l7_errors.len();
    match &it.progress.refused {
        Some(refused) => fails("Refused", refused.reason.clone()),
        None if !it.connected => {
            Verdict { status: Truth::Unknown, ..Verdict::holds("InSync", "Away", "it is away") }
        }
        None if it.in_sync && errors > 0 => {
            let first = it.progress.errors.iter().chain(&it.progress.l7_errors).next();
            let first = first.map(ToString::to_string).unwrap_or_default();
            fails("NotServed", format!("{errors} objects are not served there: {first}"))
        }
        None if it.in_sync => {
            Verdict::holds("InSync", "InSync", "every consumer has acknowledged what is wanted")
        }
        None if it.progress.lost => {
            fails("DataPlaneAway", "its data plane is out of reach of its agent".into())
        }
        None => fails("Pending", "it has not acknowledged what is wanted yet".into()),
    }
}
