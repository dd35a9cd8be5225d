//! The addresses we keep on a companion: VIPs and SNAT addresses, so that the kernel answers ARP
//! and ND for them and the L7 tier can listen on them.
//!
//! Each is put there as /32 or /128 with a mark, `IFA_PROTO` 80 (the kernel keeps it since Linux
//! 5.18; `ip address` shows it as `proto 80`) and for IPv4 also the label `NAME:pst`. By the mark
//! they are known after our restart, and nothing without it is ever removed: what an administrator,
//! a routing daemon or kube-proxy put there stays, and an address that is on the box already is not
//! added a second time.
//!
//! IPv6 ones skip duplicate address detection, which would lose the first packets, bring no route
//! of their own, and are *deprecated*: good to be spoken to, never chosen as the source of the
//! box's own connections. (IPv4 chooses its source by the subnet of the next hop, which a /32 never
//! is.)

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::netlink::Channel;
use super::{Ifindex, KernelError};

/// Where an address is: interface, address, prefix length.
pub(super) type AddressKey = (Ifindex, IpAddr, u8);

/// The value of `IFA_PROTO` on what is ours: `P`. The kernel's own are 1 to 3.
const PROTOCOL: AddressProtocol = AddressProtocol::Other(b'P');
const LABEL_SUFFIX: &str = ":pst";
const LABEL_MAX_BYTES: usize = 15;
const FOREVER: u32 = u32::MAX;

/// Keeps our addresses on companions.
#[derive(Debug)]
pub struct Addresses {
    channel: Channel,
}

/// What a reconciliation did.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Put on the companion just now: announce these.
    pub added: Vec<IpAddr>,
    /// Ours, and no longer wanted.
    pub removed: Vec<IpAddr>,
    /// Wanted, and on the box already by another's hand, on the interface named: left alone.
    pub foreign: Vec<(IpAddr, Ifindex)>,
    /// Those for which the kernel refused what we asked.
    pub failed: Vec<(IpAddr, KernelError)>,
}

impl Addresses {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`KernelError`] if netlink cannot be used.
    pub fn open() -> Result<Addresses, KernelError> {
        Ok(Addresses { channel: Channel::open()? })
    }

    /// Makes our addresses on the companion `name` (of index `companion`) exactly `wanted`.
    ///
    /// Doing it again does nothing. Costs a list of the box's addresses, and a system call for each
    /// one added or removed. Removals come first, so that an address can move between companions.
    ///
    /// # Errors
    /// If the box's addresses cannot be listed. A single address that is refused is in
    /// [`Reconciled::failed`], and the others are done.
    pub fn reconcile(
        &mut self,
        companion: Ifindex,
        name: &str,
        wanted: &BTreeSet<IpAddr>,
    ) -> Result<Reconciled, KernelError> {
        let present = self.list()?;
        let mut done = Reconciled::default();
        let mut held = BTreeMap::new(); // address to interface, for all that is not ours to move
        for (&(index, address, prefix_len), &ours) in &present {
            if !ours {
                held.insert(address, index);
            } else if index == companion && !wanted.contains(&address) {
                match self.remove(companion, name, address, prefix_len) {
                    Ok(()) => done.removed.push(address),
                    Err(error) => done.failed.push((address, error)),
                }
            }
        }
        for &address in wanted {
            if present.get(&key_of(companion, address)) == Some(&true) {
                continue;
            }
            if let Some(&index) = held.get(&address) {
                done.foreign.push((address, index));
                continue;
            }
            match self.add(companion, name, address) {
                Ok(()) => done.added.push(address),
                Err(error) => done.failed.push((address, error)),
            }
        }
        Ok(done)
    }

    /// Puts `wanted` on the companion `name` (of index `companion`), and takes `unwanted` away, each with
    /// its prefix length. What is so already is no failure. Costs a system call an address, and nothing
    /// for the others; who does not know what there is asks for [`Self::reconcile`].
    pub fn change(
        &mut self,
        companion: Ifindex,
        name: &str,
        wanted: &[IpAddr],
        unwanted: &[(IpAddr, u8)],
    ) -> Reconciled {
        let mut done = Reconciled::default();
        for &(address, prefix_len) in unwanted {
            match self.remove(companion, name, address, prefix_len) {
                Ok(()) => done.removed.push(address),
                Err(error) => done.failed.push((address, error)),
            }
        }
        for &address in wanted {
            match self.add(companion, name, address) {
                Ok(()) => done.added.push(address),
                Err(error) if error.errno() == Some(Errno::EXIST) => {} // the mirror will say whose
                Err(error) => done.failed.push((address, error)),
            }
        }
        done
    }

    fn list(&mut self) -> Result<BTreeMap<AddressKey, bool>, KernelError> {
        let mut present = BTreeMap::new();
        let everything = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.channel.dump("addresses: listing those of the box", &everything, |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                present.extend(key(&message).map(|key| (key, is_ours(&message))));
            }
        })?;
        Ok(present)
    }

    fn add(&mut self, index: Ifindex, name: &str, address: IpAddr) -> Result<(), KernelError> {
        let mut message = message(index, address, host_prefix_len(address));
        message.attributes.push(AddressAttribute::Protocol(PROTOCOL));
        match address {
            IpAddr::V4(_) => message.attributes.push(AddressAttribute::Label(label(name))),
            IpAddr::V6(_) => {
                let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_valid = FOREVER;
                lifetime.ifa_preferred = 0;
                message.attributes.push(AddressAttribute::Flags(flags));
                message.attributes.push(AddressAttribute::CacheInfo(lifetime));
            }
        }
        let what = format!("companion {name}: adding address {address}");
        let message = RouteNetlinkMessage::NewAddress(message);
        let added = self.channel.ask(&what, message, NLM_F_CREATE | NLM_F_EXCL);
        added.map(drop).map_err(|error| with_hint(error, name, address))
    }

    fn remove(
        &mut self,
        index: Ifindex,
        name: &str,
        address: IpAddr,
        prefix_len: u8,
    ) -> Result<(), KernelError> {
        let what = format!("companion {name}: removing address {address}/{prefix_len}");
        let message = RouteNetlinkMessage::DelAddress(message(index, address, prefix_len));
        match self.channel.ask(&what, message, 0) {
            Ok(_) => Ok(()),
            Err(error) if error.errno() == Some(Errno::ADDRNOTAVAIL) => Ok(()), // gone by itself
            Err(error) => Err(error),
        }
    }
}

/// The kernel's EACCES here means a sysctl, not a permission.
fn with_hint(error: KernelError, name: &str, address: IpAddr) -> KernelError {
    match error {
        KernelError::Refused { what, errno: errno @ Errno::ACCESS, .. } if address.is_ipv6() => {
            let reason =
                format!("IPv6 is switched off on it: `sysctl net.ipv6.conf.{name}.disable_ipv6=0`");
            KernelError::Refused { what, errno, reason: Some(reason) }
        }
        error => error,
    }
}

/// Whether the kernel's message describes an address with our mark.
pub(super) fn is_ours(message: &AddressMessage) -> bool {
    let protocol = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Protocol(protocol) => Some(*protocol),
        _ => None,
    });
    match protocol {
        Some(protocol) => protocol == PROTOCOL,
        None => message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Label(label) if label.ends_with(LABEL_SUFFIX))
        }),
    }
}

/// Where the address that the kernel's message describes is.
pub(super) fn key(message: &AddressMessage) -> Option<AddressKey> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link "address" is the other end's.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    Some((Ifindex(message.header.index), found?, message.header.prefix_len))
}

fn message(index: Ifindex, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family =
        if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.prefix_len = prefix_len;
    message.header.index = index.0;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

fn key_of(index: Ifindex, address: IpAddr) -> AddressKey {
    (index, address, host_prefix_len(address))
}

fn host_prefix_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The interface's name, cut where the suffix needs the room, and the suffix.
fn label(name: &str) -> String {
    let room = LABEL_MAX_BYTES - LABEL_SUFFIX.len();
    let name = name.get(..room).unwrap_or(name);
    format!("{name}{LABEL_SUFFIX}")
}
