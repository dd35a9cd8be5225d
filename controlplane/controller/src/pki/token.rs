//! What lets a box without a certificate ask for one: a text that an operator carries from the controller to it.
//!
//! ```text
//!  penstock-join.<what it says, JSON in base64url>.<its seal, HMAC-SHA-256 in base64url>
//! ```
//!
//! It says where the controllers are, the hash of their authority, so that the box talks to nobody else, and which
//! Box it is for. Only a controller can seal it, and tells by the seal that it was not changed. It is good for a while
//! and once: [`super::keeper`] remembers which were used until they are too old anyway.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::identity::check_name;
use super::{Authority, Unusable, random};
use crate::link::Digest;

const PREFIX: &str = "penstock-join";
/// A longer text is none.
const MOST_BYTES: usize = 8 << 10;

/// A token.
#[derive(Clone, PartialEq)]
pub struct Token {
    says: Says,
    /// What it says, as it was sealed.
    sealed: Vec<u8>,
    seal: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
struct Says {
    #[serde(rename = "box")]
    name: String,
    controllers: Vec<String>,
    authority: Digest,
    until: u64,
    nonce: String,
}

/// It is as good as a key until it is used.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("box", &self.says.name).finish_non_exhaustive()
    }
}

impl Token {
    /// A token for the Box `name`, whose controllers are at these addresses (`host:port`).
    ///
    /// # Errors
    /// For a name or an address that is none.
    pub fn make(
        authority: &Authority,
        name: &str,
        controllers: &[String],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Self, Unusable> {
        check_name(name)?;
        check_addresses(controllers)?;
        let says = Says {
            name: name.to_owned(),
            controllers: controllers.to_vec(),
            authority: Digest::of(authority.certificate()),
            until: seconds(now + lifetime),
            nonce: BASE64URL_NOPAD.encode(&random::<16>()?),
        };
        let sealed =
            serde_json::to_vec(&says).map_err(|error| Unusable::because("token", error))?;
        let seal = hmac::sign(authority.token_key(), &sealed).as_ref().to_vec();
        Ok(Self { says, sealed, seal })
    }

    /// The Box it is for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.says.name
    }

    /// Where the controllers are.
    #[must_use]
    pub fn controllers(&self) -> &[String] {
        &self.says.controllers
    }

    /// What the authority's certificate hashes to.
    #[must_use]
    pub fn authority(&self) -> Digest {
        self.says.authority
    }

    /// What tells it from all others.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.says.nonce
    }

    /// When it ends to be good, in seconds since 1970.
    #[must_use]
    pub fn until(&self) -> u64 {
        self.says.until
    }

    /// Whether `authority` sealed it, and it is not too old. Whether it was used is for the keeper to say.
    ///
    /// # Errors
    /// If not, in words.
    pub fn check(&self, authority: &Authority, now: SystemTime) -> Result<(), Unusable> {
        hmac::verify(authority.token_key(), &self.sealed, &self.seal)
            .map_err(|_| Unusable("the token is not one of ours, or was changed".into()))?;
        match seconds(now) < self.says.until {
            true => Ok(()),
            false => Err(Unusable("the token is too old: make another".into())),
        }
    }
}

/// Whether these can be where controllers are: some, and each `host:port`.
///
/// # Errors
/// With the one that cannot.
pub fn check_addresses(addresses: &[String]) -> Result<(), Unusable> {
    if addresses.is_empty() || addresses.len() > 16 {
        return Err(Unusable("between 1 and 16 addresses of controllers are needed".into()));
    }
    for address in addresses {
        let parts = address.rsplit_once(':');
        let good = parts.is_some_and(|(host, port)| {
            !host.is_empty() && host.len() <= 253 && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !good {
            let message = format!("{address:?} is no address of a controller: write host:port");
            return Err(Unusable(message));
        }
    }
    Ok(())
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The text that the operator carries.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        write!(f, "{PREFIX}.{}.{}", text(&self.sealed), text(&self.seal))
    }
}

impl FromStr for Token {
    type Err = Unusable;

    fn from_str(text: &str) -> Result<Self, Unusable> {
        let fail = || {
            Unusable("this is no token: copy the whole line that `penstock token` printed".into())
        };
        let mut parts = text.trim().split('.');
        let whole = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(PREFIX), Some(sealed), Some(seal), None) = whole else { return Err(fail()) };
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| fail());
        if text.len() > MOST_BYTES {
            return Err(fail());
        }
        let (sealed, seal) = (decode(sealed)?, decode(seal)?);
        let says: Says = serde_json::from_slice(&sealed).map_err(|_| fail())?;
        check_name(&says.name)?;
        check_addresses(&says.controllers)?;
        Ok(Self { says, sealed, seal })
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::Kept;
    use super::*;

    #[test]
    fn a_token_is_what_was_made_and_nothing_else() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let open = || Authority::open(&Kept::make(now).unwrap()).unwrap();
        let (authority, other) = (open(), open());
        let controllers = ["192.0.2.1:7443".to_owned(), "[2001:db8::1]:7443".to_owned()];
        let hour = Duration::from_secs(3600);
        let token = Token::make(&authority, "edge-1", &controllers, now, hour).unwrap();
        let read: Token = format!(" {token}\n").parse().unwrap();
        assert_eq!(read, token);
        assert_eq!(read.name(), "edge-1");
        assert_eq!(read.controllers(), controllers);
        assert_eq!(read.authority(), Digest::of(authority.certificate()));
        assert_eq!(read.check(&authority, now), Ok(()));
        assert!(read.check(&authority, now + hour).unwrap_err().0.contains("too old"));
        assert!(read.check(&other, now).unwrap_err().0.contains("not one of ours"));

        let says = Says { name: "edge-2".into(), ..token.says.clone() };
        let changed = Token { sealed: serde_json::to_vec(&says).unwrap(), says, ..token.clone() };
        let changed: Token = changed.to_string().parse().unwrap();
        assert!(changed.check(&authority, now).is_err(), "another name");
        let again = Token::make(&authority, "edge-1", &controllers, now, hour).unwrap();
        assert_ne!(again.nonce(), token.nonce());
        assert!(!format!("{token:?}").contains(token.nonce()));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let now = SystemTime::now();
        let authority = Authority::open(&Kept::make(now).unwrap()).unwrap();
        let token = Token::make(&authority, "a", &["h:1".into()], now, Duration::from_secs(1));
        let good = token.unwrap().to_string();
        for text in ["", "penstock-join", "penstock-join.e30.e30", &good[1..], &good[..40]] {
            assert!(text.parse::<Token>().is_err(), "{text}");
        }
        assert!(format!("{good}.x").parse::<Token>().is_err());
        for address in ["", "h", "h:", ":1", "h:0", "h:70000"] {
            assert!(check_addresses(&[address.to_owned()]).is_err(), "{address}");
        }
        assert!(check_addresses(&[]).is_err());
    }
}
