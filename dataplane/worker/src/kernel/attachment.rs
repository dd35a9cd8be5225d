//! Our hold on a companion, taken anew when somebody deletes the interface under us.
//!
//! The process goes on meanwhile: ports that have their companion forward as before, which a restart
//! would interrupt. The new interface has another index and nothing on it: the mirror knows it by
//! its name, our addresses are put there again, the administrator's and the routes come from whoever
//! keeps them. The packets it misses are counted.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use tracing::{info, warn};

use super::{Ifindex, KernelError, MacAddr, Tap};

/// How long a companion stays lost before it is opened anew, and between two tries.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A companion, or the wish for it.
#[derive(Debug)]
pub struct Attachment {
    name: String,
    mac: MacAddr,
    mtu_bytes: u32,
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Held(Tap),
    Lost { retry_at: Duration, told: Option<String> },
}

/// What became of a frame for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The kernel has it.
    Taken,
    /// The kernel had no room for it, or the interface is switched off.
    Refused,
    /// There is no companion.
    Lost,
}

impl Attachment {
    /// Opens the persistent companion `name` by [`Tap::open`].
    ///
    /// # Errors
    /// Those of [`Tap::open`].
    pub fn open(name: &str, mac: MacAddr, mtu_bytes: u32) -> Result<Self, KernelError> {
        let tap = Tap::open(name, mac, mtu_bytes, true)?;
        Ok(Self { name: name.to_owned(), mac, mtu_bytes, hold: Hold::Held(tap) })
    }

    /// Gives the kernel a frame. Whoever finds the companion gone at `now` lets go of it.
    pub fn write_frame(&mut self, frame: &[u8], now: Duration) -> Written {
        let Hold::Held(tap) = &self.hold else { return Written::Lost };
        match tap.write_frame(frame) {
            Ok(true) => Written::Taken,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BADFD) => {
                self.lose(&error, now);
                Written::Lost
            }
            Ok(false) | Err(_) => Written::Refused,
        }
    }

    /// Takes the next frame of the kernel, if there is one and a companion. No error of a read passes
    /// by itself, so each is the end of this hold.
    pub fn read_frame(&mut self, buffer: &mut [u8], now: Duration) -> Option<usize> {
        let Hold::Held(tap) = &self.hold else { return None };
        tap.read_frame(buffer).unwrap_or_else(|error| {
            self.lose(&error, now);
            None
        })
    }

    /// Takes hold of a lost companion when it is time to. That waits for the kernel's configuration
    /// lock, once a second at most.
    pub fn keep(&mut self, now: Duration) {
        let Hold::Lost { retry_at, told } = &mut self.hold else { return };
        if now < *retry_at {
            return;
        }
        match Tap::open(&self.name, self.mac, self.mtu_bytes, true) {
            Ok(tap) => {
                info!(companion = self.name, index = %tap.index(), "companion opened anew");
                self.hold = Hold::Held(tap);
            }
            Err(error) => {
                *retry_at = now + RETRY_EVERY;
                let error = error.to_string();
                if told.as_ref() != Some(&error) {
                    warn!(companion = self.name, error, "companion cannot be opened anew");
                    *told = Some(error);
                }
            }
        }
    }

    /// What to poll for frames; a lost one has nothing.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.hold {
            Hold::Held(tap) => Some(tap.as_fd()),
            Hold::Lost { .. } => None,
        }
    }

    /// Its index now, if it is held.
    pub fn index(&self) -> Option<Ifindex> {
        match &self.hold {
            Hold::Held(tap) => Some(tap.index()),
            Hold::Lost { .. } => None,
        }
    }

    /// The longest frame the kernel sends by it.
    pub fn frame_bytes(&self) -> usize {
        super::tap::frame_bytes(self.mtu_bytes)
    }

    fn lose(&mut self, error: &std::io::Error, now: Duration) {
        warn!(companion = self.name, %error, "companion lost: was its interface deleted? It is opened anew in a second");
        self.hold = Hold::Lost { retry_at: now + RETRY_EVERY, told: None };
    }
}
