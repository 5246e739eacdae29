//! A body in chunks, taken apart strictly.

use crate::limits::HTTP_CHUNK_LINE_BYTES_MAX;

/// Why chunks are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not chunks.
    #[error("the body is not in chunks")]
    Malformed,
    /// Longer than allowed.
    #[error("the body is too long")]
    TooLong,
}

/// Collects a body that comes in chunks.
#[derive(Debug)]
pub struct Chunks {
    body: Vec<u8>,
    bytes_max: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A line with the size comes next.
    Size,
    /// So many bytes come, and a line end.
    Bytes(usize),
    /// Trailers come until a blank line.
    Trailers,
    /// All has come.
    Done,
}

impl Chunks {
    /// Begins; a body longer than `bytes_max` is refused.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            body: Vec::new(),
            bytes_max,
            state: State::Size,
        }
    }

    /// Takes what it can from the front of `input` and returns how many bytes that was.
    ///
    /// # Errors
    /// [`ChunkError`]; the connection must then be closed.
    ///
    /// # Source
    /// RFC 9112, section 7.1; chunk extensions are dropped, bare line feeds refused.
    pub fn take(&mut self, input: &[u8]) -> Result<usize, ChunkError> {
        let mut taken = 0_usize;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            let Some(used) = self.step(rest)? else {
                return Ok(taken);
            };
            taken = taken.saturating_add(used);
        }
    }

    /// Returns the body once all of it has come.
    pub fn finished(&mut self) -> Option<Vec<u8>> {
        (self.state == State::Done).then(|| std::mem::take(&mut self.body))
    }

    fn step(&mut self, rest: &[u8]) -> Result<Option<usize>, ChunkError> {
        match self.state {
            State::Done => Ok(None),
            State::Size => {
                let Some((line, used)) = line(rest)? else {
                    return Ok(None);
                };
                let size = size(line)?;
                if self.body.len().saturating_add(size) > self.bytes_max {
                    return Err(ChunkError::TooLong);
                }
                self.state = match size {
                    0 => State::Trailers,
                    size => State::Bytes(size),
                };
                Ok(Some(used))
            }
            State::Bytes(size) => {
                let end = size.saturating_add(2);
                match rest.get(size..end) {
                    Some(b"\r\n") => {
                        self.body.extend(rest.get(..size).unwrap_or_default());
                        self.state = State::Size;
                        Ok(Some(end))
                    }
                    Some(_) => Err(ChunkError::Malformed),
                    None => Ok(None),
                }
            }
            State::Trailers => {
                let Some((line, used)) = line(rest)? else {
                    return Ok(None);
                };
                if line.is_empty() {
                    self.state = State::Done;
                }
                Ok(Some(used))
            }
        }
    }
}

fn line(rest: &[u8]) -> Result<Option<(&[u8], usize)>, ChunkError> {
    match rest.iter().position(|byte| *byte == b'\n') {
        None if rest.len() > HTTP_CHUNK_LINE_BYTES_MAX => Err(ChunkError::Malformed),
        None => Ok(None),
        Some(end) => {
            let line = rest.get(..end).and_then(|line| line.strip_suffix(b"\r"));
            let line = line.ok_or(ChunkError::Malformed)?;
            Ok(Some((line, end.saturating_add(1))))
        }
    }
}

fn size(line: &[u8]) -> Result<usize, ChunkError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let valid = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| valid);
    let size = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    size.ok_or(ChunkError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_body_survives_any_cut(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), cut in 1_usize..17) {
            let mut coded = Vec::new();
            for part in &parts {
                coded.extend(format!("{:x};ext=1\r\n", part.len()).bytes());
                coded.extend(part);
                coded.extend(b"\r\n");
            }
            coded.extend(b"0\r\nTrailer: x\r\n\r\nNEXT");
            let mut chunks = Chunks::new(1 << 20);
            let (mut waiting, mut done) = (Vec::new(), None);
            for piece in coded.chunks(cut) {
                waiting.extend(piece);
                let taken = chunks.take(&waiting).unwrap();
                waiting.drain(..taken);
                done = done.or_else(|| chunks.finished());
            }
            prop_assert_eq!(done.unwrap(), parts.concat());
            prop_assert_eq!(waiting, b"NEXT".to_vec());
        }

        #[test]
        fn no_bytes_make_the_collector_panic(bytes: Vec<u8>) {
            let _ = Chunks::new(100).take(&bytes);
        }
    }

    #[test]
    fn what_is_not_in_chunks_is_refused() {
        for text in [
            "5\nhello\r\n",
            "+5\r\n",
            "\r\n",
            "5\r\nhelloXX",
            "5 \r\n",
            "fffffffff\r\n",
            "g\r\n",
        ] {
            assert!(Chunks::new(100).take(text.as_bytes()).is_err(), "{text:?}");
        }
        assert_eq!(Chunks::new(4).take(b"5\r\n"), Err(ChunkError::TooLong));
    }
}
