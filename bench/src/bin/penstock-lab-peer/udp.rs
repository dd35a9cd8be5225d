//! `udp-echo` and `udp-ask`: a datagram there, a datagram back with the server's name in front.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::tally::{Failure, Tally};

/// The most bytes of a datagram (RFC 768: a length of 16 bits).
const DATAGRAM_LIMIT: usize = 65_535;

/// How often a waiting server looks whether it shall stop.
const STOP_CHECK: Duration = Duration::from_millis(200);

/// Answer each datagram with NAME, a space and what came
#[derive(Args)]
pub(crate) struct EchoArguments {
    /// The name to answer with
    name: String,
    /// Where to listen; the default is every address of either family. Behind DSR name each VIP: answers
    /// have the address that was asked only if it is listened on by itself
    #[arg(long, default_value = "[::]:5300")]
    listen: Vec<SocketAddr>,
}

/// Ask a UDP echo server and count who answered
#[derive(Args)]
pub(crate) struct AskArguments {
    /// Where to ask: a VIP and its L4 port
    address: SocketAddr,
    /// How many questions
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// How long to wait for an answer, in milliseconds
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
    /// How often a question is asked again
    #[arg(long, default_value_t = 0)]
    retries: u64,
    /// How many bytes a question has at least: what does not fit a packet is sent in fragments
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// Ask everything from one L4 port, as one flow; otherwise each question is a flow of its own
    #[arg(long)]
    one_flow: bool,
}

#[derive(Serialize)]
pub(crate) struct Report {
    questions: u64,
    retried: u64,
    #[serde(flatten)]
    tally: Tally,
}

/// Serves until `stop` is raised.
pub(crate) fn echo(arguments: &EchoArguments, stop: &AtomicBool) -> io::Result<()> {
    let bind = |address: &SocketAddr| {
        UdpSocket::bind(address)
            .map_err(|error| io::Error::other(format!("udp-echo on {address}: {error}")))
    };
    let sockets = arguments.listen.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let serving =
            sockets.iter().map(|socket| scope.spawn(move || serve(socket, &arguments.name, stop)));
        let serving: Vec<_> = serving.collect();
        serving.into_iter().try_for_each(|served| {
            served.join().unwrap_or_else(|_| Err(io::Error::other("udp-echo: a thread panicked")))
        })
    })
}

fn serve(socket: &UdpSocket, name: &str, stop: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(STOP_CHECK))?;
    let mut question = vec![0; DATAGRAM_LIMIT];
    while !stop.load(Ordering::Relaxed) {
        // An error here is a time-out, or an ICMP message about an earlier answer: neither ends us.
        let Ok((length, from)) = socket.recv_from(&mut question) else {
            continue;
        };
        let answer = [name.as_bytes(), b" ", &question[..length]].concat();
        let _ = socket.send_to(&answer, from);
    }
    Ok(())
}

/// Asks one question after the other.
///
/// # Errors
/// The socket could not be made; what happens to a question is counted, not returned.
pub(crate) fn ask(arguments: &AskArguments, stop: &AtomicBool) -> io::Result<Report> {
    let mut report = Report { questions: 0, retried: 0, tally: Tally::default() };
    let shared = open(arguments)?;
    for number in 0..arguments.count {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        report.questions += 1;
        let own;
        let socket = if arguments.one_flow {
            &shared
        } else {
            own = open(arguments)?;
            &own
        };
        match ask_with_retries(socket, number, arguments, &mut report.retried) {
            Ok(backend) => report.tally.answer(&backend),
            Err(failure) => report.tally.failure(&failure, &format!("question {number}")),
        }
    }
    Ok(report)
}

fn open(arguments: &AskArguments) -> io::Result<UdpSocket> {
    let any: IpAddr = match arguments.address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(arguments.address)?;
    socket.set_read_timeout(Some(Duration::from_millis(arguments.timeout_ms.max(1))))?;
    Ok(socket)
}

fn ask_with_retries(
    socket: &UdpSocket,
    number: u64,
    arguments: &AskArguments,
    retried: &mut u64,
) -> Result<String, Failure> {
    let mut outcome = ask_once(socket, &question(number, 0, arguments.bytes));
    for attempt in 1..=arguments.retries {
        if outcome != Err(Failure::Timeout) {
            break;
        }
        *retried += 1;
        outcome = ask_once(socket, &question(number, attempt, arguments.bytes));
    }
    outcome
}

/// The question names itself, so that an answer that comes late is not taken for the next one's.
fn question(number: u64, attempt: u64, bytes: usize) -> String {
    let name = format!("question {number} attempt {attempt} ");
    let digits = ('0'..='9').cycle().take(bytes.saturating_sub(name.len()));
    name.chars().chain(digits).collect()
}

fn ask_once(socket: &UdpSocket, question: &str) -> Result<String, Failure> {
    socket.send(question.as_bytes()).map_err(failure)?;
    let mut answer = vec![0; DATAGRAM_LIMIT];
    loop {
        let length = socket.recv(&mut answer).map_err(failure)?;
        let text = String::from_utf8_lossy(&answer[..length]);
        match text.split_once(' ') {
            Some((backend, echoed)) if echoed == question => return Ok(backend.to_owned()),
            Some((_, echoed)) if echoed.starts_with("question ") => {} // an earlier one's, late
            _ => return Err(Failure::Wrong(format!("{text:?} to {question:?}"))),
        }
    }
}

/// A router said that the question was too large: it is lost, and the next one is sent in smaller fragments.
fn failure(error: io::Error) -> Failure {
    let too_large = rustix::io::Errno::MSGSIZE.raw_os_error();
    if error.raw_os_error() == Some(too_large) { Failure::Timeout } else { error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The two commands against each other on loopback, on an L4 port of the kernel's choice.
    #[test]
    fn the_server_answers_with_its_name_and_silence_is_counted() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asking = AskArguments {
            address: server.local_addr().unwrap(),
            count: 3,
            timeout_ms: 10,
            retries: 1,
            bytes: 0,
            one_flow: true,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let report = ask(&asking, &stop).unwrap();
        assert_eq!((report.tally.timeouts, report.retried), (3, 3));

        let serving = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || serve(&server, "backend9", &stop))
        };
        let report =
            ask(&AskArguments { timeout_ms: 5000, one_flow: false, bytes: 4000, ..asking }, &stop);
        stop.store(true, Ordering::Relaxed);
        serving.join().unwrap().unwrap();
        assert_eq!(report.unwrap().tally.backends["backend9"], 3);
    }
}
