//! libdpdk as it is: declarations, a C shim, nothing safe.
//!
//! Three parts make this crate:
//!
//! * `declarations`: what bindgen reads from the headers of the libdpdk that is installed, generated at
//!   every build, since layouts move between releases. The list of names is in `build.rs` and is
//!   kept narrow.
//! * `shim/shim.h` and `shim/shim.c`: the inline functions (a burst is one), errno, and the
//!   constants that are C expressions. Names begin with `penstock_`. One call costs about 3 TSC
//!   cycles over the inlined form, once per burst.
//! * [`MbufHead`]: the first cache line of `rte_mbuf` mirrored by hand, so that lengths and flags are
//!   read without a call; its layout is asserted against the shim's at compile time.
//!
//! Nothing here checks anything. `penstock-dpdk` is the layer that programs use, and the only crate
//! that should depend on this one.

#![expect(
    unsafe_code,
    reason = "declarations of C functions, and the bit fields bindgen makes of C structs"
)]

mod mbuf;

pub use declarations::*;
pub use mbuf::MbufHead;

/// The release of libdpdk this crate was compiled against, for instance `22.11.11`.
pub const COMPILED_AGAINST: &str = env!("PENSTOCK_DPDK_VERSION");

#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    clippy::all,
    clippy::multiple_unsafe_ops_per_block,
    clippy::semicolon_if_nothing_returned,
    clippy::undocumented_unsafe_blocks,
    reason = "written by bindgen with the names of C; which lints it meets depends on the release of DPDK"
)]
mod declarations {
    include!(concat!(env!("OUT_DIR"), "/declarations.rs"));
}
