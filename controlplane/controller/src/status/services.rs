//! The status of a Service of our class: its addresses, and two conditions.
//!
//! `status.loadBalancer.ingress` names an address once a listener of the Service is in force on it, and is what others
//! publish and connect to; so while nothing is known of the data plane, as after a restart, what it named stays, as far as
//! the Service still has it. Its conditions bear our domain, since a Service's own have no such types.

use std::net::IpAddr;
use std::sync::Arc;

use penstock_feed::model::Mode;
use penstock_gateway_types::Service;
use penstock_gateway_types::k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, ServiceStatus,
};

use super::programmed::Programmed;
use super::stamp::Stamp;
use crate::object::{Object, ObjectKey};
use crate::translate::{GatewayVerdict, Refusal, Truth, Verdict, service};

const ACCEPTED: &str = "penstock.dev/Accepted";
const PROGRAMMED: &str = "penstock.dev/Programmed";

/// The Service with its status. `given`: the addresses that it has.
pub(super) fn answer(
    service: &Arc<Service>,
    verdict: &GatewayVerdict,
    given: &[IpAddr],
    programmed: &Programmed<'_>,
    stamp: &Stamp<'_>,
    key: &ObjectKey,
) -> Object {
    let mut service = (**service).clone();
    let refused = service::accept(&service).err();
    let addresses = match &refused {
        Some(_) => Vec::new(),
        None if programmed.is_known() => programmed.addresses(verdict),
        None => {
            let said = service.status.as_ref().or(stamp.of_service(key)).into_iter();
            said.flat_map(service::addresses).filter(|address| given.contains(address)).collect()
        }
    };
    let places = verdict.listeners.iter().flat_map(|listener| &listener.serving.places);
    let is_full_nat = places
        .filter_map(|(_, name)| programmed.wanted.listeners.get(name))
        .any(|it| it.mode == Mode::FullNat);
    let accepted = accepted(&service, verdict, refused, is_full_nat);
    let programmed = match accepted.status {
        Truth::True => of_ports(verdict, programmed),
        _ => accepted.clone(),
    };
    let verdicts = [accepted, Verdict { type_: PROGRAMMED, ..programmed }];
    let before = stamp.of_service(key).and_then(|status| status.conditions.as_deref());
    let generation = service.metadata.generation;
    let conditions = stamp.conditions(&verdicts, generation, before.unwrap_or_default());
    let load_balancer = (!addresses.is_empty()).then(|| LoadBalancerStatus {
        ingress: Some(addresses.into_iter().map(ingress).collect()),
    });
    service.status = Some(ServiceStatus { conditions: Some(conditions), load_balancer });
    Object::Service(Arc::new(service))
}

fn ingress(address: IpAddr) -> LoadBalancerIngress {
    // VIP: packets are delivered with this destination, so kube-proxy may take those of the cluster itself to the pods.
    let ip_mode = Some("VIP".to_owned());
    LoadBalancerIngress { ip: Some(address.to_string()), ip_mode, ..Default::default() }
}

/// Whether all its ports are taken in.
fn accepted(
    service: &Service,
    verdict: &GatewayVerdict,
    refused: Option<Refusal>,
    is_full_nat: bool,
) -> Verdict {
    if let Some(refusal) = refused {
        return Verdict::fails(ACCEPTED, refusal);
    }
    if verdict.accepted.status != Truth::True {
        return Verdict { type_: ACCEPTED, ..verdict.accepted.clone() };
    }
    let of_port = verdict.listeners.iter().find_map(|listener| {
        let bad = |verdict: &&Verdict| {
            matches!((verdict.type_, verdict.status), ("Accepted", Truth::False))
        };
        let bad = listener.conditions.iter().find(bad)?;
        let message = match bad.reason {
            "UnsupportedProtocol" => "only TCP and UDP are forwarded".to_owned(),
            _ => bad.message.clone(),
        };
        let message = format!("port {}: {message}", listener.name);
        Some(Verdict { type_: ACCEPTED, message, ..bad.clone() })
    });
    of_port.unwrap_or_else(|| {
        let message = service::caveat(service, is_full_nat).unwrap_or("its ports can be served");
        Verdict::holds(ACCEPTED, "Accepted", message)
    })
}

/// Whether packets of all its ports are forwarded.
fn of_ports(verdict: &GatewayVerdict, programmed: &Programmed<'_>) -> Verdict {
    let whole = programmed.gateway(verdict);
    if verdict.obstacle.is_some() {
        return whole;
    }
    let one =
        verdict.listeners.iter().map(|listener| (listener, programmed.listener(&listener.serving)));
    let bad = one.into_iter().find(|(_, verdict)| verdict.status != Truth::True);
    match bad {
        Some((listener, bad)) => {
            let message = format!("port {}: {}", listener.name, bad.message);
            Verdict { message, ..bad }
        }
        None => Verdict { message: "packets of its ports are forwarded".to_owned(), ..whole },
    }
}
