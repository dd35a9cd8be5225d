//! The control process on an API server that does what real ones do on their worst days.

mod api_server;
mod appliance;
mod data_plane;
mod scene;

use std::time::Duration;

use api_server::ApiServer;
use appliance::Appliance;
use data_plane::DataPlane;
use scene::{OURS, class, cluster, gateway, programmed, route, until};
use serde_json::{Value, json};

/// Whatever the API server does, the next change arrives.
#[tokio::test]
async fn watches_survive_every_mood_of_an_api_server() {
    type Mood = (&'static str, fn(&ApiServer));
    let moods: &[Mood] = &[
        ("nothing", |_| {}),
        ("watches are closed", ApiServer::close_watches),
        ("a watch is too old: 410", |s| {
            s.compact(false);
            s.close_watches();
        }),
        ("a watch is too old, said in an event", |s| {
            s.compact(true);
            s.close_watches();
        }),
        ("429 and 500 to the next watches", |s| {
            s.fail("gateways", &[429, 500]);
            s.close_watches();
        }),
        ("a broken connection", |s| {
            s.fail("gateways", &[0]);
            s.close_watches();
        }),
        ("only bookmarks", |s| (0..5).for_each(|_| s.bookmark("gateways"))),
    ];
    let (appliance, server) = (Appliance::new(), cluster());
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("the first", || plane.listeners() == 1 && programmed(&server, "web")).await;
            for (index, (mood, act)) in moods.iter().enumerate() {
                act(&server);
                let ports: Vec<_> = (0..index + 2).map(|port| json!(80 + port)).collect();
                server.put("gateways", gateway("web", &ports));
                until(mood, || plane.listeners() == index + 2 && programmed(&server, "web")).await;
            }
            server.delete("gateways", "default", "web");
            until("a deletion", || plane.listeners() == 0).await;
        })
        .await;
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_asked_for_pages() {
    let (appliance, server) = (Appliance::new(), cluster());
    server.no_streaming();
    let plane = DataPlane::start(&appliance.paths);
    appliance.while_running(&server, until("listed", || plane.listeners() == 1)).await;
}

#[tokio::test]
async fn an_object_that_does_not_decode_is_one_finding_and_stays_as_it_was() {
    let (appliance, server) = (Appliance::new(), cluster());
    server.put("gateways", gateway("bad", &[json!("x")]));
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("the good one serves", || plane.listeners() == 1).await;
            until("the bad one is told", || {
                appliance.tells("invalid type") && appliance.tells("The object is refused")
            })
            .await;
            server.put("gateways", gateway("web", &[json!("y")]));
            until("the last good one stays", || {
                appliance.tells("The last good one stays in force")
            })
            .await;
            assert_eq!(plane.listeners(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_kind_that_is_not_installed_is_looked_for_again() {
    let (appliance, server) = (Appliance::new(), cluster());
    server.uninstall("udproutes", true);
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("the others serve", || plane.listeners() == 1).await;
            until("it is said", || {
                appliance.tells("UDPRoute of gateway.networking.k8s.io/v1: install its CRD")
            })
            .await;
            server.uninstall("udproutes", false);
            until("it is found", || !appliance.tells("install its CRD")).await;
        })
        .await;
}

#[tokio::test]
async fn an_api_server_that_is_gone_costs_nothing_but_staleness() {
    let (appliance, server) = (Appliance::new(), cluster());
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("all is well", || {
                programmed(&server, "web") && appliance.report()["api_server"]["connected"] == true
            })
            .await;
            server.is_gone(true);
            until("it is told", || appliance.report()["api_server"]["connected"] == false).await;
            until("it is saved", || appliance.paths.state_dir.join("cluster.json").exists()).await;
            assert_eq!(plane.listeners(), 1);
        })
        .await;
    let commits = plane.commits().len();
    appliance
        .while_running(&server, async {
            until("a restart serves on", || {
                appliance.report()["objects"] == 2 && appliance.report()["connected"] == true
            })
            .await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(plane.commits().len(), commits, "and tells the data plane nothing new");
            server.is_gone(false);
            server.put("gateways", gateway("web", &[json!(80), json!(81)]));
            until("it catches up", || plane.listeners() == 2 && programmed(&server, "web")).await;
        })
        .await;
}

#[tokio::test]
async fn a_status_is_written_once_and_not_again_after_a_restart() {
    let (appliance, server) = (Appliance::new(), cluster());
    let _plane = DataPlane::start(&appliance.paths);
    let settled = async {
        until("written", || programmed(&server, "web")).await;
        until("the class is kept", || server.writes("gatewayclasses").len() == 2).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    };
    appliance.while_running(&server, settled).await;
    let bodies: Vec<_> = server.writes("gateways").into_iter().map(|write| write.body).collect();
    assert_eq!(bodies.len(), 1, "{bodies:#?}");
    let class = server.get("gatewayclasses", "", "penstock").unwrap();
    assert_eq!(
        class["metadata"]["finalizers"],
        json!(["gateway-exists-finalizer.gateway.networking.k8s.io"])
    );
    let before = (server.writes("gateways").len(), server.writes("gatewayclasses").len());
    let again = async {
        until("it leads again", || appliance.report()["api_server"]["leader"] == true).await;
        tokio::time::sleep(Duration::from_millis(3000)).await;
    };
    appliance.while_running(&server, again).await;
    assert_eq!((server.writes("gateways").len(), server.writes("gatewayclasses").len()), before);
}

fn own(kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": "penstock.dev/v1alpha1", "kind": kind,
        "metadata": {"name": "own", "namespace": "default"}, "spec": spec})
}

/// Our own kinds are answered once, whoever leads, and another that leads writes nothing anew.
#[tokio::test]
async fn a_status_of_our_own_kinds_is_written_once_and_not_again_by_who_leads_next() {
    let (first, second, server) = (Appliance::new(), Appliance::new(), cluster());
    let target = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"});
    let policy = json!({"targetRefs": [target], "listener": {"mode": "dnat"}});
    server.put("l4policies", own("L4Policy", &policy));
    let endpoint = json!({"address": "10.0.0.1", "port": 8080});
    server.put("backends", own("Backend", &json!({"endpoints": [endpoint]})));
    let mut tcp = route("web");
    tcp["spec"]["rules"][0]["backendRefs"] =
        json!([{"group": "penstock.dev", "kind": "Backend", "name": "own"}]);
    server.put("tcproutes", tcp);
    let _planes = (DataPlane::start(&first.paths), DataPlane::start(&second.paths));
    let status = |plural: &str| server.get(plural, "default", "own").unwrap()["status"].clone();
    let writes = || (server.writes("l4policies").len(), server.writes("backends").len());
    let settled = async {
        until("the policy is answered", || {
            let ancestor = status("l4policies")["ancestors"][0].clone();
            ancestor["conditions"][0]["status"] == "True" && ancestor["controllerName"] == OURS
        })
        .await;
        until("the Backend is answered", || {
            status("backends")["conditions"][0]["status"] == "True"
        })
        .await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    };
    first.while_running(&server, settled).await;
    assert_eq!(
        writes(),
        (1, 1),
        "{:#?}",
        server.writes("l4policies").into_iter().map(|w| w.body).collect::<Vec<_>>()
    );
    let again = async {
        until("the other leads", || second.report()["api_server"]["leader"] == true).await;
        tokio::time::sleep(Duration::from_millis(3000)).await;
    };
    second.while_running(&server, again).await;
    assert_eq!(writes(), (1, 1));
}

/// A box that has never seen the cluster, and a pool whose first address is another.
#[tokio::test]
async fn the_address_that_a_gateway_has_stays_its_own() {
    let (appliance, server) = (Appliance::new(), ApiServer::new());
    let mut web = gateway("web", &[json!(80)]);
    web["spec"]["addresses"] = json!([]);
    web["status"] = json!({"addresses": [{"type": "IPAddress", "value": "192.0.2.2"}]});
    server.put("gatewayclasses", class());
    server.put("gateways", web);
    server.put(
        "addresspools",
        json!({"apiVersion": "penstock.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "lan"}, "spec": {"addresses": ["192.0.2.0/29"]}}),
    );
    let _plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("it serves", || programmed(&server, "web")).await;
            let addresses =
                &server.get("gateways", "default", "web").unwrap()["status"]["addresses"];
            assert_eq!(*addresses, json!([{"type": "IPAddress", "value": "192.0.2.2"}]));
        })
        .await;
}

#[tokio::test]
async fn entries_of_other_controllers_are_untouched() {
    let (appliance, server) = (Appliance::new(), cluster());
    let entry = |controller: &str, parent: &str| {
        json!({"controllerName": controller, "future": {"a": 1}, "conditions": [],
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent}})
    };
    let mut tcp = route("web");
    tcp["status"] = json!({"parents": [entry("b.example/c", "web"), entry(OURS, "gone"), entry("a.example/c", "web")]});
    server.put("tcproutes", tcp);
    let plane = DataPlane::start(&appliance.paths);
    let parents = || server.get("tcproutes", "default", "r").unwrap()["status"]["parents"].clone();
    appliance
        .while_running(&server, async {
            until("ours for a parent that went is gone, ours for another there", || {
                let parents = parents();
                parents[0] == entry("b.example/c", "web")
                    && parents[1] == entry("a.example/c", "web")
                    && parents[2]["controllerName"] == OURS
                    && parents[2]["parentRef"]["name"] == "web"
            })
            .await;
            assert_eq!(server.writes("tcproutes").len(), 1);
            server.fail("tcproutes", &[409, 500]);
            let mut next = route("elsewhere");
            next["status"] = json!({"parents": parents()});
            server.put("tcproutes", next);
            until("after a conflict and a failure, ours is removed", || {
                parents().as_array().map(Vec::len) == Some(2)
            })
            .await;
            assert_eq!(plane.listeners(), 1);
        })
        .await;
}

#[tokio::test]
async fn who_does_not_hold_the_lease_forwards_and_writes_nothing() {
    let (appliance, server) = (Appliance::new(), cluster());
    let renewed = "2026-01-01T00:00:00.000000Z";
    server.put("leases", json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "penstock-controlplane", "namespace": "penstock-system"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 5, "renewTime": renewed, "leaseTransitions": 3}}));
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("it forwards", || plane.listeners() == 1).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            assert_eq!(server.writes("gateways").len(), 0);
            until("it takes a Lease that is not renewed", || programmed(&server, "web")).await;
            let lease = server.get("leases", "penstock-system", "penstock-controlplane").unwrap();
            assert_eq!(lease["spec"]["leaseTransitions"], 4);
        })
        .await;
}

/// The Service of Gateway web.
fn service_of_web(server: &ApiServer) -> Option<Value> {
    server.get("services", "default", "web-penstock")
}

#[tokio::test]
async fn a_gateway_has_a_service_that_bears_what_its_infrastructure_says() {
    let (appliance, server) = (Appliance::new(), cluster());
    let with = |infrastructure: Value| {
        let mut web = gateway("web", &[json!(80)]);
        web["spec"]["infrastructure"] = infrastructure;
        web
    };
    server.put("gateways", with(json!({"labels": {"a": "b"}, "annotations": {"c": "d"}})));
    let plane = DataPlane::start(&appliance.paths);
    let labels = || service_of_web(&server).unwrap_or_default()["metadata"]["labels"].clone();
    let name = "gateway.networking.k8s.io/gateway-name";
    appliance
        .while_running(&server, async {
            until("it is made", || service_of_web(&server).is_some()).await;
            let service = service_of_web(&server).unwrap();
            assert_eq!(service["spec"], json!({"type": "ClusterIP", "clusterIP": "None"}));
            assert_eq!(labels(), json!({"a": "b", name: "web"}));
            assert_eq!(service["metadata"]["annotations"], json!({"c": "d"}));
            let owner = &service["metadata"]["ownerReferences"][0];
            let gateway = server.get("gateways", "default", "web").unwrap();
            assert_eq!(owner["uid"], gateway["metadata"]["uid"]);

            let mut touched = service.clone();
            touched["metadata"]["labels"]["theirs"] = json!("x");
            touched["spec"]["ports"] = json!([{"port": 80}]);
            server.put("services", touched);
            server.put("gateways", with(json!({"labels": {"e": "f"}})));
            until("it follows, and what is others' stays", || {
                labels() == json!({"e": "f", name: "web", "theirs": "x"})
            })
            .await;
            let service = service_of_web(&server).unwrap();
            assert_eq!(service["spec"]["ports"], json!([{"port": 80}]));
            assert_eq!(service["metadata"]["annotations"]["c"], Value::Null);

            server.delete("services", "default", "web-penstock");
            until("who deletes it gets it back", || service_of_web(&server).is_some()).await;
            assert_eq!(labels(), json!({"e": "f", name: "web"}));
            until("served", || plane.listeners() == 1 && programmed(&server, "web")).await;
        })
        .await;
    let writes = server.writes("services").len();
    appliance
        .while_running(&server, async {
            until("it leads again", || appliance.report()["api_server"]["leader"] == true).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(server.writes("services").len(), writes, "what is there is not written");
            server.delete("gateways", "default", "web");
            until("it goes with its Gateway", || service_of_web(&server).is_none()).await;
        })
        .await;
}

#[tokio::test]
async fn a_gateway_that_is_not_accepted_has_no_service() {
    let (appliance, server) = (Appliance::new(), cluster());
    let _plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("it is made", || service_of_web(&server).is_some()).await;
            let mut web = gateway("web", &[json!(80)]);
            let nobody_knows = json!({"group": "example.com", "kind": "Size", "name": "large"});
            web["spec"]["infrastructure"] = json!({"parametersRef": nobody_knows});
            server.put("gateways", web);
            until("it is removed", || service_of_web(&server).is_none()).await;
            assert_eq!(server.requests("services", &http::Method::DELETE).len(), 1);
        })
        .await;
}

#[tokio::test]
async fn a_service_that_someone_else_made_is_left_alone_and_told_of() {
    let (appliance, server) = (Appliance::new(), cluster());
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-penstock", "namespace": "default",
        "labels": {"mine": "x"}}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}});
    server.put("services", theirs);
    let before = service_of_web(&server);
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("it is told", || appliance.tells("Service web-penstock: is someone else's"))
                .await;
            until("the Gateway serves", || plane.listeners() == 1 && programmed(&server, "web"))
                .await;
            assert_eq!(service_of_web(&server), before);
            server.delete("services", "default", "web-penstock");
            until("a name that is free is taken", || {
                service_of_web(&server).is_some() && !appliance.tells("is someone else's")
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn a_class_tells_of_crds_that_are_of_another_release() {
    let (appliance, server) = (Appliance::new(), cluster());
    let crd = |version: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "gatewayclasses.gateway.networking.k8s.io",
                "annotations": {"gateway.networking.k8s.io/bundle-version": version}}})
    };
    let says = |reason: &str| {
        let class = server.get("gatewayclasses", "", "penstock").unwrap();
        let conditions = class["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "SupportedVersion" && c["reason"] == *reason)
    };
    server.put("customresourcedefinitions", crd("v1.4.1"));
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("an older one", || says("UnsupportedVersion")).await;
            let writes = server.writes("gatewayclasses");
            let statuses = writes.iter().filter(|write| write.path.ends_with("/status"));
            assert_eq!(statuses.count(), 1, "nothing else was said before");
            until("it serves all the same", || {
                plane.listeners() == 1 && programmed(&server, "web")
            })
            .await;
            server.put("customresourcedefinitions", crd("v1.6.1"));
            until("ours", || says("SupportedVersion")).await;
        })
        .await;
}

#[tokio::test]
async fn a_release_that_may_not_be_read_is_taken_to_be_ours() {
    let (appliance, server) = (Appliance::new(), cluster());
    server.fail("customresourcedefinitions", &[403; 9]);
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(&server, async {
            until("it is told, and serves", || {
                appliance.tells("give our user the rights") && plane.listeners() == 1
            })
            .await;
            until("and is Programmed", || programmed(&server, "web")).await;
        })
        .await;
}

#[tokio::test]
async fn a_service_of_our_class_is_answered_when_it_is_served() {
    let (appliance, server) = (Appliance::new(), ApiServer::new());
    let service = |name: &str, ip: &str, class: &str, port: i32| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "LoadBalancer", "loadBalancerClass": class, "loadBalancerIP": ip, "ports": [{"port": port}]}})
    };
    server.put("services", service("web", "192.0.2.20", "penstock.dev/l4", 80));
    server.put("services", service("theirs", "192.0.2.21", "example.com/other", 80));
    let plane = DataPlane::start(&appliance.paths);
    plane.willing.store(false, std::sync::atomic::Ordering::Relaxed);
    let ingress = |name: &str| {
        server.get("services", "default", name).unwrap()["status"]["loadBalancer"].clone()
    };
    let given = |ip: &str| json!({"ingress": [{"ip": ip, "ipMode": "VIP"}]});
    appliance
        .while_running(&server, async {
            until("told", || plane.listeners() == 1).await;
            until("it leads", || appliance.report()["api_server"]["leader"] == true).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(ingress("web"), Value::Null, "nobody acknowledged it");
            plane.willing.store(true, std::sync::atomic::Ordering::Relaxed);
            until("acknowledged", || ingress("web") == given("192.0.2.20")).await;
            server.put("services", service("web", "192.0.2.22", "penstock.dev/l4", 81));
            until("it moves when it is told to", || ingress("web") == given("192.0.2.22")).await;
            let objects = appliance.report()["objects"].clone();
            assert_eq!(objects, 2, "what stands in for it is no object of anyone");
            assert_eq!(ingress("theirs"), Value::Null);
            tokio::time::sleep(Duration::from_millis(700)).await;
        })
        .await;
    let writes = server.writes("services").len();
    assert!(writes <= 4, "{writes}");
    appliance
        .while_running(&server, async {
            until("it leads again", || appliance.report()["api_server"]["leader"] == true).await;
            tokio::time::sleep(Duration::from_millis(1000)).await;
            assert_eq!(server.writes("services").len(), writes, "nothing is written again");
            server.put("services", {
                let mut inner = service("web", "192.0.2.22", "penstock.dev/l4", 81);
                inner["spec"]["type"] = json!("ClusterIP");
                inner
            });
            until("no balancer, no listener", || plane.listeners() == 0).await;
        })
        .await;
}
