//! Packets as a pcapng file: draft-ietf-opsawg-pcapng. Three kinds of block are enough.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const ETHERNET: u16 = 1;
const COMMENT: u16 = 1;
const INTERFACE_NAME: u16 = 2;
const TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const USER_APPLICATION: u16 = 4;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// It came in.
    In = 1,
    /// It left.
    Out = 2,
}

/// A packet to be written.
pub(super) struct Entry<'e> {
    pub(super) port: &'e str,
    pub(super) way: Way,
    pub(super) time_ns: u64,
    /// Bytes of the whole frame.
    pub(super) len: usize,
    pub(super) bytes: &'e [u8],
    pub(super) comment: &'e str,
}

/// A file being written. An interface stands for a port and a way, so that a viewer can tell what came from what left.
pub(super) struct Writer<W> {
    out: W,
    interfaces: Vec<(String, Way)>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(super) fn begin(mut out: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_le_bytes()); // says that we write the least byte first
        body.extend([1, 0, 0, 0]); // version 1.0
        body.extend(u64::MAX.to_le_bytes()); // the section's length is not known yet
        option(&mut body, USER_APPLICATION, b"penstock capture");
        end_of_options(&mut body);
        block(&mut out, SECTION_HEADER, &body)?;
        out.flush()?;
        Ok(Self { out, interfaces: Vec::new() })
    }

    /// Writes one packet, to the end: what was written before an interruption is a whole file.
    pub(super) fn write(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let interface = self.interface(entry.port, entry.way)?;
        let length = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut body = Vec::new();
        body.extend(interface.to_le_bytes());
        body.extend(((entry.time_ns >> 32) as u32).to_le_bytes());
        body.extend((entry.time_ns as u32).to_le_bytes());
        body.extend(length(entry.bytes.len()));
        body.extend(length(entry.len));
        body.extend(entry.bytes);
        pad(&mut body);
        option(&mut body, PACKET_FLAGS, &(entry.way as u32).to_le_bytes());
        option(&mut body, COMMENT, entry.comment.as_bytes());
        end_of_options(&mut body);
        block(&mut self.out, PACKET, &body)?;
        self.out.flush()
    }

    fn interface(&mut self, port: &str, way: Way) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|known| *known == (port.to_owned(), way));
        if let Some(known) = known {
            return Ok(known as u32);
        }
        let name = format!("{port} {}", if way == Way::In { "in" } else { "out" });
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        body.extend([0; 4]); // no limit to the length of what is kept
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, TIME_RESOLUTION, &[9]); // 10⁻⁹ s
        end_of_options(&mut body);
        block(&mut self.out, INTERFACE, &body)?;
        self.interfaces.push((port.to_owned(), way));
        Ok(self.interfaces.len() as u32 - 1)
    }
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&[&kind.to_le_bytes(), &length, body, &length].concat())
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_blocks_byte_for_byte() {
        let mut writer = Writer::begin(Vec::new()).unwrap();
        let entry = Entry {
            port: "lan",
            way: Way::In,
            time_ns: 0x0102_0304_0506_0708,
            len: 60,
            bytes: &[1, 2, 3, 4, 5],
            comment: "drop",
        };
        writer.write(&entry).unwrap();
        writer.write(&Entry { way: Way::Out, bytes: &[], ..entry }).unwrap();
        writer.write(&entry).unwrap();
        let bytes = writer.out;
        let mut blocks = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
            assert_eq!(rest[length - 4..length], rest[4..8], "the length stands at both ends");
            assert_eq!(length % 4, 0);
            blocks.push(&rest[..length]);
            rest = &rest[length..];
        }
        let kinds: Vec<u8> = blocks.iter().map(|block| block[0]).collect();
        assert_eq!(kinds, [0x0a, 1, 6, 1, 6, 6], "an interface comes before its first packet");
        assert_eq!(blocks[0][8..12], [0x4d, 0x3c, 0x2b, 0x1a]);
        let interface = b"\x01\0\0\0\x2c\0\0\0\x01\0\0\0\0\0\0\0\x02\0\x06\0lan in\0\0\x09\0\x01\0\x09\0\0\0\0\0\0\0\x2c\0\0\0";
        assert_eq!(blocks[1], interface);
        let packet = b"\x06\0\0\0\x3c\0\0\0\0\0\0\0\x04\x03\x02\x01\x08\x07\x06\x05\x05\0\0\0\x3c\0\0\0\x01\x02\x03\x04\x05\0\0\0\x02\0\x04\0\x01\0\0\0\x01\0\x04\0drop\0\0\0\0\x3c\0\0\0";
        assert_eq!(blocks[2], packet);
        assert_eq!((blocks[4][8], blocks[5][8]), (1, 0), "each packet names its interface");
    }
}
