//! One link at a time, to whichever controller leads.
//!
//! Addresses are tried in turn. A controller that does not lead is left at once; one that cannot be reached, or breaks
//! off, after a pause that grows and is never as long as the neighbour's, so that many boxes that lost one controller
//! do not come back together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::{debug, info, warn};

use super::kept::Epochs;
use crate::backoff::{Backoff, jitter};
use crate::link::message::{Delivery, Hello, Issued, Message, Reason, Report, Request};
use crate::link::stream::{LinkError, PATIENCE, PING, receive, send};
use crate::link::{Release, frame};
use crate::pki::authority::new_request;
use crate::pki::{Credentials, tls};

/// Connecting may take so long, and the handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// The pauses between two rounds of all addresses.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause after someone who does not lead, so that a search for the leader is no storm.
const NEXT_PAUSE: Duration = Duration::from_millis(50);
/// A certificate that was not renewed is asked for again after this.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// Whom we are linked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Who it says it is.
    pub controller: String,
    /// Where.
    pub address: SocketAddr,
    /// What runs there.
    pub release: Release,
    /// The epoch in which it leads.
    pub epoch: u64,
}

/// What the link says to the rest.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Whom we are linked to; `None` without a link.
    pub linked: Option<Linked>,
    /// Why the last link ended, or there is none.
    pub trouble: Option<String>,
    /// What a controller wants to be in force, the last word.
    pub wanted: Option<Arc<Delivery>>,
    /// The highest epoch that we were told of.
    pub epoch: u64,
}

/// The link's task, and what it works with.
pub struct Dial {
    /// Who we are, and where controllers are.
    pub credentials: Credentials,
    /// Where credentials are kept when they are renewed.
    pub state_dir: PathBuf,
    /// What was kept of epochs.
    pub epochs: Epochs,
    /// What we do; the newest counts.
    pub report: watch::Receiver<Report>,
    /// What we heard.
    pub heard: watch::Sender<Heard>,
}

/// How an attempt ended.
enum End {
    /// It does not lead.
    NotTheLeader(String),
    /// It refused us, or we it, for a reason that lasts.
    Refused(String),
    /// It broke.
    Broken(String),
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Dial {
    /// Keeps a link, for ever.
    pub async fn run(mut self) {
        let epoch = self.epochs.highest();
        self.heard.send_modify(|heard| heard.epoch = epoch);
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut turn = 0;
        loop {
            let addresses = self.addresses().await;
            let count = addresses.len().max(1);
            let mut reasons = Vec::new();
            for step in 0..addresses.len() {
                let at = (turn + step) % count;
                let mut was_linked = false;
                let end = self.link(addresses[at], &mut was_linked).await;
                if was_linked {
                    backoff.reset();
                    turn = at; // it may lead still
                }
                let address = addresses[at];
                let (reason, goes_on) = match end {
                    End::NotTheLeader(reason) => (format!("{address}: {reason}"), true),
                    End::Refused(reason) => (format!("{address}: {reason}"), true),
                    End::Broken(reason) => (format!("{address}: {reason}"), !was_linked),
                };
                self.unlinked(&reason);
                reasons.push(reason);
                if !goes_on {
                    break;
                }
                sleep(jitter(NEXT_PAUSE)).await;
            }
            if addresses.is_empty() {
                reasons.push("no controller's name can be resolved".into());
                self.unlinked("no controller's name can be resolved");
            }
            debug!(?reasons, "no link");
            sleep(backoff.pause()).await;
        }
    }

    /// Where controllers are now: a name may stand for several.
    async fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for controller in &self.credentials.controllers {
            match timeout(CONNECT, lookup_host(controller)).await {
                Ok(Ok(found)) => addresses.extend(found),
                Ok(Err(error)) => debug!(controller, %error, "not resolved"),
                Err(_) => debug!(controller, "not resolved in time"),
            }
        }
        addresses.dedup();
        addresses
    }

    fn unlinked(&self, reason: &str) {
        self.heard.send_modify(|heard| {
            if heard.linked.take().is_some() || heard.trouble.as_deref() != Some(reason) {
                warn!(reason, "no link to a controller: what is in force stays");
            }
            heard.trouble = Some(reason.to_owned());
        });
    }

    /// One link, to its end.
    async fn link(&mut self, address: SocketAddr, was_linked: &mut bool) -> End {
        let mut stream = match self.connect(address).await {
            Ok(stream) => stream,
            Err(end) => return end,
        };
        if let Err(end) = self.greet(&mut stream, address).await {
            return end;
        }
        *was_linked = true;
        let (reader, writer) = tokio::io::split(stream);
        self.talk(reader, writer).await
    }

    async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>, End> {
        let broken = |reason: String| End::Broken(reason);
        let stream = timeout(CONNECT, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| broken("cannot be reached".into()))?;
        let stream = stream.map_err(|error| broken(error.to_string()))?;
        crate::boxes::server::prepare(&stream);
        let config = tls::client(&self.credentials).map_err(|fault| End::Refused(fault.0))?;
        let connecting = TlsConnector::from(config).connect(tls::controller_name(), stream);
        match timeout(CONNECT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(End::Refused(format!("no TLS: {error}"))),
            Err(_) => Err(broken("no handshake".into())),
        }
    }

    /// The first words.
    async fn greet(
        &mut self,
        stream: &mut TlsStream<TcpStream>,
        address: SocketAddr,
    ) -> Result<(), End> {
        let (digest, version) = {
            let report = self.report.borrow();
            (report.digest, report.version)
        };
        let hello =
            Hello { release: Release::ours(), digest, version, epoch: self.epochs.highest() };
        send(stream, &Message::Hello(hello)).await?;
        let welcome = match timeout(PATIENCE, receive(stream, frame::MOST_OF_A_STRANGER)).await {
            Ok(Ok(Message::Welcome(welcome))) => welcome,
            Ok(Ok(Message::Refused(refused))) => {
                return Err(match refused.reason {
                    Reason::NotTheLeader | Reason::Busy => End::NotTheLeader(refused.message),
                    _ => End::Refused(refused.message),
                });
            }
            Ok(Ok(other)) => {
                return Err(End::Refused(format!("it answered with a {}", other.name())));
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(LinkError::Silent(PATIENCE).into()),
        };
        let (ours, theirs) = (Release::ours(), welcome.release);
        if !ours.talks_to(theirs) {
            return Err(End::Refused(format!(
                "the controller runs Penstock {theirs} and this box {ours}: they may be one minor version apart, no \
                 more: update the older one"
            )));
        }
        self.epochs.meet(welcome.epoch).map_err(End::Refused)?;
        info!(controller = welcome.controller, %address, epoch = welcome.epoch, "linked");
        let (controller, epoch) = (welcome.controller, welcome.epoch);
        self.heard.send_modify(|heard| {
            heard.linked = Some(Linked { controller, address, release: theirs, epoch });
            heard.trouble = None;
            heard.epoch = epoch;
        });
        Ok(())
    }

    async fn talk(
        &mut self,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> End {
        let (inbox_in, inbox) = mpsc::channel(1);
        let listening = async {
            loop {
                match receive(&mut reader, frame::MOST).await {
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
            error = listening => error.into(),
            end = self.speak(&mut writer, inbox) => end,
        }
    }

    async fn speak(
        &mut self,
        writer: &mut (impl AsyncWrite + Unpin),
        mut inbox: mpsc::Receiver<Message>,
    ) -> End {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewal = Renewal::of(&self.credentials);
        self.report.mark_changed(); // the first word on this link
        loop {
            let next = tokio::select! {
                message = inbox.recv() => {
                    let Some(message) = message else { return LinkError::Closed.into() };
                    if let Err(end) = self.hear(message, &mut renewal) {
                        return end;
                    }
                    continue;
                }
                changed = self.report.changed() => {
                    if changed.is_err() {
                        return LinkError::Closed.into(); // we end
                    }
                    Message::Report(Box::new(self.report.borrow_and_update().clone()))
                }
                () = sleep_until(renewal.at) => match renewal.ask() {
                    Some(message) => message,
                    None => continue,
                },
                _ = ping.tick() => Message::Ping,
            };
            if let Err(error) = send(writer, &next).await {
                return error.into();
            }
        }
    }

    fn hear(&mut self, message: Message, renewal: &mut Renewal) -> Result<(), End> {
        match message {
            Message::Ping => Ok(()),
            Message::Bundle(delivery) => {
                self.epochs.meet(delivery.epoch).map_err(End::Refused)?;
                let epoch = delivery.epoch;
                self.heard.send_modify(|heard| {
                    heard.epoch = epoch;
                    heard.wanted = Some(Arc::new(delivery));
                });
                Ok(())
            }
            Message::Renewed(issued) => {
                self.renewed(issued, renewal);
                Ok(())
            }
            Message::Refused(refused) => Err(match refused.reason {
                Reason::NotTheLeader => End::NotTheLeader(refused.message),
                _ => End::Refused(refused.message),
            }),
            other => Err(End::Refused(format!("a controller says no {}", other.name()))),
        }
    }

    /// Keeps a new certificate, if it is one: on disk first, then here.
    fn renewed(&mut self, issued: Issued, renewal: &mut Renewal) {
        let Some(key) = renewal.key.take() else { return };
        let mut renewed = self.credentials.clone();
        (renewed.certificate, renewed.key) = (issued.certificate, key.into());
        let before = self.credentials.card().map(|card| card.identity);
        let is_ours = renewed.card().map(|card| card.identity) == before;
        let fits = tls::client(&renewed).map_err(|fault| fault.0);
        let kept = match (is_ours, fits) {
            (false, _) => Err("it is of another box".to_owned()),
            (_, Err(fault)) => Err(fault),
            (true, Ok(_)) => renewed.save(&self.state_dir).map_err(|error| error.to_string()),
        };
        match kept {
            Ok(()) => {
                self.credentials = renewed;
                *renewal = Renewal::of(&self.credentials);
                info!("certificate renewed");
            }
            Err(reason) => warn!(reason, "the new certificate is not taken: asked for again"),
        }
    }
}

/// When to ask for a new certificate, and the key that it will be for.
struct Renewal {
    at: Instant,
    key: Option<String>,
}

impl Renewal {
    fn of(credentials: &Credentials) -> Self {
        let at = credentials.card().map(|card| card.renew_at());
        let now = SystemTime::now();
        let wait = at.unwrap_or(now).duration_since(now).unwrap_or_default();
        Self { at: Instant::now() + wait, key: None }
    }

    /// The request, and when to ask again if nothing comes.
    fn ask(&mut self) -> Option<Message> {
        self.at = Instant::now() + jitter(RENEW_AGAIN);
        let (key, request) = new_request()
            .inspect_err(|error| warn!(%error, "no new certificate can be asked for"))
            .ok()?;
        self.key = Some(key.serialize_pem());
        Some(Message::Renew(Request { request }))
    }
}
