//! Page headers.

use holdfast_core::Lsn;

use super::WalError;
use super::field::Fields;

/// Bytes of a page of the log.
pub const PAGE_BYTES: u64 = 8192;

/// Bytes of the header of every page but the first of a segment.
pub(super) const SHORT_HEADER: usize = 24;
/// Bytes of the header of the first page of a segment.
pub(super) const LONG_HEADER: usize = 40;

const FIRST_IS_CONTINUATION: u16 = 1;
const LONG: u16 = 2;
const FIRST_OVERWRITES_CONTINUATION: u16 = 8;
const KNOWN_FLAGS: u16 = 15;

/// The major version that wrote a page, told by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalVersion {
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

impl WalVersion {
    /// Returns the version that writes `magic`, or `None` when it is none that is known.
    ///
    /// # Source
    /// `XLOG_PAGE_MAGIC` in `access/xlog_internal.h` of each release.
    pub fn from_magic(magic: u16) -> Option<Self> {
        Some(match magic {
            0xD106 => Self::V13,
            0xD10D => Self::V14,
            0xD110 => Self::V15,
            0xD113 => Self::V16,
            0xD116 => Self::V17,
            0xD118 => Self::V18,
            _ => return None,
        })
    }

    /// Returns the magic number of its pages.
    pub fn magic(self) -> u16 {
        match self {
            Self::V13 => 0xD106,
            Self::V14 => 0xD10D,
            Self::V15 => 0xD110,
            Self::V16 => 0xD113,
            Self::V17 => 0xD116,
            Self::V18 => 0xD118,
        }
    }

    /// Returns the major version.
    pub fn major(self) -> u32 {
        match self {
            Self::V13 => 13,
            Self::V14 => 14,
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }
}

/// Checks that `bytes`, which stand at `at`, can be log: every page that begins in them says that it
/// belongs where it stands, or is unused as behind a switch of segments.
///
/// It is much less than reading the records, and enough to tell the log from anything else.
///
/// # Errors
/// [`WalError::Page`] names the first page that does not.
///
/// # Source
/// PostgreSQL 18, `src/include/access/xlog_internal.h`, `XLogPageHeaderData`;
/// `src/backend/access/transam/xlog.c`, `CopyXLogRecordToWAL`, which clears what a switch leaves.
pub fn check_pages(at: Lsn, bytes: &[u8]) -> Result<(), WalError> {
    let into = at.0 % PAGE_BYTES;
    let first = (PAGE_BYTES - into) % PAGE_BYTES;
    let step = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
    let mut offset = usize::try_from(first).unwrap_or(usize::MAX);
    while let Some(header) = bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<16>())
    {
        let page = Lsn(at
            .0
            .saturating_add(u64::try_from(offset).unwrap_or(u64::MAX)));
        let [.., a, b, c, d, e, f, g, h] = *header;
        let stated = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        if stated != page.0 && header.iter().any(|byte| *byte != 0) {
            let what = "it says that it belongs to another position";
            return Err(WalError::Page { at: page, what });
        }
        offset = offset.saturating_add(step);
    }
    Ok(())
}

/// The header of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    pub(super) version: WalVersion,
    pub(super) timeline: u32,
    /// Bytes of a record begun earlier that are still to come, from this page on.
    pub(super) remaining: u32,
    pub(super) continues: bool,
    /// The record begun on the page before was lost in a crash and is to be forgotten.
    pub(super) overwrites: bool,
    pub(super) long: Option<LongHeader>,
}

/// What only the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongHeader {
    pub(super) system_identifier: u64,
    pub(super) segment_bytes: u32,
    pub(super) page_bytes: u32,
}

impl PageHeader {
    /// Reads a header of [`SHORT_HEADER`] or [`LONG_HEADER`] bytes that stands at `at`.
    pub(super) fn read(bytes: &[u8], at: Lsn) -> Result<Self, WalError> {
        let wrong = |what| WalError::Page { at, what };
        let short = || wrong("its header is cut");
        let mut fields = Fields::new(bytes);
        let magic = fields.u16().ok_or_else(short)?;
        let version = WalVersion::from_magic(magic)
            .ok_or_else(|| wrong("its magic number is that of no known version"))?;
        let flags = fields.u16().ok_or_else(short)?;
        let timeline = fields.u32().ok_or_else(short)?;
        let address = fields.u64().ok_or_else(short)?;
        let remaining = fields.u32().ok_or_else(short)?;
        let _padding = fields.u32().ok_or_else(short)?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err(wrong("it has flags that no version sets"));
        }
        if address != at.0 {
            return Err(wrong("it says that it belongs to another position"));
        }
        if timeline == 0 {
            return Err(wrong("it has no timeline"));
        }
        let continues = flags & FIRST_IS_CONTINUATION != 0;
        if continues != (remaining > 0) {
            return Err(wrong("its continuation flag and length disagree"));
        }
        let long = if flags & LONG == 0 {
            None
        } else {
            Some(LongHeader {
                system_identifier: fields.u64().ok_or_else(short)?,
                segment_bytes: fields.u32().ok_or_else(short)?,
                page_bytes: fields.u32().ok_or_else(short)?,
            })
        };
        Ok(Self {
            version,
            timeline,
            remaining,
            continues,
            overwrites: flags & FIRST_OVERWRITES_CONTINUATION != 0,
            long,
        })
    }
}
