//! The journal of acknowledged work, outside the database: what was lost is counted, never estimated.
//!
//! # Shape
//! JSON lines. The first is `{"journal":"rental","version":1}`; each further one is an `Entry`. One
//! `write` per line, so that killing the writer leaves at most the last line incomplete.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::limits::LIMIT_JOURNAL_LINE_BYTES;

/// Version of the journal's format.
pub const JOURNAL_VERSION: u32 = 1;

/// One operation whose COMMIT was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When the answer came, or was given up: RFC 3339, UTC.
    pub at: String,
    /// What was done.
    pub kind: Kind,
    /// Id of the reservation (booking, cancellation) or of the payment.
    pub id: String,
    /// What PostgreSQL answered.
    pub outcome: Outcome,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A reservation was inserted.
    Booking,
    /// A reservation was cancelled.
    Cancellation,
    /// A payment was inserted.
    Payment,
}

/// What PostgreSQL answered to COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// COMMIT was acknowledged.
    Acknowledged,
    /// The connection was lost before the answer came.
    Unknown,
}

/// The writing end of a journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

/// What a journal holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// All complete lines after the first, in order.
    pub entries: Vec<Entry>,
    /// The last line was incomplete and is not counted: its writer was killed, or is writing now.
    pub torn_tail: bool,
}

/// Why a journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A complete line is not what it should be.
    #[error(
        "line {line} of the journal {path} is damaged; nothing was counted; restore the file or remove the line"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The operating system refused.
    #[error("cannot {step} the journal {path}; check that its folder exists and has room")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is something else.
    #[error(
        "{path} is not a rental journal of version {JOURNAL_VERSION}; it was not touched; name another file"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    journal: String,
    version: u32,
}

impl Journal {
    /// Opens a journal to append to it; a new file gets its first line, and an incomplete last line,
    /// left by a killed writer, is cut off.
    ///
    /// # Errors
    /// `JournalError::Foreign` when the file is something else, and `Io`.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |step| {
            move |source| JournalError::Io {
                path: path.to_owned(),
                step,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(io("open"))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read"))?;
        let complete = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        if complete == 0 {
            if !header_line().as_bytes().starts_with(&text) {
                return Err(JournalError::Foreign {
                    path: path.to_owned(),
                });
            }
            file.set_len(0).map_err(io("write"))?;
            file.write_all(header_line().as_bytes())
                .map_err(io("write"))?;
        } else {
            check_header(
                path,
                text.split(|byte| *byte == b'\n').next().unwrap_or_default(),
            )?;
            file.set_len(u64::try_from(complete).unwrap_or(u64::MAX))
                .map_err(io("write"))?;
            file.seek(SeekFrom::End(0)).map_err(io("write"))?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(file),
        })
    }

    /// Appends one line with one write; it is with the operating system when this returns.
    ///
    /// # Errors
    /// `JournalError::Io`; whoever gets it must stop, as it can no longer count.
    pub fn append(&self, entry: &Entry) -> Result<(), JournalError> {
        let io = |source| JournalError::Io {
            path: self.path.clone(),
            step: "append to",
            source,
        };
        let mut line = serde_json::to_vec(entry).map_err(|error| io(error.into()))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)
            .and_then(|()| file.flush())
            .map_err(io)
    }
}

/// Reads a whole journal.
///
/// # Errors
/// `JournalError::Damaged` for a bad line that is not the last, `Foreign` and `Io`.
pub fn read(path: &Path) -> Result<Record, JournalError> {
    let io = |source| JournalError::Io {
        path: path.to_owned(),
        step: "read",
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut record = Record::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limit = u64::try_from(LIMIT_JOURNAL_LINE_BYTES).unwrap_or(u64::MAX);
        let length = (&mut reader)
            .take(limit)
            .read_until(b'\n', &mut line)
            .map_err(io)?;
        if length == 0 {
            if number == 1 {
                return Err(JournalError::Foreign {
                    path: path.to_owned(),
                });
            }
            break;
        }
        let complete = line.pop_if(|last| *last == b'\n').is_some();
        if number == 1 {
            check_header(path, &line)?;
        } else if complete {
            let damaged = |_| JournalError::Damaged {
                path: path.to_owned(),
                line: number,
            };
            record
                .entries
                .push(serde_json::from_slice(&line).map_err(damaged)?);
        } else if length < LIMIT_JOURNAL_LINE_BYTES {
            record.torn_tail = true;
        } else {
            return Err(JournalError::Damaged {
                path: path.to_owned(),
                line: number,
            });
        }
    }
    Ok(record)
}

fn header_line() -> String {
    format!("{{\"journal\":\"rental\",\"version\":{JOURNAL_VERSION}}}\n")
}

fn check_header(path: &Path, line: &[u8]) -> Result<(), JournalError> {
    let expected = Header {
        journal: "rental".to_owned(),
        version: JOURNAL_VERSION,
    };
    match serde_json::from_slice::<Header>(line) {
        Ok(header) if header == expected => Ok(()),
        Ok(_) | Err(_) => Err(JournalError::Foreign {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, Journal, JournalError, Kind, Outcome, read};

    fn entry(id: &str) -> Entry {
        Entry {
            at: "2026-11-24T10:00:00Z".to_owned(),
            kind: Kind::Booking,
            id: id.to_owned(),
            outcome: Outcome::Acknowledged,
        }
    }

    #[test]
    fn what_was_appended_is_read_back_also_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        for id in ["one", "two"] {
            Journal::open(&path).unwrap().append(&entry(id)).unwrap();
        }
        let record = read(&path).unwrap();
        assert_eq!(record.entries, [entry("one"), entry("two")]);
        assert!(!record.torn_tail);
    }

    #[test]
    fn every_cut_of_the_last_line_is_tolerated_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        journal.append(&entry("one")).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        journal.append(&entry("two")).unwrap();
        let text = std::fs::read(&path).unwrap();
        for cut in usize::try_from(whole).unwrap() + 1..text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let record = read(&path).unwrap();
            assert_eq!(
                (record.entries.len(), record.torn_tail),
                (1, true),
                "cut at {cut}"
            );
            Journal::open(&path)
                .unwrap()
                .append(&entry("three"))
                .unwrap();
            assert_eq!(read(&path).unwrap().entries, [entry("one"), entry("three")]);
        }
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Journal::open(&path).unwrap().append(&entry("one")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"one\"", "\"one") + "\n").unwrap();
        assert!(matches!(
            read(&path),
            Err(JournalError::Damaged { line: 2, .. })
        ));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        Journal::open(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap() + &"x".repeat(100_000);
        std::fs::write(&path, text).unwrap();
        assert!(matches!(
            read(&path),
            Err(JournalError::Damaged { line: 2, .. })
        ));
    }

    #[test]
    fn another_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        for foreign in [
            "holiday photos",
            "{\"journal\":\"rental\",\"version\":2}\n",
            "[]\n{}\n",
        ] {
            std::fs::write(&path, foreign).unwrap();
            assert!(matches!(
                Journal::open(&path),
                Err(JournalError::Foreign { .. })
            ));
            assert!(matches!(read(&path), Err(JournalError::Foreign { .. })));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
        assert!(matches!(
            read(&folder.path().join("none")),
            Err(JournalError::Io { .. })
        ));
    }
}
