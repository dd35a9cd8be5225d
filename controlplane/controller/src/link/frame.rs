//! Frames: how much follows, what it is, and the bytes.
//!
//! ```text
//!  0       4      5            4 + length
//!  ┌───────┬──────┬────────────┐
//!  │length │ kind │ payload    │   length: big endian, of kind and payload; at least 1
//!  └───────┴──────┴────────────┘
//! ```
//!
//! A length is believed only up to what the reader allows, which depends on whom it talks to: a stranger gets
//! [`MOST_OF_A_STRANGER`], a box or a controller [`MOST`]. Memory is taken as bytes arrive, not as they are promised.

/// The largest frame of someone with a certificate: a compressed bundle of the largest cluster we promise has a
/// quarter of it.
pub const MOST: usize = 64 << 20;
/// The largest frame of someone who has not said hello.
pub const MOST_OF_A_STRANGER: usize = 64 << 10;
/// Length and kind.
pub const HEAD: usize = 5;

/// What a frame is and how much of it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its kind.
    pub kind: u8,
    /// The bytes that follow.
    pub payload_bytes: usize,
}

/// Bytes that begin no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length says that not even a kind follows.
    #[error("a frame without a kind")]
    Empty,
    /// The length is beyond what the reader allows.
    #[error("a frame of {length} bytes; at most {most} are taken")]
    TooLarge {
        /// What it says.
        length: usize,
        /// What is allowed.
        most: usize,
    },
}

impl Head {
    /// Reads a head.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn read(bytes: [u8; HEAD], most: usize) -> Result<Self, FrameError> {
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        match length {
            0 => Err(FrameError::Empty),
            length if length > most => Err(FrameError::TooLarge { length, most }),
            length => Ok(Self { kind: bytes[4], payload_bytes: length - 1 }),
        }
    }

    /// The head of a frame; `None` for a payload that no frame can hold.
    #[must_use]
    pub fn write(kind: u8, payload_bytes: usize) -> Option<[u8; HEAD]> {
        let length = u32::try_from(payload_bytes.checked_add(1)?).ok()?.to_be_bytes();
        (payload_bytes < MOST).then_some([length[0], length[1], length[2], length[3], kind])
    }
}

/// The kind and the payload of a frame, and what follows it.
pub type Split<'a> = (u8, &'a [u8], &'a [u8]);

/// The first frame of `bytes`, and what follows it; `None` if it is cut off.
///
/// # Errors
/// [`FrameError`].
pub fn split(bytes: &[u8], most: usize) -> Result<Option<Split<'_>>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let head = Head::read(*head, most)?;
    Ok(rest.split_at_checked(head.payload_bytes).map(|(payload, rest)| (head.kind, payload, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_and_bounded() {
        let too_large = |length| Err(FrameError::TooLarge { length, most: 8 });
        for (promise, bytes, expected) in [
            ("nothing", &[][..], Ok(None)),
            ("half a head", &[0, 0, 0, 2], Ok(None)),
            ("a kind alone", &[0, 0, 0, 1, 7], Ok(Some((7, &[][..], &[][..])))),
            ("a payload", &[0, 0, 0, 3, 7, 1, 2], Ok(Some((7, &[1, 2], &[])))),
            ("what follows", &[0, 0, 0, 2, 7, 1, 9], Ok(Some((7, &[1], &[9])))),
            ("cut in the middle", &[0, 0, 0, 3, 7, 1], Ok(None)),
            ("no kind", &[0, 0, 0, 0, 7], Err(FrameError::Empty)),
            ("the most", &[0, 0, 0, 8, 7, 1, 1, 1, 1, 1, 1, 1], Ok(Some((7, &[1; 7], &[])))),
            ("more than that", &[0, 0, 0, 9, 7], too_large(9)),
            ("text", b"GET / HTTP/1.1", too_large(0x4745_5420)),
            ("all ones", &[0xff; 5], too_large(0xffff_ffff)),
        ] {
            assert_eq!(split(bytes, 8), expected, "{promise}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for payload in [0, 1, 300, MOST - 1] {
            let head = Head::read(Head::write(9, payload).unwrap(), MOST);
            assert_eq!(head, Ok(Head { kind: 9, payload_bytes: payload }));
        }
        assert_eq!(Head::write(9, MOST), None);
        assert_eq!(Head::write(9, usize::MAX), None);
    }
}
