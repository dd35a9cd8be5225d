//! What a controller and a box say to each other.
//!
//! The box dials out; both ends prove who they are by TLS 1.3 ([`crate::pki`]). Then frames, one after the other:
//!
//! ```text
//!  box                                              controller
//!   │ Hello: release, digest in force, epoch seen ──────────▶ │
//!   │ ◀──────────────── Welcome: release, epoch, name         │   or Refused, in words
//!   │ ◀──────────────── Bundle: epoch, version, digest, body  │   only if the digest in force is another
//!   │ Report: digest in force, what each consumer says ─────▶ │   whenever it changes
//!   │ Renew: a request for a new certificate ───────────────▶ │   before two thirds of the old one's time
//!   │ ◀──────────────── Renewed: the certificate              │
//!   │ ◀─────────────── Ping, from both, every 5 s ──────────▶ │   20 s of silence are the end of a link
//! ```
//!
//! Who has no certificate yet may only say `Join`, with a token, and gets `Joined` or `Refused`.
//!
//! * [`frame`]: a length, a kind, a payload; bounded before anything is allocated.
//! * [`message`]: what the kinds mean. Fields that are not known are ignored, so that neighbours in version talk.
//! * [`bundle`]: the whole configuration of a box, by version and digest.
//! * [`release`]: which versions talk to each other.
//! * [`stream`]: messages over a socket, with patience.

pub mod bundle;
pub mod frame;
pub mod message;
pub mod release;
pub mod stream;

pub use bundle::{Bundle, Contents, Digest};
pub use message::Message;
pub use release::Release;
