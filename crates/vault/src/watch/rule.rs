//! Which transactions destroyed something: followed through the log alone.
//!
//! # The rule
//! A transaction destroyed something when it committed and one of these holds:
//!
//! 1. **Database.** It removed the files of a database. (A failed CREATE DATABASE removes files too,
//!    and never commits; moving a database removes the old files outside any transaction.)
//! 2. **Tables dropped.** Its commit removes files of relations, and it deleted a row of `pg_type`
//!    that it had not inserted itself: the row type of a table or materialised view that was there
//!    before. Indexes, sequences and TOAST tables have none, and the table that a rewrite
//!    (VACUUM FULL, CLUSTER, ALTER TABLE, REFRESH) fills and exchanges is the transaction's own.
//! 3. **Tables truncated.** Its commit removes files of relations, and it gave a relation that was
//!    there before a new file which stayed empty or was then filled row by row. A rebuilt index is
//!    never empty and is not filled with rows; a rewrite fills a relation of its own.
//! 4. **Not seen whole.** The transaction began before the log was read from, or the catalogs of its
//!    database stand where nobody told us, and it removed more files than it made.
//!
//! Temporary relations never appear: their files are neither logged when made nor named at commit.
//! Rows removed by DELETE are not seen here. Views dropped together with an index in one transaction
//! count as a table; the rule errs on the side of an entry too many.
//!
//! # Where to go back to
//! Relations lose their files at the commit, so just before the commit record everything is there. A
//! database loses its files before the commit, and newer versions mark it unusable even before: just
//! before that mark, or the first record about it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use holdfast_core::{Lsn, Timestamp};
use holdfast_wire::pg::wal::{
    Commit, Event, Fork, Record, Relation, Rmgr, RowChange, RowPlace, WalError, WalVersion,
};

use crate::limits;

const GLOBAL_TABLESPACE: u32 = 1664;
const PG_TYPE: u32 = 1247;
const PG_CLASS: u32 = 1259;
const PG_DATABASE: u32 = 1262;
/// `pg_database.datconnlimit` of a database whose removal has begun.
const INVALID_DATABASE: [u8; 4] = (-2_i32).to_le_bytes();

/// What kind of thing a transaction destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// A database.
    Database,
    /// Tables were dropped.
    Tables,
    /// Tables were emptied.
    TruncatedTables,
}

impl Destroyed {
    /// Returns the word of the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database dropped",
            Self::Tables => "tables dropped",
            Self::TruncatedTables => "tables truncated",
        }
    }
}

/// A transaction that destroyed something, as the log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destruction {
    pub(super) what: Destroyed,
    pub(super) before: Lsn,
    pub(super) xid: u32,
    pub(super) time: Timestamp,
    pub(super) relations: u64,
}

/// A file that a transaction made for a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Made {
    /// It replaces the file of a relation that was there before; unknown until the catalog says.
    replaces: Option<bool>,
    filled: Filled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// Nothing was written to it.
    Empty,
    /// Its first page was written as a whole or by an index.
    AsPages,
    /// Its first page was written by putting a row there.
    ByRows,
}

/// What one transaction or subtransaction did so far.
#[derive(Debug, Default)]
struct Doings {
    first: Lsn,
    made: BTreeMap<Relation, Made>,
    /// The file made last, while the catalog has not said for what.
    unexplained: Option<Relation>,
    /// Whether some file is still empty.
    some_empty: bool,
    /// The catalogs stand where we think they do.
    catalogs_known: bool,
    inserted_types: BTreeSet<RowPlace>,
    moved_types: Vec<(RowPlace, RowPlace)>,
    deleted_types: Vec<RowPlace>,
    /// Deleted above the limit; they count as having been there before.
    more_deleted_types: u64,
    dropped_database: Option<(u32, Lsn)>,
}

/// Where the catalogs of one database stand.
#[derive(Clone, Copy, Debug)]
struct Catalogs {
    class: u32,
    types: u32,
}

/// A row of `pg_database` that was changed in place.
#[derive(Debug)]
struct Mark {
    at: Lsn,
    /// The database, if the row could be read and says that removal has begun.
    database: Option<u32>,
}

/// Follows transactions through the log, with bounded memory.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    doings: HashMap<u32, Doings>,
    catalogs: BTreeMap<u32, Catalogs>,
    database_file: Option<u32>,
    marks: VecDeque<Mark>,
    /// Transactions from this one on began after the log was read from.
    whole_from: Option<u32>,
}

impl Transactions {
    /// States where the catalogs of a database stand, when they have been rewritten.
    pub(super) fn learn(&mut self, database: u32, class: u32, types: u32) {
        self.catalogs.insert(database, Catalogs { class, types });
    }

    /// Returns where the newest mark on a database stands that may be about to go.
    pub(super) fn newest_mark(&self) -> Option<Lsn> {
        self.marks.back().map(|mark| mark.at)
    }

    /// Returns the position from which everything that is still open can be followed anew.
    pub(super) fn open_since(&self) -> Option<Lsn> {
        self.doings.values().map(|doings| doings.first).min()
    }

    /// Follows one record; returns what its transaction destroyed, if this ends it so.
    pub(super) fn follow(&mut self, record: &Record<'_>) -> Result<Option<Destruction>, WalError> {
        match record.rmgr {
            Rmgr::HEAP => self.follow_row(record)?,
            Rmgr::XACT | Rmgr::SMGR | Rmgr::DATABASE | Rmgr::RELATION_MAP | Rmgr::STANDBY => {
                return match record.event()? {
                    Some(event) => Ok(self.follow_event(record, event)),
                    None => Ok(None),
                };
            }
            _ => {}
        }
        self.follow_blocks(record)?;
        Ok(None)
    }

    fn follow_event(&mut self, record: &Record<'_>, event: Event) -> Option<Destruction> {
        match event {
            Event::Commit(commit) => return self.end(record, &commit),
            Event::Abort(abort) => {
                self.doings.remove(&abort.xid);
                for xid in abort.subtransactions {
                    self.doings.remove(&xid);
                }
            }
            Event::SmgrCreate {
                relation,
                fork: Fork::Main,
            } if record.xid != 0 => {
                let doings = self.doings_of(record);
                doings.made.insert(
                    relation,
                    Made {
                        replaces: None,
                        filled: Filled::Empty,
                    },
                );
                doings.unexplained = Some(relation);
                doings.some_empty = true;
            }
            Event::DatabaseDrop { database, .. } if record.xid != 0 => {
                self.doings_of(record).dropped_database = Some((database, record.start));
            }
            Event::RelationMap { database, mappings } => self.follow_map(database, &mappings),
            Event::Running { next, oldest } => self.prune(next, oldest),
            _ => {}
        }
        None
    }

    fn follow_map(&mut self, database: u32, mappings: &[holdfast_wire::pg::wal::Mapping]) {
        let file = |catalog| {
            mappings
                .iter()
                .find(|mapping| mapping.catalog == catalog)
                .map(|mapping| mapping.file)
        };
        if database == 0 {
            self.database_file = file(PG_DATABASE).or(self.database_file);
        } else if let (Some(class), Some(types)) = (file(PG_CLASS), file(PG_TYPE)) {
            self.learn(database, class, types);
        }
    }

    /// Forgets what a crash or our own limit left behind, and notes which transactions are whole.
    fn prune(&mut self, next: u32, oldest: u32) {
        self.whole_from.get_or_insert(next);
        self.doings.retain(|xid, _| !is_before(*xid, oldest));
    }

    fn follow_row(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        let Some(relation) = record.first_relation() else {
            return Ok(());
        };
        let catalogs = self.catalogs_of(relation.database);
        let is_class = relation.file == catalogs.class;
        let is_type = relation.file == catalogs.types;
        let is_database = relation.tablespace == GLOBAL_TABLESPACE
            && relation.file == self.database_file.unwrap_or(PG_DATABASE);
        let unexplained = self
            .doings
            .get(&record.xid)
            .is_some_and(|doings| doings.unexplained.is_some());
        if !(is_class || is_type || is_database || unexplained) {
            return Ok(());
        }
        let Some(change) = record.row_change()? else {
            return Ok(());
        };
        if let (true, RowChange::InPlace { row, .. }) = (is_database, &change) {
            self.mark(record, row.as_deref());
            return Ok(());
        }
        if record.xid == 0 {
            return Ok(());
        }
        let doings = self.doings_of(record);
        doings.catalogs_known |= is_class;
        doings.explain(&change);
        if is_type {
            doings.note_type(change);
        }
        Ok(())
    }

    /// Remembers that a database was marked unusable, or may have been.
    fn mark(&mut self, record: &Record<'_>, row: Option<&[u8]>) {
        let Some(row) = row else {
            self.push_mark(record.start, None);
            return;
        };
        let limit_at = match record.version {
            WalVersion::V13 | WalVersion::V14 => 208,
            WalVersion::V15 | WalVersion::V16 | WalVersion::V17 | WalVersion::V18 => 80,
        };
        let limit = row.get(limit_at..).and_then(<[u8]>::first_chunk::<4>);
        let oid = row.first_chunk::<4>().copied().map(u32::from_le_bytes);
        if limit == Some(&INVALID_DATABASE) {
            self.push_mark(record.start, oid);
        }
    }

    fn push_mark(&mut self, at: Lsn, database: Option<u32>) {
        if self.marks.len() >= limits::WATCHED_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { at, database });
    }

    /// Notes what was written first to a file that a transaction made.
    fn follow_blocks(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        let Some(doings) = self.doings.get_mut(&record.xid) else {
            return Ok(());
        };
        if !doings.some_empty {
            return Ok(());
        }
        let filled = match record.rmgr {
            Rmgr::HEAP | Rmgr::HEAP2 => Filled::ByRows,
            _ => Filled::AsPages,
        };
        for block in record.blocks()? {
            if let Some(made) = doings.made.get_mut(&block.relation)
                && block.fork == Fork::Main
                && made.filled == Filled::Empty
            {
                made.filled = filled;
            }
        }
        doings.some_empty = doings
            .made
            .values()
            .any(|made| made.filled == Filled::Empty);
        Ok(())
    }

    /// Ends a transaction that took effect.
    fn end(&mut self, record: &Record<'_>, commit: &Commit) -> Option<Destruction> {
        let whole = self
            .whole_from
            .is_some_and(|from| !is_before(commit.xid, from));
        let mut all = self.doings.remove(&commit.xid).unwrap_or_default();
        for xid in &commit.subtransactions {
            if let Some(doings) = self.doings.remove(xid) {
                all.join(doings);
            }
        }
        let destruction = |what, before, relations| Destruction {
            what,
            before,
            xid: commit.xid,
            time: commit.time,
            relations,
        };
        if let Some((database, at)) = all.dropped_database {
            let before = self.began_removal(database, at).min(all.first);
            return Some(destruction(
                Destroyed::Database,
                before,
                commit.dropped_count,
            ));
        }
        let dropped = commit.dropped_count;
        if dropped == 0 {
            return None;
        }
        let made = u64::try_from(all.made.len()).unwrap_or(u64::MAX);
        let what = if all.types_gone() > 0 {
            Destroyed::Tables
        } else if all.truncated() {
            Destroyed::TruncatedTables
        } else if (!whole || !all.catalogs_known) && dropped > made {
            Destroyed::Tables
        } else {
            return None;
        };
        Some(destruction(what, record.start, dropped))
    }

    /// Returns where removal of a database whose files went at `at` had begun.
    fn began_removal(&self, database: u32, at: Lsn) -> Lsn {
        let newest = |known| {
            let of = |mark: &&Mark| mark.database == known && mark.at < at;
            self.marks.iter().rev().find(of).map(|mark| mark.at)
        };
        newest(Some(database))
            .or_else(|| newest(None))
            .unwrap_or(at)
    }

    fn doings_of(&mut self, record: &Record<'_>) -> &mut Doings {
        if self.doings.len() >= limits::WATCHED_TRANSACTIONS
            && !self.doings.contains_key(&record.xid)
        {
            // Nobody is forgotten silently: all of them count as not seen whole from here on.
            self.doings.clear();
            self.whole_from = None;
        }
        self.doings.entry(record.xid).or_insert_with(|| Doings {
            first: record.start,
            ..Doings::default()
        })
    }

    fn catalogs_of(&self, database: u32) -> Catalogs {
        let default = Catalogs {
            class: PG_CLASS,
            types: PG_TYPE,
        };
        self.catalogs.get(&database).copied().unwrap_or(default)
    }
}

impl Doings {
    /// The first row that changes after a file was made tells for what: the catalog's row of a
    /// relation that is there gets the new file's number, a new relation's rows are inserted.
    fn explain(&mut self, change: &RowChange) {
        let Some(made) = self
            .unexplained
            .take()
            .and_then(|file| self.made.get_mut(&file))
        else {
            return;
        };
        made.replaces = Some(matches!(change, RowChange::Update { .. }));
    }

    fn note_type(&mut self, change: RowChange) {
        let room = self.inserted_types.len() + self.moved_types.len() + self.deleted_types.len()
            < limits::WATCHED_ROWS;
        match change {
            RowChange::Insert(place) if room => {
                self.inserted_types.insert(place);
            }
            RowChange::Update { from, to } if room => self.moved_types.push((from, to)),
            RowChange::Delete(place) if room => self.deleted_types.push(place),
            RowChange::Delete(_) => self.more_deleted_types += 1,
            RowChange::Insert(_) | RowChange::Update { .. } | RowChange::InPlace { .. } => {}
        }
    }

    fn join(&mut self, other: Self) {
        self.first = if self.first == Lsn::ZERO {
            other.first
        } else {
            self.first.min(other.first)
        };
        self.made.extend(other.made);
        self.catalogs_known |= other.catalogs_known;
        self.inserted_types.extend(other.inserted_types);
        self.moved_types.extend(other.moved_types);
        self.deleted_types.extend(other.deleted_types);
        self.more_deleted_types += other.more_deleted_types;
        self.dropped_database = self.dropped_database.or(other.dropped_database);
    }

    /// Counts the row types that were there before and are gone.
    fn types_gone(&mut self) -> u64 {
        // Rows move forward in the log, but those of subtransactions were joined behind: repeat
        // until nothing new turns out to be our own.
        loop {
            let before = self.inserted_types.len();
            for (from, to) in &self.moved_types {
                if self.inserted_types.contains(from) {
                    self.inserted_types.insert(*to);
                }
            }
            if self.inserted_types.len() == before {
                break;
            }
        }
        let foreign = |place: &&RowPlace| !self.inserted_types.contains(place);
        let gone = self.deleted_types.iter().filter(foreign).count();
        u64::try_from(gone)
            .unwrap_or(u64::MAX)
            .saturating_add(self.more_deleted_types)
    }

    fn truncated(&self) -> bool {
        self.made.values().any(|made| {
            made.replaces == Some(true) && matches!(made.filled, Filled::Empty | Filled::ByRows)
        })
    }
}

/// Compares transaction ids, which wrap around.
fn is_before(xid: u32, other: u32) -> bool {
    other.wrapping_sub(xid).wrapping_sub(1) < u32::MAX / 2
}
