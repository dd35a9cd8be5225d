//! What the linker is told: the system's shared libdpdk, or with `static-dpdk` its archives.

use std::env;
use std::path::Path;

use crate::pkg_config::{Libdpdk, ask};

/// What `static-dpdk` links whole. Buses, mempool handlers and PMDs register in constructors that
/// nothing refers to; a linker that takes only what is asked for would leave them all out.
///
/// All of libdpdk's drivers would ask for rdma-core, libxdp and a dozen more development packages.
const WHOLE: [&str; 21] = [
    "bus_auxiliary",
    "bus_pci",
    "bus_vdev",
    "common_iavf",
    "mempool_ring",
    "net_af_packet",
    "net_bond",
    "net_e1000",
    "net_ena",
    "net_gve",
    "net_i40e",
    "net_iavf",
    "net_ice",
    "net_igc",
    "net_ixgbe",
    "net_memif",
    "net_null",
    "net_ring",
    "net_tap",
    "net_virtio",
    "net_vmxnet3",
];

/// Without these no device can be found, or no mempool made.
const INDISPENSABLE: [&str; 3] = ["bus_pci", "bus_vdev", "mempool_ring"];

/// Libraries outside DPDK that the archives above refer to, if pkg-config knows them.
const OUTSIDE: [&str; 3] = ["-lnuma", "-lbsd", "-lm"];

pub(crate) fn libraries(libdpdk: &Libdpdk) -> Result<(), String> {
    if env::var_os("CARGO_FEATURE_STATIC_DPDK").is_some() { archives(libdpdk) } else { shared() }
}

/// One line per `-l` and `-L`. PMDs are plugins that EAL loads at start from the library's folder.
fn shared() -> Result<(), String> {
    for word in ask(&["--libs"])? {
        if let Some(library) = word.strip_prefix("-l") {
            println!("cargo::rustc-link-lib=dylib={library}");
        } else if let Some(folder) = word.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={folder}");
        }
    }
    Ok(())
}

/// `-bundle` leaves the archives where they are: inside the rlib rustc would take them apart.
fn archives(libdpdk: &Libdpdk) -> Result<(), String> {
    let folder = ask(&["--variable=libdir"])?.concat();
    println!("cargo::rustc-link-search=native={folder}");
    let installed = |name: &str| Path::new(&folder).join(format!("librte_{name}.a")).exists();
    for driver in WHOLE {
        if installed(driver) {
            println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=rte_{driver}");
        } else if INDISPENSABLE.contains(&driver) {
            return Err(format!(
                "{folder}/librte_{driver}.a of libdpdk {} is missing: build DPDK with it, or build without the feature static-dpdk",
                libdpdk.version
            ));
        }
    }
    for word in ask(&["--libs"])? {
        if let Some(library) = word.strip_prefix("-lrte_") {
            println!("cargo::rustc-link-lib=static:-bundle=rte_{library}");
        }
    }
    let mut outside = ask(&["--static", "--libs"])?;
    outside.retain(|word| OUTSIDE.contains(&word.as_str()));
    outside.sort();
    outside.dedup();
    for word in outside {
        println!("cargo::rustc-link-lib=dylib={}", &word[2..]);
    }
    Ok(())
}
