//! The socket beside the rings: hand-shake, doorbell, and the last word.
//!
//! ```text
//!   producer                                   consumer (owns the socket, SOCK_SEQPACKET)
//!      | connect                                  | peer's uid by SO_PEERCRED: refused if not allowed
//!      | "penstock", version  ------------------> | refused if the version is another
//!      | <------------------ hello: epoch, generation, digest, ring sizes
//!      |                     + memfd, eventfd (SCM_RIGHTS); an older connection ends here
//!      | records in the feed ring, eventfd =====> | wakes by epoll
//!      | <===== records in the ack ring, one byte on the socket: wakes by poll
//!      | <------------------ ended: why (fenced, or a protocol error); or either end hangs up
//! ```
//! Every message begins with the same 16 bytes in every version, so that ends of two versions can
//! still tell each other so.
//!
//! The doorbells differ because the consumer must never block and trusts nobody. `O_NONBLOCK` of
//! an eventfd belongs to the open file, which the peer shares: it could clear it and park us in a
//! `read` or `write`. So the consumer only watches the eventfd, edge-triggered, and never reads
//! it; and it rings by `send` with `MSG_DONTWAIT` on its own end of the socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::digest::Digest;
use crate::record::{FEED_VERSION, Fixed};
use crate::ring::Geometry;

const MAGIC: [u8; 8] = *b"penstock";
const DOORBELL: &[u8] = b"!";

/// The longest message of the socket.
pub(crate) const MAX_SOCKET_MESSAGE_BYTES: usize = 1024;

/// What a consumer says of itself when it lets a producer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the feed that both ends speak.
    pub protocol_version: u32,
    /// The connection's number: one more than that of any before it.
    pub epoch: u64,
    /// The generation of the state that the consumer holds; 0 if it holds none.
    pub generation: u64,
    /// The digest of that state.
    pub digest: Digest,
}

/// The first bytes of every message, of every version.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Start {
    magic: [u8; 8],
    version: U32,
    verb: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloBody {
    epoch: U64,
    generation: U64,
    digest: U128,
    feed_words: U32,
    ack_words: U32,
}

const CONNECT: u32 = 1;
const HELLO: u32 = 2;
const REFUSED: u32 = 3;
const ENDED: u32 = 4;

impl Start {
    fn new(verb: u32) -> Self {
        Self { magic: MAGIC, version: U32::new(FEED_VERSION.into()), verb: U32::new(verb) }
    }
}

/// A message of the consumer, as the producer reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromConsumer {
    Hello(Hello, Geometry),
    Refused(String),
    Ended(String),
    Doorbell,
}

/// What a producer's first message is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromProducer {
    Connect,
    OtherVersion(u32),
    Nonsense,
}

/// The producer's first message, in the version given; only tests send another than ours.
pub(crate) fn connect_message(version: u32) -> Vec<u8> {
    let start = Start { version: U32::new(version), ..Start::new(CONNECT) };
    start.as_bytes().to_vec()
}

pub(crate) fn parse_from_producer(bytes: &[u8]) -> FromProducer {
    match Start::read_from_bytes(bytes) {
        Ok(start) if start.magic == MAGIC && start.verb == CONNECT => match start.version.get() {
            version if version == u32::from(FEED_VERSION) => FromProducer::Connect,
            version => FromProducer::OtherVersion(version),
        },
        _ => FromProducer::Nonsense,
    }
}

fn parse_from_consumer(bytes: &[u8]) -> Option<FromConsumer> {
    if bytes == DOORBELL {
        return Some(FromConsumer::Doorbell);
    }
    let (start, body) = Start::read_from_prefix(bytes).ok()?;
    if start.magic != MAGIC {
        return None;
    }
    let said = || String::from_utf8_lossy(body).into_owned();
    match start.verb.get() {
        HELLO if start.version.get() == u32::from(FEED_VERSION) => {
            let body = HelloBody::read_from_bytes(body).ok()?;
            let hello = Hello {
                protocol_version: start.version.get(),
                epoch: body.epoch.get(),
                generation: body.generation.get(),
                digest: Digest::from_bits(body.digest.get()),
            };
            let geometry =
                Geometry { feed_words: body.feed_words.get(), ack_words: body.ack_words.get() };
            Some(FromConsumer::Hello(hello, geometry))
        }
        REFUSED => Some(FromConsumer::Refused(said())),
        ENDED => Some(FromConsumer::Ended(said())),
        _ => None,
    }
}

/// Sends the hello with the connection's memory and doorbell.
pub(crate) fn send_hello(
    socket: impl AsFd,
    hello: &Hello,
    geometry: Geometry,
    descriptors: [BorrowedFd<'_>; 2],
) -> Result<(), Errno> {
    let body = HelloBody {
        epoch: U64::new(hello.epoch),
        generation: U64::new(hello.generation),
        digest: U128::new(hello.digest.to_bits()),
        feed_words: U32::new(geometry.feed_words),
        ack_words: U32::new(geometry.ack_words),
    };
    let message = message(HELLO, &body);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&message)], &mut control, flags).map(|_| ())
}

fn message(verb: u32, body: &impl Fixed) -> Vec<u8> {
    [Start::new(verb).as_bytes(), body.as_bytes()].concat()
}

/// Tells a producer that it does not come in, if it still listens.
pub(crate) fn send_refused(socket: impl AsFd, reason: &str) {
    send_text(socket, REFUSED, reason);
}

/// Tells a producer why its connection ends, if it still listens.
pub(crate) fn send_ended(socket: impl AsFd, reason: &str) {
    send_text(socket, ENDED, reason);
}

fn send_text(socket: impl AsFd, verb: u32, text: &str) {
    let room = MAX_SOCKET_MESSAGE_BYTES - size_of::<Start>();
    let text = &text[..text.floor_char_boundary(room)];
    let message = [Start::new(verb).as_bytes(), text.as_bytes()].concat();
    // A peer that does not take it has gone or does not read; it learns by the hang-up.
    let _ = send(socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// Wakes a producer. A full socket means that it has been woken and did not look yet.
pub(crate) fn ring_by_socket(socket: impl AsFd) {
    let _ = send(socket, DOORBELL, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// What lies on the socket, without waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received<T> {
    Nothing,
    HungUp,
    Message(T),
}

/// Takes one message of a producer. Descriptors that it may have attached are not taken.
pub(crate) fn receive_from_producer(socket: impl AsFd) -> Received<FromProducer> {
    let mut bytes = [0; MAX_SOCKET_MESSAGE_BYTES];
    match recv(socket, &mut bytes[..], RecvFlags::DONTWAIT) {
        Ok((0, _)) => Received::HungUp, // an empty message looks the same, and nobody honest sends one
        Ok((length, _)) => Received::Message(parse_from_producer(&bytes[..length])),
        Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
        Err(_) => Received::HungUp,
    }
}

/// Takes one message of the consumer and its descriptors; `None` inside is one that makes no sense.
pub(crate) fn receive_from_consumer(
    socket: impl AsFd,
) -> Received<(Option<FromConsumer>, Vec<OwnedFd>)> {
    let socket = socket.as_fd();
    match receive_with_descriptors(socket) {
        // It hung up with something of ours unread. That is told once, before what it said last.
        Err(Errno::CONNRESET) => received(receive_with_descriptors(socket)),
        first => received(first),
    }
}

fn received(
    result: Result<(Vec<u8>, Vec<OwnedFd>), Errno>,
) -> Received<(Option<FromConsumer>, Vec<OwnedFd>)> {
    match result {
        Ok((bytes, _)) if bytes.is_empty() => Received::HungUp,
        Ok((bytes, descriptors)) => Received::Message((parse_from_consumer(&bytes), descriptors)),
        Err(Errno::AGAIN | Errno::INTR) => Received::Nothing,
        Err(_) => Received::HungUp,
    }
}

fn receive_with_descriptors(socket: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<OwnedFd>), Errno> {
    let mut bytes = vec![0; MAX_SOCKET_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    bytes.truncate(message.bytes);
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_message_is_ours_or_of_another_version_or_nonsense() {
        let longer = [connect_message(FEED_VERSION.into()), vec![0]].concat();
        let mut other_magic = connect_message(FEED_VERSION.into());
        other_magic[0] = b'P';
        for (promise, bytes, expected) in [
            ("ours", connect_message(FEED_VERSION.into()), FromProducer::Connect),
            ("newer", connect_message(9), FromProducer::OtherVersion(9)),
            ("longer", longer, FromProducer::Nonsense),
            ("another program's", other_magic, FromProducer::Nonsense),
            ("empty", vec![], FromProducer::Nonsense),
        ] {
            assert_eq!(parse_from_producer(&bytes), expected, "{promise}");
        }
    }

    #[test]
    fn a_consumer_of_another_version_can_still_refuse_in_words() {
        let mut bytes = [Start::new(REFUSED).as_bytes(), b"speak feed 9"].concat();
        bytes[8] = 9;
        let expected = FromConsumer::Refused("speak feed 9".into());
        assert_eq!(parse_from_consumer(&bytes), Some(expected));
        for nonsense in [&b"?"[..], b"", &[0; 64], &bytes[..15]] {
            assert_eq!(parse_from_consumer(nonsense), None);
        }
    }
}
