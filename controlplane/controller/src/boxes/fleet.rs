//! All boxes: what each is to have, what each has, and what that means for statuses.
//!
//! ```text
//!  objects, what they mean ─► want ─► build (beside the loop) ─► bundles, by selection ─► links
//!  links: who is there, what it reports ─► members ─► progress: `Programmed` over boxes; statuses of Boxes
//! ```
//!
//! Bundles are made at most as often as takes half of one core, and the newest is all that counts: a burst of changes
//! is a few bundles. One that has the digest of the last one is none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_gateway_types::Time;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::admission::{Admission, incarnation};
use super::build::{Built, Job, Listeners, Meaning, Part, Selection, build};
use super::desk::Desk;
use super::member::{LOST_AFTER, Link, Member};
use super::numbers::Numbers;
use super::server::{Counts, LinkEvent, Policy, ServeError, Server};
use super::versions::{Version, Versions};
use super::{carries, needs};
use crate::lease::Leads;
use crate::link::Bundle;
use crate::object::Objects;
use crate::pki::Authority;
use crate::pki::keeper::{Keeper, Record};
use crate::status::BoxProgress;
use crate::translate::Translation;

/// Two builds are at least this far apart.
const PAUSE: Duration = Duration::from_millis(20);
/// A version that was in force for so long is kept.
const KEEP_AFTER: Duration = Duration::from_secs(2);

/// Something that the fleet must hear.
#[derive(Debug)]
pub enum FleetEvent {
    /// Something happened on a link.
    Link(Box<LinkEvent>),
    /// Bundles were made.
    Built(Box<Built>),
    /// It is time to make some.
    Due,
    /// An operator wants something.
    Ask(super::desk::Question),
}

/// All boxes.
pub struct Fleet {
    server: Server,
    _desk: Desk,
    admission: watch::Sender<Admission>,
    leads: watch::Receiver<Leads>,
    events: mpsc::Sender<FleetEvent>,
    members: BTreeMap<String, Member>,
    /// The last bundle of each selection.
    bundles: BTreeMap<Selection, Arc<Bundle>>,
    means: Meaning,
    is_stale: bool,
    is_building: bool,
    not_before: Instant,
    numbers: Numbers,
    versions: Versions,
    /// What is in force, and since when; `None` once it is kept.
    fresh: Option<(Version, Instant)>,
    current: Option<String>,
    pinned: Option<Pinned>,
    /// Since when we lead: boxes get a moment to come.
    leading_since: Option<(u64, Instant)>,
}

/// A version that stays in force.
#[derive(Clone, Debug)]
pub(super) struct Pinned {
    pub(super) id: String,
    /// The version; `None` if it is not known here: then boxes keep what they have.
    pub(super) version: Option<Arc<Version>>,
}

impl Fleet {
    /// Listens for boxes. What they say comes by the receiver.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn start(
        policy: &Policy,
        keeper: Keeper,
        record: &Record,
        leads: watch::Receiver<Leads>,
        state_dir: &Path,
        run_dir: &Path,
    ) -> Result<(Self, mpsc::Receiver<FleetEvent>), ServeError> {
        let (events, inbox) = mpsc::channel(1024);
        let (admission, admitted) = watch::channel(Admission::default());
        let folder = state_dir.join("boxes");
        let versions = Versions::open(&folder.join("versions")).map_err(ServeError::State)?;
        let numbers = Numbers::open(folder.join("numbers"));
        let id = record.pinned.clone();
        let pinned = id.map(|id| Pinned { version: versions.find(&id).cloned(), id });
        let authority = Authority::open(&record.authority)?;
        let desk = Desk::open(run_dir, authority, keeper.clone(), events.clone());
        let desk = desk.map_err(ServeError::State)?;
        let server =
            Server::start(policy, keeper, record, leads.clone(), admitted, events.clone())?;
        let fleet = Self {
            server,
            _desk: desk,
            admission,
            leads,
            events,
            members: BTreeMap::new(),
            bundles: BTreeMap::new(),
            means: Meaning::default(),
            is_stale: false,
            is_building: false,
            not_before: Instant::now(),
            numbers,
            versions,
            fresh: None,
            current: None,
            pinned,
            leading_since: None,
        };
        Ok((fleet, inbox))
    }

    /// Where boxes are served.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.server.counts
    }

    /// Takes in what is in force now.
    pub fn want(&mut self, objects: &Objects, translation: &Translation) {
        self.members.retain(|name, member| {
            let object = objects.boxes.get(name);
            object.is_some_and(|object| incarnation(object) == member.incarnation)
        });
        let mut listeners: BTreeMap<Selection, Listeners> = BTreeMap::new();
        for (name, object) in &objects.boxes {
            let new = || Member::new(incarnation(object));
            let member = self.members.entry(name.clone()).or_insert_with(new);
            member.revoked = object.spec.revoked;
            let carried = carries::gateways(&object.spec, objects, translation);
            let known = listeners.keys().find(|known| ***known == carried).cloned();
            let selection = known.unwrap_or_else(|| Arc::new(carried));
            let of = listeners
                .entry(Arc::clone(&selection))
                .or_insert_with(|| Arc::new(needs::listeners(&selection, objects, translation)));
            (member.selection, member.written) = (selection, Arc::clone(of));
            if self.pinned.is_none() {
                member.listeners = Arc::clone(of);
            }
        }
        let admission = Admission::of(objects);
        self.admission.send_if_modified(|known| {
            let changed = *known != admission;
            *known = admission;
            changed
        });
        let (state, l7) = (Arc::clone(&translation.state), Arc::clone(&translation.l7));
        self.means = Meaning { state, l7 };
        self.is_stale = true;
        self.schedule();
    }

    /// Sees to it that what is stale is built, when it is time.
    fn schedule(&mut self) {
        if self.is_building || !self.is_stale {
            return;
        }
        let (events, at) = (self.events.clone(), self.not_before);
        self.is_building = true;
        tokio::spawn(async move {
            sleep_until(at).await;
            let _ = events.send(FleetEvent::Due).await; // nobody listens: we end
        });
    }

    /// Makes bundles of what is in force, beside the loop.
    pub(crate) fn build(&mut self, objects: &Objects, translation: &Translation, now: Time) {
        self.is_stale = false;
        let mut parts: BTreeMap<Selection, Listeners> = BTreeMap::new();
        for member in self.members.values().filter(|member| !member.revoked) {
            parts.insert(Arc::clone(&member.selection), Arc::clone(&member.written));
        }
        self.bundles.retain(|selection, _| parts.contains_key(selection));
        let part = |(selection, listeners): (Selection, Listeners)| {
            let last = self.bundles.get(&selection).map(|bundle| bundle.digest);
            (selection, listeners, last)
        };
        let pinned = match &self.pinned {
            Some(Pinned { version: None, id }) => {
                warn!(
                    version = id,
                    "a version is pinned that is not known here: boxes keep what they have"
                );
                self.is_building = false;
                return;
            }
            Some(Pinned { version, .. }) => version.clone(),
            None => None,
        };
        let job = Job {
            objects: objects.clone(),
            addresses: translation.addresses.clone(),
            means: self.means.clone(),
            parts: parts.into_iter().map(part).collect(),
            pinned,
            since: now,
            known: self.current.clone(),
        };
        let (events, start) = (self.events.clone(), Instant::now());
        tokio::spawn(async move {
            let Ok(mut built) = tokio::task::spawn_blocking(move || build(job)).await else {
                return; // its panic has been printed
            };
            built.took = start.elapsed();
            let _ = events.send(FleetEvent::Built(Box::new(built))).await; // nobody listens: we end
        });
    }

    /// Takes in what was built.
    pub(crate) fn built(&mut self, built: Built) {
        self.is_building = false;
        self.not_before = Instant::now() + built.took.max(PAUSE);
        let Built { means, parts, version, .. } = built;
        for Part { selection, listeners, digest, bundle } in parts {
            match bundle {
                Some(Ok(mut bundle)) => {
                    bundle.version = self.numbers.of(digest);
                    self.server.counts.count(|counted| counted.bundles_built += 1);
                    self.bundles.insert(Arc::clone(&selection), Arc::new(bundle));
                }
                Some(Err(fault)) => {
                    error!(%fault, "no bundle can be made: boxes keep what they have");
                    continue;
                }
                None => {}
            }
            let Some(bundle) = self.bundles.get(&selection) else { continue };
            let carry = self.members.values_mut().filter(|member| member.selection == selection);
            for member in carry {
                member.listeners = Arc::clone(&listeners);
                member.want(bundle, &means);
            }
        }
        self.numbers.keep(self.bundles.values().map(|bundle| bundle.digest));
        if let Some(version) = version
            && self.current.as_ref() != Some(&version.id)
        {
            self.current = Some(version.id.clone());
            self.fresh = Some((version, Instant::now()));
        }
        self.schedule();
    }

    /// Takes in what happened on a link.
    pub(crate) fn hear(&mut self, event: LinkEvent, now: Time) {
        match event {
            LinkEvent::Connected { link, identity, hello, wanted } => {
                let Some(member) = self.members.get_mut(identity.name()) else { return };
                if member.incarnation != identity.incarnation() {
                    return; // dropping `wanted` ends the link
                }
                let (release, version) = (hello.release, hello.version);
                if let Some(bundle) = self.bundles.get(&member.selection) {
                    let _ = wanted.send(Some(Arc::clone(bundle)));
                }
                member.link = Some(Link { id: link, wanted, has_reported: false });
                (member.away_since, member.last_seen) = (None, Some(now));
                member.release = Some(release);
                self.numbers.meet(version);
            }
            LinkEvent::Reported { link, name, report } => {
                let member = self.members.get_mut(&name);
                let is_its =
                    |member: &&mut Member| member.link.as_ref().is_some_and(|it| it.id == link);
                let Some(member) = member.filter(is_its) else { return };
                let (digest, acknowledged) = (report.digest, report.dataplane.acknowledged);
                if let Some(refused) = &report.refused
                    && member.report.refused.as_ref() != Some(refused)
                {
                    error!(box_name = name, digest = ?refused.digest, reason = refused.message, "a box did not take its bundle");
                }
                if (member.report.digest, member.report.dataplane.acknowledged)
                    != (digest, acknowledged)
                {
                    info!(
                        box_name = name,
                        version = report.version,
                        ?digest,
                        acknowledged,
                        "box reports"
                    );
                }
                member.hear(report);
            }
            LinkEvent::Closed { link, name, silence, .. } => {
                let Some(member) = self.members.get_mut(&name) else { return };
                if member.link.as_ref().is_some_and(|it| it.id == link) {
                    member.link = None;
                    let gone = Instant::now();
                    member.away_since = Some(gone.checked_sub(silence).unwrap_or(gone));
                    member.last_seen = Some(now);
                }
            }
        }
    }

    /// How far boxes are, for `Programmed`.
    #[must_use]
    pub fn progress(&self) -> Vec<BoxProgress> {
        let progress = self.members.iter().map(|(name, member)| BoxProgress {
            name: name.clone(),
            listeners: Arc::clone(&member.listeners),
            progress: member.progress.clone(),
            revoked: member.revoked,
            lost: member.is_lost(),
            connected: member.link.is_some(),
            in_sync: member.is_in_sync(),
            release: member.release.map(|release| release.to_string()),
            version: member.report.version,
            digest: member.report.digest.map(|digest| digest.to_string()),
            epoch: member.report.epoch,
            last_seen: member.last_seen.clone(),
            gateways: member.selection.len(),
            pinned: self.pinned().map(str::to_owned),
        });
        progress.collect()
    }

    /// How many boxes there are, how many are connected, and how many of those have what they should.
    #[must_use]
    pub fn census(&self) -> (usize, usize, usize) {
        let connected = || self.members.values().filter(|member| member.link.is_some());
        let in_sync = connected().filter(|member| member.is_in_sync()).count();
        (self.members.len(), connected().count(), in_sync)
    }

    /// Whether no box owes its word on what is wanted. One that leads anew waits a moment for boxes to come: what an
    /// earlier leader wrote is probably still true.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let all = self.members.values().filter(|member| !member.revoked);
        !self.is_stale && !self.is_building && all.into_iter().all(Member::is_settled)
    }

    /// Whether boxes may yet come of which an earlier leader knew.
    #[must_use]
    pub fn is_gathering(&self) -> bool {
        let Some((_, since)) = self.leading_since else { return true };
        let waits = self.members.values().any(|member| !member.revoked && !member.is_settled());
        since.elapsed() < LOST_AFTER && (waits || self.is_stale || self.is_building)
    }

    /// Looks whether we lead: with a new leadership, every box has its moment to come.
    pub(crate) fn look_who_leads(&mut self) {
        let epoch = self.leads.borrow().epoch();
        if epoch == self.leading_since.map(|(epoch, _)| epoch) {
            return;
        }
        self.leading_since = epoch.map(|epoch| (epoch, Instant::now()));
        for member in self.members.values_mut().filter(|member| member.link.is_none()) {
            member.away_since = Some(Instant::now());
        }
    }

    /// When time itself changes something, if it does.
    #[must_use]
    pub fn overdue(&self) -> Option<Instant> {
        let away = self.members.values().filter_map(|member| member.away_since);
        let lost = away.map(|since| since + LOST_AFTER).filter(|at| *at > Instant::now());
        let gathered = self.leading_since.map(|(_, since)| since + LOST_AFTER);
        lost.chain(gathered.filter(|at| *at > Instant::now())).min()
    }

    /// Keeps a version that has been in force for a moment.
    pub(crate) fn beat(&mut self) {
        self.look_who_leads();
        if let Some((version, since)) = self.fresh.take() {
            if since.elapsed() < KEEP_AFTER {
                self.fresh = Some((version, since));
                return;
            }
            if let Err(error) = self.versions.note(version) {
                warn!(%error, "a version is not kept");
            }
        }
    }

    /// The versions that are kept, and the one that is written now.
    pub(super) fn versions(&self) -> (&Versions, Option<&str>) {
        (&self.versions, self.current.as_deref())
    }

    /// Puts a version in force, or what is written now.
    pub(super) fn pin(&mut self, version: Option<Arc<Version>>) {
        match &version {
            Some(version) => {
                warn!(version = version.id, "pinned on all boxes until it is released");
            }
            None => info!("released: boxes get what is written now"),
        }
        self.pinned = version.map(|it| Pinned { id: it.id.clone(), version: Some(it) });
        self.is_stale = true;
        self.schedule();
    }

    /// Which version is pinned.
    #[must_use]
    pub fn pinned(&self) -> Option<&str> {
        self.pinned.as_ref().map(|pinned| pinned.id.as_str())
    }

    /// Whether we lead now.
    pub(super) fn leads(&self) -> bool {
        self.leads.borrow().now()
    }
}
