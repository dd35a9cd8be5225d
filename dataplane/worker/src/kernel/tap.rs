//! The companion: a TAP interface of our own, through which the kernel sees a DPDK port.
//!
//! ```text
//!   DPDK port ──punt──▶ write_frame ─▶ │ pst0 │ ─▶ kernel: ARP, ND, BGP, SSH, the L7 tier's TCP
//!   DPDK port ◀──send── read_frame  ◀─ │ pst0 │ ◀─ kernel: its answers
//! ```
//! We open it ourselves rather than through DPDK so that it can be *persistent*: when the process
//! dies the interface stays, with its index, addresses, routes and the BGP sessions over it, merely
//! without carrier, and the next process adopts it under the same name.
//!
//! Frames are whole Ethernet frames without FCS and without a header of the TUN driver
//! (`IFF_NO_PI`, no `IFF_VNET_HDR`, no offloads): the kernel finishes checksums and segmentation
//! before we read, and expects valid checksums in what we write.
//!
//! Needs CAP_NET_ADMIN in the network namespace, and nothing else: `/dev/net/tun` is open to all.
//! For the same reason a companion is given our user as its owner: a persistent TAP without an owner
//! can be opened by *anyone* while we are away, who would then read and write for the box.
//! MAC, MTU and state are set by netlink, which asks for the same capability. A TAP is found by
//! name in the network namespace of the calling thread, so open it from inside its namespace.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{self, IntegerSetter, Opcode, Updater, opcode};

use super::netlink::Channel;
use super::{Ifindex, KernelError, MacAddr, link};

const TUN_DEVICE: &str = "/dev/net/tun";
const NAME_BYTES: usize = 16;

// include/uapi/linux/if_tun.h
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);
const TUNSETOWNER: Opcode = opcode::write::<i32>(b'T', 204);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq` as TUNSETIFF reads and writes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest_of_union: [u8; 22],
}
const _: () = assert!(size_of::<InterfaceRequest>() == 40);

/// An open companion. Dropping it closes the descriptor; a persistent one stays in the kernel.
#[derive(Debug)]
pub struct Tap {
    device: File,
    name: String,
    index: Ifindex,
    mac: MacAddr,
    mtu_bytes: u32,
}

impl Tap {
    /// Creates the TAP `name`, or adopts the persistent one of that name, and brings it up.
    ///
    /// * `mac`: the very address that hosts on the port's network use for us; with another one
    ///   the kernel's IP would drop what we punt as not meant for it.
    /// * `mtu_bytes`: of the IP packet, as everywhere in Linux.
    /// * `persist`: whether it outlives this process. Turned off on an adopted one, it goes when
    ///   we close it.
    ///
    /// What an adopted one already has is not set again, so nobody is told of changes that are none.
    ///
    /// # Errors
    /// [`KernelError`], each naming the interface; nothing new is left behind.
    pub fn open(
        name: &str,
        mac: MacAddr,
        mtu_bytes: u32,
        persist: bool,
    ) -> Result<Tap, KernelError> {
        check_name(name)?;
        check_mac(name, mac)?;
        let device = open_device()?;
        attach(&device, name)?;
        set_number::<TUNSETOFFLOAD>(&device, name, "switching its offloads off", 0)?;
        let mut channel = Channel::open()?;
        let facts = link::find(&mut channel, name)?;
        link::configure(&mut channel, &facts, mac, mtu_bytes)?;
        let owner = rustix::process::geteuid().as_raw() as usize;
        set_number::<TUNSETOWNER>(&device, name, "taking ownership of it", owner)?;
        set_number::<TUNSETPERSIST>(&device, name, "making it persistent", persist.into())?;
        Ok(Tap { device, name: name.to_owned(), index: facts.index, mac, mtu_bytes })
    }

    /// Takes the next frame the kernel sends, or `None` if there is none.
    ///
    /// A frame longer than `buffer` is cut: offer [`Tap::frame_bytes`].
    ///
    /// # Errors
    /// `EBADFD`: the interface was deleted under us; open it again.
    pub fn read_frame(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match rustix::io::read(&self.device, &mut *buffer) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Gives the kernel a frame, as if it had come in by the companion. `false`: the kernel had no
    /// room for it, or the interface is down, and it is lost.
    ///
    /// # Errors
    /// `EINVAL`: shorter than an Ethernet header. `EBADFD`: the interface was deleted under us.
    pub fn write_frame(&self, frame: &[u8]) -> io::Result<bool> {
        loop {
            match rustix::io::write(&self.device, frame) {
                Ok(_) => return Ok(true),
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::IO) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The longest frame the kernel sends by it.
    pub fn frame_bytes(&self) -> usize {
        frame_bytes(self.mtu_bytes)
    }

    /// Its name, as configured.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its index; a persistent TAP keeps it.
    pub fn index(&self) -> Ifindex {
        self.index
    }

    /// Its MAC address as set by [`Tap::open`].
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Its MTU as set by [`Tap::open`].
    pub fn mtu_bytes(&self) -> u32 {
        self.mtu_bytes
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

/// The longest frame of an interface: MTU, Ethernet header, two VLAN tags.
pub(super) fn frame_bytes(mtu_bytes: u32) -> usize {
    mtu_bytes as usize + 14 + 2 * 4
}

/// The kernel would take `%d` for a template and cut a long name short; a name is a name here.
fn check_name(name: &str) -> Result<(), KernelError> {
    let fits = (1..NAME_BYTES).contains(&name.len()) && name != "." && name != "..";
    let printable = name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
    if fits && printable {
        return Ok(());
    }
    Err(KernelError::Name { name: name.to_owned() })
}

fn check_mac(name: &str, mac: MacAddr) -> Result<(), KernelError> {
    if mac.is_unicast() {
        return Ok(());
    }
    Err(KernelError::Mac { name: name.to_owned(), mac })
}

fn open_device() -> Result<File, KernelError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(TUN_DEVICE)
        .map_err(|source| KernelError::TunDevice { source })
}

/// Binds the descriptor to the TAP `name`, which is made if there is none.
fn attach(device: &File, name: &str) -> Result<(), KernelError> {
    let mut request = InterfaceRequest {
        name: [0; NAME_BYTES],
        flags: IFF_TAP | IFF_NO_PI,
        rest_of_union: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    #[expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, of which `InterfaceRequest` is the
    // layout (its size is checked above); it lives until the call returns, and any bytes are valid
    // in its fields.
    let updater = unsafe { Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request) };
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: `device` is `/dev/net/tun`, whose ioctl of this number is the one described above.
    let answer = unsafe { ioctl::ioctl(device, updater) };
    answer.map_err(|errno| match errno {
        Errno::BUSY => KernelError::Busy { name: name.to_owned() },
        Errno::INVAL => KernelError::NotATap { name: name.to_owned() },
        errno => KernelError::refused(format!("companion {name}: opening the TAP"), errno, None),
    })
}

/// One of the ioctls of a TAP whose argument is a number, passed by value.
fn set_number<const OPCODE: Opcode>(
    device: &File,
    name: &str,
    what: &str,
    value: usize,
) -> Result<(), KernelError> {
    #[expect(unsafe_code, reason = "these ioctls have no safe wrapper")]
    // SAFETY: called with TUNSETOWNER, TUNSETPERSIST and TUNSETOFFLOAD only, which take a number by
    // value and touch no memory of ours.
    let setter = unsafe { IntegerSetter::<OPCODE>::new_usize(value) };
    #[expect(unsafe_code, reason = "as above")]
    // SAFETY: `device` is `/dev/net/tun`, whose ioctls of these numbers are the ones named above.
    let answer = unsafe { ioctl::ioctl(device, setter) };
    answer.map_err(|errno| KernelError::refused(format!("companion {name}: {what}"), errno, None))
}
