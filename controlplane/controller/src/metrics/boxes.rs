//! What is counted of boxes elsewhere. Only a controller that serves boxes has these numbers.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::{Labels, count};
use crate::boxes::server::Counted;
use crate::report::Boxes;

/// The numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    boxes: Gauge,
    connected: Gauge,
    in_sync: Gauge,
    joined: Counter,
    renewed: Counter,
    bundles_built: Counter,
    bundles_sent: Counter,
    bundle_bytes_sent: Counter,
    refused: Family<Labels<1>, Counter>,
}

impl Numbers {
    /// Gives them their names.
    pub(super) fn name(&self, names: &mut Registry) {
        names.register("boxes", "Boxes that there are", self.boxes.clone());
        names.register("boxes_connected", "Boxes that have a link", self.connected.clone());
        names.register(
            "boxes_in_sync",
            "Boxes with a link whose every consumer has acknowledged what is wanted",
            self.in_sync.clone(),
        );
        names.register("boxes_joined", "First certificates of boxes", self.joined.clone());
        names.register(
            "box_certificates_renewed",
            "Certificates that boxes got over their links",
            self.renewed.clone(),
        );
        names.register(
            "box_bundles_built",
            "Bundles with another digest than the last",
            self.bundles_built.clone(),
        );
        names.register("box_bundles_sent", "Bundles sent to boxes", self.bundles_sent.clone());
        names.register_with_unit(
            "box_bundles_sent",
            "Their size, compressed",
            Unit::Bytes,
            self.bundle_bytes_sent.clone(),
        );
        names.register(
            "box_connections_refused",
            "Connections to the boxes' port that were turned away, and links that were cut",
            self.refused.clone(),
        );
    }

    /// Takes over what is told of boxes.
    pub(super) fn tell(&self, told: &Boxes) {
        self.boxes.set(count(told.boxes));
        self.connected.set(count(told.connected));
        self.in_sync.set(count(told.in_sync));
        let Counted { joined, renewed, bundles_built, bundles_sent, bundle_bytes_sent, .. } =
            told.counted;
        for (counter, value) in [
            (&self.joined, joined),
            (&self.renewed, renewed),
            (&self.bundles_built, bundles_built),
            (&self.bundles_sent, bundles_sent),
            (&self.bundle_bytes_sent, bundle_bytes_sent),
        ] {
            counter.inner().store(value, Ordering::Relaxed);
        }
        for (reason, number) in &told.counted.refused {
            let counter = self.refused.get_or_create(&[("reason", *reason)]);
            counter.inner().store(*number, Ordering::Relaxed);
        }
    }
}
