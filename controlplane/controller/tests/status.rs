//! When a condition holds, since when, and where it is written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use penstock_controlplane::manifest;
use penstock_controlplane::object::{Kind, NamespacedName, ObjectKey, Objects};
use penstock_controlplane::status::files::{StatusFiles, Written};
use penstock_controlplane::status::{self, Progress, RefusedState, Stamp, Statuses};
use penstock_controlplane::translate::translate;
use penstock_feed::{ObjectError, ObjectId, ObjectKind};
use penstock_gateway_types::Time;
use penstock_gateway_types::k8s_openapi::jiff::Timestamp;

const WEB: &str = include_str!("../../../deploy/examples/web.yaml");

/// What keeps the client's address: the policy that `web.yaml` leaves to the reader.
const DNAT: &str = "---
apiVersion: penstock.dev/v1alpha1
kind: L4Policy
metadata: {name: web}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}]
  listener: {mode: dnat}
";

fn objects(text: &str) -> Objects {
    manifest::read("web.yaml", text).manifests.into_iter().map(|m| m.object).collect()
}

fn at(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap())
}

fn statuses(objects: &Objects, progress: &Progress, now: i64, previous: &Statuses) -> Statuses {
    let stamp = Stamp { now: &at(now), previous };
    status::conclude(objects, &translate(objects), progress, &stamp)
}

fn acknowledged(objects: &Objects) -> Progress {
    Progress { acknowledged: Some(translate(objects).state), ..Progress::default() }
}

fn gateway() -> ObjectKey {
    ObjectKey::of(Kind::Gateway, &NamespacedName::new("default", "web"))
}

/// `Programmed` of the Gateway and its two listeners: status, reason, and since when.
fn programmed(statuses: &Statuses) -> Vec<(String, String, i64)> {
    let conditions = status::conditions(&statuses[&gateway()]);
    let found = conditions.into_iter().filter(|(_, condition)| condition.type_ == "Programmed");
    found
        .map(|(_, c)| (c.status.clone(), c.reason.clone(), c.last_transition_time.0.as_second()))
        .collect()
}

fn error(kind: ObjectKind, name: &str) -> ObjectError {
    let object = ObjectId { kind, name: name.try_into().unwrap() };
    ObjectError { object, message: "no room".into() }
}

#[test]
fn programmed_follows_what_the_data_plane_says() {
    let web = objects(WEB);
    let (yes, no, unknown) = (("True", "Programmed"), ("False", "Pending"), ("Unknown", "Pending"));
    let invalid = ("False", "Invalid");
    let said = acknowledged(&web);
    let with = |errors: Vec<ObjectError>| Progress { errors, ..said.clone() };
    let refused = |errors| {
        let reason = "too large".into();
        Progress { refused: Some(RefusedState { reason, errors }), ..said.clone() }
    };
    let older = |from: &str, to: &str| acknowledged(&objects(&WEB.replace(from, to)));
    for (promise, progress, expected) in [
        ("nothing was said", Progress::default(), [no, no, no]),
        ("all was said", said.clone(), [yes, yes, yes]),
        (
            "another listener was said",
            older("port: 80\n  - name: echo", "port: 81\n  - name: echo"),
            [no, no, yes],
        ),
        ("another mode was said", acknowledged(&objects(&format!("{WEB}{DNAT}"))), [no, no, no]),
        ("other weights change no listener", older("weight: 75", "weight: 1"), [yes, yes, yes]),
        (
            "a listener is refused",
            with(vec![error(ObjectKind::Listener, "default/web/http")]),
            [invalid, invalid, yes],
        ),
        (
            "a group is refused",
            with(vec![error(ObjectKind::Group, "udproute/default/echo/0")]),
            [invalid, yes, invalid],
        ),
        (
            "an object of somebody else is refused",
            with(vec![error(ObjectKind::Listener, "x")]),
            [yes, yes, yes],
        ),
        (
            "the state is not taken, and it is known why",
            refused(vec![error(ObjectKind::Group, "tcproute/default/web/0")]),
            [invalid, invalid, yes],
        ),
        (
            "the state is not taken, and what is new waits",
            Progress { acknowledged: None, ..refused(vec![]) },
            [no, no, no],
        ),
        (
            "it is away for long",
            Progress { lost: true, ..said.clone() },
            [unknown, unknown, unknown],
        ),
        ("it never was there", Progress { lost: true, ..Progress::default() }, [no, no, no]),
    ] {
        let found = programmed(&statuses(&web, &progress, 1, &Statuses::new()));
        let found: Vec<_> = found.iter().map(|(s, r, _)| (s.as_str(), r.as_str())).collect();
        assert_eq!(found, expected, "{promise}");
    }
}

fn object_error(kind: ObjectKind, name: &str) -> ObjectError {
    let object = ObjectId { kind, name: name.try_into().unwrap() };
    ObjectError { object, message: "for a reason".into() }
}

#[test]
fn a_listener_of_the_l7_tier_waits_for_the_l7_tier() {
    let with_http = |port| {
        let http = format!("  - {{name: page, protocol: HTTP, port: {port}}}\n  - name: echo");
        let text = WEB.replace("  - name: echo", &http);
        assert_ne!(text, WEB);
        objects(&text)
    };
    let web = with_http(8080);
    let said = |l7: Option<&Objects>| Progress {
        l7: l7.map(|objects| translate(objects).l7),
        ..acknowledged(&web)
    };
    for (promise, progress, status, words) in [
        ("no L7 tier is there", said(None), "False", "no L7 tier has acknowledged anything yet"),
        (
            "it has another port",
            said(Some(&with_http(8081))),
            "False",
            "has not acknowledged it yet",
        ),
        ("it has it", said(Some(&web)), "True", "the L7 tier serves"),
        (
            "it has it, and the data plane has nothing",
            Progress { l7: said(Some(&web)).l7, ..Progress::default() },
            "False",
            "the data plane has not acknowledged 10.10.0.100 yet",
        ),
        (
            "the data plane cannot keep its VIP",
            Progress {
                errors: vec![object_error(ObjectKind::Vip, "10.10.0.100")],
                ..said(Some(&web))
            },
            "False",
            "VIP 10.10.0.100: for a reason",
        ),
        (
            "the L7 tier cannot serve it",
            Progress {
                l7_errors: vec![object_error(ObjectKind::L7Listener, "default/web/page")],
                ..said(Some(&web))
            },
            "False",
            "L7 listener default/web/page: for a reason",
        ),
        (
            "the L7 tier has gone",
            Progress { l7_lost: true, ..said(Some(&web)) },
            "Unknown",
            "out of reach",
        ),
    ] {
        let statuses = statuses(&web, &progress, 1, &Statuses::new());
        let conditions = status::conditions(&statuses[&gateway()]);
        let (_, page) = conditions
            .iter()
            .find(|(part, condition)| part == "listener page" && condition.type_ == "Programmed")
            .unwrap();
        assert_eq!(page.status, status, "{promise}");
        assert!(page.message.contains(words), "{promise}: {}", page.message);
    }
}

#[test]
fn a_condition_keeps_its_time_until_its_status_changes() {
    let web = objects(WEB);
    let first = statuses(&web, &Progress::default(), 10, &Statuses::new());
    let second = statuses(&web, &acknowledged(&web), 20, &first);
    let third = statuses(&web, &acknowledged(&web), 30, &second);
    let since = |statuses: &Statuses| {
        programmed(statuses).iter().map(|(.., since)| *since).collect::<Vec<_>>()
    };
    assert_eq!(since(&first), [10, 10, 10]);
    assert_eq!(since(&second), [20, 20, 20]);
    assert_eq!(second, third, "nothing changed");
}

#[test]
fn a_status_file_is_written_when_it_changes_and_goes_with_its_object() {
    let folder = tempfile::tempdir().unwrap();
    let web = objects(WEB);
    let now = statuses(&web, &acknowledged(&web), 1, &Statuses::new());
    let (mut files, _) = StatusFiles::open(folder.path());
    assert_eq!(files.write(&now).unwrap(), Written { files: 4, removed: 0 });
    let file = folder.path().join("status/TCPRoute/default/web.yaml");
    let inode = fs::metadata(&file).unwrap().ino();
    assert_eq!(files.write(&now).unwrap(), Written::default(), "said already");

    let (mut again, left) = StatusFiles::open(folder.path());
    assert_eq!(left, now, "a restart reads what it wrote");
    assert_eq!(again.write(&now).unwrap(), Written::default());
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "and leaves it alone");

    let fewer: Statuses = now.into_iter().filter(|(key, _)| key.kind != Kind::TcpRoute).collect();
    assert_eq!(again.write(&fewer).unwrap(), Written { files: 0, removed: 1 });
    assert!(!file.exists());
    let class = folder.path().join("status/GatewayClass/penstock.yaml");
    assert!(class.exists(), "a kind without namespaces has no folder for them");
}

#[test]
fn a_file_that_could_not_be_written_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let web = objects(WEB);
    let now = statuses(&web, &acknowledged(&web), 1, &Statuses::new());
    let (mut files, _) = StatusFiles::open(folder.path());
    let routes = folder.path().join("status/TCPRoute");
    fs::create_dir(folder.path().join("status")).unwrap();
    fs::write(&routes, "in the way").unwrap();
    let error = files.write(&now).unwrap_err().to_string();
    assert!(error.contains("status/TCPRoute"), "{error}");
    fs::remove_file(&routes).unwrap();
    assert_eq!(files.write(&now).unwrap(), Written { files: 1, removed: 0 });
    assert!(routes.join("default/web.yaml").exists());
}

#[test]
fn a_stranger_in_the_status_folder_is_removed_and_a_broken_file_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("status/Gateway/default");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("gone.yaml"), "kind: Gateway").unwrap();
    fs::write(place.join("web.yaml"), "not: [yaml").unwrap();
    let web = objects(WEB);
    let (mut files, left) = StatusFiles::open(folder.path());
    let now = statuses(&web, &acknowledged(&web), 1, &left);
    assert_eq!(files.write(&now).unwrap(), Written { files: 4, removed: 1 });
    assert_eq!(StatusFiles::open(folder.path()).1, now);
    let names: Vec<_> = fs::read_dir(place).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["web.yaml"], "and nothing temporary stays");
}

#[test]
fn a_route_is_answered_for_each_parent_as_it_wrote_it() {
    let two = "parentRefs:\n  - name: web\n    sectionName: http\n  - {name: web, namespace: default, port: 80}\n";
    let text = WEB.replace("parentRefs:\n  - name: web\n    sectionName: http\n", two);
    let web = objects(&text);
    let statuses = statuses(&web, &Progress::default(), 1, &Statuses::new());
    let key = ObjectKey::of(Kind::TcpRoute, &NamespacedName::new("default", "web"));
    let penstock_controlplane::object::Object::TcpRoute(route) = &statuses[&key] else { panic!() };
    let parents = &Arc::clone(route).status.clone().unwrap().parents;
    let said: Vec<_> = parents
        .iter()
        .map(|p| {
            (p.parent_ref.kind.as_deref(), p.parent_ref.namespace.as_deref(), p.parent_ref.port)
        })
        .collect();
    assert_eq!(said, [(Some("Gateway"), None, None), (Some("Gateway"), Some("default"), Some(80))]);
    assert!(parents.iter().all(|p| p.controller_name == "penstock.dev/gateway-controller"));
}
