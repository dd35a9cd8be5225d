//! Promises kept against a real kernel: each test runs on a thread in a network namespace of its
//! own, which goes with the thread. They need root and `ip` (iproute2), and say so where they skip.

mod addresses;
mod attachment;
mod frames;
mod mirror;
mod namespace;
mod neighbours;
mod routes;
mod tap;
