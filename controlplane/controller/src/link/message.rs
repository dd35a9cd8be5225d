//! What the frames mean.
//!
//! All but the body of a bundle is JSON: a field that a neighbour in version does not know is ignored by it, and one
//! that it does not send has its default. A kind of frame that is not known is skipped.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Release;
use super::bundle::{Bundle, Digest};

/// The most errors of one consumer that are told one by one.
pub const MOST_FAULTS: usize = 512;
/// The longest text of an error that is told.
pub const MOST_TEXT_CHARS: usize = 1024;

/// A message, from either end.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The box's first.
    Hello(Hello),
    /// The controller's answer: it leads, and will say what to do.
    Welcome(Welcome),
    /// The controller's last: the link ends.
    Refused(Refused),
    /// What to do from now on.
    Bundle(Delivery),
    /// What the box does.
    Report(Box<Report>),
    /// Are you there? Not answered: the other end asks, too.
    Ping,
    /// The box wants another certificate.
    Renew(Request),
    /// Here it is.
    Renewed(Issued),
    /// A box without a certificate wants its first.
    Join(Join),
    /// Here it is.
    Joined(Issued),
}

/// Who a box is, beside what its certificate says, and what it does already.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Hello {
    /// What runs there.
    pub release: Release,
    /// What is in force there; nothing before the first bundle.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The number of that.
    #[serde(default)]
    pub version: u64,
    /// The highest epoch that it was told of.
    #[serde(default)]
    pub epoch: u64,
}

/// Who a controller is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Welcome {
    /// What runs there.
    pub release: Release,
    /// Who it is, for people.
    #[serde(default)]
    pub controller: String,
    /// The epoch in which it leads.
    pub epoch: u64,
}

/// Why a controller does not want to talk.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Refused {
    /// For programs.
    pub reason: Reason,
    /// For people, with the next move.
    pub message: String,
}

/// Why a controller does not want to talk, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Another one leads, or none: try the next address.
    NotTheLeader,
    /// The releases are too far apart.
    Version,
    /// There is no certificate.
    NoCertificate,
    /// There is no Box of that name, or it is another one of the same name.
    UnknownBox,
    /// The Box is revoked.
    Revoked,
    /// The token is wrong, used or too old.
    Token,
    /// The box knows a higher epoch than the controller's.
    Epoch,
    /// Something was said that has no place there.
    Protocol,
    /// Too many want something at once.
    Busy,
    /// Another link of the same box has taken its place.
    Replaced,
    /// Something this version does not know.
    #[serde(other)]
    Other,
}

/// A bundle, and in which epoch it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The epoch of the controller that wants it.
    pub epoch: u64,
    /// What it wants.
    pub bundle: Bundle,
}

/// The JSON before a packed body.
#[derive(Deserialize, Serialize)]
struct DeliveryHead {
    epoch: u64,
    version: u64,
    digest: Digest,
    /// The only packing that is known: a later version may have another.
    packing: String,
}

const PACKING: &str = "deflate";

/// What a box does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Report {
    /// The digest of the bundle in force.
    pub digest: Option<Digest>,
    /// The number of that.
    pub version: u64,
    /// The highest epoch that it was told of.
    pub epoch: u64,
    /// What its data plane says of it.
    pub dataplane: Consumer,
    /// What its L7 tier says of it.
    pub l7: Consumer,
    /// The bundle that it did not take, if that was the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedBundle>,
    /// How many objects it left out, since its version does not know their kind.
    pub unread: usize,
}

/// What one consumer on a box says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Consumer {
    /// Whether it is there.
    pub connected: bool,
    /// Whether it has been out of reach for longer than a restart takes.
    pub lost: bool,
    /// Whether it acknowledged what is in force.
    pub acknowledged: bool,
    /// What that is as the feed has it, in hexadecimal: equal on boxes that do the same.
    pub state: String,
    /// Why it did not take what is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What of it is not served.
    pub faults: Vec<Fault>,
}

/// Something that a box does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Fault {
    /// What it is, in the feed's words.
    pub kind: String,
    /// Its name there.
    pub name: String,
    /// Why not.
    pub message: String,
}

/// A bundle that a box did not take.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct RefusedBundle {
    /// Which.
    pub digest: Digest,
    /// Why not.
    pub message: String,
}

/// A request for a certificate.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Request {
    /// PKCS #10 in PEM.
    pub request: String,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Issued {
    /// The certificate in PEM.
    pub certificate: String,
    /// The authority's in PEM.
    pub authority: String,
}

/// A box that wants to join.
#[derive(Clone, PartialEq, Deserialize, Serialize)]
pub struct Join {
    /// What runs there.
    pub release: Release,
    /// The token, used with it.
    pub token: String,
    /// PKCS #10 in PEM.
    pub request: String,
}

/// A token is not for logs.
impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join").field("release", &self.release).finish_non_exhaustive()
    }
}

/// A frame that is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} that does not fit: {reason}")]
pub struct Malformed {
    what: &'static str,
    reason: String,
}

impl Refused {
    /// For these reasons.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Message {
    /// What it is called in errors and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Refused(_) => "Refused",
            Self::Bundle(_) => "Bundle",
            Self::Report(_) => "Report",
            Self::Ping => "Ping",
            Self::Renew(_) => "Renew",
            Self::Renewed(_) => "Renewed",
            Self::Join(_) => "Join",
            Self::Joined(_) => "Joined",
        }
    }

    /// Kind and payload; of a bundle, the packed body goes behind the payload.
    #[must_use]
    pub fn encode(&self) -> (u8, Vec<u8>, &[u8]) {
        match self {
            Self::Hello(it) => (1, json(it), &[]),
            Self::Welcome(it) => (2, json(it), &[]),
            Self::Refused(it) => (3, json(it), &[]),
            Self::Bundle(it) => (4, it.head(), &it.bundle.packed),
            Self::Report(it) => (5, json(&**it), &[]),
            Self::Ping => (6, Vec::new(), &[]),
            Self::Renew(it) => (7, json(it), &[]),
            Self::Renewed(it) => (8, json(it), &[]),
            Self::Join(it) => (9, json(it), &[]),
            Self::Joined(it) => (10, json(it), &[]),
        }
    }

    /// The message of a frame; `None` for a kind that is not known.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Option<Self>, Malformed> {
        Ok(Some(match kind {
            1 => Self::Hello(parse("Hello", payload)?),
            2 => Self::Welcome(parse("Welcome", payload)?),
            3 => Self::Refused(parse("Refused", payload)?),
            4 => Self::Bundle(Delivery::decode(payload)?),
            5 => Self::Report(Box::new(parse::<Report>("Report", payload)?.bounded())),
            6 => Self::Ping,
            7 => Self::Renew(parse("Renew", payload)?),
            8 => Self::Renewed(parse("Renewed", payload)?),
            9 => Self::Join(parse("Join", payload)?),
            10 => Self::Joined(parse("Joined", payload)?),
            _ => return Ok(None),
        }))
    }
}

fn json(message: &impl Serialize) -> Vec<u8> {
    // These types have string keys and finite numbers only, which is all that JSON asks for.
    serde_json::to_vec(message).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(what: &'static str, payload: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(payload).map_err(|error| Malformed { what, reason: error.to_string() })
}

impl Delivery {
    /// The length of the JSON, and the JSON.
    fn head(&self) -> Vec<u8> {
        let Bundle { version, digest, .. } = self.bundle;
        let packing = PACKING.to_owned();
        let text = json(&DeliveryHead { epoch: self.epoch, version, digest, packing });
        let length = u32::try_from(text.len()).unwrap_or_default();
        [&length.to_be_bytes()[..], &text].concat()
    }

    fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let fail = |reason: &str| Malformed { what: "Bundle", reason: reason.to_owned() };
        let cut = || fail("it is cut off");
        let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (text, packed) = rest.split_at_checked(length).ok_or_else(cut)?;
        let head: DeliveryHead = parse("Bundle", text)?;
        if head.packing != PACKING {
            return Err(fail("it is packed in a way that this version does not know"));
        }
        let bundle = Bundle { version: head.version, digest: head.digest, packed: packed.into() };
        Ok(Self { epoch: head.epoch, bundle })
    }
}

impl Report {
    /// With texts and lists no longer than anyone reads: a box may be broken into.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for consumer in [&mut self.dataplane, &mut self.l7] {
            consumer.faults.truncate(MOST_FAULTS);
            consumer.state.truncate(consumer.state.floor_char_boundary(64));
            for fault in &mut consumer.faults {
                for text in [&mut fault.kind, &mut fault.name, &mut fault.message] {
                    shorten(text);
                }
            }
            consumer.refused.iter_mut().for_each(shorten);
        }
        self.refused.iter_mut().for_each(|refused| shorten(&mut refused.message));
        self
    }
}

fn shorten(text: &mut String) {
    text.truncate(text.floor_char_boundary(MOST_TEXT_CHARS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest::of(b"x")
    }

    fn all() -> Vec<Message> {
        let release = Release::new(0, 1, 0);
        let issued = Issued { certificate: "c".into(), authority: "a".into() };
        let fault = Fault { kind: "listener".into(), name: "a".into(), message: "no".into() };
        let consumer = Consumer { connected: true, faults: vec![fault], ..Consumer::default() };
        let refused = Some(RefusedBundle { digest: digest(), message: "no".into() });
        let bundle = Bundle { version: 3, digest: digest(), packed: b"packed"[..].into() };
        vec![
            Message::Hello(Hello { release, digest: Some(digest()), version: 2, epoch: 7 }),
            Message::Welcome(Welcome { release, controller: "c".into(), epoch: 7 }),
            Message::Refused(Refused::new(Reason::NotTheLeader, "try another")),
            Message::Bundle(Delivery { epoch: 7, bundle }),
            Message::Report(Box::new(Report { dataplane: consumer, refused, ..Report::default() })),
            Message::Ping,
            Message::Renew(Request { request: "r".into() }),
            Message::Renewed(issued.clone()),
            Message::Join(Join { release, token: "t".into(), request: "r".into() }),
            Message::Joined(issued),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_every_cut_is_told() {
        for message in all() {
            let (kind, head, tail) = message.encode();
            let payload = [&head[..], tail].concat();
            assert_eq!(Message::decode(kind, &payload), Ok(Some(message.clone())));
            for length in 0..head.len() {
                let cut = Message::decode(kind, &payload[..length]);
                assert!(cut.is_err(), "{} of {length} bytes: {cut:?}", message.name());
            }
        }
        assert_eq!(Message::decode(200, b"anything"), Ok(None), "a later kind is skipped");
    }

    #[test]
    fn neighbours_in_version_understand_each_other() {
        let later = br#"{"release":"0.2.0","epoch":3,"colour":"red"}"#;
        let read = Message::decode(1, later).unwrap().unwrap();
        let release = Release::new(0, 2, 0);
        assert_eq!(read, Message::Hello(Hello { release, digest: None, version: 0, epoch: 3 }));
        let reason = br#"{"reason":"out-of-coffee","message":"later"}"#;
        let read = Message::decode(3, reason).unwrap().unwrap();
        assert_eq!(read, Message::Refused(Refused::new(Reason::Other, "later")));
    }

    #[test]
    fn a_report_is_cut_to_what_anyone_reads() {
        let fault = Fault { kind: "k".into(), name: "n".into(), message: "ä".repeat(5000) };
        let dataplane = Consumer { faults: vec![fault; 2 * MOST_FAULTS], ..Consumer::default() };
        let (kind, payload, _) =
            Message::Report(Box::new(Report { dataplane, ..Report::default() })).encode();
        let Some(Message::Report(report)) = Message::decode(kind, &payload).unwrap() else {
            panic!()
        };
        assert_eq!(report.dataplane.faults.len(), MOST_FAULTS);
        assert!(report.dataplane.faults[0].message.len() <= MOST_TEXT_CHARS);
    }

    #[test]
    fn a_token_is_not_shown_to_whoever_debugs() {
        let release = Release::ours();
        let join = Join { release, token: "SECRET".into(), request: String::new() };
        assert!(!format!("{join:?}").contains("SECRET"));
    }
}
