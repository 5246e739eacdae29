//! Ends of transactions: commits and aborts.

use holdfast_core::Timestamp;

use super::WalError;
use super::field::Fields;
use super::page::WalVersion;
use super::record::{Record, Relation};

const HAS_FLAGS: u8 = 0x80;

const FLAG_DATABASE: u32 = 1;
const FLAG_SUBTRANSACTIONS: u32 = 2;
const FLAG_RELATIONS: u32 = 4;
const FLAG_INVALIDATIONS: u32 = 8;
const FLAG_TWO_PHASE: u32 = 16;
const FLAG_DROPPED_STATISTICS: u32 = 256;

const INVALIDATION_BYTES: usize = 16;

/// A transaction that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The transaction; of a prepared one its own id, not that of who committed it.
    pub xid: u32,
    /// When, by the source's clock.
    pub time: Timestamp,
    /// It had been prepared.
    pub prepared: bool,
    /// Its subtransactions that took effect with it.
    pub subtransactions: Vec<u32>,
    /// The relations whose files it removes; temporary ones are never among them.
    pub dropped: Vec<Relation>,
    /// How many it removes; more than `dropped` holds when the record was too long to be kept.
    pub dropped_count: u64,
}

/// A transaction that took no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The transaction; of a prepared one its own id.
    pub xid: u32,
    /// When, by the source's clock.
    pub time: Timestamp,
    /// It had been prepared.
    pub prepared: bool,
    /// Its subtransactions.
    pub subtransactions: Vec<u32>,
}

/// What a commit and an abort have in common.
struct Ending {
    time: Timestamp,
    subtransactions: Vec<u32>,
    dropped: Vec<Relation>,
    dropped_count: u64,
    prepared_xid: Option<u32>,
}

pub(super) fn commit(record: &Record<'_>, prepared: bool) -> Result<Commit, WalError> {
    let ending = ending(record)?;
    Ok(Commit {
        xid: ending.prepared_xid.unwrap_or(record.xid),
        time: ending.time,
        prepared,
        subtransactions: ending.subtransactions,
        dropped: ending.dropped,
        dropped_count: ending.dropped_count,
    })
}

pub(super) fn abort(record: &Record<'_>, prepared: bool) -> Result<Abort, WalError> {
    let ending = ending(record)?;
    Ok(Abort {
        xid: ending.prepared_xid.unwrap_or(record.xid),
        time: ending.time,
        prepared,
        subtransactions: ending.subtransactions,
    })
}

/// Returns the relations whose files the end of a transaction removes.
pub(super) fn dropped(record: &Record<'_>) -> Result<Vec<Relation>, WalError> {
    ending(record).map(|ending| ending.dropped)
}

/// Reads the main data of a commit or abort.
///
/// # Source
/// `ParseCommitRecord` and `ParseAbortRecord`, `src/backend/access/rmgrdesc/xactdesc.c`
fn ending(record: &Record<'_>) -> Result<Ending, WalError> {
    let cut = || record.wrong("the end of a transaction is cut");
    let mut fields = Fields::new(record.main_data()?);
    let time = Timestamp::from_postgres(fields.i64().ok_or_else(cut)?);
    let mut ending = Ending {
        time,
        subtransactions: Vec::new(),
        dropped: Vec::new(),
        dropped_count: 0,
        prepared_xid: None,
    };
    if record.info & HAS_FLAGS == 0 {
        return Ok(ending);
    }
    let flags = fields.u32().ok_or_else(cut)?;
    match read_lists(&mut fields, flags, record.version, &mut ending) {
        Some(()) => Ok(ending),
        // A record above the limit: what stands in front is whole, and that is what matters.
        None if record.body.len() >= crate::limits::WAL_RECORD_BYTES_KEPT => Ok(ending),
        None => Err(cut()),
    }
}

fn read_lists(
    fields: &mut Fields<'_>,
    flags: u32,
    version: WalVersion,
    ending: &mut Ending,
) -> Option<()> {
    if flags & FLAG_DATABASE != 0 {
        fields.take(8)?;
    }
    if flags & FLAG_SUBTRANSACTIONS != 0 {
        for _ in 0..fields.count()? {
            ending.subtransactions.push(fields.u32()?);
        }
    }
    if flags & FLAG_RELATIONS != 0 {
        let count = fields.count()?;
        ending.dropped_count = u64::try_from(count).ok()?;
        for _ in 0..count {
            ending.dropped.push(Relation::read(fields)?);
        }
    }
    if flags & FLAG_DROPPED_STATISTICS != 0 && version >= WalVersion::V15 {
        let item = if version >= WalVersion::V18 { 16 } else { 12 };
        skip(fields, item)?;
    }
    if flags & FLAG_INVALIDATIONS != 0 {
        skip(fields, INVALIDATION_BYTES)?;
    }
    if flags & FLAG_TWO_PHASE != 0 {
        ending.prepared_xid = Some(fields.u32()?);
    }
    Some(())
}

/// Passes over a list of items of `bytes` each.
fn skip(fields: &mut Fields<'_>, bytes: usize) -> Option<()> {
    let length = fields.count()?.checked_mul(bytes)?;
    fields.take(length).map(|_| ())
}
