//! The control process as a whole: a real folder, a real ring, a data plane that only says yes or no.

mod appliance;
mod data_plane;

use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use appliance::Appliance;
use data_plane::DataPlane;
use penstock_controlplane::controller;
use serde_json::Value;

const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
---
";

fn gateway(name: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: penstock
  addresses: [{{value: 192.0.2.10}}]
  listeners: [{{name: tcp, protocol: TCP, port: {port}}}]
---
"
    )
}

impl Appliance {
    fn config(&self, name: &str) -> PathBuf {
        self.paths.config_dir.join(name)
    }

    /// As an editor saves: beside, then renamed.
    fn replace(&self, name: &str, text: &str) {
        let beside = self.config(&format!(".{name}.tmp"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.config(name)).unwrap();
    }

    fn status(&self, kind_and_name: &str) -> Option<String> {
        let file = self.paths.run_dir.join("status").join(format!("{kind_and_name}.yaml"));
        fs::read_to_string(file).ok()
    }

    /// `Programmed` of a Gateway: its status and reason.
    fn programmed(&self, gateway: &str) -> Option<(String, String)> {
        let text = self.status(&format!("Gateway/default/{gateway}"))?;
        let object: Value = serde_saphyr::from_str(&text).ok()?;
        let conditions = object["status"]["conditions"].as_array()?.clone();
        let found = conditions.into_iter().find(|condition| condition["type"] == "Programmed")?;
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason")))
    }

    fn is_programmed(&self, gateway: &str) -> bool {
        self.programmed(gateway).is_some_and(|(status, _)| status == "True")
    }

    /// Runs a control process while `scenario` runs.
    async fn while_running(&self, scenario: impl Future<Output = ()>) {
        tokio::select! {
            ended = controller::run(self.paths.clone()) => panic!("it ended: {ended:?}"),
            done = tokio::time::timeout(Duration::from_secs(60), scenario) => done.expect("in time"),
        }
    }
}

/// Waits until `condition` holds; the test's own time limit ends a wait that is in vain.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn programmed_waits_for_the_acknowledgement() {
    let appliance = Appliance::new();
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &gateway("web", 80)).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    plane.willing.store(false, Ordering::Relaxed);
    appliance
        .while_running(async {
            until(|| plane.listeners() == 1).await;
            until(|| appliance.report()["generation"] == 1).await;
            let pending = Some(("False".to_owned(), "Pending".to_owned()));
            assert_eq!(appliance.programmed("web"), pending, "committed is not acknowledged");
            plane.willing.store(true, Ordering::Relaxed);
            until(|| appliance.is_programmed("web")).await;
            assert_eq!(appliance.report()["acknowledged"], 1);

            plane.willing.store(false, Ordering::Relaxed);
            fs::write(appliance.config("b.yaml"), gateway("other", 81)).unwrap();
            until(|| plane.listeners() == 2).await;
            until(|| appliance.programmed("other") == pending).await;
            assert!(appliance.is_programmed("web"), "a change elsewhere takes nothing away");
            plane.willing.store(true, Ordering::Relaxed);
            until(|| appliance.is_programmed("other")).await;
        })
        .await;
}

#[tokio::test]
async fn a_restart_with_the_same_objects_sends_nothing() {
    let appliance = Appliance::new();
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &gateway("web", 80)).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    appliance.while_running(until(|| appliance.is_programmed("web"))).await;
    let file = appliance.paths.run_dir.join("status/Gateway/default/web.yaml");
    let inode = || fs::metadata(&file).unwrap().ino(); // a file that is replaced has another
    let before = inode();
    for _ in 0..3 {
        fs::remove_file(appliance.paths.run_dir.join("controlplane.json")).unwrap();
        appliance
            .while_running(async {
                until(|| appliance.report()["publishes"]["nothing"] == 1).await;
                until(|| appliance.report()["acknowledged"] == 1).await;
                assert_eq!(appliance.report()["generation"], 1);
            })
            .await;
    }
    assert_eq!(plane.commits().len(), 1, "the data plane was told once");
    assert_eq!(inode(), before, "and so was the operator");
    fs::write(appliance.config("b.yaml"), gateway("other", 81)).unwrap();
    appliance.while_running(until(|| appliance.is_programmed("other"))).await;
    assert_eq!(
        appliance.report()["publishes"]["delta"],
        1,
        "what changed meanwhile is told as a difference"
    );
    assert_eq!(appliance.report()["generation"], 2);
}

#[tokio::test]
async fn a_restart_without_its_state_adopts_the_data_planes_generation() {
    let appliance = Appliance::new();
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &gateway("web", 80)).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("web")).await;
            fs::write(appliance.config("b.yaml"), gateway("other", 81)).unwrap();
            until(|| appliance.is_programmed("other")).await;
        })
        .await;
    fs::remove_dir_all(&appliance.paths.state_dir).unwrap();
    fs::remove_dir_all(appliance.paths.run_dir.join("status")).unwrap();
    appliance.while_running(until(|| appliance.is_programmed("other"))).await;
    assert_eq!(appliance.report()["generation"], 2);
    assert_eq!(plane.commits().len(), 2);
}

#[tokio::test]
async fn a_data_plane_that_restarts_is_told_at_once() {
    let appliance = Appliance::new();
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &gateway("web", 80)).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("web")).await;
            drop(plane);
            until(|| appliance.report()["connected"] == false).await;
            let trouble = appliance.report()["trouble"].as_str().unwrap_or_default().to_owned();
            let said = ["the other end ", "penstock-dataplane at "];
            assert!(said.iter().any(|it| trouble.starts_with(it)), "{trouble}");
            fs::remove_file(appliance.paths.run_dir.join("dataplane.state")).unwrap();
            let again = DataPlane::start(&appliance.paths);
            until(|| again.listeners() == 1).await;
            until(|| appliance.report()["connected"] == true).await;
        })
        .await;
}

#[tokio::test]
async fn an_object_that_the_data_plane_cannot_serve_is_said_to_be_so() {
    let appliance = Appliance::new();
    fs::write(
        appliance.config("a.yaml"),
        CLASS.to_owned() + &gateway("web", 80) + &gateway("other", 81),
    )
    .unwrap();
    let _plane = DataPlane::start_refusing(&appliance.paths, &["default/web/tcp"]);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("other")).await;
            assert_eq!(appliance.programmed("web"), Some(("False".into(), "Invalid".into())));
            let status = appliance.status("Gateway/default/web").unwrap();
            assert!(status.contains("no port has this VIP"), "{status}");
        })
        .await;
}

#[tokio::test]
async fn an_edit_that_an_api_server_would_refuse_disturbs_nothing_not_even_over_a_restart() {
    let appliance = Appliance::new();
    let good = CLASS.to_owned() + &gateway("web", 80);
    fs::write(appliance.config("a.yaml"), &good).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("web")).await;
            appliance.replace("a.yaml", &good.replace("port: 80", "port: 65536"));
            until(|| appliance.report()["errors"] == 1).await;
            let reason = appliance.report()["refused"][0]["reason"].to_string();
            assert!(reason.contains("65536 is not within 1 to 65535. The last good"), "{reason}");
            assert!(appliance.is_programmed("web"));
        })
        .await;
    fs::remove_dir_all(appliance.paths.run_dir.join("status")).unwrap();
    appliance.while_running(until(|| appliance.is_programmed("web"))).await;
    assert_eq!(plane.commits().len(), 1, "nobody told the data plane");
}

#[tokio::test]
async fn what_a_condition_refuses_is_in_the_report_until_it_is_mended() {
    let appliance = Appliance::new();
    let good = CLASS.to_owned() + &gateway("web", 80);
    fs::write(appliance.config("a.yaml"), good.replace("192.0.2.10", "224.0.0.1")).unwrap();
    let _plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            until(|| appliance.report()["errors"] == 2).await;
            let first = appliance.report()["refused"][0].clone();
            assert_eq!((&first["file"], &first["severity"]), (&"a.yaml".into(), &"error".into()));
            assert!(first["reason"].to_string().contains("is a multicast group"), "{first}");
            appliance.replace("a.yaml", &good);
            until(|| appliance.report()["errors"] == 0).await;
            until(|| appliance.is_programmed("web")).await;
            assert_eq!(appliance.report()["refused"], serde_json::json!([]));
        })
        .await;
}

#[tokio::test]
async fn the_report_is_touched_while_nothing_happens() {
    let appliance = Appliance::new();
    let file = appliance.paths.run_dir.join("controlplane.json");
    let touched = || fs::metadata(&file).and_then(|file| file.modified()).ok();
    appliance
        .while_running(async {
            until(|| touched().is_some()).await;
            let long_ago = std::time::UNIX_EPOCH;
            fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
            until(|| touched().is_some_and(|touched| touched > long_ago)).await;
        })
        .await;
}

#[tokio::test]
async fn the_folder_is_followed_as_people_use_it() {
    let appliance = Appliance::new();
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            appliance.replace("class.yaml", CLASS);
            appliance.replace("a.yaml", &gateway("a", 80));
            until(|| appliance.is_programmed("a")).await;

            // Saved by an editor: renamed over the old one.
            appliance.replace("a.yaml", &gateway("a", 8080));
            until(|| {
                appliance
                    .status("Gateway/default/a")
                    .is_some_and(|text| text.contains("generation: 2"))
            })
            .await;
            until(|| appliance.is_programmed("a")).await;

            // Half-written, and the writer dies.
            let whole = gateway("a", 8081) + &gateway("b", 8082);
            fs::write(appliance.config("a.yaml"), &whole[..whole.len() / 3]).unwrap();
            until(|| !appliance.report()["refused"].as_array().is_none_or(Vec::is_empty)).await;
            assert!(appliance.is_programmed("a"), "its last good objects stay in force");
            let found = appliance.report()["refused"].to_string();
            assert!(found.contains("a.yaml") && found.contains("stay in force"), "{found}");
            fs::write(appliance.config("a.yaml"), &whole).unwrap();
            until(|| appliance.is_programmed("b")).await;
            assert_eq!(appliance.report()["refused"], serde_json::json!([]));

            // Removed, together with its status.
            fs::remove_file(appliance.config("a.yaml")).unwrap();
            until(|| appliance.status("Gateway/default/a").is_none() && plane.listeners() == 0)
                .await;

            // A burst of files is few generations.
            let before = plane.commits().len();
            for number in 0..100 {
                fs::write(
                    appliance.config(&format!("{number}.yaml")),
                    gateway(&format!("g{number}"), 1000 + number),
                )
                .unwrap();
            }
            until(|| plane.listeners() == 100).await;
            until(|| appliance.is_programmed("g99")).await;
            let commits = plane.commits().len() - before;
            assert!(commits < 50, "{commits} generations for one burst");
        })
        .await;
}

#[tokio::test]
async fn a_folder_that_breaks_changes_nothing_not_even_over_a_restart() {
    let appliance = Appliance::new();
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &gateway("web", 80)).unwrap();
    let aside = appliance.paths.config_dir.with_file_name("aside");
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("web")).await;
            fs::rename(&appliance.paths.config_dir, &aside).unwrap();
            until(|| appliance.report()["refused"].to_string().contains("cannot be read")).await;
            assert!(appliance.is_programmed("web"));
        })
        .await;
    fs::remove_dir_all(appliance.paths.run_dir.join("status")).unwrap();
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("web")).await;
            fs::rename(&aside, &appliance.paths.config_dir).unwrap();
            until(|| appliance.report()["refused"] == serde_json::json!([])).await;
            fs::write(appliance.config("b.yaml"), gateway("other", 81)).unwrap();
            until(|| appliance.is_programmed("other")).await;
        })
        .await;
    assert_eq!(plane.commits().len(), 2);
}

#[tokio::test]
async fn a_folder_that_takes_the_place_of_another_is_followed() {
    let appliance = Appliance::new();
    let next = appliance.paths.config_dir.with_file_name("next");
    let _plane = DataPlane::start(&appliance.paths);
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &gateway("old", 80)).unwrap();
    fs::create_dir(&next).unwrap();
    fs::write(next.join("a.yaml"), CLASS.to_owned() + &gateway("new", 80)).unwrap();
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("old")).await;
            let config = &appliance.paths.config_dir;
            fs::rename(config, config.with_file_name("old")).unwrap();
            fs::rename(&next, config).unwrap();
            until(|| appliance.is_programmed("new")).await;
            assert_eq!(appliance.status("Gateway/default/old"), None);
            fs::write(appliance.config("b.yaml"), gateway("newer", 81)).unwrap();
            until(|| appliance.is_programmed("newer")).await;
        })
        .await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named_with_its_flag() {
    let appliance = Appliance::new();
    let mut paths = appliance.paths.clone();
    paths.state_dir = Path::new("/proc/nowhere").into();
    let error = controller::run(paths).await.unwrap_err().to_string();
    assert!(error.contains("/proc/nowhere") && error.contains("--state-dir"), "{error}");
}

fn http_gateway(name: &str, port: u16) -> String {
    gateway(name, port).replace("name: tcp, protocol: TCP", "name: http, protocol: HTTP")
}

#[tokio::test]
async fn an_http_listener_is_programmed_when_both_have_acknowledged() {
    let appliance = Appliance::new();
    fs::write(appliance.config("a.yaml"), CLASS.to_owned() + &http_gateway("web", 80)).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            let pending = Some(("False".to_owned(), "Pending".to_owned()));
            until(|| appliance.report()["acknowledged"] == 1).await;
            until(|| appliance.programmed("web") == pending).await;
            let vips = |commits: Vec<data_plane::Commit>| commits.last().unwrap().1.vips.size();
            assert_eq!((plane.listeners(), vips(plane.commits())), (0, 1), "a VIP and no more");

            let l7 = DataPlane::start_l7(&appliance.paths, &[]);
            until(|| appliance.is_programmed("web")).await;
            let told = l7.commits().last().unwrap().1.clone();
            assert_eq!((told.l7.listeners.size(), told.vips.size()), (1, 0));
            assert_eq!(appliance.report()["l7"]["acknowledged"], 1);
        })
        .await;
}

#[tokio::test]
async fn what_the_l7_tier_cannot_serve_is_said_of_that_listener_alone() {
    let appliance = Appliance::new();
    let both = CLASS.to_owned() + &http_gateway("web", 80) + &http_gateway("other", 81);
    fs::write(appliance.config("a.yaml"), both).unwrap();
    let _plane = DataPlane::start(&appliance.paths);
    let _l7 = DataPlane::start_l7(&appliance.paths, &["default/web/http"]);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("other")).await;
            until(|| appliance.programmed("web").is_some_and(|(status, _)| status == "False"))
                .await;
            let said = appliance.status("Gateway/default/web").unwrap();
            assert!(said.contains("no port has this VIP"), "{said}");
        })
        .await;
}

#[tokio::test]
async fn listeners_of_the_data_plane_do_not_notice_an_l7_tier_that_comes_and_goes() {
    let appliance = Appliance::new();
    let both = CLASS.to_owned() + &gateway("tcp", 80) + &http_gateway("http", 81);
    fs::write(appliance.config("a.yaml"), both).unwrap();
    let plane = DataPlane::start(&appliance.paths);
    appliance
        .while_running(async {
            until(|| appliance.is_programmed("tcp")).await;
            let l7 = DataPlane::start_l7(&appliance.paths, &[]);
            until(|| appliance.is_programmed("http")).await;
            drop(l7);
            until(|| appliance.report()["l7"]["connected"] == false).await;
            fs::write(appliance.config("b.yaml"), gateway("more", 82)).unwrap();
            until(|| appliance.is_programmed("more")).await;
            assert!(appliance.is_programmed("tcp") && plane.listeners() == 2);

            let l7 = DataPlane::start_l7(&appliance.paths, &[]);
            until(|| appliance.report()["l7"]["connected"] == true).await;
            until(|| appliance.is_programmed("http")).await;
            assert_eq!(l7.commits().len(), 0, "what it kept is what is wanted: nothing was sent");
        })
        .await;
}
