//! PostgreSQL's write-ahead log: pages, records and what some records mean.
//!
//! [`WalReader`] takes the log in any pieces and gives whole, checked records; [`Record::event`] says
//! what a record means where the vault cares. Versions 13 to 18 on little-endian machines with pages
//! of 8 KiB; anything else is refused with an error.
//!
//! # Source
//! PostgreSQL 13 to 18: `access/xlog_internal.h`, `access/xlogrecord.h`, `xlogreader.c`.

mod catalog;
mod changes;
mod event;
mod field;
mod page;
mod partial;
mod reader;
mod record;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
mod xact;

pub use catalog::{RowChange, RowPlace};
pub use changes::{Blocks, Changes, Everything, Reads};
pub use event::{Event, ExclusiveLock, Mapping};
pub use page::{PAGE_BYTES, WalVersion, check_pages};
pub use reader::{WalReader, WalShape};
pub use record::{BlockImage, BlockRef, Fork, Record, Relation, Rmgr};
pub use xact::{Abort, Commit};

use holdfast_core::{Code, Coded, Lsn};

/// Why bytes are not the log that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// The checksum of a record is wrong.
    #[error("the record at {at} does not match its checksum")]
    Checksum {
        /// Where the record begins.
        at: Lsn,
    },
    /// A record was not continued on the next page.
    #[error("the record at {at} is not continued on the page at {page}")]
    Continuation {
        /// Where the record begins.
        at: Lsn,
        /// The page that should continue it.
        page: Lsn,
    },
    /// Zeros stand where a record would: nothing was written there yet.
    #[error("the log ends at {at}")]
    End {
        /// Where the next record will begin.
        at: Lsn,
    },
    /// The bytes do not follow those before.
    #[error("the log goes on at {found} where {expected} was expected")]
    Gap {
        /// What was expected.
        expected: Lsn,
        /// What came.
        found: Lsn,
    },
    /// A page header is not what its position demands.
    #[error("the page at {at} is not a page of this log: {what}")]
    Page {
        /// Where the page begins.
        at: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// A record's contents contradict themselves.
    #[error("the record at {at} makes no sense: {what}")]
    Record {
        /// Where the record begins.
        at: Lsn,
        /// What is wrong.
        what: &'static str,
    },
}

impl Coded for WalError {
    fn code(&self) -> Code {
        match self {
            Self::End { .. } | Self::Gap { .. } => Code::ZI302,
            Self::Checksum { .. }
            | Self::Continuation { .. }
            | Self::Page { .. }
            | Self::Record { .. } => Code::ZI303,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::End { .. } => "everything before was read; go on when there is more".to_owned(),
            Self::Gap { .. } => {
                "nothing after the gap was read; bring the missing log, or begin anew behind it".to_owned()
            }
            Self::Checksum { .. }
            | Self::Continuation { .. }
            | Self::Page { .. }
            | Self::Record { .. } => {
                "nothing after this position was read; compare the log with the source's, look at its disk".to_owned()
            }
        })
    }
}
