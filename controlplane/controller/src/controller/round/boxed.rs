//! A round whose consumers are boxes elsewhere, and one on a box that somebody else tells what to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_feed::ObjectError;
use penstock_feed::model::Name;

use super::super::Consumers;
use super::{Fleet, FleetEvent, Round, now};
use crate::link::message::{Consumer, Fault, MOST_FAULTS};
use crate::report::{Agent, Boxes};

impl Round {
    /// Takes in what happened to boxes.
    pub(in super::super) fn hear_boxes(&mut self, event: FleetEvent) {
        let Consumers::Boxes(fleet) = &mut self.consumers else { return };
        match event {
            FleetEvent::Link(event) => fleet.hear(*event, now()),
            FleetEvent::Built(built) => fleet.built(*built),
            FleetEvent::Due => {
                fleet.build(&self.in_force.objects, self.translator.translation(), now());
            }
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
            self.ledger.note_all(true);
        }
        self.tell_of_boxes();
    }

    /// How many boxes there are and what was counted, for the report and the metrics.
    pub(super) fn tell_of_boxes(&mut self) {
        let Consumers::Boxes(fleet) = &self.consumers else { return };
        let told = told(fleet);
        self.metrics.boxes(&told);
        self.telling.report.boxes = Some(told);
    }

    /// What is told of the controller of this box.
    pub(in super::super) fn report_agent(&mut self, agent: Agent) {
        self.telling.report.agent = Some(agent);
        self.telling.report.config_dir = std::path::PathBuf::new(); // it is not read
    }

    /// What the data plane and the L7 tier here say of what is wanted, and [`Self::not_served`].
    pub(in super::super) fn consumers(&self, not_served: &[Fault]) -> (Consumer, Consumer) {
        let acknowledged = self.translated && self.is_forwarded();
        let refused = self.progress.refused.as_ref();
        let mut faults = faults(refused.map(|it| &it.errors).unwrap_or(&self.progress.errors));
        faults.extend_from_slice(not_served);
        faults.truncate(MOST_FAULTS);
        let dataplane = Consumer {
            connected: self.telling.report.connected,
            lost: self.progress.lost,
            acknowledged,
            state: if acknowledged { self.telling.report.digest.clone() } else { String::new() },
            refused: refused.map(|refused| refused.reason.clone()),
            faults,
        };
        let l7 = Consumer {
            connected: self.telling.report.l7.connected,
            lost: self.progress.l7_lost,
            acknowledged: self.translated && self.is_read(),
            state: String::new(),
            refused: None,
            faults: self::faults(&self.progress.l7_errors),
        };
        (dataplane, l7)
    }

    /// The listeners that we are to serve, and that come to nothing here. O(listeners): asked for once a translation.
    pub(in super::super) fn not_served(&self) -> Vec<Fault> {
        let (state, l7) = (&self.translation().state, &self.translation().l7);
        let read: BTreeSet<&Name> = l7.places.values().flat_map(|it| it.keys()).collect();
        let is_missing = move |name: &&String| {
            let name = Name::try_from(name.as_str()).ok();
            !name.is_some_and(|name| state.listeners.contains_key(&name) || read.contains(&name))
        };
        let missing = self.only.iter().flat_map(|only| only.iter()).filter(is_missing);
        let fault = |name: &String| Fault {
            kind: "listener".to_owned(),
            name: name.clone(),
            message: format!(
                "Penstock {} on this box does not serve it: look at the box's `penstock status`",
                env!("CARGO_PKG_VERSION")
            ),
        };
        missing.take(MOST_FAULTS).map(fault).collect()
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
fn told(fleet: &Fleet) -> Boxes {
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
