//! Messages over a socket, with patience.
//!
//! A frame that has begun must go on: each 64 KiB of it are waited for [`PATIENCE`], in either direction, so that
//! a slow link carries a large bundle and a dead one is noticed. Between frames the other end may be silent for
//! [`SILENCE`]: two of its pings are lost then, or it is.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Message;
use super::frame::{FrameError, HEAD, Head};
use super::message::Malformed;

/// Each end says something at least this often.
pub const PING: Duration = Duration::from_secs(5);
/// Whose next frame does not begin within this time is gone.
pub const SILENCE: Duration = Duration::from_secs(12);
/// How long a frame that has begun may pause.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The bytes that may take [`PATIENCE`].
const PIECE: usize = 64 << 10;

/// Why a link ends.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end closed it.
    #[error("closed by the other end")]
    Closed,
    /// The other end is silent.
    #[error("silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// The kernel, or TLS, says so.
    #[error("{0}")]
    Io(io::Error),
    /// What came is no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// What came is no message.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// A message that is too large for a frame.
    #[error("a message that no frame can hold")]
    Unfit,
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// Waits for the next message that is known. Not to be cancelled and gone on with: a frame may be half-read.
///
/// # Errors
/// [`LinkError`]: the link is of no use any more.
pub async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<Message, LinkError> {
    loop {
        let mut head = [0; HEAD];
        within(SILENCE, from.read_exact(&mut head)).await?;
        let head = Head::read(head, most)?;
        let mut payload = Vec::new();
        while payload.len() < head.payload_bytes {
            let piece = (head.payload_bytes - payload.len()).min(PIECE);
            let mut piece = from.take(piece as u64);
            if within(PATIENCE, piece.read_to_end(&mut payload)).await? == 0 {
                return Err(LinkError::Closed);
            }
        }
        if let Some(message) = Message::decode(head.kind, &payload)? {
            return Ok(message);
        }
    }
}

/// Sends a message.
///
/// # Errors
/// [`LinkError`]: the link is of no use any more.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), message: &Message) -> Result<(), LinkError> {
    let (kind, payload, tail) = message.encode();
    let head = Head::write(kind, payload.len() + tail.len()).ok_or(LinkError::Unfit)?;
    // Small messages in one write, so in one TLS record.
    let first = [&head[..], &payload].concat();
    for piece in first.chunks(PIECE).chain(tail.chunks(PIECE)) {
        within(PATIENCE, to.write_all(piece)).await?;
    }
    within(PATIENCE, to.flush()).await
}

async fn within<T>(
    time: Duration,
    doing: impl Future<Output = io::Result<T>>,
) -> Result<T, LinkError> {
    match timeout(time, doing).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(LinkError::Silent(time)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{MOST, MOST_OF_A_STRANGER};
    use super::super::message::Delivery;
    use super::super::{Bundle, Digest};
    use super::*;

    /// What a reader makes of `bytes` and a closed socket.
    async fn read(bytes: &[u8], most: usize) -> Result<Message, LinkError> {
        receive(&mut &*bytes, most).await
    }

    #[tokio::test]
    async fn bad_bytes_end_a_link_with_a_reason() {
        for (promise, bytes, expected) in [
            ("nothing", &[][..], "closed by the other end"),
            ("half a head", &[0, 0], "closed by the other end"),
            ("half a frame", &[0, 0, 0, 9, 1, b'{'], "closed by the other end"),
            ("a frame without a kind", &[0, 0, 0, 0, 1], "a frame without a kind"),
            (
                "a frame that is too large",
                &[0, 2, 0, 0, 1],
                "a frame of 131072 bytes; at most 65536",
            ),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n", "at most 65536"),
            ("no JSON", &[0, 0, 0, 3, 1, b'{', b'x'], "a Hello that does not fit"),
            ("a kind nobody knows, then the end", &[0, 0, 0, 1, 99], "closed by the other end"),
        ] {
            let error = read(bytes, MOST_OF_A_STRANGER).await.expect_err(promise).to_string();
            assert!(error.contains(expected), "{promise}: {error}");
        }
        let after = [&[0, 0, 0, 2, 99, 7][..], &[0, 0, 0, 1, 6]].concat();
        assert_eq!(read(&after, 64).await.unwrap(), Message::Ping, "it is skipped");
    }

    #[tokio::test]
    async fn a_large_bundle_arrives_in_pieces() {
        let packed: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let bundle = Bundle { version: 1, digest: Digest::of(&packed), packed: packed.into() };
        let message = Message::Bundle(Delivery { epoch: 4, bundle });
        let (mut one, mut other) = tokio::io::duplex(1000);
        let sent = async { send(&mut one, &message).await.unwrap() };
        let (received, ()) = tokio::join!(receive(&mut other, MOST), sent);
        assert_eq!(received.unwrap(), message);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_in_the_middle_is_given_up() {
        let (mut one, mut other) = tokio::io::duplex(1000);
        one.write_all(&[0, 0, 0, 9, 1, b'{']).await.unwrap();
        let error = receive(&mut other, MOST).await.unwrap_err();
        assert!(matches!(error, LinkError::Silent(PATIENCE)), "{error}");
        let (mut full, _reader) = tokio::io::duplex(2);
        let error = send(&mut full, &Message::Ping).await.unwrap_err();
        assert!(matches!(error, LinkError::Silent(PATIENCE)), "{error}");
        let (_quiet, mut other) = tokio::io::duplex(1000);
        let error = receive(&mut other, MOST).await.unwrap_err();
        assert!(matches!(error, LinkError::Silent(SILENCE)), "{error}");
        assert!(2 * PING < SILENCE, "a ping that is late is no silence");
    }
}
