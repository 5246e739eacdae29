//! What some records mean.

use holdfast_core::{Lsn, Timestamp};

use super::WalError;
use super::field::Fields;
use super::page::WalVersion;
use super::record::{Fork, Record, Relation, Rmgr};
use super::xact::{self, Abort, Commit};

const INFO: u8 = 0xF0;
pub(super) const OPERATION: u8 = 0x70;

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const SWITCH: u8 = 0x40;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;

pub(super) const COMMIT: u8 = 0x00;
pub(super) const ABORT: u8 = 0x20;
pub(super) const COMMIT_PREPARED: u8 = 0x30;
pub(super) const ABORT_PREPARED: u8 = 0x40;

const SMGR_CREATE: u8 = 0x10;
const SMGR_TRUNCATE: u8 = 0x20;
const HEAP_TRUNCATE: u8 = 0x30;
const RELATION_MAP_UPDATE: u8 = 0x00;
const STANDBY_LOCK: u8 = 0x00;
const STANDBY_RUNNING: u8 = 0x10;

const RELATION_MAP_MAGIC: u32 = 0x0059_2717;
/// Bytes of the name of a restore point.
const NAME_BYTES: usize = 64;

/// What a record means, where the vault cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A transaction took no effect.
    Abort(Abort),
    /// A checkpoint was completed.
    Checkpoint {
        /// Where recovery from it begins.
        redo: Lsn,
        /// The timeline it was made on.
        timeline: u32,
        /// The server was shut down with it.
        shutdown: bool,
    },
    /// A transaction took effect.
    Commit(Commit),
    /// The files of a database are removed.
    DatabaseDrop {
        /// Its object id.
        database: u32,
        /// In these tablespaces.
        tablespaces: Vec<u32>,
    },
    /// Recovery ended, usually with a new timeline.
    EndOfRecovery {
        /// When, by that server's clock.
        time: Timestamp,
        /// The timeline from here on.
        timeline: u32,
        /// The timeline before.
        previous: u32,
    },
    /// Locks that exclude every other use of a table were taken.
    ExclusiveLocks(Vec<ExclusiveLock>),
    /// TRUNCATE, named; only with `wal_level=logical`.
    HeapTruncate {
        /// The database's object id.
        database: u32,
        /// Object ids of the tables.
        tables: Vec<u32>,
    },
    /// The files of basic catalogs changed place.
    RelationMap {
        /// The database's object id; 0 for what databases share.
        database: u32,
        /// All of the map.
        mappings: Vec<Mapping>,
    },
    /// A person named this position.
    RestorePoint {
        /// The name.
        name: String,
        /// When, by the source's clock.
        time: Timestamp,
    },
    /// Which transactions run.
    Running {
        /// The next that will begin.
        next: u32,
        /// The oldest that runs, or the next to come.
        oldest: u32,
    },
    /// A file of a relation was made.
    SmgrCreate {
        /// Whose file.
        relation: Relation,
        /// Which of its files.
        fork: Fork,
    },
    /// A relation was cut to a length, as VACUUM does with empty ends.
    SmgrTruncate {
        /// Which relation.
        relation: Relation,
        /// Blocks that stay.
        blocks: u32,
    },
    /// The rest of the segment is unused.
    Switch,
}

/// A lock on a table that excludes every other use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveLock {
    /// The transaction that has it.
    pub xid: u32,
    /// The database's object id.
    pub database: u32,
    /// The table's object id.
    pub table: u32,
}

/// The file of one basic catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The catalog's object id, such as 1259 for `pg_class`.
    pub catalog: u32,
    /// The number in its file's name.
    pub file: u32,
}

impl Event {
    pub(super) fn read(record: &Record<'_>) -> Result<Option<Self>, WalError> {
        let info = record.info & INFO;
        let operation = record.info & OPERATION;
        match record.rmgr {
            Rmgr::XACT => Ok(match operation {
                COMMIT => Some(Self::Commit(xact::commit(record, false)?)),
                COMMIT_PREPARED => Some(Self::Commit(xact::commit(record, true)?)),
                ABORT => Some(Self::Abort(xact::abort(record, false)?)),
                ABORT_PREPARED => Some(Self::Abort(xact::abort(record, true)?)),
                _ => None,
            }),
            Rmgr::XLOG if info == SWITCH => Ok(Some(Self::Switch)),
            Rmgr::XLOG => match info {
                CHECKPOINT_SHUTDOWN => Self::from(record, |f| checkpoint(f, true)),
                CHECKPOINT_ONLINE => Self::from(record, |f| checkpoint(f, false)),
                RESTORE_POINT => Self::from(record, restore_point),
                END_OF_RECOVERY => Self::from(record, end_of_recovery),
                _ => Ok(None),
            },
            Rmgr::SMGR if info == SMGR_CREATE => Self::from(record, smgr_create),
            Rmgr::SMGR if info == SMGR_TRUNCATE => Self::from(record, smgr_truncate),
            Rmgr::DATABASE if info == database_drop(record.version) => {
                Self::from(record, |fields| {
                    let database = fields.u32()?;
                    let count = fields.count()?;
                    let tablespaces = list(fields, count, Fields::u32)?;
                    Some(Self::DatabaseDrop {
                        database,
                        tablespaces,
                    })
                })
            }
            Rmgr::RELATION_MAP if info == RELATION_MAP_UPDATE => Self::from(record, relation_map),
            Rmgr::STANDBY if info == STANDBY_LOCK => Self::from(record, locks),
            Rmgr::STANDBY if info == STANDBY_RUNNING => Self::from(record, running),
            Rmgr::HEAP if operation == HEAP_TRUNCATE => Self::from(record, heap_truncate),
            _ => Ok(None),
        }
    }

    /// Reads the main data by `read`; what is cut makes no sense.
    fn from(
        record: &Record<'_>,
        read: impl FnOnce(&mut Fields<'_>) -> Option<Self>,
    ) -> Result<Option<Self>, WalError> {
        let mut fields = Fields::new(record.main_data()?);
        match read(&mut fields) {
            Some(event) => Ok(Some(event)),
            None => Err(record.wrong("its main data is cut")),
        }
    }
}

/// Before 15 there was one way to create a database; then a second number was put between.
pub(super) fn database_drop(version: WalVersion) -> u8 {
    match version {
        WalVersion::V13 | WalVersion::V14 => 0x10,
        WalVersion::V15 | WalVersion::V16 | WalVersion::V17 | WalVersion::V18 => 0x20,
    }
}

fn checkpoint(fields: &mut Fields<'_>, shutdown: bool) -> Option<Event> {
    Some(Event::Checkpoint {
        redo: Lsn(fields.u64()?),
        timeline: fields.u32()?,
        shutdown,
    })
}

fn restore_point(fields: &mut Fields<'_>) -> Option<Event> {
    let time = Timestamp::from_postgres(fields.i64()?);
    let name = fields.take(NAME_BYTES)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(Event::RestorePoint {
        name: String::from_utf8_lossy(name).into_owned(),
        time,
    })
}

fn end_of_recovery(fields: &mut Fields<'_>) -> Option<Event> {
    Some(Event::EndOfRecovery {
        time: Timestamp::from_postgres(fields.i64()?),
        timeline: fields.u32()?,
        previous: fields.u32()?,
    })
}

fn smgr_create(fields: &mut Fields<'_>) -> Option<Event> {
    Some(Event::SmgrCreate {
        relation: Relation::read(fields)?,
        fork: Fork::from_number(fields.u32()?)?,
    })
}

fn smgr_truncate(fields: &mut Fields<'_>) -> Option<Event> {
    let blocks = fields.u32()?;
    Some(Event::SmgrTruncate {
        relation: Relation::read(fields)?,
        blocks,
    })
}

fn heap_truncate(fields: &mut Fields<'_>) -> Option<Event> {
    let database = fields.u32()?;
    let count = usize::try_from(fields.u32()?).ok()?;
    let _flags_and_padding = fields.u32()?;
    let tables = list(fields, count, Fields::u32)?;
    Some(Event::HeapTruncate { database, tables })
}

fn relation_map(fields: &mut Fields<'_>) -> Option<Event> {
    let database = fields.u32()?;
    let _tablespace = fields.u32()?;
    let _bytes = fields.count()?;
    if fields.u32()? != RELATION_MAP_MAGIC {
        return None;
    }
    let count = fields.count()?;
    let mappings = list(fields, count, |fields| {
        Some(Mapping {
            catalog: fields.u32()?,
            file: fields.u32()?,
        })
    })?;
    Some(Event::RelationMap { database, mappings })
}

fn locks(fields: &mut Fields<'_>) -> Option<Event> {
    let count = fields.count()?;
    let locks = list(fields, count, |fields| {
        Some(ExclusiveLock {
            xid: fields.u32()?,
            database: fields.u32()?,
            table: fields.u32()?,
        })
    })?;
    Some(Event::ExclusiveLocks(locks))
}

fn running(fields: &mut Fields<'_>) -> Option<Event> {
    let _transactions_subtransactions_overflow = fields.take(12)?;
    Some(Event::Running {
        next: fields.u32()?,
        oldest: fields.u32()?,
    })
}

/// Reads `count` items; a count that the bytes do not hold reads nothing and allocates nothing.
fn list<'a, T>(
    fields: &mut Fields<'a>,
    count: usize,
    read: impl Fn(&mut Fields<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(read(fields)?);
    }
    Some(items)
}
