//! What must be written of an object's status, if anything: what we want against what the API server has. Pure.
//!
//! Two shapes of status:
//!
//! * One that is ours alone, of a Gateway for instance: applied by the server (its lists are keyed, so conditions of
//!   others stay), and written only if a field of ours differs, or if one that `managedFields` calls ours is not
//!   wanted any more.
//! * A list that controllers share, of a route for instance. Such a list is one value to the API server, so an
//!   apply would take the entries of others away: the list is written whole, under the resourceVersion at which
//!   its other entries were read.
//!
//! Times are the API server's where the status of a condition has not changed, whoever wrote it first.

use serde_json::{Map, Value, json};

use crate::object::{Kind, Object, ObjectKey};
use crate::source::cluster::raw::{Observed, identity};
use crate::translate::CONTROLLER_NAME;

/// Keeps a GatewayClass while Gateways use it.
pub(super) const CLASS_IN_USE: &str = "gateway-exists-finalizer.gateway.networking.k8s.io";

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    /// A server-side apply of the status.
    Apply(Value),
    /// A merge into the status, under a resourceVersion.
    Merge(Value),
    /// A merge into the object itself, under a resourceVersion: its finalizers.
    Finalizers(Value),
}

/// What is wanted of one object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The object with its status; `None` if it is none of ours.
    pub(super) object: Option<&'a Object>,
    /// Whether [`Self::object`] was concluded from what was observed: what is none of ours may else only not have
    /// been looked at.
    pub(super) is_judged: bool,
    /// Whether it is a class with Gateways.
    pub(super) is_in_use: bool,
}

/// How a kind keeps its status.
enum Shape {
    Own,
    Shared { list: &'static str, reference: &'static str },
}

fn shape(kind: Kind) -> Shape {
    match kind {
        Kind::GatewayClass
        | Kind::Gateway
        | Kind::ListenerSet
        | Kind::Service
        | Kind::L4Policy
        | Kind::Backend
        | Kind::Box => Shape::Own,
        Kind::BackendTlsPolicy => Shape::Shared { list: "ancestors", reference: "ancestorRef" },
        _ => Shape::Shared { list: "parents", reference: "parentRef" },
    }
}

/// The next write, if one is needed.
pub(super) fn next(key: &ObjectKey, wanted: Wanted<'_>, observed: &Observed) -> Option<Write> {
    let mut object = wanted.object.map(Object::to_json);
    if let Some(object) = &object
        && object.pointer("/metadata/uid").and_then(Value::as_str) != Some(&observed.uid)
    {
        return None; // another object of that name: it will be judged by itself
    }
    let generation = object.as_ref().map_or(0, generation);
    let status = object.as_mut().map(|object| object["status"].take());
    let write = match shape(key.kind) {
        // A Service counts no generations, so what is wanted of it may be about one that was.
        Shape::Own if key.kind == Kind::Service && !wanted.is_judged => None,
        Shape::Own => own(key, status, generation, observed),
        Shape::Shared { list, reference } => {
            let is_known = status.is_some() || wanted.is_judged;
            let wanted = status.map(|mut status| match status[list].take() {
                Value::Array(entries) => entries,
                _ => Vec::new(),
            });
            is_known.then(|| shared(list, reference, wanted, generation, observed)).flatten()
        }
    };
    write.or_else(|| finalizers(key, wanted, observed))
}

fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default()
}

fn own(
    key: &ObjectKey,
    status: Option<Value>,
    generation: i64,
    observed: &Observed,
) -> Option<Write> {
    // What we said of a Service goes when it is none of ours any more: nothing else of it does.
    let is_over = || key.kind == Kind::Service && !observed.ours.is_null();
    let mut status = status.or_else(|| is_over().then(|| json!({})))?;
    if newest(&observed.status) > generation {
        return None;
    }
    keep_times(&mut status, &observed.status);
    if is_covered("", &status, &observed.status, &observed.ours) {
        return None;
    }
    let mut metadata = identity(key);
    metadata.insert("uid", observed.uid.as_str().into());
    Some(Write::Apply(json!({
        "apiVersion": key.kind.api_version(),
        "kind": key.kind.as_str(),
        "metadata": metadata,
        "status": status,
    })))
}

/// The list with our entries in the place of those that we had, or behind all others.
fn shared(
    list: &str,
    reference: &str,
    wanted: Option<Vec<Value>>,
    generation: i64,
    observed: &Observed,
) -> Option<Write> {
    let has = observed.status.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_ours = |entry: &&Value| entry["controllerName"] == CONTROLLER_NAME;
    if wanted.is_some() && has.iter().filter(is_ours).map(newest).max() > Some(generation) {
        return None;
    }
    let mut wanted = wanted.unwrap_or_default();
    let mut merged = Vec::with_capacity(has.len().max(wanted.len()));
    for entry in &has {
        if !is_ours(&entry) {
            merged.push(entry.clone());
            continue;
        }
        if let Some(at) = wanted.iter().position(|ours| ours[reference] == entry[reference]) {
            let mut ours = wanted.remove(at);
            keep_times(&mut ours, entry);
            merged.push(ours);
        }
    }
    merged.extend(wanted);
    let version = &observed.resource_version;
    (merged != has).then(|| {
        let status = Map::from_iter([(list.to_owned(), Value::from(merged))]);
        Write::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}))
    })
}

fn finalizers(key: &ObjectKey, wanted: Wanted<'_>, observed: &Observed) -> Option<Write> {
    wanted.object.filter(|_| key.kind == Kind::GatewayClass)?;
    let has = observed.finalizers.iter().any(|finalizer| finalizer == CLASS_IN_USE);
    let adds = wanted.is_in_use && !has && !observed.deleting;
    let removes = !wanted.is_in_use && has;
    if !adds && !removes {
        return None;
    }
    let others = observed.finalizers.iter().filter(|finalizer| *finalizer != CLASS_IN_USE);
    let mut all: Vec<&str> = others.map(String::as_str).collect();
    all.extend(adds.then_some(CLASS_IN_USE));
    let version = &observed.resource_version;
    Some(Write::Finalizers(json!({"metadata": {"resourceVersion": version, "finalizers": all}})))
}

/// The highest `observedGeneration` in a status.
fn newest(status: &Value) -> i64 {
    match status {
        Value::Array(items) => items.iter().map(newest).max().unwrap_or_default(),
        Value::Object(fields) => {
            let own = fields.get("observedGeneration").and_then(Value::as_i64).unwrap_or_default();
            fields.values().map(newest).max().unwrap_or_default().max(own)
        }
        _ => 0,
    }
}

/// By which field the API tells the items of a list apart; `None` for a list that is one value.
fn item_key(list: &str) -> Option<&'static str> {
    match list {
        "conditions" => Some("type"),
        "listeners" | "supportedFeatures" => Some("name"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// Takes over the transition times of conditions whose status is what it was.
fn keep_times(wanted: &mut Value, observed: &Value) {
    let Value::Object(fields) = wanted else { return };
    for (name, value) in fields {
        let Some(before) = observed.get(name) else { continue };
        // What is one value to the API server has items that we tell apart all the same.
        let own_key = (name == "ancestors").then_some("ancestorRef");
        let Some(key) = item_key(name).or(own_key) else { continue };
        for item in value.as_array_mut().into_iter().flatten() {
            let same = before.as_array().into_iter().flatten().find(|b| b[key] == item[key]);
            let Some(same) = same else { continue };
            if same["status"] == item["status"] && !same["lastTransitionTime"].is_null() {
                item["lastTransitionTime"] = same["lastTransitionTime"].clone();
            }
            keep_times(item, same);
        }
    }
}

/// Whether `observed` holds all that is `wanted`, and nothing beside it that is `ours`.
pub(crate) fn is_covered(name: &str, wanted: &Value, observed: &Value, ours: &Value) -> bool {
    match (wanted, observed) {
        (Value::Object(wanted), Value::Object(observed)) => {
            wanted.iter().all(|(name, wanted)| {
                let (observed, ours) = (observed.get(name), ours.get(format!("f:{name}")));
                let observed = observed.unwrap_or(&Value::Null);
                is_covered(name, wanted, observed, ours.unwrap_or(&Value::Null))
            }) && observed
                .keys()
                .all(|name| wanted.contains_key(name) || ours.get(format!("f:{name}")).is_none())
        }
        (Value::Array(wanted), Value::Array(observed)) if item_key(name).is_some() => {
            let key = item_key(name).unwrap_or_default();
            let owned = |item: &Value| ours.get(format!("k:{}", json!({ key: item[key] })));
            let find = |items: &[Value], item: &Value| {
                items.iter().position(|other| other[key] == item[key])
            };
            wanted.iter().all(|wanted| {
                let ours = owned(wanted).unwrap_or(&Value::Null);
                find(observed, wanted).is_some_and(|at| is_covered("", wanted, &observed[at], ours))
            }) && observed
                .iter()
                .all(|observed| find(wanted, observed).is_some() || owned(observed).is_none())
        }
        _ => wanted == observed,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use penstock_gateway_types::{Gateway, GatewayClass, TCPRoute};

    use super::*;

    const OLD: &str = "2026-01-01T00:00:00Z";
    const NEW: &str = "2026-02-02T00:00:00Z";

    fn condition(type_: &str, status: &str, generation: i64, time: &str) -> Value {
        json!({"type": type_, "status": status, "reason": "R", "message": "m",
            "observedGeneration": generation, "lastTransitionTime": time})
    }

    fn observed(status: Value, ours: Value) -> Observed {
        Observed {
            uid: "u".into(),
            resource_version: "7".into(),
            status,
            ours,
            ..Observed::default()
        }
    }

    fn gateway(status: &Value) -> Object {
        let value = json!({"metadata": {"name": "g", "namespace": "n", "uid": "u", "generation": 2},
            "spec": {"gatewayClassName": "penstock", "listeners": []}, "status": status});
        Object::Gateway(Arc::new(serde_json::from_value::<Gateway>(value).unwrap()))
    }

    fn wanted(object: &Object) -> Wanted<'_> {
        Wanted { object: Some(object), is_judged: true, is_in_use: false }
    }

    fn key(kind: Kind) -> ObjectKey {
        ObjectKey { kind, namespace: "n".into(), name: "g".into() }
    }

    #[test]
    fn a_status_of_our_own_is_written_when_a_field_of_ours_differs() {
        let listener = |name: &str| {
            json!({"name": name, "supportedKinds": [], "attachedRoutes": 1,
                "conditions": [condition("Accepted", "True", 2, OLD)]})
        };
        let status = |time: &str| {
            json!({"addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
                "conditions": [condition("Accepted", "True", 2, time)],
                "listeners": [listener("a")]})
        };
        let with = |pointer: &str, value: Value| {
            let mut status = status(OLD);
            *status.pointer_mut(pointer).unwrap() = value;
            status
        };
        let foreign = condition("Foreign", "True", 1, OLD);
        let two = json!([condition("Accepted", "True", 2, OLD), foreign]);
        let ours = json!({"f:conditions": {"k:{\"type\":\"Accepted\"}": {}},
            "f:listeners": {"k:{\"name\":\"b\"}": {}}});
        let none = Value::Null;
        let want = gateway(&status(NEW));
        for (promise, has, ours, writes) in [
            ("what is there is not written", status(OLD), &none, false),
            ("nothing there", Value::Null, &none, true),
            (
                "a condition of someone else is not ours to remove",
                with("/conditions", two.clone()),
                &ours,
                false,
            ),
            (
                "a condition that we had is",
                with("/conditions", two),
                &json!({"f:conditions": {"k:{\"type\":\"Foreign\"}": {}}}),
                true,
            ),
            (
                "a listener that we had",
                with("/listeners", json!([listener("a"), listener("b")])),
                &ours,
                true,
            ),
            ("a listener that is not there", with("/listeners", json!([])), &ours, true),
            ("another count of routes", with("/listeners/0/attachedRoutes", json!(0)), &ours, true),
            ("another address", with("/addresses/0/value", json!("192.0.2.2")), &ours, true),
            ("another message", with("/conditions/0/message", json!("x")), &ours, true),
            (
                "an older generation",
                with("/conditions/0/observedGeneration", json!(1)),
                &ours,
                true,
            ),
            (
                "a newer generation is someone else's to judge",
                with("/conditions/0/observedGeneration", json!(3)),
                &ours,
                false,
            ),
        ] {
            let write = next(&key(Kind::Gateway), wanted(&want), &observed(has, ours.clone()));
            assert_eq!(write.is_some(), writes, "{promise}: {write:?}");
        }
        let another = Observed { uid: "v".into(), ..Observed::default() };
        assert_eq!(next(&key(Kind::Gateway), wanted(&want), &another), None, "made again");
    }

    #[test]
    fn an_apply_byte_for_byte() {
        let want = gateway(
            &json!({"conditions": [condition("Accepted", "True", 2, NEW), condition("Programmed", "True", 2, NEW)],
            "listeners": []}),
        );
        let has = json!({"conditions": [condition("Accepted", "True", 1, OLD), condition("Programmed", "False", 1, OLD)]});
        let Some(Write::Apply(body)) =
            next(&key(Kind::Gateway), wanted(&want), &observed(has, Value::Null))
        else {
            panic!()
        };
        let condition = |type_: &str, time: &str| {
            format!(
                "{{\"lastTransitionTime\":\"{time}\",\"message\":\"m\",\"observedGeneration\":2,\"reason\":\"R\",\"status\":\"True\",\"type\":\"{type_}\"}}"
            )
        };
        assert_eq!(
            body.to_string(),
            format!(
                "{{\"apiVersion\":\"gateway.networking.k8s.io/v1\",\"kind\":\"Gateway\",\
             \"metadata\":{{\"name\":\"g\",\"namespace\":\"n\",\"uid\":\"u\"}},\
             \"status\":{{\"conditions\":[{},{}],\"listeners\":[]}}}}",
                condition("Accepted", OLD),
                condition("Programmed", NEW)
            ),
            "the time changes with the status only"
        );
    }

    #[test]
    fn a_service_is_answered_as_it_is_and_not_any_more_when_it_is_not_ours() {
        let given = json!({"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]});
        let said = |given: &Value| json!({"loadBalancer": given, "conditions": [condition("penstock.dev/Accepted", "True", 0, OLD)]});
        let value = json!({"metadata": {"name": "g", "namespace": "n", "uid": "u"}, "status": said(&given)});
        let service = Object::Service(Arc::new(serde_json::from_value(value).unwrap()));
        let ours = json!({"f:loadBalancer": {"f:ingress": {}},
            "f:conditions": {"k:{\"type\":\"penstock.dev/Accepted\"}": {}}});
        let (none, not_judged) = (Value::Null, Wanted { is_judged: false, ..wanted(&service) });
        let nothing = Wanted { object: None, is_judged: true, is_in_use: false };
        for (promise, wanted, status, ours, writes) in [
            ("nothing there", wanted(&service), json!({"loadBalancer": {}}), &none, true),
            (
                "what may be about another spec",
                not_judged,
                json!({"loadBalancer": {}}),
                &none,
                false,
            ),
            ("another address", wanted(&service), said(&json!({})), &ours, true),
            ("not ours any more", nothing, said(&given), &ours, true),
            ("and never was", nothing, said(&given), &none, false),
        ] {
            let write = next(&key(Kind::Service), wanted, &observed(status, ours.clone()));
            assert_eq!(write.is_some(), writes, "{promise}: {write:?}");
            let Some(Write::Apply(body)) = write else { continue };
            let is_empty = body["status"] == json!({});
            assert_eq!(is_empty, promise == "not ours any more", "{promise}: {body}");
        }
    }

    fn entry(controller: &str, parent: &str, time: &str) -> Value {
        json!({"controllerName": controller, "conditions": [condition("Accepted", "True", 2, time)],
            "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent}})
    }

    #[test]
    fn of_a_shared_list_only_our_entries_change() {
        let ours = |parent: &str, time| entry(CONTROLLER_NAME, parent, time);
        let theirs = |name: &str| entry(name, "a", OLD);
        let route = |parents: &[Value]| {
            let value = json!({"metadata": {"name": "g", "namespace": "n", "uid": "u", "generation": 2},
                "spec": {"rules": []}, "status": {"parents": parents}});
            Object::TcpRoute(Arc::new(serde_json::from_value::<TCPRoute>(value).unwrap()))
        };
        let mut newer = ours("a", OLD);
        newer["conditions"][0]["observedGeneration"] = json!(3);
        for (promise, has, want, expected) in [
            (
                "what is there is not written",
                vec![theirs("x"), ours("a", OLD)],
                vec![ours("a", NEW)],
                None,
            ),
            (
                "ours follow those of others",
                vec![theirs("x"), theirs("y")],
                vec![ours("a", NEW)],
                Some(vec![theirs("x"), theirs("y"), ours("a", NEW)]),
            ),
            (
                "ours stay where they were, others in their order",
                vec![theirs("x"), ours("a", OLD), theirs("y")],
                vec![ours("b", NEW), ours("a", NEW)],
                Some(vec![theirs("x"), ours("a", OLD), theirs("y"), ours("b", NEW)]),
            ),
            (
                "a parent that went",
                vec![ours("b", OLD), theirs("x"), ours("a", OLD)],
                vec![ours("a", NEW)],
                Some(vec![theirs("x"), ours("a", OLD)]),
            ),
            (
                "a parent told twice",
                vec![ours("a", OLD), ours("a", OLD)],
                vec![ours("a", NEW)],
                Some(vec![ours("a", OLD)]),
            ),
            (
                "a newer generation is someone else's to judge",
                vec![newer],
                vec![ours("a", NEW)],
                None,
            ),
        ] {
            let want = route(&want);
            let write = next(
                &key(Kind::TcpRoute),
                wanted(&want),
                &observed(json!({"parents": has}), Value::Null),
            );
            let expected = expected.map(|parents| {
                Write::Merge(
                    json!({"metadata": {"resourceVersion": "7"}, "status": {"parents": parents}}),
                )
            });
            assert_eq!(write, expected, "{promise}");
        }
        let has = observed(json!({"parents": [theirs("x"), ours("a", OLD)]}), Value::Null);
        let none = |is_judged| Wanted { object: None, is_judged, is_in_use: false };
        let gone =
            json!({"metadata": {"resourceVersion": "7"}, "status": {"parents": [theirs("x")]}});
        assert_eq!(
            next(&key(Kind::TcpRoute), none(true), &has),
            Some(Write::Merge(gone)),
            "all our parents went"
        );
        assert_eq!(next(&key(Kind::TcpRoute), none(false), &has), None, "nobody looked at it yet");
        assert_eq!(
            next(&key(Kind::TcpRoute), none(true), &observed(Value::Null, Value::Null)),
            None,
            "never ours"
        );
    }

    #[test]
    fn a_class_is_kept_while_gateways_use_it() {
        let value = json!({"metadata": {"name": "g", "uid": "u"}, "spec": {"controllerName": CONTROLLER_NAME}, "status": {"conditions": []}});
        let class =
            Object::GatewayClass(Arc::new(serde_json::from_value::<GatewayClass>(value).unwrap()));
        for (promise, in_use, has, deleting, expected) in [
            ("it is put there", true, vec!["x"], false, Some(vec!["x", CLASS_IN_USE])),
            ("it stays", true, vec![CLASS_IN_USE], false, None),
            ("it goes", false, vec![CLASS_IN_USE, "x"], true, Some(vec!["x"])),
            ("it never was", false, vec![], false, None),
            ("the API takes no finalizer when an object goes", true, vec![], true, None),
        ] {
            let mut observed = observed(json!({"conditions": []}), Value::Null);
            observed.finalizers = has.into_iter().map(str::to_owned).collect();
            observed.deleting = deleting;
            let key = ObjectKey::cluster(Kind::GatewayClass, "g");
            let wanted = Wanted { object: Some(&class), is_judged: true, is_in_use: in_use };
            let expected = expected.map(|all| {
                Write::Finalizers(json!({"metadata": {"resourceVersion": "7", "finalizers": all}}))
            });
            assert_eq!(next(&key, wanted, &observed), expected, "{promise}");
        }
    }
}
