//! A producer by hand: the hand-shake byte for byte, the ring through pread and pwrite, and no
//! honesty of its own. It can be stopped after any record, and write any bytes anywhere.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use penstock_feed::ring::{Memory, Reader, Writer, words_for};
use penstock_feed::{FEED_VERSION, Record, Server, decode, encode};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, recvmsg, send, socket_with,
};

/// The verb of a hello.
const HELLO: u32 = 2;

/// The first message of a producer that speaks `version`.
pub(crate) fn connect_message(version: u32) -> Vec<u8> {
    let (version, verb) = (version.to_le_bytes(), 1_u32.to_le_bytes());
    [&b"penstock"[..], &version, &verb].concat()
}

pub(crate) struct RawProducer {
    pub(crate) socket: OwnedFd,
    pub(crate) epoch: u64,
    pub(crate) memfd: Arc<OwnedFd>,
    pub(crate) doorbell: OwnedFd,
    feed: Writer<FileMemory>,
    acks: Reader<FileMemory>,
}

impl RawProducer {
    /// A socket to the server, and nothing said yet.
    pub(crate) fn knock(path: &Path) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        socket
    }

    /// The whole hand-shake with a server that is stepped here.
    pub(crate) fn connect(path: &Path, server: &mut Server) -> Self {
        let socket = Self::knock(path);
        say(&socket, &connect_message(FEED_VERSION.into()));
        server.step(0);
        server.step(0);
        let (bytes, mut descriptors) = heard(&socket).expect("a hello");
        let (doorbell, memfd) = (descriptors.pop().unwrap(), Arc::new(descriptors.pop().unwrap()));
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(number(12), HELLO);
        let (feed_words, ack_words) = (number(48) as usize, number(52) as usize);
        let memory = |base| FileMemory { memfd: Arc::clone(&memfd), base };
        Self {
            epoch: number(16).into(),
            feed: Writer::new(memory(0), feed_words),
            acks: Reader::new(memory(words_for(feed_words)), ack_words),
            socket,
            doorbell,
            memfd,
        }
    }

    /// Puts one record into the ring; there must be room.
    pub(crate) fn push(&mut self, record: &Record) {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        self.push_bytes(&bytes);
    }

    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) {
        assert!(self.feed.push(bytes).unwrap(), "the ring is full");
    }

    /// The records that lie in the ack ring.
    pub(crate) fn acks(&mut self) -> Vec<Record> {
        let mut bytes = Vec::new();
        let mut records = Vec::new();
        while self.acks.pop(&mut bytes).unwrap() {
            records.push(decode(&bytes).unwrap().0);
        }
        records
    }

    /// Writes any word of the shared memory.
    pub(crate) fn spoil(&self, word: usize, value: u64) {
        FileMemory { memfd: Arc::clone(&self.memfd), base: 0 }.store(
            word,
            value,
            Ordering::Relaxed,
        );
    }
}

pub(crate) fn say(socket: &OwnedFd, message: &[u8]) {
    send(socket, message, SendFlags::NOSIGNAL).unwrap();
}

/// The next message and its descriptors; `None` if nothing is there or the other end hung up.
pub(crate) fn heard(socket: &OwnedFd) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = [0; 2048];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT;
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags).ok()?;
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            descriptors.extend(rights);
        }
    }
    (got.bytes > 0).then(|| (bytes[..got.bytes].to_vec(), descriptors))
}

/// The words of a memfd, one system call each: slow, ordered, and safe.
struct FileMemory {
    memfd: Arc<OwnedFd>,
    base: usize,
}

impl FileMemory {
    fn offset(&self, index: usize) -> u64 {
        ((self.base + index) * 8) as u64
    }
}

impl Memory for FileMemory {
    fn load(&self, index: usize, _: Ordering) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::pread(&*self.memfd, &mut bytes, self.offset(index)).unwrap(), 8);
        u64::from_ne_bytes(bytes)
    }

    fn store(&self, index: usize, value: u64, _: Ordering) {
        let bytes = value.to_ne_bytes();
        assert_eq!(rustix::io::pwrite(&*self.memfd, &bytes, self.offset(index)).unwrap(), 8);
    }
}
