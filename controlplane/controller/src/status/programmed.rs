//! `Programmed`, of listeners and Gateways: what we want against what was acknowledged.

use std::collections::BTreeSet;
use std::net::IpAddr;

use penstock_feed::model::{Name, ObjectError, ObjectKind, State};

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
    Waits(Option<String>),
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
    pub(super) fn addresses(&self, gateway: &GatewayVerdict) -> Vec<IpAddr> {
        let places = gateway.listeners.iter().flat_map(|listener| &listener.serving.places);
        let bound = places.filter(|(_, name)| self.is_acknowledged(name));
        bound.map(|(address, _)| *address).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn step(&self, name: &Name) -> Step {
        let refused = self.progress.refused.as_ref();
        if let Some(error) = refused.and_then(|refused| self.concerning(name, &refused.errors)) {
            return Step::Fails(error.to_string());
        }
        if !self.is_acknowledged(name) {
            return Step::Waits(refused.map(|refused| refused.reason.clone()));
        }
        match self.concerning(name, &self.progress.errors) {
            Some(error) => Step::Fails(error.to_string()),
            None if self.progress.lost => Step::Unknown,
            None => Step::Flows,
        }
    }

    /// The first error that is about a listener, or about the group it sends to.
    fn concerning<'e>(&self, name: &Name, errors: &'e [ObjectError]) -> Option<&'e ObjectError> {
        let group = self.wanted.listeners.get(name).map(|listener| &listener.group);
        errors.iter().find(|error| match error.object.kind {
            ObjectKind::Listener => error.object.name == *name,
            ObjectKind::Group => Some(&error.object.name) == group,
            ObjectKind::SnatPool | ObjectKind::NextHop => false,
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
    let waits = steps.iter().find_map(|step| match step {
        Step::Waits(refusal) => Some(refusal),
        _ => None,
    });
    if let Some(refusal) = waits {
        let message = match refusal {
            Some(reason) => format!("the data plane did not take it: {reason}"),
            None => "the data plane has not acknowledged it yet".to_owned(),
        };
        return Verdict::fails(TYPE, Refusal::new("Pending", message));
    }
    if steps.iter().any(|step| matches!(step, Step::Unknown)) {
        let message = "the data plane is out of reach; it acknowledged this before";
        return Verdict { status: Truth::Unknown, ..Verdict::holds(TYPE, "Pending", message) };
    }
    Verdict::holds(TYPE, "Programmed", holds)
}
