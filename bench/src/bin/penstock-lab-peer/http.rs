//! The little of HTTP/1.1 that a test of connections needs: a GET, a status, a body of known length.
//!
//! Bounded: a head is at most [`HEAD_LIMIT`] bytes, a short body at most [`BODY_LIMIT`]. No chunked
//! coding, since the lab's nginx gives a length for what it serves.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::tally::Failure;

const HEAD_LIMIT: u64 = 8 * 1024;
const BODY_LIMIT: u64 = 64 * 1024;

/// A connection to an HTTP server, blocking, with a time limit on every step.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

/// Whether the server may keep the connection after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Keep,
    Close,
}

impl Connection {
    /// # Errors
    /// [`Failure::Refused`] for an RST in answer to the SYN, [`Failure::Timeout`] for none at all.
    pub(crate) fn open(to: SocketAddr, limit: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: to })
    }

    /// Asks for `path` and returns the body's length; the body is then read by the caller.
    ///
    /// # Errors
    /// [`Failure::Wrong`] for a status other than 200 or a head that is not HTTP's.
    pub(crate) fn get(&mut self, path: &str, after: After) -> Result<u64, Failure> {
        let connection = if after == After::Keep { "keep-alive" } else { "close" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n",
            self.host
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        read_head(&mut self.stream)
    }

    /// A GET whose answer is one line: the name of the backend.
    pub(crate) fn ask_name(&mut self, after: After) -> Result<String, Failure> {
        let length = self.get("/", after)?;
        if length > BODY_LIMIT {
            return Err(Failure::Wrong(format!("a body of {length} bytes for a name")));
        }
        let mut body = Vec::new();
        let read = (&mut self.stream).take(length).read_to_end(&mut body)?;
        if (read as u64) < length {
            return Err(Failure::Closed);
        }
        Ok(String::from_utf8_lossy(&body).trim().to_owned())
    }

    /// Waits for the server's FIN, so that it, not we, keeps the TIME-WAIT state.
    pub(crate) fn wait_for_close(&mut self) -> Result<(), Failure> {
        match self.read_some(&mut [0; 1])? {
            0 => Ok(()),
            _ => Err(Failure::Wrong("bytes after the end of the answer".to_owned())),
        }
    }

    /// The next bytes of a body; empty at a FIN.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return Ok(read?),
            }
        }
    }
}

/// Reads a status line and headers; returns the length of the body that follows.
fn read_head(stream: &mut impl BufRead) -> Result<u64, Failure> {
    let mut head = stream.take(HEAD_LIMIT);
    let status = read_line(&mut head)?;
    let mut length = None;
    loop {
        let line = read_line(&mut head)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    match (status.split(' ').nth(1), length) {
        (Some("200"), Some(length)) => Ok(length),
        (Some("200"), None) => Err(Failure::Wrong("no Content-Length".to_owned())),
        _ => Err(Failure::Wrong(format!("status line {status:?}"))),
    }
}

fn read_line(head: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = Vec::new();
    head.read_until(b'\n', &mut line)?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(Failure::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_or_refused() {
        let length = |n| Ok::<u64, Failure>(n);
        for (promise, head, expected) in [
            ("a length is found", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", length(9)),
            ("half a head is a closed connection", "HTTP/1.1 200 OK\r\ncont", Err(Failure::Closed)),
            ("no head at all, too", "", Err(Failure::Closed)),
            (
                "another status is a wrong answer",
                "HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n",
                Err(Failure::Wrong("status line \"HTTP/1.1 502 Bad\"".to_owned())),
            ),
            (
                "a length is needed",
                "HTTP/1.1 200 OK\r\n\r\n",
                Err(Failure::Wrong("no Content-Length".to_owned())),
            ),
        ] {
            assert_eq!(read_head(&mut head.as_bytes()), expected, "{promise}");
        }
    }
}
