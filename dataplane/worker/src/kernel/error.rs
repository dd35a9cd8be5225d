//! What the kernel can refuse, said with the name it was about and the next move.

use std::io;

use rustix::io::Errno;

/// A request to the Linux network stack that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The name cannot be the name of an interface.
    #[error(
        "companion `{name}`: an interface name has 1 to 15 printable bytes and none of `/`, `:`, `%` or blank: choose another"
    )]
    Name {
        /// What was asked for.
        name: String,
    },

    /// The MAC address cannot be that of an interface.
    #[error(
        "companion {name}: {mac} cannot be the address of an interface: it is all zeros, or a group address (lowest bit of the first byte set)"
    )]
    Mac {
        /// The interface.
        name: String,
        /// What was asked for.
        mac: super::MacAddr,
    },

    /// `/dev/net/tun` is not there, or not for us.
    #[error(
        "/dev/net/tun: {source}: `modprobe tun` makes it; if it exists, its mode should be 0666 (its ioctls check CAP_NET_ADMIN themselves)"
    )]
    TunDevice {
        /// What opening it said.
        source: io::Error,
    },

    /// Another process has this TAP open.
    #[error(
        "companion {name}: another process holds it: stop that one (`grep -l 'iff:.*{name}' /proc/[0-9]*/fdinfo/*` names it), or configure another name"
    )]
    Busy {
        /// The interface.
        name: String,
    },

    /// The name belongs to an interface that is not a TAP with one queue.
    #[error(
        "companion {name}: an interface of this name exists and is not a TAP with one queue: `ip link delete {name}`, or configure another name"
    )]
    NotATap {
        /// The interface.
        name: String,
    },

    /// We may not.
    #[error(
        "{what}: not permitted: penstock-dataplane needs CAP_NET_ADMIN in the network namespace it runs in (`AmbientCapabilities=CAP_NET_ADMIN` in its unit, or `setpriv --inh-caps=+net_admin --ambient-caps=+net_admin`)"
    )]
    NotPermitted {
        /// What we tried.
        what: String,
    },

    /// The kernel said no for another reason.
    #[error("{what}: {errno}{}", .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Refused {
        /// What we tried.
        what: String,
        /// The kernel's answer.
        errno: Errno,
        /// The kernel's own words, where it has any (the extended acknowledgement).
        reason: Option<String>,
    },

    /// The socket itself failed, or the kernel's answer made no sense.
    #[error("{what}: {source}")]
    Io {
        /// What we tried.
        what: String,
        /// What the system call said.
        source: io::Error,
    },
}

impl KernelError {
    /// Sorts an error number into the variant that knows the next move.
    pub(super) fn refused(
        what: impl Into<String>,
        errno: Errno,
        reason: Option<String>,
    ) -> KernelError {
        let what = what.into();
        match errno {
            Errno::PERM => KernelError::NotPermitted { what },
            errno => KernelError::Refused { what, errno, reason },
        }
    }

    /// A failure of the system call itself.
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> KernelError {
        match Errno::from_io_error(&source) {
            Some(errno @ Errno::PERM) => KernelError::refused(what, errno, None),
            _ => KernelError::Io { what: what.into(), source },
        }
    }

    /// Whether the interface it was about is no more.
    pub fn says_gone(&self) -> bool {
        self.errno() == Some(Errno::NODEV)
    }

    /// The error number, where the kernel gave one.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            KernelError::Refused { errno, .. } => Some(*errno),
            KernelError::NotPermitted { .. } => Some(Errno::PERM),
            KernelError::Io { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}
