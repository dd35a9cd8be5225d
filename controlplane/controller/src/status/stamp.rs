//! Verdicts to conditions: generation, and the time of the last transition.

use penstock_gateway_types::backend_tls_policy::PolicyAncestorStatus;
use penstock_gateway_types::{Condition, GatewayStatus, ListenerSetStatus, RouteStatus, Time};

use penstock_gateway_types::k8s_openapi::api::core::v1::ServiceStatus;

use super::{Statuses, says_the_same};
use crate::object::{Object, ObjectKey};
use crate::translate::Verdict;

/// The time, and the statuses that were written before.
pub struct Stamp<'a> {
    /// The time of what changes now.
    pub now: &'a Time,
    /// What was written before: a condition whose status stays keeps its time.
    pub previous: &'a Statuses,
}

impl Stamp<'_> {
    pub(super) fn conditions(
        &self,
        verdicts: &[Verdict],
        generation: Option<i64>,
        before: &[Condition],
    ) -> Vec<Condition> {
        let stamp = |verdict: &Verdict| {
            let same = before.iter().find(|before| says_the_same(verdict, before));
            Condition {
                last_transition_time: same
                    .map_or(self.now, |same| &same.last_transition_time)
                    .clone(),
                message: verdict.message.clone(),
                observed_generation: generation,
                reason: verdict.reason.to_owned(),
                status: verdict.status.as_str().to_owned(),
                type_: verdict.type_.to_owned(),
            }
        };
        verdicts.iter().map(stamp).collect()
    }

    pub(super) fn of_class(&self, key: &ObjectKey) -> &[Condition] {
        match self.previous.get(key) {
            Some(Object::GatewayClass(class)) => {
                class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
            }
            _ => &[],
        }
    }

    pub(super) fn of_box(&self, key: &ObjectKey) -> &[Condition] {
        match self.previous.get(key) {
            Some(Object::Box(object)) => object
                .status
                .as_ref()
                .map(|status| status.conditions.as_slice())
                .unwrap_or_default(),
            _ => &[],
        }
    }

    pub(super) fn of_backend(&self, key: &ObjectKey) -> &[Condition] {
        match self.previous.get(key) {
            Some(Object::Backend(it)) => {
                it.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
            }
            _ => &[],
        }
    }

    pub(super) fn of_gateway(&self, key: &ObjectKey) -> Option<&GatewayStatus> {
        match self.previous.get(key) {
            Some(Object::Gateway(gateway)) => gateway.status.as_ref(),
            _ => None,
        }
    }

    pub(super) fn of_listener_set(&self, key: &ObjectKey) -> Option<&ListenerSetStatus> {
        match self.previous.get(key) {
            Some(Object::ListenerSet(set)) => set.status.as_ref(),
            _ => None,
        }
    }

    pub(super) fn of_service(&self, key: &ObjectKey) -> Option<&ServiceStatus> {
        match self.previous.get(key) {
            Some(Object::Service(service)) => service.status.as_ref(),
            _ => None,
        }
    }

    pub(super) fn of_policy(&self, key: &ObjectKey) -> &[PolicyAncestorStatus] {
        let ancestors = match self.previous.get(key) {
            Some(Object::BackendTlsPolicy(it)) => it.status.as_ref().map(|it| &it.ancestors),
            Some(Object::L4Policy(it)) => it.status.as_ref().map(|it| &it.ancestors),
            _ => None,
        };
        ancestors.map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn of_route(&self, key: &ObjectKey) -> Option<&RouteStatus> {
        match self.previous.get(key) {
            Some(Object::TcpRoute(route)) => route.status.as_ref(),
            Some(Object::UdpRoute(route)) => route.status.as_ref(),
            Some(Object::TlsRoute(route)) => route.status.as_ref(),
            Some(Object::HttpRoute(route)) => route.status.as_ref(),
            Some(Object::GrpcRoute(route)) => route.status.as_ref(),
            _ => None,
        }
    }
}
