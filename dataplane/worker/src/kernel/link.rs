//! One interface by name: what it is, and making it what we want.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};

use super::netlink::Channel;
use super::{Ifindex, KernelError, MacAddr};

/// What the kernel says about an interface, as far as we look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) index: Ifindex,
    pub(super) name: String,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu_bytes: u32,
    /// Switched on by the administrator (`IFF_UP`).
    pub(super) up: bool,
    /// Something is at the other end (`IFF_LOWER_UP`): for a TAP, a process has it open.
    pub(super) carrier: bool,
}

impl LinkFacts {
    pub(super) fn of(message: &LinkMessage) -> LinkFacts {
        let mut facts = LinkFacts {
            index: Ifindex(message.header.index),
            name: String::new(),
            mac: None,
            mtu_bytes: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => facts.name.clone_from(name),
                LinkAttribute::Mtu(mtu_bytes) => facts.mtu_bytes = *mtu_bytes,
                LinkAttribute::Address(mac) => {
                    facts.mac = mac.as_slice().try_into().ok().map(MacAddr);
                }
                _ => {}
            }
        }
        facts
    }
}

/// A request for one link or all, without the statistics that make up most of an answer.
pub(super) fn get_message() -> LinkMessage {
    let mut message = LinkMessage::default();
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    message.attributes.push(mask);
    message
}

/// Looks up the interface `name`.
pub(super) fn find(channel: &mut Channel, name: &str) -> Result<LinkFacts, KernelError> {
    let what = format!("interface {name}: looking it up");
    let mut message = get_message();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let answers = channel.ask(&what, RouteNetlinkMessage::GetLink(message), 0)?;
    let found = answers.iter().find_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(LinkFacts::of(link)),
        _ => None,
    });
    found.ok_or_else(|| {
        KernelError::io(what, std::io::Error::other("the kernel's answer cannot be read"))
    })
}

/// Gives the interface `facts` this MAC and MTU and switches it on; says nothing if it is so already.
pub(super) fn configure(
    channel: &mut Channel,
    facts: &LinkFacts,
    mac: MacAddr,
    mtu_bytes: u32,
) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = facts.index.0;
    let mut wishes = Vec::new();
    if facts.mac != Some(mac) {
        wishes.push(format!("MAC {mac}"));
        message.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if facts.mtu_bytes != mtu_bytes {
        wishes.push(format!("MTU {mtu_bytes}"));
        message.attributes.push(LinkAttribute::Mtu(mtu_bytes));
    }
    if !facts.up {
        wishes.push("up".to_owned());
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    if wishes.is_empty() {
        return Ok(());
    }
    let what = format!("companion {}: setting {}", facts.name, wishes.join(", "));
    channel.ask(&what, RouteNetlinkMessage::SetLink(message), 0).map(drop)
}
