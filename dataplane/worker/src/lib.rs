//! `penstock-dataplane`: the process that owns the ports.
//!
//! It takes packets from DPDK ports, sends them through the forwarder and out again, on pinned
//! workers that share nothing. It knows no Kubernetes and holds no secret: what to serve comes over
//! the feed, and the last that was committed is on disk, so that it serves with nobody to ask.
//!
//! ```text
//!  main thread   feed ─▶ state ─┐                    statistics, heartbeat
//!                netlink ─▶ FIB ┴▶ snapshot ─▶ one pointer ─┐   ▲ next hops to resolve
//!  worker lcore  queue ─▶ forwarder ─▶ queue      ◀─────────┘   │      (one each, pinned)
//!                  │  ▲ hand over to the owner of the flow      │
//!                  ▼  │ other workers      hold ────────────────┘
//!  exception     companion TAP ◀─▶ the kernel: ARP, ICMP, BGP, SSH
//! ```
//!
//! * [`config`]: the machine, said once in a file; [`eal`]: what of it DPDK is told.
//! * [`start`]: everything that can fail, in order, before the first packet.
//! * [`main_lcore`]: the thread that listens to feed and kernel, and publishes snapshots.
//! * [`snapshot`]: state and kernel view to what the forwarder reads; [`slots`]: stable numbers;
//!   [`orphans`]: since when flows have nobody who serves them.
//! * [`published`]: the pointer, and when the old may be freed.
//! * [`receive`]: how the packets of each port come to the workers: RSS, or a worker that spreads.
//! * [`lcore`]: the worker's loop; [`path`]: the way of packets through it; [`edge`]: what frames are behind it; [`handover`], [`hold`], [`pieces`], [`idle`],
//!   [`clock`]: its parts.
//! * [`hosts`]: where the configuration sends packets; [`in_use`]: the next hops that the kernel shall
//!   know beforehand; [`occupied`]: the addresses that can be no VIP.
//! * [`exception`]: frames to and from the kernel; [`kernel`]: TAPs and netlink.
//! * [`inspect`]: what an operator asks of it; [`watch`]: whether the workers still turn.
//! * [`memory`]: hugepage files for the flow tables; [`statistics`]: what is counted, and where.

pub mod clock;
pub mod companions;
pub mod config;
pub mod eal;
pub mod edge;
pub mod exception;
pub mod fib;
pub mod handover;
pub mod hold;
pub mod hosts;
pub mod idle;
pub mod in_use;
pub mod inspect;
pub mod kernel;
pub mod lcore;
pub mod main_lcore;
pub mod memory;
pub mod occupied;
pub mod orphans;
pub mod path;
pub mod pieces;
pub mod published;
pub mod receive;
mod shared;
pub mod slots;
pub mod snapshot;
pub mod start;
pub mod statistics;
pub mod watch;
