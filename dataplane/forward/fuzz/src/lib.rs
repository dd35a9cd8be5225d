//! What the targets `fragments`, `icmp`, `options` and `encap` share: a box in all modes and both
//! families, the packets that may come to it, and what it promises of every one of them.
//!
//! * [`live`]: a script of bytes to a life of the box; a target says only which packets come
//! * [`frames`]: packets of the flows there are, and of those there could be
//! * [`promise`]: what holds for each packet that leaves, by checksums of another author

pub mod frames;
mod life;
pub mod promise;

pub use life::{Life, live};
