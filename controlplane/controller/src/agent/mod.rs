//! The box's side: it dials out, takes what it must know, and says what it does.
//!
//! ```text
//!  penstock join ─► join: key, request, token ──► a certificate: pki::credentials
//!  penstock-controlplane agent:
//!    dial   one link at a time, to whichever controller leads; certificates renewed on it
//!      │ bundles                 ▲ reports
//!    kept   the last good one, and the highest epoch, on disk
//!      │ objects                 │ what was acknowledged
//!    controller::agent           translates and publishes as a control process on a folder does
//! ```
//!
//! Without a link everything goes on as it is. A bundle is taken whole or not at all.

pub mod dial;
pub mod join;
pub mod kept;

pub use dial::{Dial, Heard, Linked};
