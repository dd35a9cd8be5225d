//! Finds libdpdk, compiles the shim, generates the declarations, says what to link.
//!
//! Whatever is missing ends the build with one line that says what to install.

#[path = "build/link.rs"]
mod link;
#[path = "build/pkg_config.rs"]
mod pkg_config;

use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use pkg_config::{Libdpdk, OLDEST};

fn main() {
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-changed=build");
    if let Err(message) = build() {
        println!("cargo::error={message}"); // Cargo prints it alone and fails the build
    }
}

fn build() -> Result<(), String> {
    let libdpdk = Libdpdk::find()?;
    println!("cargo::rustc-env=PENSTOCK_DPDK_VERSION={}", libdpdk.version);
    println!("cargo::metadata=version={}", libdpdk.version);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: build with cargo")?);
    compile_shim(&libdpdk)?;
    generate_declarations(&libdpdk, &out)?;
    link::libraries(&libdpdk)
}

/// The shim gets DPDK's own flags (`-include rte_config.h -march=…`), since it instantiates inline
/// functions that must agree with the library, and is optimised in debug builds too.
fn compile_shim(libdpdk: &Libdpdk) -> Result<(), String> {
    let mut shim = cc::Build::new();
    shim.file("shim/shim.c").opt_level(3);
    shim.warnings(false).cargo_metadata(true); // DPDK's inline functions are not ours to mend
    for flag in &libdpdk.cflags {
        shim.flag(flag);
    }
    shim.try_compile("penstock_shim").map_err(|failed| {
        let reason = failed.to_string().replace('\n', " ");
        format!("the C compiler refused the shim over libdpdk {}: {reason}", libdpdk.version)
    })
}

/// A narrow list, so that the output is small and the same names exist on every supported release:
/// a wide one (`rte_.*`) does not even compile (packed structs that hold aligned ones).
fn generate_declarations(libdpdk: &Libdpdk, out: &Path) -> Result<(), String> {
    let builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(&libdpdk.cflags)
        .use_core()
        .layout_tests(true)
        .generate_comments(false)
        .merge_extern_blocks(true)
        .prepend_enum_name(false)
        .derive_default(true)
        .derive_debug(false)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        .allowlist_function("penstock_.*")
        .allowlist_var("PENSTOCK_.*")
        .allowlist_function(
            "rte_(eal_(init|cleanup|remote_launch|wait_lcore)|version|strerror|get_tsc_hz|get_next_lcore)",
        )
        .allowlist_function("rte_(pktmbuf_pool_create|pktmbuf_free_bulk|mempool_(free|avail_count|in_use_count))")
        .allowlist_function("rte_eth_(find_next_owned_by|macaddr_get|stats_get|xstats_get|xstats_get_names|promiscuous_(enable|disable)|allmulticast_enable)")
        .allowlist_function("rte_eth_dev_(info_get|get_name_by_port|socket_id|configure|adjust_nb_rx_tx_desc|set_mtu|get_mtu|set_vlan_ether_type|vlan_filter|start|stop|close)")
        .allowlist_function("rte_eth_dev_rss_(hash_update|hash_conf_get|reta_update|reta_query)")
        .allowlist_function("rte_eth_[rt]x_queue_setup|rte_dev_name")
        .opaque_type("rte_mbuf|rte_mempool|rte_flow"); // the head of the mbuf is mirrored by hand, see src/mbuf.rs
    // bindgen panics where libclang is missing; that panic is the reason, not a report of ours.
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(AssertUnwindSafe(|| builder.generate()));
    drop(panic::take_hook());
    generated
        .map_err(|_| "libclang not found, bindgen needs it: apt-get install libclang-dev (Debian 12), or set LIBCLANG_PATH".to_owned())?
        .map_err(|failed| format!("bindgen refused the headers of libdpdk {}: {failed}; DPDK {OLDEST} and later are known to work", libdpdk.version))?
        .write_to_file(out.join("declarations.rs"))
        .map_err(|failed| format!("{}: {failed}", out.display()))
}
