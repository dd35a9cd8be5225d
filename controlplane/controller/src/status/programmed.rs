//! `Programmed`, of listeners, Gateways and ListenerSets: what we want against what was acknowledged, by the
//! data plane and by the L7 tier; or by those of every box that carries it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use penstock_feed::model::{Name, ObjectError, ObjectKind, State};

use super::boxes::names;
use super::{BoxProgress, Progress};
use crate::translate::{
    GatewayVerdict, L7, ListenerSetVerdict, ListenerVerdict, Refusal, Serving, Truth, Verdict,
};

const TYPE: &str = "Programmed";

/// What we want, and how far the data plane and the L7 tier are.
pub(super) struct Programmed<'a> {
    pub(super) wanted: &'a State,
    pub(super) l7: &'a L7,
    pub(super) progress: &'a Progress,
}

/// How far one listener of the feed is.
enum Step {
    Flows,
    Waits(String),
    /// Who acknowledged it is out of reach.
    Unknown(String),
    Fails(String),
}

/// How far something is, and on which boxes: none if it is here.
#[derive(Default)]
struct Steps {
    steps: Vec<Step>,
    /// Boxes that serve it.
    live: BTreeSet<String>,
    /// Boxes that carry it and are gone.
    gone: BTreeSet<String>,
}

impl Programmed<'_> {
    /// Whether anyone has acknowledged anything to this process.
    pub(super) fn is_known(&self) -> bool {
        match &self.progress.boxes {
            None => self.progress.acknowledged.is_some(),
            Some(boxes) => boxes.iter().any(|it| it.progress.acknowledged.is_some()),
        }
    }

    /// `Programmed` of a listener.
    pub(super) fn listener(&self, serving: &Serving) -> Verdict {
        if !serving.obstacles.is_empty() {
            let reason = serving.reason.unwrap_or("Invalid");
            return Verdict::fails(TYPE, Refusal::new(reason, serving.obstacles.join("; ")));
        }
        let holds = match serving.l7.is_empty() {
            true => "packets of this listener are forwarded",
            false => "the L7 tier serves this listener",
        };
        verdict(&self.steps([serving].into_iter()), holds)
    }

    /// `Programmed` of a Gateway: of all its listeners that have a place.
    pub(super) fn gateway(&self, gateway: &GatewayVerdict) -> Verdict {
        if let Some(obstacle) = &gateway.obstacle {
            return Verdict::fails(TYPE, obstacle.clone());
        }
        self.all(&gateway.listeners)
    }

    /// `Programmed` of a ListenerSet: of all its listeners that have a place.
    pub(super) fn listener_set(&self, set: &ListenerSetVerdict) -> Verdict {
        match &set.obstacle {
            Some(obstacle) => Verdict::fails(TYPE, obstacle.clone()),
            None => self.all(&set.listeners),
        }
    }

    fn all(&self, listeners: &[ListenerVerdict]) -> Verdict {
        let steps = self.steps(listeners.iter().map(|listener| &listener.serving));
        verdict(&steps, "the listeners are programmed")
    }

    /// How far listeners are, at each of their places.
    fn steps<'a>(&self, serving: impl Iterator<Item = &'a Serving> + Clone) -> Steps {
        let Some(boxes) = &self.progress.boxes else {
            let steps = serving.flat_map(|serving| self.steps_here(serving, &|_| true)).collect();
            return Steps { steps, ..Steps::default() };
        };
        let mut all = Steps::default();
        for it in boxes.iter().filter(|it| !it.revoked) {
            let carries = |name: &Name| it.listeners.contains(name.as_str());
            let on_it = self.on(it);
            let steps = serving.clone().flat_map(|serving| on_it.steps_here(serving, &carries));
            let steps: Vec<_> = steps.collect();
            if steps.is_empty() {
                continue;
            }
            if it.lost {
                all.gone.insert(it.name.clone());
                continue;
            }
            all.live.insert(it.name.clone());
            all.steps.extend(steps.into_iter().map(|step| step.on_box(&it.name)));
        }
        let is_anywhere = serving.clone().any(|serving| !serving.is_nowhere());
        if all.live.is_empty() && is_anywhere {
            all.steps.push(self.on_none(boxes, &all.gone, serving));
        }
        all
    }

    /// How far something is that no box serves now.
    fn on_none<'a>(
        &self,
        boxes: &[BoxProgress],
        gone: &BTreeSet<String>,
        mut serving: impl Iterator<Item = &'a Serving>,
    ) -> Step {
        if gone.is_empty() {
            let message = "no Box carries it: create one, or let one carry this Gateway";
            return Step::Waits(message.to_owned());
        }
        let who = format!("every box that carries it ({})", names(gone.iter().map(String::as_str)));
        let acknowledged = serving.all(|serving| {
            let mut places = serving.places.iter();
            let mut read = serving.l7.iter();
            places.all(|(_, name)| boxes.iter().any(|it| self.on(it).is_acknowledged(name)))
                && read.all(|(at, name)| boxes.iter().any(|it| self.on(it).is_read(at, name)))
        });
        match acknowledged {
            true => Step::Unknown(who),
            false => Step::Waits(format!("{who} is out of reach")),
        }
    }

    /// The same on one box.
    fn on<'b>(&'b self, it: &'b BoxProgress) -> Programmed<'b> {
        Programmed { wanted: self.wanted, l7: self.l7, progress: &it.progress }
    }

    /// How far a listener is, at each of its places that is carried here.
    fn steps_here(&self, serving: &Serving, carries: &dyn Fn(&Name) -> bool) -> Vec<Step> {
        let forwarded = serving.places.iter().filter(|(_, name)| carries(name));
        let forwarded = forwarded.map(|(_, name)| self.step(name));
        let read = serving.l7.iter().filter(|(_, name)| carries(name));
        forwarded.chain(read.map(|(place, name)| self.l7_step(place, name))).collect()
    }

    /// The addresses on which at least one listener is programmed.
    pub(super) fn addresses(&self, gateway: &GatewayVerdict) -> Vec<IpAddr> {
        let Some(boxes) = &self.progress.boxes else { return self.addresses_here(gateway) };
        let all = boxes.iter().filter(|it| !it.revoked);
        let all = all.flat_map(|it| self.on(it).addresses_here(gateway));
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn addresses_here(&self, gateway: &GatewayVerdict) -> Vec<IpAddr> {
        let serving = || gateway.listeners.iter().map(|listener| &listener.serving);
        let forwarded = serving().flat_map(|serving| &serving.places);
        let forwarded = forwarded.filter(|(_, name)| self.is_acknowledged(name));
        let read = serving().flat_map(|serving| &serving.l7);
        let read = read.filter(|(place, name)| self.is_read(place, name));
        let bound = forwarded.map(|(address, _)| *address);
        let bound = bound.chain(read.map(|(place, _)| place.ip()));
        bound.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn l7_step(&self, place: &SocketAddr, name: &Name) -> Step {
        let is_it = |error: &&ObjectError| {
            error.object.kind == ObjectKind::L7Listener && error.object.name == *name
        };
        match (&self.progress.l7, self.is_read(place, name)) {
            (_, true) => match self.progress.l7_errors.iter().find(is_it) {
                Some(error) => Step::Fails(error.to_string()),
                None if self.progress.l7_lost => Step::Unknown("the L7 tier".to_owned()),
                None => self.vip_step(place.ip()),
            },
            (Some(_), false) => Step::Waits("the L7 tier has not acknowledged it yet".to_owned()),
            (None, _) => Step::Waits(
                "no L7 tier has acknowledged anything yet: it is penstock-l7 that serves HTTP and TLS".to_owned(),
            ),
        }
    }

    /// Whether packets for a VIP of the L7 tier come to it: the data plane must keep the VIP.
    fn vip_step(&self, vip: IpAddr) -> Step {
        let refused = self.progress.refused.iter().flat_map(|refused| &refused.errors);
        let mut errors = refused.chain(&self.progress.errors);
        let is_it = |error: &&ObjectError| {
            error.object.kind == ObjectKind::Vip && error.object.name.as_str() == vip.to_string()
        };
        let held = self.progress.acknowledged.as_ref().is_some_and(|it| it.vips.contains_key(&vip));
        match (errors.find(is_it), held) {
            (Some(error), _) => Step::Fails(error.to_string()),
            (None, false) => Step::Waits(format!("the data plane has not acknowledged {vip} yet")),
            (None, true) if self.progress.lost => Step::Unknown("the data plane".to_owned()),
            (None, true) => Step::Flows,
        }
    }

    /// Whether the L7 tier has the very listener that we want.
    fn is_read(&self, place: &SocketAddr, name: &Name) -> bool {
        let acknowledged = self.progress.l7.as_ref().and_then(|l7| l7.get(place, name));
        acknowledged.is_some() && acknowledged == self.l7.get(place, name)
    }

    fn step(&self, name: &Name) -> Step {
        let refused = self.progress.refused.as_ref();
        if let Some(error) = refused.and_then(|refused| self.concerning(name, &refused.errors)) {
            return Step::Fails(error.to_string());
        }
        if !self.is_acknowledged(name) {
            return Step::Waits(match refused {
                Some(refused) => format!("the data plane did not take it: {}", refused.reason),
                None => "the data plane has not acknowledged it yet".to_owned(),
            });
        }
        match self.concerning(name, &self.progress.errors) {
            Some(error) => Step::Fails(error.to_string()),
            None if self.progress.lost => Step::Unknown("the data plane".to_owned()),
            None => Step::Flows,
        }
    }

    /// The first error that is about a listener, or about the group it sends to.
    fn concerning<'e>(&self, name: &Name, errors: &'e [ObjectError]) -> Option<&'e ObjectError> {
        let group = self.wanted.listeners.get(name).map(|listener| &listener.group);
        errors.iter().find(|error| match error.object.kind {
            ObjectKind::Listener => error.object.name == *name,
            ObjectKind::Group => Some(&error.object.name) == group,
            ObjectKind::SnatPool
            | ObjectKind::NextHop
            | ObjectKind::Vip
            | ObjectKind::L7Listener => false,
        })
    }

    /// Whether the data plane has the very listener that we want, and a group for it.
    fn is_acknowledged(&self, name: &Name) -> bool {
        let Some(acknowledged) = &self.progress.acknowledged else { return false };
        let wanted = self.wanted.listeners.get(name);
        wanted.is_some_and(|wanted| {
            acknowledged.listeners.get(name) == Some(wanted)
                && acknowledged.groups.contains_key(&wanted.group)
        })
    }
}

fn invalid(messages: &[String]) -> Verdict {
    Verdict::fails(TYPE, Refusal::new("Invalid", messages.join("; ")))
}

impl Step {
    /// The same, said of a box.
    fn on_box(self, name: &str) -> Self {
        match self {
            Self::Flows => Self::Flows,
            Self::Waits(message) => Self::Waits(format!("box {name}: {message}")),
            Self::Unknown(who) => Self::Unknown(format!("{who} of box {name}")),
            Self::Fails(message) => Self::Fails(format!("box {name}: {message}")),
        }
    }
}

fn verdict(all: &Steps, holds: &str) -> Verdict {
    let Steps { steps, live, gone } = all;
    let failed: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Fails(message) => Some(format!("the data plane cannot serve it: {message}")),
            _ => None,
        })
        .collect();
    if !failed.is_empty() {
        return invalid(&failed);
    }
    let waits = steps.iter().find_map(|step| match step {
        Step::Waits(message) => Some(message),
        _ => None,
    });
    if let Some(message) = waits {
        return Verdict::fails(TYPE, Refusal::new("Pending", message.clone()));
    }
    let lost = steps.iter().find_map(|step| match step {
        Step::Unknown(who) => Some(who),
        _ => None,
    });
    if let Some(who) = lost {
        let message = format!("{who} is out of reach; it acknowledged this before");
        return Verdict { status: Truth::Unknown, ..Verdict::holds(TYPE, "Pending", message) };
    }
    let mut message = holds.to_owned();
    if !live.is_empty() {
        message += &format!(" on {}", names(live.iter().map(String::as_str)));
    }
    if !gone.is_empty() {
        let who = names(gone.iter().map(String::as_str));
        message += &format!("; out of reach, and going on with what it had: {who}");
    }
    Verdict::holds(TYPE, "Programmed", message)
}
