//! A netlink socket, and the three ways we use one: ask and be answered, dump in pieces, listen.
//!
//! The kernel works on a request inside `send`, so its answer lies in the socket when `send`
//! returns: nothing here ever waits, and every socket is non-blocking. What arrives is taken from
//! the kernel only (port 0), never from another process that guessed our port number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NlasIterator, Parseable, ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};

use super::KernelError;

/// What ends a dump (`NLMSG_DONE`).
pub(super) const DONE: u16 = 3;
/// An error, or with number 0 the acknowledgement of a request (`NLMSG_ERROR`).
pub(super) const ERROR: u16 = 2;

/// The kernel fills at most 32 KiB of a dump at a time, and no single message of ours is longer.
const RECEIVE_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 16;
/// The kernel's own words in an extended acknowledgement (`NLMSGERR_ATTR_MSG`).
const ERROR_ATTRIBUTE_MESSAGE: u16 = 1;
/// Dumps started before one that is interrupted each time is given up.
const DUMPS_TRIED: usize = 100;
/// The kernel's address on a netlink socket.
const KERNEL_PORT: u32 = 0;

/// A netlink socket of the route family, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    buffer: Box<[u8]>,
    sequence: u32,
}

/// What a look at the socket brought.
#[derive(Debug)]
pub(super) enum Received<'a> {
    /// One datagram: one or more messages.
    Messages(Messages<'a>),
    /// Nothing is waiting.
    Nothing,
    /// The socket's buffer was full and messages were lost.
    Lost,
}

impl Channel {
    /// Opens a socket with its own port number.
    pub(super) fn open() -> Result<Channel, KernelError> {
        let failed = |source| KernelError::io("netlink: opening a route socket", source);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        Ok(Channel { socket, buffer: vec![0; RECEIVE_BYTES].into(), sequence: 0 })
    }

    /// Joins the multicast group `group` (an `RTNLGRP_` number).
    pub(super) fn subscribe(&mut self, group: u32) -> Result<(), KernelError> {
        self.socket.add_membership(group).map_err(|source| {
            KernelError::io(format!("netlink: subscribing to group {group}"), source)
        })
    }

    /// Makes room for `bytes` of waiting messages, above `net.core.rmem_max` where we may.
    pub(super) fn set_receive_buffer(&mut self, bytes: usize) -> Result<(), KernelError> {
        let forced = sockopt::set_socket_recv_buffer_size_force(self.as_fd(), bytes);
        forced.or_else(|_| sockopt::set_socket_recv_buffer_size(self.as_fd(), bytes)).map_err(
            |errno| KernelError::refused("netlink: setting the receive buffer", errno, None),
        )
    }

    /// Asks for everything `message` (an `RTM_GET…`) describes; the answer comes by `receive`.
    pub(super) fn start_dump(&mut self, message: RouteNetlinkMessage) -> Result<u32, KernelError> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP)
    }

    /// The same for a message that the packet crate has no type for.
    pub(super) fn start_raw_dump(
        &mut self,
        message_type: u16,
        body: &[u8],
    ) -> Result<u32, KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend_from_slice(body);
        let mut header = NetlinkBuffer::new(&mut bytes[..]);
        header.set_length((HEADER_BYTES + body.len()) as u32);
        header.set_message_type(message_type);
        header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
        header.set_sequence_number(self.sequence);
        self.send_bytes(&bytes)?;
        Ok(self.sequence)
    }

    /// Sends a request and waits for the kernel's verdict, which is there at once.
    ///
    /// `what` begins the error message. Returns the messages that came before the verdict.
    pub(super) fn ask(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut answers = Vec::new();
        loop {
            match self.receive().map_err(|source| KernelError::io(what, source))? {
                Received::Messages(messages) => {
                    for message in messages.filter(|m| m.header.sequence_number == sequence) {
                        match message.verdict() {
                            Some(Ok(())) => return Ok(answers),
                            Some(Err((errno, reason))) => {
                                return Err(KernelError::refused(what, errno, reason));
                            }
                            None => answers.extend(message.decode().ok()),
                        }
                    }
                }
                Received::Nothing | Received::Lost => return Err(no_answer(what)),
            }
        }
    }

    /// Lists everything that `message` (an `RTM_GET…`) describes, whole: again if interrupted.
    /// `each` may therefore hear of an object twice.
    pub(super) fn dump(
        &mut self,
        what: &str,
        message: &RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), KernelError> {
        for _ in 0..DUMPS_TRIED {
            let sequence = self.start_dump(message.clone())?;
            if !self.finish_dump(what, sequence, &mut each)? {
                return Ok(());
            }
        }
        Err(KernelError::io(what, io::Error::other("it changes faster than it can be listed")))
    }

    /// Reads a dump to its end; whether it was interrupted.
    fn finish_dump(
        &mut self,
        what: &str,
        sequence: u32,
        each: &mut impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, KernelError> {
        let mut interrupted = false;
        loop {
            let received = self.receive().map_err(|source| KernelError::io(what, source))?;
            let Received::Messages(messages) = received else { return Err(no_answer(what)) };
            for message in messages.filter(|m| m.header.sequence_number == sequence) {
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.verdict() {
                    Some(Ok(())) => return Ok(interrupted),
                    Some(Err((errno, reason))) => {
                        return Err(KernelError::refused(what, errno, reason));
                    }
                    None => message.decode().into_iter().for_each(&mut *each),
                }
            }
        }
    }

    /// Takes one datagram from the socket.
    ///
    /// # Errors
    /// A failed system call other than "nothing there" and "some were lost".
    pub(super) fn receive(&mut self) -> io::Result<Received<'_>> {
        let flags = RecvFlags::TRUNC.bits() as i32;
        loop {
            let mut space = &mut self.buffer[..];
            match self.socket.recv_from(&mut space, flags) {
                Ok((_, from)) if from.port_number() != KERNEL_PORT => {}
                Ok((len, _)) if len > self.buffer.len() => return Ok(Received::Lost),
                Ok((len, _)) => {
                    let bytes = &self.buffer[..len];
                    return Ok(Received::Messages(Messages { bytes }));
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN) => return Ok(Received::Nothing),
                    Some(Errno::NOBUFS) => return Ok(Received::Lost),
                    _ => return Err(error),
                },
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<u32, KernelError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send_bytes(&bytes)?;
        Ok(self.sequence)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), KernelError> {
        let kernel = SocketAddr::new(KERNEL_PORT, 0);
        self.socket
            .send_to(bytes, &kernel, 0)
            .map(drop)
            .map_err(|source| KernelError::io("netlink: sending a request", source))
    }
}

fn no_answer(what: &str) -> KernelError {
    KernelError::io(what, io::Error::other("the kernel gave no answer"))
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

/// The messages of one datagram, in order. What is cut short ends it.
#[derive(Clone, Debug)]
pub(super) struct Messages<'a> {
    bytes: &'a [u8],
}

/// One message, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) header: NetlinkHeader,
    pub(super) body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let buffer = NetlinkBuffer::new_checked(self.bytes).ok()?;
        let header = NetlinkHeader::parse(&buffer).ok()?;
        let len = header.length as usize;
        let body = self.bytes.get(HEADER_BYTES..len)?;
        self.bytes = self.bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { header, body })
    }
}

impl Message<'_> {
    /// The message as a type, if it is one the packet crate knows.
    pub(super) fn decode(&self) -> Result<RouteNetlinkMessage, DecodeError> {
        RouteNetlinkMessage::parse_with_param(self.body, self.header.message_type)
    }

    /// `Ok` for an acknowledgement or the end of a dump, the error for a refusal, else nothing.
    pub(super) fn verdict(&self) -> Option<Result<(), (Errno, Option<String>)>> {
        if !matches!(self.header.message_type, DONE | ERROR) {
            return None;
        }
        let code = self.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        if code >= 0 {
            return Some(Ok(()));
        }
        let errno = Errno::from_raw_os_error(code.saturating_neg());
        Some(Err((errno, self.reason())))
    }

    /// The kernel's own words: after the number and, in an error, the header of our request.
    fn reason(&self) -> Option<String> {
        let skip = if self.header.message_type == DONE { 4 } else { 4 + HEADER_BYTES };
        let attributes = NlasIterator::new(self.body.get(skip..)?);
        let message =
            attributes.flatten().find(|attribute| attribute.kind() == ERROR_ATTRIBUTE_MESSAGE)?;
        let text = String::from_utf8_lossy(message.value());
        Some(text.trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_cut_anywhere_ends_there() {
        let mut bytes = Vec::new();
        for (len, kind) in [(18u32, ERROR), (36, ERROR), (20, DONE)] {
            bytes.extend(len.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(bytes.len() + len as usize - 6, 0xff);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        assert_eq!(Messages { bytes: &bytes }.count(), 3);
        for len in 0..bytes.len() {
            let messages = Messages { bytes: &bytes[..len] };
            let whole = [18, 20 + 36, 20 + 36 + 20].iter().filter(|end| **end <= len).count();
            assert_eq!(messages.clone().count(), whole, "cut to {len}");
            for message in messages {
                let _anything_but_a_panic = message.verdict();
            }
        }
    }
}
