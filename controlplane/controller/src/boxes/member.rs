//! One Box, as the controller that leads knows it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use penstock_feed::model::{ObjectError, ObjectId, ObjectKind};
use penstock_gateway_types::Time;
use tokio::sync::watch;
use tokio::time::Instant;

use super::build::{Listeners, Meaning, Selection};
use super::server::LinkId;
use crate::link::message::{Consumer, Fault, Report};
use crate::link::{Bundle, Digest, Release};
use crate::status::{Progress, RefusedState};

/// How long a box may be away before it is gone: longer than a restart takes.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(10);
/// So many bundles may yet be reported.
const MOST_MEANINGS: usize = 64;

/// The link of a box.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) wanted: watch::Sender<Option<Arc<Bundle>>>,
    /// Whether it has reported since it is there.
    pub(super) has_reported: bool,
}

/// A Box.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) incarnation: String,
    pub(super) revoked: bool,
    pub(super) selection: Selection,
    /// The listeners that it should serve by what is written.
    pub(super) written: Listeners,
    /// The listeners that it should serve now: others while an earlier version is pinned.
    pub(super) listeners: Listeners,
    /// The digest of what it should have.
    pub(super) wanted: Option<Digest>,
    pub(super) link: Option<Link>,
    pub(super) report: Report,
    pub(super) release: Option<Release>,
    pub(super) progress: Progress,
    /// Since when it is away.
    pub(super) away_since: Option<Instant>,
    pub(super) last_seen: Option<Time>,
    meanings: VecDeque<(Digest, Meaning)>,
}

impl Member {
    pub(super) fn new(incarnation: String) -> Self {
        Self {
            incarnation,
            revoked: false,
            selection: Selection::default(),
            written: Listeners::default(),
            listeners: Listeners::default(),
            wanted: None,
            link: None,
            report: Report::default(),
            release: None,
            progress: Progress::default(),
            away_since: Some(Instant::now()),
            last_seen: None,
            meanings: VecDeque::new(),
        }
    }

    /// Wants a bundle to be in force there, which means `means`.
    pub(super) fn want(&mut self, bundle: &Arc<Bundle>, means: &Meaning) {
        self.wanted = Some(bundle.digest);
        self.meanings.retain(|(digest, _)| *digest != bundle.digest);
        self.meanings.push_back((bundle.digest, means.clone()));
        let surplus = self.meanings.len().saturating_sub(MOST_MEANINGS);
        self.meanings.drain(..surplus);
        if let Some(link) = &self.link {
            // One that is closing has nobody who listens.
            let _ = link.wanted.send(Some(Arc::clone(bundle)));
        }
        self.judge(); // what it reported before may have been this
    }

    /// Takes in what the box says.
    pub(super) fn hear(&mut self, report: Report) {
        self.report = report;
        if let Some(link) = &mut self.link {
            link.has_reported = true;
        }
        self.judge();
    }

    /// What the last report means.
    fn judge(&mut self) {
        let Report { digest, dataplane, l7, .. } = &self.report;
        let known = self.meanings.iter().find(|(known, _)| Some(*known) == *digest);
        let means = known.map(|(_, means)| means);
        let progress = &mut self.progress;
        if let Some(means) = means.filter(|_| dataplane.acknowledged) {
            progress.acknowledged = Some(Arc::clone(&means.state));
        }
        if let Some(means) = means.filter(|_| l7.acknowledged) {
            progress.l7 = Some(Arc::clone(&means.l7));
        }
        progress.errors = errors(dataplane, ObjectKind::Listener);
        progress.l7_errors = errors(l7, ObjectKind::L7Listener);
        progress.refused = refused(&self.report, self.wanted);
        progress.lost = dataplane.lost;
        progress.l7_lost = l7.lost;
    }

    /// Whether it owes no word on what is wanted.
    pub(super) fn is_settled(&self) -> bool {
        let Some(link) = &self.link else { return self.is_lost() || self.revoked };
        let refused = self.report.refused.as_ref().map(|refused| refused.digest);
        let has = self.wanted.is_some() && self.report.digest == self.wanted;
        let consumer = |it: &Consumer| it.acknowledged || it.refused.is_some() || it.lost;
        link.has_reported
            && (refused.is_some() && refused == self.wanted
                || has && consumer(&self.report.dataplane) && consumer(&self.report.l7))
    }

    /// Whether what is wanted is in force there, by the word of every consumer.
    pub(super) fn is_in_sync(&self) -> bool {
        let said = self.report.dataplane.acknowledged && self.report.l7.acknowledged;
        self.wanted.is_some() && self.report.digest == self.wanted && said
    }

    pub(super) fn is_lost(&self) -> bool {
        self.away_since.is_some_and(|since| since.elapsed() >= LOST_AFTER)
    }
}

/// What a consumer does not serve, as the feed says it.
fn errors(consumer: &Consumer, listener: ObjectKind) -> Vec<ObjectError> {
    let kinds = [
        ObjectKind::Group,
        ObjectKind::SnatPool,
        ObjectKind::NextHop,
        ObjectKind::Vip,
        ObjectKind::L7Listener,
    ];
    let error = |fault: &Fault| {
        let kind = kinds.into_iter().find(|kind| kind.to_string() == fault.kind);
        let name = fault.name.as_str().try_into().ok()?;
        let object = ObjectId { kind: kind.unwrap_or(listener), name };
        Some(ObjectError { object, message: fault.message.clone() })
    };
    consumer.faults.iter().filter_map(error).collect()
}

/// Why what is wanted is not in force, if the box said so.
fn refused(report: &Report, wanted: Option<Digest>) -> Option<RefusedState> {
    let bundle = report.refused.as_ref().filter(|refused| Some(refused.digest) == wanted);
    let reason = bundle.map(|refused| &refused.message).or(report.dataplane.refused.as_ref())?;
    Some(RefusedState { reason: reason.clone(), errors: Vec::new() })
}
