//! What `penstock check` finds, a row each.

use std::fs;
use std::path::Path;

use penstock_controlplane::{Severity, check};

const EXAMPLE: &str = include_str!("../../../deploy/examples/web.yaml");

/// The findings for files in a folder, with the folder's path cut off.
fn findings(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let prefix = format!("{}/", folder.path().display());
    check(&[folder.path()]).iter().map(|finding| finding.to_string().replace(&prefix, "")).collect()
}

#[test]
fn the_example_is_without_fault() {
    assert_eq!(findings(&[("web.yaml", EXAMPLE)]), Vec::<String>::new());
}

#[test]
fn the_example_of_two_teams_is_without_fault() {
    let teams = include_str!("../../../deploy/examples/teams.yaml");
    assert_eq!(findings(&[("teams.yaml", teams)]), Vec::<String>::new());
}

#[test]
fn the_example_of_a_service_is_without_fault() {
    let service = include_str!("../../../deploy/examples/service.yaml");
    assert_eq!(findings(&[("service.yaml", service)]), Vec::<String>::new());
}

#[test]
fn the_example_of_our_own_kinds_is_without_fault() {
    let policies = include_str!("../../../deploy/examples/policies.yaml");
    assert_eq!(
        findings(&[("policies.yaml", policies), ("web.yaml", EXAMPLE)]),
        Vec::<String>::new()
    );
}

#[test]
fn what_is_wrong_is_found_with_its_place() {
    for (promise, text, expected) in [
        (
            "a syntax error",
            EXAMPLE.replace("spec:\n  gatewayClassName", "spec: [\n  gatewayClassName"),
            &["web.yaml:18:", "no valid YAML"][..],
        ),
        (
            "a wrong type",
            EXAMPLE.replace("weight: 75", "weight: lots"),
            &[
                "web.yaml:43:15: error: TCPRoute default/web: spec.rules[0].backendRefs[0].weight: string \"lots\" does not fit",
            ],
        ),
        (
            "a misspelt field",
            EXAMPLE.replace("weight: 75", "wieght: 75"),
            &[
                "web.yaml:43:",
                "warning: TCPRoute default/web: unknown field spec.rules[0].backendRefs[0].wieght",
            ],
        ),
        (
            "a Service that is missing",
            EXAMPLE.replace("name: web-green\n      port", "name: web-gren\n      port"),
            &[
                "web.yaml:31:1: error: TCPRoute default/web: parent web listener http: ResolvedRefs=False/BackendNotFound",
                "Service default/web-gren does not exist",
            ],
        ),
        (
            "a port nobody has",
            EXAMPLE.replace("port: 5300\n---\n# Three", "port: 530000\n---\n# Three"),
            &[
                "web.yaml:27:11: error: Gateway default/web: spec.listeners[1].port: 530000 is not within 1 to 65535",
                "TCPRoute default/web: its parent Gateway default/web does not exist, or is refused",
            ],
        ),
        (
            "a class that is missing",
            EXAMPLE.replace("gatewayClassName: penstock", "gatewayClassName: pensotck"),
            &["web.yaml:12:1: warning: Gateway default/web: GatewayClass pensotck does not exist"],
        ),
        (
            "an address that is missing",
            EXAMPLE.replace(
                "  addresses:\n  - type: IPAddress\n    value: 10.10.0.100 # the VIP\n",
                "",
            ),
            &["Programmed=False/AddressNotAssigned", "write one of type IPAddress"],
        ),
    ] {
        assert_ne!(text, EXAMPLE, "{promise}: the row changes nothing");
        let found = findings(&[("web.yaml", &text)]).join("\n");
        for part in expected {
            assert!(found.contains(part), "{promise}: {part:?} is not in\n{found}");
        }
    }
}

#[test]
fn files_are_checked_as_one_set() {
    let (class, rest) = EXAMPLE.split_once("---\n").unwrap();
    assert_eq!(findings(&[("a.yaml", class), ("b.yaml", rest)]), Vec::<String>::new());
    let twice = findings(&[("a.yaml", class), ("b.yaml", EXAMPLE)]);
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert!(
        twice[0].starts_with("b.yaml:5:1: error: GatewayClass penstock: given twice"),
        "{}",
        twice[0]
    );
}

#[test]
fn a_path_that_cannot_be_read_is_a_finding() {
    let found = check(&[Path::new("/nowhere/at/all.yaml")]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Error);
    assert!(
        found[0].to_string().starts_with("/nowhere/at/all.yaml: error: cannot be read"),
        "{}",
        found[0]
    );
}

#[test]
fn each_fault_is_said_once() {
    let parameters = "gatewayClassName: penstock\n  infrastructure: {parametersRef: {group: a, kind: B, name: c}}";
    let text = EXAMPLE.replace("gatewayClassName: penstock", parameters);
    assert_ne!(text, EXAMPLE);
    let found = findings(&[("web.yaml", &text)]);
    assert_eq!(found.len(), 1, "{found:#?}");
}
