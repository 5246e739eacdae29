//! A record that is being collected.

use holdfast_core::Lsn;

use super::WalError;
use super::field::Fields;
use super::page::WalVersion;
use super::record::{RECORD_HEADER, Record, Rmgr};
use crate::limits;

/// The largest record that a server writes, in bytes.
///
/// # Source
/// `XLogRecordMaxSize` in `access/xlogrecord.h` (16 and later), `MaxAllocSize` before.
const RECORD_BYTES_MAX: u32 = 0x3FFF_FFFF;
/// Bytes of the header that the checksum covers.
const CHECKED_HEADER: usize = 20;

/// The bytes of one record so far. The checksum runs along, so that a long record need not be kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Partial {
    start: Lsn,
    timeline: u32,
    head: Vec<u8>,
    body: Vec<u8>,
    length: u32,
    seen: u32,
    crc: u32,
}

impl Partial {
    pub(super) fn start(&self) -> Lsn {
        self.start
    }

    pub(super) fn begin(&mut self, at: Lsn, timeline: u32) {
        self.start = at;
        self.timeline = timeline;
        self.head.clear();
        self.body.clear();
        self.length = 0;
        self.seen = 0;
        self.crc = 0;
    }

    pub(super) fn is_whole(&self) -> bool {
        self.length > 0 && self.missing() == 0
    }

    /// Returns how many bytes are still to come; meaningful once the length is known.
    pub(super) fn missing(&self) -> u32 {
        self.length.saturating_sub(self.seen)
    }

    /// Takes bytes of this record from the front of `rest` and returns how many.
    pub(super) fn take(&mut self, rest: &[u8]) -> Result<usize, WalError> {
        let room = RECORD_HEADER.saturating_sub(self.head.len());
        let head = rest.get(..room).unwrap_or(rest);
        self.head.extend_from_slice(head);
        self.seen = self.seen.saturating_add(narrow(head.len()));
        if let (0, Some(length)) = (self.length, self.head.first_chunk::<4>()) {
            self.length = self.checked_length(u32::from_le_bytes(*length))?;
        }
        if self.head.len() < RECORD_HEADER {
            return Ok(head.len());
        }
        let rest = rest.get(head.len()..).unwrap_or_default();
        let wanted = usize::try_from(self.missing()).unwrap_or(usize::MAX);
        let body = rest.get(..wanted).unwrap_or(rest);
        self.crc = crc32c::crc32c_append(self.crc, body);
        self.seen = self.seen.saturating_add(narrow(body.len()));
        let room = limits::WAL_RECORD_BYTES_KEPT.saturating_sub(self.body.len());
        self.body
            .extend_from_slice(body.get(..room).unwrap_or(body));
        Ok(head.len().saturating_add(body.len()))
    }

    fn checked_length(&self, length: u32) -> Result<u32, WalError> {
        match length {
            0 => Err(WalError::End { at: self.start }),
            24..=RECORD_BYTES_MAX => Ok(length),
            _ => Err(self.wrong("its length is impossible")),
        }
    }

    /// Checks the whole record and shows it; its end is not known here.
    pub(super) fn finish(&self, version: WalVersion) -> Result<Record<'_>, WalError> {
        let place = (self.start, self.timeline, version);
        checked(place, &self.head, self.crc, &self.body)
    }

    fn wrong(&self, what: &'static str) -> WalError {
        WalError::Record {
            at: self.start,
            what,
        }
    }
}

/// Shows the record at the front of `bytes` when all of it stands there; nothing is copied.
pub(super) fn whole(
    place: (Lsn, u32, WalVersion),
    bytes: &[u8],
) -> Result<Option<Record<'_>>, WalError> {
    let Some((head, rest)) = bytes.split_at_checked(RECORD_HEADER) else {
        return Ok(None);
    };
    let length = head.first_chunk::<4>().copied().map(u32::from_le_bytes);
    let body = length
        .filter(|length| *length <= RECORD_BYTES_MAX)
        .and_then(|length| usize::try_from(length).ok())
        .and_then(|length| rest.get(..length.checked_sub(RECORD_HEADER)?));
    match body {
        None => Ok(None),
        Some(body) => checked(place, head, crc32c::crc32c(body), body).map(Some),
    }
}

/// Checks a record whose body has the checksum `crc`, and shows it.
fn checked<'a>(
    (start, timeline, version): (Lsn, u32, WalVersion),
    head: &[u8],
    crc: u32,
    body: &'a [u8],
) -> Result<Record<'a>, WalError> {
    let cut = || WalError::Record {
        at: start,
        what: "its header is cut",
    };
    let covered = head.get(..CHECKED_HEADER).ok_or_else(cut)?;
    let crc = crc32c::crc32c_append(crc, covered);
    let mut fields = Fields::new(head);
    let length = fields.u32().ok_or_else(cut)?;
    let xid = fields.u32().ok_or_else(cut)?;
    let previous = Lsn(fields.u64().ok_or_else(cut)?);
    let info = fields.byte().ok_or_else(cut)?;
    let rmgr = Rmgr(fields.byte().ok_or_else(cut)?);
    let _padding = fields.u16().ok_or_else(cut)?;
    if fields.u32() != Some(crc) {
        return Err(WalError::Checksum { at: start });
    }
    Ok(Record {
        start,
        end: start,
        timeline,
        version,
        previous,
        xid,
        rmgr,
        info,
        length,
        body,
    })
}

fn narrow(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
