//! A round whose consumers are boxes elsewhere, and one on a box that somebody else tells what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use penstock_feed::ObjectError;
use penstock_feed::model::Name;

use super::super::Consumers;
use super::{Fleet, FleetEvent, Round, now};
use crate::link::message::{Consumer, Fault, MOST_FAULTS};
use crate::report::{Agent, Boxes};
use crate::translate::Translation;

impl Round {
    /// Takes in what happened to boxes.
    pub(in super::super) fn hear_boxes(&mut self, event: FleetEvent) {
        let Consumers::Boxes(fleet) = &mut self.consumers else { return };
        match event {
            FleetEvent::Link(event) => fleet.hear(*event, now()),
            FleetEvent::Built(built) => fleet.built(*built),
            FleetEvent::Due => fleet.build(&self.in_force.objects, &self.translation, now()),
            FleetEvent::Ask(question) => fleet.answer(question),
        }
    }

    /// What boxes do, for statuses and the report.
    pub(super) fn look_at_boxes(&mut self) {
        let Consumers::Boxes(fleet) = &mut self.consumers else { return };
        fleet.look_who_leads();
        let boxes = fleet.progress();
        if self.progress.boxes.as_deref() != Some(&boxes) {
            self.progress.boxes = Some(Arc::new(boxes));
        }
        self.report.boxes = Some(told(fleet));
    }

    /// What is told of the controller of this box.
    pub(in super::super) fn report_agent(&mut self, agent: Agent) {
        self.report.agent = Some(agent);
        self.report.config_dir = std::path::PathBuf::new(); // it is not read
    }

    /// What the data plane and the L7 tier here say of what is wanted.
    pub(in super::super) fn consumers(&self) -> (Consumer, Consumer) {
        let acknowledged = self.translated && self.is_forwarded();
        let refused = self.progress.refused.as_ref();
        let mut faults = faults(refused.map(|it| &it.errors).unwrap_or(&self.progress.errors));
        faults.extend(self.not_served());
        faults.truncate(MOST_FAULTS);
        let dataplane = Consumer {
            connected: self.report.connected,
            lost: self.progress.lost,
            acknowledged,
            state: if acknowledged { self.report.digest.clone() } else { String::new() },
            refused: refused.map(|refused| refused.reason.clone()),
            faults,
        };
        let l7 = Consumer {
            connected: self.report.l7.connected,
            lost: self.progress.l7_lost,
            acknowledged: self.translated && self.is_read(),
            state: String::new(),
            refused: None,
            faults: self::faults(&self.progress.l7_errors),
        };
        (dataplane, l7)
    }

    /// The listeners that we are to serve, and that come to nothing here.
    fn not_served(&self) -> impl Iterator<Item = Fault> {
        let (state, l7) = (&self.translation.state, &self.translation.l7);
        let read: BTreeSet<&Name> = l7.places.values().flat_map(|it| it.keys()).collect();
        let is_missing = move |name: &&String| {
            let name = Name::try_from(name.as_str()).ok();
            !name.is_some_and(|name| state.listeners.contains_key(&name) || read.contains(&name))
        };
        let missing = self.only.iter().flat_map(|only| only.iter()).filter(is_missing);
        missing.take(MOST_FAULTS).map(|name| Fault {
            kind: "listener".to_owned(),
            name: name.clone(),
            message: format!(
                "Penstock {} on this box does not serve it: look at the box's `penstock status`",
                env!("CARGO_PKG_VERSION")
            ),
        })
    }
}

fn faults(errors: &[ObjectError]) -> Vec<Fault> {
    let fault = |error: &ObjectError| Fault {
        kind: error.object.kind.to_string(),
        name: error.object.name.as_str().to_owned(),
        message: error.message.clone(),
    };
    errors.iter().take(MOST_FAULTS).map(fault).collect()
}

/// What is told of boxes.
pub(super) fn told(fleet: &Fleet) -> Boxes {
    let (boxes, connected, in_sync) = fleet.census();
    Boxes {
        address: fleet.address().to_string(),
        boxes,
        connected,
        in_sync,
        pinned: fleet.pinned().map(str::to_owned),
        counted: fleet.counts().now(),
    }
}

/// Leaves out every listener that is not among `only`: whoever sees the whole decided who serves where only one can.
pub(super) fn restrict(translation: &mut Translation, only: &BTreeSet<String>) {
    let is_surplus = |name: &&Name| !only.contains(name.as_str());
    let surplus: Vec<Name> =
        translation.state.listeners.keys().filter(is_surplus).cloned().collect();
    let places = translation.l7.places.values();
    let has_surplus = places.flat_map(|listeners| listeners.keys()).any(|it| is_surplus(&it));
    if surplus.is_empty() && !has_surplus {
        return;
    }
    let state = Arc::make_mut(&mut translation.state);
    for name in &surplus {
        state.listeners.remove_mut(name);
    }
    if has_surplus {
        let l7 = Arc::make_mut(&mut translation.l7);
        let left = l7.places.iter().filter_map(|(place, listeners)| {
            let left = listeners.iter().filter(|(name, _)| only.contains(name.as_str()));
            let left: BTreeMap<_, _> = left.map(|(n, it)| (n.clone(), it.clone())).collect();
            (!left.is_empty()).then_some((*place, left))
        });
        l7.places = left.collect();
        state.vips = l7.places.keys().map(|place| (place.ip(), ())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use crate::translate::translate;

    #[test]
    fn only_what_was_decided_is_served() {
        let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: a}
spec:
  gatewayClassName: penstock
  addresses: [{value: 192.0.2.1}]
  listeners:
  - {name: tcp, protocol: TCP, port: 80}
  - {name: udp, protocol: UDP, port: 80}
  - {name: http, protocol: HTTP, port: 8080}
";
        let objects = manifest::read("t.yaml", text).manifests.into_iter().map(|m| m.object);
        let whole = translate(&objects.collect());
        for (promise, only, listeners, vips) in [
            ("all", &["default/a/tcp", "default/a/udp", "default/a/http"][..], 2, 1),
            ("one of the data plane", &["default/a/tcp"], 1, 0),
            ("one of the L7 tier", &["default/a/http"], 0, 1),
            ("none", &[], 0, 0),
        ] {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            let mut restricted = whole.clone();
            restrict(&mut restricted, &only);
            let state = &restricted.state;
            assert_eq!((state.listeners.size(), state.vips.size()), (listeners, vips), "{promise}");
            assert_eq!(state.check(), [], "{promise}");
        }
    }
}
