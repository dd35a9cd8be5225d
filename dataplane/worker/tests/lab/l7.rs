//! HTTP and HTTPS listeners, through the port, the companion and the kernel to `penstock-l7`.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::network::{Lab, wait_for};
use crate::site::{Endpoint::Ready, Site};
use crate::{BACKENDS, FULL_NAT_VIP};

const L7_VIP: &str = "10.10.0.110";
const LIMIT: Duration = Duration::from_secs(20);
const KILLS: u32 = 5;

/// A certificate of its own authority for a host, where every host of the lab can read it.
struct Certificate {
    folder: TempDir,
}

impl Certificate {
    fn new(host: &str) -> Self {
        let folder = TempDir::with_prefix("penstock-tls-").expect("a directory");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=lab", "-addext"])
            .arg(format!("subjectAltName=DNS:{host}"))
            .args(["-keyout", "tls.key", "-out", "tls.crt"])
            .current_dir(folder.path())
            .output()
            .expect("openssl is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { folder }
    }

    fn path(&self) -> String {
        self.folder.path().join("tls.crt").display().to_string()
    }

    /// A file of it, as the value of a key in YAML.
    fn yaml(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.path().join(name)).expect("it was made");
        text.lines().map(|line| format!("\n    {line}")).collect()
    }
}

/// The site of `web`, and a Gateway `site` that is the L7 tier's alone.
fn site(certificate: &Certificate) -> Site {
    let site = Site::new();
    site.gateway("web", FULL_NAT_VIP, "full-nat", &[("http", "TCP", 80)]);
    site.route("TCP", ("web", "http"), 80, &[("web", 1)]);
    site.service("web", "TCP", 80, &BACKENDS.map(Ready));
    site.write(
        "site",
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: site}}\nspec:\n  \
             gatewayClassName: penstock\n  addresses: [{{type: IPAddress, value: \"{L7_VIP}\"}}]\n  listeners:\n  \
             - {{name: http, protocol: HTTP, port: 80}}\n  \
             - name: https\n    protocol: HTTPS\n    port: 443\n    hostname: www.example.com\n    \
             tls: {{certificateRefs: [{{name: www}}]}}\n---\n\
             apiVersion: v1\nkind: Secret\nmetadata: {{name: www}}\ntype: kubernetes.io/tls\nstringData:\n  \
             tls.crt: |{}\n  tls.key: |{}\n",
            certificate.yaml("tls.crt"),
            certificate.yaml("tls.key"),
        ),
    );
    site
}

/// The status and the version of HTTP that a URL of `www.example.com` is answered by.
fn get(lab: &Lab, scheme: &str, certificate: &Certificate) -> Option<String> {
    let resolved = ["80", "443"].map(|port| format!("www.example.com:{port}:{L7_VIP}"));
    let [http, https] = resolved.each_ref().map(String::as_str);
    let (url, authority) = (format!("{scheme}://www.example.com/"), certificate.path());
    let command =
        ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code} %{http_version}"];
    let more = ["--cacert", &authority, "--resolve", http, "--resolve", https, &url];
    lab.try_on("client1", &[&command[..], &more].concat())
}

fn is_programmed(lab: &Lab, gateway: &str) -> bool {
    let path = format!("run/status/Gateway/default/{gateway}.yaml");
    let text = std::fs::read_to_string(lab.directory().join(path)).unwrap_or_default();
    let object: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|it| it["type"] == "Programmed" && it["status"] == "True")
}

#[test]
#[ignore = "needs root, hugepages and the lab of scripts/lab"]
fn the_l7_tier_answers_on_its_vip_and_may_be_killed_beside_l4_flows() {
    let certificate = Certificate::new("www.example.com");
    let site = site(&certificate);
    let lab = Lab::up(&site, &["--workers", "2"]);
    wait_for("the L7 tier serves", LIMIT, || is_programmed(&lab, "site").then_some(()));
    for (scheme, expected) in [("http", "404 1.1"), ("https", "404 2")] {
        assert_eq!(get(&lab, scheme, &certificate).as_deref(), Some(expected), "{scheme}");
    }
    let punted = lab.counted("punts", "l7", "packets");
    assert!(punted >= 10, "{punted} packets took the queue of the L7 tier");

    let to = format!("{FULL_NAT_VIP}:80");
    let mut held = lab.start_peer("client1", &["hold", &to, "--count", "100"]);
    assert_eq!(held.report()["opened"], 100);
    let arguments = ["connect", &to, "--count", "2000", "--rate", "200"];
    let mut connecting = lab.start_peer("client2", &arguments);
    let mut longest = Duration::ZERO;
    for _ in 0..KILLS {
        let killed_pid = lab.kill("penstock-l7");
        let killed = Instant::now();
        wait_for("it serves again", LIMIT, || {
            get(&lab, "https", &certificate).filter(|answer| answer == "404 2")
        });
        longest = longest.max(killed.elapsed());
        assert_ne!(lab.pid("penstock-l7"), Some(killed_pid));
        thread::sleep(Duration::from_millis(300));
    }
    eprintln!("  HTTPS is answered at most {longest:?} after kill -9 of the L7 tier");
    let report = connecting.report();
    assert_eq!(report["ok"], 2000, "{report}");
    let report = held.stop();
    assert_eq!((&report["alive"], &report["resets"]), (&100.into(), &0.into()), "{report}");
}
