//! A strict, streaming reader of the archives that a base backup sends.

use holdfast_core::{ByteCount, Untrusted};

use super::path::{PathError, relative_path};

const BLOCK: usize = 512;

/// What an entry of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarKind {
    /// A directory.
    Directory,
    /// A plain file of this size.
    File(ByteCount),
    /// A symbolic link with its target, as it was sent: it may lead anywhere and is never followed.
    Symlink(String),
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Relative path; empty for the directory itself.
    pub path: String,
    /// What it is.
    pub kind: TarKind,
    /// Permission bits.
    pub mode: u32,
}

/// What a reader found next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarEvent<'a> {
    /// Bytes of the file that began last.
    Bytes(&'a [u8]),
    /// An entry begins.
    Entry(TarEntry),
    /// The file that began last is complete.
    FileEnd,
}

/// Why bytes are not such an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The header's checksum is wrong.
    #[error("a header of the archive does not match its checksum")]
    Checksum,
    /// The archive ends in the middle.
    #[error("the archive is cut off")]
    Cut,
    /// Something follows the end of the archive.
    #[error("something follows the end of the archive")]
    Longer,
    /// A field is not what it must be.
    #[error("the archive has an entry with an impossible {what}")]
    Malformed {
        /// Which field.
        what: &'static str,
    },
    /// A path is refused.
    #[error("the archive has a path that is refused")]
    Path(#[from] PathError),
    /// Neither file, directory nor symbolic link.
    #[error("`{}` in the archive is neither file, directory nor link", Untrusted(.path))]
    Unsupported {
        /// Which entry.
        path: String,
    },
}

enum State {
    Done,
    File {
        left: u64,
        padding: u64,
    },
    Header,
    /// One block of zeros was seen.
    Ending,
    Padding(u64),
}

/// Reads an archive from bytes as they come.
///
/// It knows the form that PostgreSQL sends: `ustar` headers with plain files, directories and
/// symbolic links, large sizes in base 256. Extended headers of other programs are refused.
///
/// # Source
/// PostgreSQL 18, `src/port/tar.c`; POSIX.1-2017, `pax`, "ustar Interchange Format"
pub struct TarReader {
    state: State,
    header: Vec<u8>,
}

impl Default for TarReader {
    fn default() -> Self {
        Self {
            state: State::Header,
            header: Vec::with_capacity(BLOCK),
        }
    }
}

impl TarReader {
    /// Takes what it can from the front of `input` and returns what it found, or `None` when all of
    /// `input` was taken and more is needed.
    ///
    /// # Errors
    /// [`TarError`]; the reader must not be used further.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        loop {
            match self.state {
                State::File { left: 0, padding } => {
                    self.state = State::Padding(padding);
                    return Ok(Some(TarEvent::FileEnd));
                }
                _ if input.is_empty() => return Ok(None),
                State::Done => {
                    if input.iter().any(|byte| *byte != 0) {
                        return Err(TarError::Longer);
                    }
                    *input = &[];
                }
                State::File { left, padding } => {
                    let bytes = take(input, left);
                    let left = left.saturating_sub(length(bytes));
                    self.state = State::File { left, padding };
                    return Ok(Some(TarEvent::Bytes(bytes)));
                }
                State::Padding(left) => {
                    let left = left.saturating_sub(length(take(input, left)));
                    self.state = if left == 0 {
                        State::Header
                    } else {
                        State::Padding(left)
                    };
                }
                State::Header | State::Ending => {
                    let wanted = BLOCK.saturating_sub(self.header.len());
                    self.header
                        .extend_from_slice(take(input, u64::try_from(wanted).unwrap_or(0)));
                    if self.header.len() < BLOCK {
                        return Ok(None);
                    }
                    if let Some(entry) = self.block()? {
                        return Ok(Some(TarEvent::Entry(entry)));
                    }
                }
            }
        }
    }

    /// Tells that nothing more comes.
    ///
    /// # Errors
    /// [`TarError::Cut`] when the archive is not complete.
    pub fn finish(self) -> Result<(), TarError> {
        match self.state {
            State::Done => Ok(()),
            State::File { .. } | State::Header | State::Ending | State::Padding(_) => {
                Err(TarError::Cut)
            }
        }
    }

    fn block(&mut self) -> Result<Option<TarEntry>, TarError> {
        let header = std::mem::replace(&mut self.header, Vec::with_capacity(BLOCK));
        let zero = header.iter().all(|byte| *byte == 0);
        match (&self.state, zero) {
            (State::Ending, true) => {
                self.state = State::Done;
                return Ok(None);
            }
            (State::Ending, false) => return Err(TarError::Longer),
            (_, true) => {
                self.state = State::Ending;
                return Ok(None);
            }
            (_, false) => {}
        }
        let entry = entry(&header)?;
        self.state = match entry.kind {
            TarKind::File(size) => State::File {
                left: size.0,
                padding: size.0.wrapping_neg() % 512,
            },
            TarKind::Directory | TarKind::Symlink(_) => State::Header,
        };
        if let State::File { left: 0, .. } = self.state {
            self.state = State::File {
                left: 0,
                padding: 0,
            };
        }
        Ok(Some(entry))
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at_checked(count).unwrap_or((*input, &[]));
    *input = rest;
    taken
}

fn entry(header: &[u8]) -> Result<TarEntry, TarError> {
    let field = |from: usize, length: usize| {
        header
            .get(from..from.saturating_add(length))
            .unwrap_or_default()
    };
    let stated = octal(field(148, 8), "checksum")?;
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            let counted = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            u64::from(counted)
        })
        .sum();
    if stated != sum {
        return Err(TarError::Checksum);
    }
    if field(257, 5) != b"ustar" {
        return Err(TarError::Malformed { what: "format" });
    }
    let name = text(field(0, 100));
    // GNU's form of the magic has no prefix: other things lie in those bytes.
    let prefix = if field(257, 8) == b"ustar\x0000" {
        text(field(345, 155))
    } else {
        &[]
    };
    let full = if prefix.is_empty() {
        name.to_vec()
    } else {
        [prefix, b"/", name].concat()
    };
    let path = relative_path(&full)?;
    let size = number(field(124, 12))?;
    let kind = match header.get(156) {
        Some(b'0' | 0) => TarKind::File(ByteCount(size)),
        Some(b'5') => TarKind::Directory,
        Some(b'2') => TarKind::Symlink(target(text(field(157, 100)))?),
        _ => return Err(TarError::Unsupported { path }),
    };
    match kind {
        TarKind::File(_) if path.is_empty() => Err(TarError::Malformed { what: "path" }),
        TarKind::Symlink(_) if path.is_empty() => Err(TarError::Malformed { what: "path" }),
        TarKind::Directory | TarKind::Symlink(_) if size != 0 => {
            Err(TarError::Malformed { what: "size" })
        }
        kind => Ok(TarEntry {
            path,
            kind,
            mode: u32::try_from(octal(field(100, 8), "mode")?)
                .map_err(|_| TarError::Malformed { what: "mode" })?
                & 0o7777,
        }),
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn target(bytes: &[u8]) -> Result<String, TarError> {
    let bad = || TarError::Malformed { what: "link" };
    let target = std::str::from_utf8(bytes).map_err(|_| bad())?;
    if target.is_empty() || target.chars().any(char::is_control) {
        return Err(bad());
    }
    Ok(target.to_owned())
}

fn octal(field: &[u8], what: &'static str) -> Result<u64, TarError> {
    let bad = || TarError::Malformed { what };
    let text = std::str::from_utf8(field).map_err(|_| bad())?;
    let digits = text.trim_matches([' ', '\0']);
    if digits.is_empty() || !digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return Err(bad());
    }
    u64::from_str_radix(digits, 8).map_err(|_| bad())
}

/// Reads a size: octal digits, or base 256 when the first bit is set.
fn number(field: &[u8]) -> Result<u64, TarError> {
    let bad = || TarError::Malformed { what: "size" };
    match field.split_first() {
        Some((0x80, rest)) => {
            let (high, low) = rest.split_last_chunk::<8>().ok_or_else(bad)?;
            let size = u64::from_be_bytes(*low);
            if high.iter().any(|byte| *byte != 0) || size > u64::from(u32::MAX) << 20 {
                return Err(bad());
            }
            Ok(size)
        }
        _ => octal(field, "size"),
    }
}

#[cfg(test)]
mod tests;
