//! Frames: one tag byte, a length, a body.

use bytes::{Buf, Bytes, BytesMut};

/// The longest frame that is accepted from a server, in bytes with its header.
///
/// A WAL message carries at most 128 KiB and a base backup at most a few MiB a message; a row of our
/// own queries is small.
pub const LIMIT_FRAME_BYTES: usize = 32 << 20;

/// One message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What kind of message it is, an ASCII letter.
    pub tag: u8,
    /// Everything after the length.
    pub body: Bytes,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below its own size or above what is accepted.
    #[error("a message of {bytes} bytes is outside what the protocol allows")]
    Length {
        /// The length that the message states.
        bytes: u64,
    },
}

/// Takes one message from the front of `buf`, or returns `None` if it is not complete yet.
///
/// # Shape
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | tag, ASCII |
/// | 1 | 4 | length, big-endian, counts itself |
/// | 5 | length - 4 | body |
///
/// # Errors
/// [`FrameError::Length`]; `buf` is left untouched and the connection must close.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-message-formats.html>
pub fn next_frame(buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    next_frame_within(buf, LIMIT_FRAME_BYTES)
}

/// As [`next_frame`], with a limit of the caller's; memory is taken for no more than that.
///
/// # Errors
/// [`FrameError::Length`]; `buf` is left untouched and the connection must close.
pub fn next_frame_within(buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some((tag, rest)) = buf.split_first() else {
        return Ok(None);
    };
    let Some(length) = rest.first_chunk::<4>().map(|b| u32::from_be_bytes(*b)) else {
        return Ok(None);
    };
    let too_long = || FrameError::Length {
        bytes: u64::from(length),
    };
    let length = usize::try_from(length).map_err(|_| too_long())?;
    if !(4..limit).contains(&length) {
        return Err(too_long());
    }
    let tag = *tag;
    let total = length.saturating_add(1);
    if buf.len() < total {
        buf.reserve(total.saturating_sub(buf.len()));
        return Ok(None);
    }
    let mut body = buf.split_to(total).freeze();
    body.advance(5);
    Ok(Some(Frame { tag, body }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_the_same_however_it_arrives(tag: u8, body: Vec<u8>, cut in 0_usize..600) {
            let mut whole = vec![tag];
            whole.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            whole.extend(&body);
            let cut = cut.min(whole.len());
            let mut buf = BytesMut::from(&whole[..cut]);
            if cut < whole.len() {
                prop_assert_eq!(next_frame(&mut buf), Ok(None));
            }
            buf.extend_from_slice(&whole[cut..]);
            let frame = next_frame(&mut buf).unwrap().unwrap();
            prop_assert_eq!(frame.tag, tag);
            prop_assert_eq!(&frame.body[..], &body[..]);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = next_frame(&mut buf) {}
        }
    }

    #[test]
    fn a_limit_of_the_callers_is_kept_before_any_memory_is_taken() {
        let mut buf = BytesMut::from(&b"d"[..]);
        buf.extend_from_slice(&(1_u32 << 20).to_be_bytes());
        let before = buf.capacity();
        assert!(next_frame_within(&mut buf, 1 << 20).is_err());
        assert_eq!(buf.capacity(), before);
        assert_eq!(next_frame_within(&mut buf, (1 << 20) + 1), Ok(None));
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0_u32, 3, u32::MAX, 32 << 20] {
            let mut buf = BytesMut::from(&b"d"[..]);
            buf.extend_from_slice(&length.to_be_bytes());
            assert!(next_frame(&mut buf).is_err(), "{length}");
        }
    }
}
