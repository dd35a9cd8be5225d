//! Who has no certificate of our authority is refused, and no box notices.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{BOXES, boxes, is_all_well};
use crate::network::{Lab, wait_for};

const LIMIT: Duration = Duration::from_secs(10);
const AT: &str = "10.10.3.1:7443";

/// How many were refused for a reason.
fn refused(lab: &Lab, reason: &str) -> u64 {
    let boxes = boxes(lab).unwrap_or_default();
    boxes["refused"][reason].as_u64().unwrap_or(0)
}

/// The controller says in its log that it refused someone, why and from where.
fn is_logged(lab: &Lab, reason: &str) -> bool {
    let log = lab.directory().join("log/penstock-controlplane.log");
    let log = fs::read_to_string(log).expect("it is there");
    let is_it = |line: &str| {
        let words = ["refused at the boxes' port", &format!("reason=\"{reason}\""), "10.10.3.99"];
        words.iter().all(|word| line.contains(word))
    };
    log.lines().any(is_it)
}

/// What a box of our release would say first, without a certificate; what it is answered.
fn hello_without_certificate(lab: &Lab) -> String {
    let hello = format!("{{\"release\":\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let length = 1 + hello.len();
    let command = format!(
        "(printf '\\0\\0\\0\\x{length:02x}\\1%s' '{hello}'; sleep 1) | \
         timeout 5 openssl s_client -connect {AT} -tls1_3 -alpn penstock-boxes/1 -quiet 2>/dev/null || true"
    );
    lab.on("stranger", &["bash", "-c", &command])
}

/// What a box keeps, made from what `host` keeps: the same name in a certificate of nobody.
fn forge(lab: &Lab, host: &str, folder: &Path) {
    let own = lab.files(host).join("state/controlplane/box.json");
    let text = fs::read_to_string(&own).expect("it has joined");
    let mut kept: Value = serde_json::from_str(&text).expect("JSON");
    let certificate = folder.join("own.crt");
    fs::write(&certificate, kept["certificate"].as_str().expect("PEM")).expect("write");
    let said = openssl(folder, &["x509", "-in", "own.crt", "-noout", "-ext", "subjectAltName"]);
    let name = said.split_whitespace().find(|word| word.starts_with("URI:penstock:box:"));
    let name = name.unwrap_or_else(|| panic!("no Box in {said:?}"));
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=nobody",
            "-addext",
            &format!("subjectAltName={name}"),
            "-keyout",
            "forged.key",
            "-out",
            "forged.crt",
        ],
    );
    for (part, file) in [("certificate", "forged.crt"), ("key", "forged.key")] {
        kept[part] = fs::read_to_string(folder.join(file)).expect("it was made").into();
    }
    fs::write(folder.join("box.json"), kept.to_string()).expect("write");
}

fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let made = Command::new("openssl").args(arguments).current_dir(folder).output();
    let made = made.expect("openssl is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8_lossy(&made.stdout).into_owned()
}

/// One without a certificate, and one with a certificate of nobody that names a box that there is.
pub(super) fn are_refused(lab: &Lab) {
    let statuses = || BOXES.map(|host| lab.status(&format!("Box/{host}")));
    let before = statuses();
    let answer = hello_without_certificate(lab);
    assert!(
        answer.contains("\"no-certificate\"") && answer.contains("penstock join"),
        "{answer:?}"
    );
    wait_for("no certificate is counted", LIMIT, || {
        (refused(lab, "no-certificate") == 1).then_some(())
    });
    assert!(is_logged(lab, "no-certificate"));

    let folder = TempDir::with_prefix("penstock-rogue-").expect("a directory");
    forge(lab, "box1", folder.path());
    let path = folder.path().to_str().expect("a path of plain characters");
    let agent = ["penstock-controlplane", "agent", "--state-dir", path, "--run-dir", path];
    let rogue = lab.start("stranger", &[&agent[..], &["--log", "error"]].concat());
    wait_for("another's certificate is counted, each time it tries", LIMIT, || {
        (refused(lab, "tls") >= 3).then_some(())
    });
    assert!(is_logged(lab, "tls"));
    let report = fs::read_to_string(folder.path().join("controlplane.json")).expect("it runs");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let trouble = report["agent"]["trouble"].as_str().unwrap_or_default();
    assert!(trouble.contains("fatal alert"), "what the rogue is told: {trouble}");
    assert_eq!(report["agent"]["connected"], false);
    assert_eq!(report["agent"]["digest"], "", "it was told nothing");
    drop(rogue);

    assert_eq!(statuses(), before, "no link was cut, and none made");
    assert!(is_all_well(lab));
}
