//! Joining: from a token to credentials.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::link::message::{Issued, Join, Message, Reason};
use crate::link::stream::{LinkError, receive, send};
use crate::link::{Digest, Release, frame};
use crate::pki::authority::new_request;
use crate::pki::{Credentials, Token, Unusable, tls};

/// Connecting may take so long, and each step after it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a box cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token, or what was made of it, is of no use.
    #[error("{0}")]
    Unusable(#[from] Unusable),
    /// No controller gave a certificate.
    #[error("no controller let us join:\n{}", .0.join("\n"))]
    Nobody(Vec<String>),
    /// The credentials cannot be kept.
    #[error(
        "the certificate cannot be kept: {0}: create the directory, or name another with --state-dir"
    )]
    NotKept(io::Error),
    /// The box has joined already.
    #[error("{0} is there: the box has joined already. To join anew, remove it")]
    Joined(String),
}

/// Joins with `token`, and keeps what comes of it in `state_dir`. The key is made here and goes nowhere.
///
/// # Errors
/// [`JoinError`].
pub async fn join(token: &Token, state_dir: &Path) -> Result<Credentials, JoinError> {
    let path = Credentials::path(state_dir);
    if path.exists() {
        return Err(JoinError::Joined(path.display().to_string()));
    }
    if !state_dir.is_dir() {
        let error = io::Error::new(
            io::ErrorKind::NotFound,
            format!("{}: no directory", state_dir.display()),
        );
        return Err(JoinError::NotKept(error));
    }
    let (key, request) = new_request()?;
    let mut troubles = Vec::new();
    for controller in token.controllers() {
        let issued = match timeout(3 * PATIENCE, ask(controller, token, &request)).await {
            Ok(Ok(issued)) => issued,
            Ok(Err(Refusal { message, is_final })) => {
                troubles.push(format!("{controller}: {message}"));
                if is_final {
                    break;
                }
                continue;
            }
            Err(_) => {
                troubles.push(format!("{controller}: no answer"));
                continue;
            }
        };
        let credentials = Credentials {
            controllers: token.controllers().to_vec(),
            authority: issued.authority,
            certificate: issued.certificate,
            key: key.serialize_pem().into(),
        };
        check(&credentials, token)?;
        credentials.save(state_dir).map_err(JoinError::NotKept)?;
        return Ok(credentials);
    }
    Err(JoinError::Nobody(troubles))
}

/// The same, for a program that does nothing else.
///
/// # Errors
/// [`JoinError`].
pub fn join_and_wait(token: &Token, state_dir: &Path) -> Result<Credentials, JoinError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(JoinError::NotKept)?.block_on(join(token, state_dir))
}

/// Why one controller gave nothing.
struct Refusal {
    message: String,
    /// Whether the others would say the same.
    is_final: bool,
}

impl From<LinkError> for Refusal {
    fn from(error: LinkError) -> Self {
        Self { message: error.to_string(), is_final: false }
    }
}

async fn ask(controller: &str, token: &Token, request: &str) -> Result<Issued, Refusal> {
    let fail = |message: String| Refusal { message, is_final: false };
    let stream = timeout(PATIENCE, TcpStream::connect(controller)).await;
    let stream = stream.map_err(|_| fail("cannot be reached".into()))?;
    let stream = stream.map_err(|error| fail(error.to_string()))?;
    let config = tls::joining(token.authority()).map_err(|fault| fail(fault.0))?;
    let handshake = TlsConnector::from(config).connect(tls::controller_name(), stream).await;
    let mut stream = handshake.map_err(|error| {
        fail(format!("it is not the controller that made the token, or no controller: {error}"))
    })?;
    let join =
        Join { release: Release::ours(), token: token.to_string(), request: request.to_owned() };
    send(&mut stream, &Message::Join(join)).await?;
    match receive(&mut stream, frame::MOST_OF_A_STRANGER).await? {
        Message::Joined(issued) => Ok(issued),
        Message::Refused(refused) => {
            let is_final = !matches!(refused.reason, Reason::NotTheLeader | Reason::Busy);
            Err(Refusal { message: refused.message, is_final })
        }
        other => Err(fail(format!("it answered with a {}", other.name()))),
    }
}

/// Whether the answer is what was asked for.
fn check(credentials: &Credentials, token: &Token) -> Result<(), Unusable> {
    let authority = CertificateDer::from_pem_slice(credentials.authority.as_bytes());
    let authority = authority.map_err(|error| Unusable(format!("the authority: {error}")))?;
    let name = credentials.card()?.identity;
    if Digest::of(&authority) != token.authority() || name.name() != token.name() {
        return Err(Unusable("the certificate that came is of another authority or Box".into()));
    }
    tls::client(credentials).map(|_| ())
}
