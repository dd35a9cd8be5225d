//! The beginning of a connection: who is there, and what may it have?

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info};

use super::server::Shared;
use crate::link::message::{Hello, Issued, Join, Message, Reason, Refused, Welcome};
use crate::link::stream::{receive, send};
use crate::link::{Release, frame};
use crate::pki::Token;
use crate::pki::identity::Card;

/// A handshake, and the first words after it, may take so long each.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whoever is turned away may take so long to read why.
const FAREWELL: Duration = Duration::from_secs(2);

type Stream = TlsStream<TcpStream>;

/// Who connected, by what he says first, and his certificate.
pub(super) struct Caller {
    stream: Stream,
    first: Message,
    certificate: Option<CertificateDer<'static>>,
}

/// Hears who is there; `None` if that was nothing.
pub(super) async fn hear(
    stream: TcpStream,
    from: SocketAddr,
    acceptor: &TlsAcceptor,
    shared: &Shared,
) -> Option<Caller> {
    let refuse = |reason, message: &str| {
        shared.counts.refuse(reason, &from.to_string(), message);
        None
    };
    let mut stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refuse("tls", &error.to_string()),
        Err(_) => return refuse("silent", "no handshake"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = certificate.map(|certificate| certificate.clone().into_owned());
    match timeout(PATIENCE, receive(&mut stream, frame::MOST_OF_A_STRANGER)).await {
        Ok(Ok(first)) => Some(Caller { stream, first, certificate }),
        Ok(Err(error)) => refuse("protocol", &error.to_string()),
        Err(_) => refuse("silent", "no word after the handshake"),
    }
}

/// What becomes of a caller.
pub(super) enum Greeted {
    /// A box that is let in.
    Member { stream: Stream, card: Card, hello: Hello, epoch: u64 },
    /// One that has a certificate now: it is told, and connects again.
    Joined(Stream, Message),
    /// One that is told why not.
    Refused(Stream, Message),
}

/// Decides that.
pub(super) async fn greet(caller: Caller, from: SocketAddr, shared: &Shared) -> Greeted {
    let Caller { stream, first, certificate } = caller;
    let refused = match (first, certificate) {
        (Message::Join(join), _) => match joined(&join, shared).await {
            Ok(issued) => return Greeted::Joined(stream, Message::Joined(issued)),
            Err(refused) => refused,
        },
        (Message::Hello(hello), Some(certificate)) => match admit(&hello, &certificate, shared) {
            Ok((card, epoch)) => return Greeted::Member { stream, card, hello, epoch },
            Err(refused) => refused,
        },
        (Message::Hello(_), None) => {
            let message = "a box without a certificate may only join: use `penstock join`";
            Refused::new(Reason::NoCertificate, message)
        }
        (other, _) => {
            let message = format!("a connection does not begin with a {}", other.name());
            Refused::new(Reason::Protocol, message)
        }
    };
    // That another leads is no one's fault, and boxes look for the leader all the time.
    match refused.reason {
        Reason::NotTheLeader => debug!(%from, "sent on: we do not lead"),
        reason => shared.counts.refuse(word(reason), &from.to_string(), &refused.message),
    }
    Greeted::Refused(stream, Message::Refused(refused))
}

/// Says the last word, closes, and waits for the other end to do so: a reset would overtake what it has not read yet.
pub(super) async fn dismiss(mut stream: Stream, last: &Message) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let _ = timeout(FAREWELL, send(&mut stream, last)).await;
    let closing = async {
        let _ = stream.shutdown().await;
        let _ = stream.read(&mut [0; 64]).await;
    };
    let _ = timeout(FAREWELL, closing).await;
}

/// What reasons are called in counters.
pub(super) fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::NotTheLeader => "not-the-leader",
        Reason::Version => "version",
        Reason::NoCertificate => "no-certificate",
        Reason::UnknownBox => "unknown-box",
        Reason::Revoked => "revoked",
        Reason::Token => "token",
        Reason::Epoch => "epoch",
        Reason::Protocol => "protocol",
        Reason::Busy => "busy",
        Reason::Replaced => "replaced",
        Reason::Other => "other",
    }
}

/// Whether a box is let in, and in which epoch we lead it.
fn admit(
    hello: &Hello,
    certificate: &CertificateDer<'_>,
    shared: &Shared,
) -> Result<(Card, u64), Refused> {
    let card = Card::of(certificate).map_err(|fault| Refused::new(Reason::UnknownBox, fault.0))?;
    check_release(hello.release)?;
    let epoch = epoch(shared)?;
    shared.admission.borrow().admit(&card.identity)?;
    if hello.epoch > epoch {
        let message = format!(
            "box {} obeys epoch {}, and this controller leads in epoch {epoch}: another one leads, or the cluster \
             was restored from a backup: then remove the file `epoch` from the box's state directory",
            card.identity, hello.epoch
        );
        return Err(Refused::new(Reason::Epoch, message));
    }
    Ok((card, epoch))
}

fn check_release(theirs: Release) -> Result<(), Refused> {
    let ours = Release::ours();
    if ours.talks_to(theirs) {
        return Ok(());
    }
    let message = format!(
        "the box runs Penstock {theirs} and this controller {ours}: they may be one minor version apart, no more: \
         update the older one"
    );
    Err(Refused::new(Reason::Version, message))
}

fn epoch(shared: &Shared) -> Result<u64, Refused> {
    let leads = *shared.leads.borrow();
    leads.epoch().ok_or_else(|| {
        Refused::new(Reason::NotTheLeader, "this controller does not lead: another may")
    })
}

/// The answer to a welcome box.
pub(super) fn welcome(epoch: u64, shared: &Shared) -> Message {
    let controller = shared.policy.controller.clone();
    Message::Welcome(Welcome { release: Release::ours(), controller, epoch })
}

/// A certificate for a box that has a token.
async fn joined(join: &Join, shared: &Shared) -> Result<Issued, Refused> {
    check_release(join.release)?;
    epoch(shared)?;
    let now = SystemTime::now();
    let refuse = |fault: crate::pki::Unusable| Refused::new(Reason::Token, fault.0);
    let token: Token = join.token.parse().map_err(refuse)?;
    token.check(&shared.authority, now).map_err(refuse)?;
    let identity = shared.admission.borrow().join(token.name())?;
    let lifetime = shared.policy.certificate_lifetime;
    // First the certificate: a request that is none must not use the token up.
    let certificate =
        shared.authority.certify(&join.request, &identity, now, lifetime).map_err(refuse)?;
    shared.keeper.use_token(&token, now).await.map_err(refuse)?;
    shared.counts.count(|counted| counted.joined += 1);
    info!(%identity, "box joined");
    Ok(Issued { certificate, authority: shared.authority.pem().to_owned() })
}
