//! DPDK's error numbers: those of the system, and a few of its own.

use std::ffi::{CStr, c_int};
use std::fmt;

use penstock_dpdk_sys as c;

/// Why a call of libdpdk failed. Prints as words and number: `Invalid argument (errno 22)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(c_int);

impl Errno {
    /// `ENOTSUP`: the PMD has no such function.
    pub(crate) const NOT_SUPPORTED: Self = Self(95);

    /// What the last failed call on this thread left behind.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local variable, always allowed.
        Self(unsafe { c::penstock_errno() })
    }

    /// Most of ethdev returns the number negated.
    pub(crate) const fn returned(code: c_int) -> Self {
        Self(code.saturating_neg())
    }

    /// The number, as in `errno(3)`; from 1001 on DPDK's own.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: takes any number; returns a string that is static or in a buffer of this thread.
        let words = unsafe { c::rte_strerror(self.0) };
        // SAFETY: never null, terminated, and not overwritten before this thread asks again.
        let words = unsafe { CStr::from_ptr(words) };
        write!(f, "{} (errno {})", words.to_string_lossy(), self.0)
    }
}
