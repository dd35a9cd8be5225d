//! `Programmed`, of listeners and Gateways: what we want against what was acknowledged.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use penstock_feed::model::{Name, ObjectKind, State};

use super::Progress;
use crate::translate::{GatewayVerdict, Refusal, Serving, Truth, Verdict};

const TYPE: &str = "Programmed";

/// What we want, and how far the data plane is.
pub(super) struct Programmed<'a> {
    pub(super) wanted: &'a State,
    pub(super) progress: &'a Progress,
}

/// How far one listener of the feed is.
enum Step {
    Flows,
    Waits,
    Unknown,
    Fails(String),
}

impl Programmed<'_> {
    /// `Programmed` of a listener.
    pub(super) fn listener(&self, serving: &Serving) -> Verdict {
        if !serving.obstacles.is_empty() {
            return invalid(&serving.obstacles);
        }
        let steps: Vec<_> = serving.places.iter().map(|(_, name)| self.step(name)).collect();
        verdict(&steps, "packets of this listener are forwarded")
    }

    /// `Programmed` of a Gateway: of all its listeners that have a place.
    pub(super) fn gateway(&self, gateway: &GatewayVerdict) -> Verdict {
        if let Some(obstacle) = &gateway.obstacle {
            return Verdict::fails(TYPE, obstacle.clone());
        }
        let places = gateway.listeners.iter().flat_map(|listener| &listener.serving.places);
        let steps: Vec<_> = places.map(|(_, name)| self.step(name)).collect();
        verdict(&steps, "the listeners are programmed")
    }

    /// The addresses on which at least one listener is programmed.
    pub(super) fn addresses(&self, gateway: &GatewayVerdict) -> Vec<Ipv4Addr> {
        let places = gateway.listeners.iter().flat_map(|listener| &listener.serving.places);
        let bound = places.filter(|(_, name)| self.is_acknowledged(name));
        bound.map(|(address, _)| *address).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn step(&self, name: &Name) -> Step {
        if !self.is_acknowledged(name) {
            return Step::Waits;
        }
        let group = self.wanted.listeners.get(name).map(|listener| &listener.group);
        let concerns = |kind, object: &Name| match kind {
            ObjectKind::Listener => object == name,
            ObjectKind::Group => Some(object) == group,
            ObjectKind::SnatPool | ObjectKind::NextHop => false,
        };
        let mut errors = self.progress.errors.iter();
        match errors.find(|error| concerns(error.object.kind, &error.object.name)) {
            Some(error) => Step::Fails(error.to_string()),
            None if self.progress.lost => Step::Unknown,
            None => Step::Flows,
        }
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

fn verdict(steps: &[Step], holds: &str) -> Verdict {
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
    if steps.iter().any(|step| matches!(step, Step::Waits)) {
        let message = "the data plane has not acknowledged it yet";
        return Verdict::fails(TYPE, Refusal::new("Pending", message));
    }
    if steps.iter().any(|step| matches!(step, Step::Unknown)) {
        let message = "the data plane is out of reach; it acknowledged this before";
        return Verdict { status: Truth::Unknown, ..Verdict::holds(TYPE, "Pending", message) };
    }
    Verdict::holds(TYPE, "Programmed", holds)
}
