//! What a program reads when EAL does not start.

use penstock_dpdk::{Eal, EalError};

#[test]
fn a_refusal_names_arguments_and_cause() {
    let nul = Eal::init(&["--no-pci\0"]).expect_err("C cannot take it");
    assert_eq!(nul.to_string(), r#"EAL argument "--no-pci\0" holds a NUL byte: remove it"#);

    let arguments = [
        "--no-huge",
        "--no-pci",
        "-m",
        "16",
        "--no-shconf",
        "--no-telemetry",
        "--vdev=net_unheard0",
    ];
    let message = Eal::init(&arguments).expect_err("no PMD drives it").to_string();
    assert!(message.starts_with("EAL refused to start with [\"--no-huge\", "), "{message}");
    assert!(message.contains("No such device (errno 19); its own lines above"), "{message}");

    let again = Eal::init(&["--no-pci"]).expect_err("once a process");
    assert!(matches!(again, EalError::Again), "{again}");
}
