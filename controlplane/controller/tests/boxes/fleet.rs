//! What boxes that belong are promised.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use penstock_controlplane::boxes::desk::{Answer, Ask};
use tokio::time::sleep;

use crate::site::{Controller, Edge, box_object, gateway, run, until};

const NAMES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

async fn three_boxes() -> (Controller, Vec<Edge>) {
    let boxes: String = NAMES.iter().map(|name| box_object(name, "")).collect();
    let controller = Controller::new(&(boxes + &gateway("web", 80)));
    controller.start();
    let mut edges = Vec::new();
    for name in NAMES {
        edges.push(Edge::join(&controller, name).await);
    }
    (controller, edges)
}

fn states(edges: &[Edge]) -> Vec<Option<String>> {
    edges.iter().map(Edge::state).collect()
}

#[test]
fn a_change_is_acknowledged_by_all_and_one_that_was_cut_off_catches_up() {
    run(async {
        let (controller, mut edges) = three_boxes().await;
        until("all serve", || controller.is_programmed("web")).await;
        until("all are in sync", || controller.boxes()["in_sync"] == 3).await;
        let (_, message) = controller.condition("Gateway/default/web", "Programmed");
        assert_eq!(message, "the listeners are programmed on edge-1, edge-2, edge-3");
        let same = states(&edges);
        assert!(same.iter().all(|state| *state == same[0] && state.is_some()), "{same:?}");
        for name in NAMES {
            assert_eq!(controller.condition(&format!("Box/{name}"), "InSync").0, "True/InSync");
        }

        controller.write("more", &gateway("other", 81));
        until("the change is programmed", || controller.is_programmed("other")).await;
        until("on all", || edges.iter().all(|edge| edge.plane.listeners() == 2)).await;
        let sent = controller.counted("bundles_sent");

        // One is cut off: it serves on, and does not block the others for long.
        edges[2].stop();
        until("it is away", || controller.boxes()["connected"] == 2).await;
        controller.write("most", &gateway("third", 82));
        until("what it lacks is programmed", || controller.is_programmed("third")).await;
        let (_, message) = controller.condition("Gateway/default/third", "Programmed");
        assert!(message.contains("on edge-1, edge-2; out of reach"), "{message}");
        assert!(message.ends_with(": edge-3"), "{message}");
        assert_eq!(edges[2].plane.listeners(), 2, "it goes on");
        let away = controller.condition("Box/edge-3", "Connected").0;
        assert_eq!(away, "False/Away");
        assert_eq!(controller.appliance.report()["errors"], 0, "and it is no fault of an object");

        edges[2].start();
        until("it catches up", || edges[2].plane.listeners() == 3).await;
        until("all are in sync", || controller.boxes()["in_sync"] == 3).await;
        let same = states(&edges);
        assert!(same.iter().all(|state| *state == same[0]), "{same:?}");
        assert_eq!(controller.counted("bundles_sent"), sent + 3, "one each, and nothing twice");
    });
}

#[test]
fn restarts_send_nothing_that_is_there() {
    run(async {
        let (controller, mut edges) = three_boxes().await;
        until("all are in sync", || controller.boxes()["in_sync"] == 3).await;
        until("it is programmed", || controller.is_programmed("web")).await;
        let commits: Vec<_> = edges.iter().map(|edge| edge.plane.commits().len()).collect();
        let status = controller.status("Gateway/default/web");
        for round in 0..5 {
            controller.stop().await;
            controller.start();
            until("all are back", || controller.boxes()["in_sync"] == 3).await;
            assert_eq!(controller.counted("bundles_sent"), 0, "round {round}");
            assert_eq!(controller.status("Gateway/default/web"), status, "round {round}");
            let edge = &mut edges[round % 3];
            edge.stop();
            until("it is away", || controller.boxes()["connected"] == 2).await;
            edge.start();
            until("it is back", || controller.boxes()["in_sync"] == 3).await;
            assert_eq!(controller.counted("bundles_sent"), 0, "round {round}");
            assert_eq!(controller.status("Gateway/default/web"), status, "round {round}");
        }
        let after: Vec<_> = edges.iter().map(|edge| edge.plane.commits().len()).collect();
        assert_eq!(after, commits, "no data plane was told anything");
    });
}

#[test]
fn a_box_carries_its_gateways_and_those_alone() {
    run(async {
        let one = "gateways: {names: [{namespace: default, name: a}]}";
        let objects = box_object("edge-1", one)
            + &box_object("edge-2", "")
            + &gateway("a", 80)
            + &gateway("b", 81);
        let controller = Controller::new(&objects);
        controller.start();
        let first = Edge::join(&controller, "edge-1").await;
        let second = Edge::join(&controller, "edge-2").await;
        until("both are programmed", || {
            controller.is_programmed("a") && controller.is_programmed("b")
        })
        .await;
        assert_eq!((first.plane.listeners(), second.plane.listeners()), (1, 2));
        let says = |gateway: &str| {
            controller.condition(&format!("Gateway/default/{gateway}"), "Programmed").1
        };
        until("both boxes are named", || says("a").ends_with("on edge-1, edge-2")).await;
        assert!(says("b").ends_with("on edge-2"), "{}", says("b"));
    });
}

#[test]
fn programmed_waits_for_every_box_that_is_there() {
    run(async {
        let (controller, edges) = three_boxes().await;
        until("all are in sync", || controller.boxes()["in_sync"] == 3).await;
        edges[1].plane.willing.store(false, Ordering::Relaxed);
        controller.write("more", &gateway("other", 81));
        until("two have it", || controller.boxes()["in_sync"] == 2).await;
        let programmed = || controller.condition("Gateway/default/other", "Programmed");
        until("it is said who is late", || programmed().0 == "False/Pending").await;
        assert!(programmed().1.contains("box edge-2"), "{}", programmed().1);
        assert!(controller.is_programmed("web"), "what it has is not taken away");
        edges[1].plane.willing.store(true, Ordering::Relaxed);
        until("it is programmed", || controller.is_programmed("other")).await;
    });
}

#[test]
fn a_bundle_in_force_outlives_the_agent_and_its_controller() {
    run(async {
        let (controller, mut edges) = three_boxes().await;
        until("all are in sync", || controller.boxes()["in_sync"] == 3).await;
        controller.stop().await;
        let edge = &mut edges[0];
        edge.stop();
        let told = edge.appliance.report()["agent"]["digest"].clone();
        fs::remove_file(edge.appliance.paths.run_dir.join("controlplane.json")).unwrap();
        edge.start();
        until("it is in force without a controller", || edge.agent()["digest"] == told).await;
        assert!(!edge.is_linked());
        assert_eq!(edge.plane.listeners(), 1);

        // One that is damaged is no bundle: the data plane goes on, and a controller sends it again.
        edge.stop();
        let file = edge.state_file("bundle");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        edge.start();
        controller.start();
        until("it is whole again", || fs::read(&file).unwrap() == whole).await;
        until("all are back", || controller.boxes()["in_sync"] == 3).await;
        assert_eq!(controller.counted("bundles_sent"), 1);
    });
}

#[test]
fn certificates_are_renewed_on_a_live_link() {
    run(async {
        let mut controller = Controller::new(&(box_object("edge-1", "") + &gateway("web", 80)));
        controller.lifetime = Duration::from_secs(5);
        controller.start();
        let edge = Edge::join(&controller, "edge-1").await;
        until("it is in sync", || controller.boxes()["in_sync"] == 1).await;
        until("it is renewed", || controller.counted("renewed") > 0).await;
        // Longer than the first certificate was good for.
        sleep(Duration::from_secs(6)).await;
        assert!(edge.is_linked());
        assert_eq!(controller.refused("no-certificate"), 0);
        assert_eq!(controller.counted("bundles_sent"), 1);
    });
}

#[test]
fn a_rollback_stays_until_it_is_released() {
    run(async {
        let (controller, edges) = three_boxes().await;
        until("all are in sync", || controller.boxes()["in_sync"] == 3).await;
        let versions = async || match controller.ask(&Ask::Versions).await {
            Answer::Versions(versions) => versions,
            other => panic!("{other:?}"),
        };
        let kept = async |count: usize| {
            for _ in 0..200 {
                if versions().await.len() == count {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
            panic!("not in time: {count} versions are kept");
        };
        kept(1).await;
        controller.write("more", &gateway("other", 81));
        kept(2).await;
        until("all have both", || edges.iter().all(|edge| edge.plane.listeners() == 2)).await;
        let Answer::Done(Some(pinned)) = controller.ask(&Ask::Pin { version: None }).await else {
            panic!("nothing is pinned")
        };
        until("all went back", || edges.iter().all(|edge| edge.plane.listeners() == 1)).await;
        until("it is said", || controller.boxes()["pinned"] == pinned.as_str()).await;
        let says = || controller.condition("Box/edge-1", "Pinned");
        until("the Box says so", || says().0 == "True/RolledBack").await;
        until("what is not in force is not programmed", || !controller.is_programmed("other"))
            .await;
        assert!(controller.is_programmed("web"));

        controller.write("most", &gateway("third", 82));
        controller.stop().await;
        controller.start();
        until("over a restart", || controller.boxes()["in_sync"] == 3).await;
        assert!(edges.iter().all(|edge| edge.plane.listeners() == 1), "what is written waits");
        assert!(versions().await.iter().any(|version| version.pinned));

        assert_eq!(controller.ask(&Ask::Release).await, Answer::Done(None));
        until("all go on", || edges.iter().all(|edge| edge.plane.listeners() == 3)).await;
        until("it is programmed", || controller.is_programmed("third")).await;
        assert_eq!(says().0, "/");
        let unknown = Ask::Pin { version: Some("nothing".into()) };
        assert!(matches!(controller.ask(&unknown).await, Answer::Refused(_)));
    });
}
