//! EAL as tests run it: no hugepages, no NIC, files of its own. One EAL a process, hence one test a
//! binary.

use penstock_dpdk::Eal;

/// Starts EAL with virtual devices only, on 64 MiB of ordinary memory.
pub(crate) fn start(more: &[&str]) -> Eal {
    let prefix = format!("--file-prefix=penstock-test-{}", std::process::id());
    let mut arguments =
        vec!["--no-huge", "--no-pci", "-m", "64", "--no-shconf", "--no-telemetry", &prefix];
    arguments.extend_from_slice(more);
    Eal::init(&arguments).unwrap_or_else(|error| panic!("{error}"))
}
