//! A link with a box that was let in, to its end.
//!
//! What is wanted is a cell that holds the newest bundle: a box that is slow skips what is overtaken. A bundle whose
//! digest the box has, by its own word or because we sent it, is not sent.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tracing::{info, warn};

use super::fleet::FleetEvent;
use super::greeting::{welcome, word};
use super::server::{LinkEvent, LinkId, Shared};
use crate::link::message::{Delivery, Hello, Issued, Message, Reason, Refused, Request};
use crate::link::stream::{LinkError, PING, receive, send};
use crate::link::{Bundle, Digest};
use crate::pki::identity::Card;

/// A report is no longer than this.
const MOST_OF_A_REPORT: usize = 4 << 20;
/// Messages of a box that may wait while we write to it.
const MOST_WAITING: usize = 4;
/// Certificates are not renewed more often.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// Whoever is turned away may take so long to read why.
const FAREWELL: Duration = Duration::from_secs(1);

type Wanted = watch::Receiver<Option<Arc<Bundle>>>;

/// Why a link ended.
enum End {
    /// It broke, or the box closed it.
    Link(LinkError),
    /// We ended it.
    Refused(Refused),
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// Serves the link.
pub(super) async fn run(
    stream: TlsStream<TcpStream>,
    from: SocketAddr,
    card: Card,
    hello: Hello,
    epoch: u64,
    shared: &Arc<Shared>,
) {
    let link = shared.new_link();
    let name = card.identity.name().to_owned();
    let (tell, wanted) = watch::channel(None);
    let told = hello.digest;
    let identity = card.identity.clone();
    info!(box_name = name, %from, release = %hello.release, epoch, "box connected");
    let connected = LinkEvent::Connected { link, identity, hello, wanted: tell };
    if shared.events.send(FleetEvent::Link(Box::new(connected))).await.is_err() {
        return; // we end
    }
    let (reader, mut writer) = tokio::io::split(stream);
    let until = Cell::new(deadline(card.until));
    let mut session =
        Session { link, name: &name, card: &card, told, epoch, until: &until, shared };
    let whole = Cell::new(true);
    let end = tokio::select! {
        // The cut comes first: a revoked box gets no word more.
        biased;
        end = cut(&card, epoch, &until, shared) => end,
        end = session.talk(reader, &mut writer, wanted, &whole) => end,
    };
    let silence = match &end {
        End::Link(LinkError::Silent(time)) => *time,
        _ => Duration::ZERO,
    };
    let reason = match end {
        End::Link(error) => error.to_string(),
        End::Refused(refused) => {
            if refused.reason != Reason::NotTheLeader {
                shared.counts.refuse(word(refused.reason), &from.to_string(), &refused.message);
            }
            let reason = refused.message.clone();
            if whole.get() {
                let _ = timeout(FAREWELL, send(&mut writer, &Message::Refused(refused))).await;
            }
            reason
        }
    };
    warn!(box_name = name, %from, reason, "link to a box ended");
    let closed = LinkEvent::Closed { link, name, reason, silence };
    let _ = shared.events.send(FleetEvent::Link(Box::new(closed))).await;
}

/// By the monotonic clock.
fn deadline(until: SystemTime) -> Instant {
    Instant::now() + until.duration_since(SystemTime::now()).unwrap_or_default()
}

/// Waits until the box is not to be served any more.
async fn cut(card: &Card, epoch: u64, until: &Cell<Instant>, shared: &Shared) -> End {
    let (mut admission, mut leads) = (shared.admission.clone(), shared.leads.clone());
    loop {
        if let Err(refused) = admission.borrow_and_update().admit(&card.identity) {
            return End::Refused(refused);
        }
        let now = *leads.borrow_and_update();
        if now.epoch() != Some(epoch) {
            let message = "this controller leads no more: another may";
            return End::Refused(Refused::new(Reason::NotTheLeader, message));
        }
        if until.get() <= Instant::now() {
            let message = "the box's certificate is over: let it join again";
            return End::Refused(Refused::new(Reason::NoCertificate, message));
        }
        let leads_until = now.until().unwrap_or_else(Instant::now);
        tokio::select! {
            () = changed(&mut admission) => {}
            () = changed(&mut leads) => {}
            () = sleep_until(leads_until.min(until.get())) => {}
        }
    }
}

/// Waits for another value; for ever if nobody is left who could say one.
async fn changed<T>(cell: &mut watch::Receiver<T>) {
    if cell.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One link.
struct Session<'a> {
    link: LinkId,
    name: &'a str,
    card: &'a Card,
    /// What the box has, or was sent.
    told: Option<Digest>,
    epoch: u64,
    until: &'a Cell<Instant>,
    shared: &'a Shared,
}

impl Session<'_> {
    /// Talks until the link ends. `whole`: whether no frame is half-written.
    async fn talk(
        &mut self,
        mut reader: impl AsyncRead + Unpin,
        writer: &mut (impl AsyncWrite + Unpin),
        wanted: Wanted,
        whole: &Cell<bool>,
    ) -> End {
        let (inbox_in, inbox) = mpsc::channel(MOST_WAITING);
        let listening = async {
            loop {
                match receive(&mut reader, MOST_OF_A_REPORT).await {
                    Ok(message) => {
                        if inbox_in.send(message).await.is_err() {
                            return LinkError::Closed;
                        }
                    }
                    Err(error) => return error,
                }
            }
        };
        tokio::select! {
            error = listening => End::Link(error),
            end = self.speak(writer, inbox, wanted, whole) => end,
        }
    }

    async fn speak(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut inbox: mpsc::Receiver<Message>,
        mut wanted: Wanted,
        whole: &Cell<bool>,
    ) -> End {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed: Option<Instant> = None;
        let mut next = Some(welcome(self.epoch, self.shared));
        loop {
            if let Some(message) = next.take() {
                whole.set(false);
                if let Err(error) = send(writer, &message).await {
                    return error.into();
                }
                whole.set(true);
            }
            tokio::select! {
                message = inbox.recv() => {
                    let Some(message) = message else { return LinkError::Closed.into() };
                    match self.hear(message, &mut renewed).await {
                        Ok(answer) => next = answer,
                        Err(end) => return end,
                    }
                }
                changed = wanted.changed() => {
                    if changed.is_err() {
                        let message = "another link of the same box has taken its place";
                        return End::Refused(Refused::new(Reason::Replaced, message));
                    }
                    let bundle = wanted.borrow_and_update().clone();
                    next = bundle.and_then(|bundle| self.deliver(&bundle));
                }
                _ = ping.tick() => next = Some(Message::Ping),
            }
        }
    }

    /// What to send so that the box has `bundle`; nothing if it has.
    fn deliver(&mut self, bundle: &Bundle) -> Option<Message> {
        if self.told == Some(bundle.digest) {
            return None;
        }
        self.told = Some(bundle.digest);
        let (version, digest, bytes) = (bundle.version, bundle.digest, bundle.packed.len());
        info!(box_name = self.name, version, ?digest, bytes, "bundle sent");
        self.shared.counts.count(|counted| {
            counted.bundles_sent += 1;
            counted.bundle_bytes_sent += bytes as u64;
        });
        Some(Message::Bundle(Delivery { epoch: self.epoch, bundle: bundle.clone() }))
    }

    async fn hear(
        &mut self,
        message: Message,
        renewed: &mut Option<Instant>,
    ) -> Result<Option<Message>, End> {
        match message {
            Message::Ping => Ok(None),
            Message::Report(report) => {
                let name = self.name.to_owned();
                let event = LinkEvent::Reported { link: self.link, name, report: *report };
                // Nobody listens any more: the process ends, and this link with it.
                let _ = self.shared.events.send(FleetEvent::Link(Box::new(event))).await;
                Ok(None)
            }
            Message::Renew(request) => {
                let now = Instant::now();
                if renewed.is_some_and(|last| now.duration_since(last) < RENEW_PAUSE) {
                    return Ok(None);
                }
                *renewed = Some(now);
                self.renew(&request).map(Some)
            }
            other => {
                let message = format!("a box says no {}", other.name());
                Err(End::Refused(Refused::new(Reason::Protocol, message)))
            }
        }
    }

    /// Who holds this link has proved who it is, and by the request that it has the new key.
    fn renew(&self, request: &Request) -> Result<Message, End> {
        let lifetime = self.shared.policy.certificate_lifetime;
        let now = SystemTime::now();
        let identity = &self.card.identity;
        let certificate = self
            .shared
            .authority
            .certify(&request.request, identity, now, lifetime)
            .map_err(|fault| End::Refused(Refused::new(Reason::Protocol, fault.0)))?;
        self.until.set(deadline(now + lifetime));
        self.shared.counts.count(|counted| counted.renewed += 1);
        info!(box_name = self.name, "certificate renewed");
        let authority = self.shared.authority.pem().to_owned();
        Ok(Message::Renewed(Issued { certificate, authority }))
    }
}
