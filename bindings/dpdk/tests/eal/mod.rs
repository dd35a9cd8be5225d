//! EAL as tests run it: no hugepages, no NIC, no files. One EAL a process, hence one test a binary.

use penstock_dpdk::Eal;

/// Starts EAL with virtual devices only, on 64 MiB of ordinary memory.
pub(crate) fn start(more: &[&str]) -> Eal {
    let mut arguments = vec!["--no-huge", "--no-pci", "-m", "64", "--no-shconf", "--no-telemetry"];
    arguments.push("--file-prefix=penstock-test"); // an empty folder; all processes may share it
    arguments.extend_from_slice(more);
    Eal::init(&arguments).unwrap_or_else(|error| panic!("{error}"))
}
