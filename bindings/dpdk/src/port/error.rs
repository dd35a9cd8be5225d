//! Why a port did not do as told.

use std::ffi::c_int;

use crate::errno::Errno;

/// Why a port did not do as told: the port, what was asked, and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Too many queues, or none.
    #[error("port {port}: {asked} {direction} queues asked, PMD allows 1..={most}")]
    Queues {
        /// The port.
        port: String,
        /// `RX` or `TX`.
        direction: &'static str,
        /// What was asked.
        asked: u16,
        /// What the PMD allows.
        most: u16,
    },
    /// Too few or too many descriptors in a ring.
    #[error("port {port}: {asked} {direction} descriptors asked, PMD allows {least}..={most}")]
    Descriptors {
        /// The port.
        port: String,
        /// `RX` or `TX`.
        direction: &'static str,
        /// What was asked.
        asked: u16,
        /// The PMD's lower limit.
        least: u16,
        /// The PMD's upper limit.
        most: u16,
    },
    /// The device cannot do this MTU.
    #[error("port {port}: MTU {asked} asked, PMD allows {least}..={most}")]
    Mtu {
        /// The port.
        port: String,
        /// What was asked.
        asked: u16,
        /// The PMD's lower limit.
        least: u16,
        /// The PMD's upper limit.
        most: u16,
    },
    /// A frame of this MTU does not fit an mbuf.
    #[error(
        "port {port}: frames of MTU {mtu} have up to {frame} bytes, mbufs of mempool {pool} hold {room}: give it a larger data room"
    )]
    DataRoom {
        /// The port.
        port: String,
        /// What was asked.
        mtu: u16,
        /// Its largest frame, with Ethernet header, two tags and FCS.
        frame: u32,
        /// The mempool's name.
        pool: String,
        /// Its data room.
        room: u16,
    },
    /// The RSS key is of another length than the device's.
    #[error("port {port}: an RSS key of {asked} bytes given, PMD takes {needed}")]
    RssKey {
        /// The port.
        port: String,
        /// What was given.
        asked: usize,
        /// What the PMD takes.
        needed: u8,
    },
    /// The RETA is of another length than the device's.
    #[error("port {port}: a RETA of {asked} entries given, PMD has {needed}")]
    RssTable {
        /// The port.
        port: String,
        /// What was given.
        asked: usize,
        /// What the PMD has.
        needed: u16,
    },
    /// There is no such queue.
    #[error("port {port}: queue {asked} named, there are {queues} from 0 on")]
    NoSuchQueue {
        /// The port.
        port: String,
        /// Its number.
        asked: u16,
        /// How many there are.
        queues: u16,
    },
    /// The PMD does not take a rule of rte_flow.
    #[error("port {port}: rte_flow: {why}: {errno}")]
    Steering {
        /// The port.
        port: String,
        /// The PMD's words.
        why: String,
        /// Its reason.
        errno: Errno,
    },
    /// A call of libdpdk failed.
    #[error("port {port}: {call}: {errno}")]
    Call {
        /// The port.
        port: String,
        /// The function of libdpdk.
        call: &'static str,
        /// Its reason.
        errno: Errno,
    },
    /// The queue belongs to another port.
    #[error("port {port}: a queue of port {queue_of} was given back to it")]
    ForeignQueue {
        /// The port.
        port: String,
        /// Whose queue it is.
        queue_of: String,
    },
    /// Somebody still has queues of the port.
    #[error("port {port}: {queues} of its queues are still out, it runs on until they are dropped")]
    QueuesOut {
        /// The port.
        port: String,
        /// How many.
        queues: usize,
    },
}

/// Turns what a call returned into a value or an error with its name.
pub(super) fn check(port: &str, call: &'static str, code: c_int) -> Result<u32, PortError> {
    u32::try_from(code).map_err(|_| PortError::Call {
        port: port.to_owned(),
        call,
        errno: Errno::returned(code),
    })
}
