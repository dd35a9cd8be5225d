//! The folders of one control process, and its report.
#![allow(unreachable_pub, reason = "a module of a test")]

use std::fs;

use penstock_controlplane::controller::Paths;
use serde_json::Value;

/// Folders of one test, gone with it.
pub struct Appliance {
    _root: tempfile::TempDir,
    pub paths: Paths,
}

impl Appliance {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("config")).unwrap();
        fs::create_dir(path("run")).unwrap();
        let paths = Paths {
            config_dir: path("config"),
            run_dir: path("run"),
            state_dir: path("state"),
            dataplane_socket: path("run").join("dataplane.sock"),
            l7_socket: path("run").join("l7.sock"),
            metrics: None,
        };
        Self { _root: root, paths }
    }

    pub fn report(&self) -> Value {
        let text = fs::read(self.paths.run_dir.join("controlplane.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}
