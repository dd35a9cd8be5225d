//! Who is who between controllers and boxes: certificates of an authority of our own.
//!
//! ```text
//!  controller: makes the authority once ── keeper: a Secret of the cluster, or a file
//!              penstock token NAME ──► token: the box's name, the authority's hash, good once and for an hour
//!  box:        penstock join TOKEN ──► makes a key, which never leaves; asks, over TLS to that authority alone
//!              ◄── a certificate for the Box's name ── credentials: one file, 0600
//!  both:       TLS 1.3, each end by a certificate of the authority; the box's is renewed over the live link
//! ```
//!
//! * [`authority`]: makes certificates.
//! * [`identity`]: which Box a certificate is of.
//! * [`token`]: what lets a box without a certificate ask for one.
//! * [`keeper`]: where the authority is kept, and that a token is used once.
//! * [`credentials`]: what a box keeps.
//! * [`tls`]: the two ends of a connection.
//!
//! A certificate names the Box and which one of that name it was (its uid): a Box that was deleted and made anew lets
//! no old certificate in. Revoking is by the Box, not by lists: a certificate is as good as the Box it names is now.

pub mod authority;
pub mod credentials;
pub mod identity;
pub mod keeper;
pub mod tls;
pub mod token;

pub use authority::Authority;
pub use credentials::Credentials;
pub use identity::Identity;
pub use token::Token;

/// Why a certificate, a key, a request or a token is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Unusable {
    fn because(what: &str, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Bytes that nobody can guess.
///
/// # Errors
/// If the kernel has none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Unusable> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Unusable("the kernel has no random bytes".into()))?;
    Ok(bytes)
}
