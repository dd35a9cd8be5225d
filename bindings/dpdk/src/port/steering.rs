//! Packets that shall come in by a certain queue: rules of rte_flow, where a PMD takes them.

use std::ffi::{CStr, c_char, c_int};
use std::net::IpAddr;
use std::ptr::{self, NonNull};

use penstock_dpdk_sys as c;

use super::device::Description;
use super::error::PortError;
use super::rss::no_such_queue;
use crate::errno::Errno;

/// TCP or UDP to an address, and to the L4 ports that agree with one of them in the bits of a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The destination.
    pub address: IpAddr,
    /// The IANA number of the protocol: 6 or 17.
    pub protocol: u8,
    /// An L4 port.
    pub l4_port: u16,
    /// The bits of it that count.
    pub l4_port_mask: u16,
    /// The RX queue by which they come in.
    pub queue: u16,
}

impl Steering {
    fn to_c(self) -> c::penstock_steering {
        let mut address = [0; 16];
        match self.address {
            IpAddr::V4(v4) => address[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => address = v6.octets(),
        }
        c::penstock_steering {
            address,
            is_v6: self.address.is_ipv6().into(),
            protocol: self.protocol,
            l4_port: self.l4_port & self.l4_port_mask,
            l4_port_mask: self.l4_port_mask,
            queue: self.queue,
        }
    }
}

/// The rules of a port, which end with this value.
#[derive(Debug)]
pub(super) struct Rules {
    port: u16,
    rules: Vec<NonNull<c::rte_flow>>,
}

// SAFETY: handles that the PMD has given us; nothing ties them to the thread that asked, and `Port`, which has them,
// keeps control calls to one thread at a time.
unsafe impl Send for Rules {}

impl Rules {
    pub(super) fn none(port: u16) -> Self {
        Self { port, rules: Vec::new() }
    }

    /// Adds a rule, on the port it is made for.
    pub(super) fn add(
        &mut self,
        port: &Description,
        to: &Steering,
        queues: u16,
    ) -> Result<(), PortError> {
        if to.queue >= queues {
            return Err(no_such_queue(port, to.queue, queues));
        }
        let (to, mut rule, mut why) = (to.to_c(), ptr::null_mut(), ptr::null());
        // SAFETY: the port exists, and its control calls come from one thread; `to` is read, and both answers
        // have their place.
        let code = unsafe {
            c::penstock_flow_steer(self.port, &raw const to, &raw mut rule, &raw mut why)
        };
        self.rules.extend(NonNull::new(rule).filter(|_| code == 0));
        if code == 0 { Ok(()) } else { Err(refused(port, code, why)) }
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        for rule in self.rules.drain(..) {
            // SAFETY: a rule of this port, made above and ended once; the port is not closed before its rules.
            // That it fails is nobody's to mend: closing the port ends all rules.
            let _ = unsafe { c::penstock_flow_destroy(self.port, rule.as_ptr()) };
        }
    }
}

/// `why` is null, or words that live as long as the PMD.
fn refused(port: &Description, code: c_int, why: *const c_char) -> PortError {
    let why = if why.is_null() {
        "no reason given".to_owned()
    } else {
        // SAFETY: not null, and a constant string of the PMD's.
        unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned()
    };
    PortError::Steering { port: port.name.clone(), why, errno: Errno::returned(code) }
}
