//! One connection: opened, asked once, closed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer on a box that is well.
const PATIENCE: Duration = Duration::from_secs(3);
const LONGEST_ANSWER: u64 = 4096;

/// The name of the backend that answers at `place`.
///
/// # Errors
/// The kernel's; `TimedOut` after three seconds; `InvalidData` if it is no answer of HTTP 200.
pub(crate) async fn ask(place: SocketAddr) -> io::Result<String> {
    timeout(PATIENCE, exchange(place)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(place: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(place).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.trim().to_owned()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is no HTTP 200: {answer:?}"),
        )),
    }
}
