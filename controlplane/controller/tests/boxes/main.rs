//! Controllers and boxes over loopback: real TLS, real rings, data planes that only say yes or no.
#![allow(unreachable_pub, reason = "modules of a test")]

#[path = "../api_server/mod.rs"]
mod api_server;
#[path = "../appliance/mod.rs"]
mod appliance;
mod cluster;
#[path = "../data_plane/mod.rs"]
mod data_plane;
mod fleet;
mod process;
mod rogue;
mod site;
