//! Which blocks a stretch of the log changed.
//!
//! What is told here is at least what was changed, never less: whoever has an older copy of a
//! relation's contents and reads these blocks anew has a copy from which replay can begin at the end
//! of the stretch. Not told, because the log does not say it completely: the free space map (never
//! logged), the visibility map (bits are cleared without naming the block) and all that is not a
//! relation. Those must always be copied whole.
//!
//! # Source
//! PostgreSQL 13 to 18: `access/xlogrecord.h`, `catalog/storage_xlog.h`, `commands/dbcommands_xlog.h`,
//! `access/xact.h`, `access/xlog_internal.h` (`xl_parameter_change`).

mod blocks;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use blocks::Blocks;
pub use reads::Reads;

use super::WalError;
use super::event::{self, Event, database_drop};
use super::field::Fields;
use super::page::WalVersion;
use super::record::{Fork, Record, Relation, Rmgr};
use super::xact;
use crate::limits;

const INFO: u8 = 0xF0;
const XACT_HAS_FLAGS: u8 = 0x80;
const SMGR_CREATE: u8 = 0x10;
const SMGR_TRUNCATE: u8 = 0x20;
const TRUNCATES_MAIN: u32 = 1;
const PARAMETER_CHANGE: u8 = 0x60;
const WAL_LEVEL_MINIMAL: u32 = 0;
/// Records of transactions that may remove files.
const ENDINGS: [u8; 4] = [
    event::COMMIT,
    event::ABORT,
    event::COMMIT_PREPARED,
    event::ABORT_PREPARED,
];
/// How many forks are found without a search.
const RECENT: usize = 64;

/// Why all blocks count as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Everything {
    /// For a while the server wrote only what crash recovery needs (`wal_level = minimal`).
    MinimalLog,
    /// More relations were changed than are told apart.
    TooMany,
}

/// The blocks that a stretch of the log changed, with memory bounded by
/// [`limits::CHANGED_BITMAP_BYTES`] and [`limits::CHANGED_FORKS`].
#[derive(Clone, Debug, Default)]
pub struct Changes {
    index: BTreeMap<(Relation, Fork), usize>,
    forks: Vec<Blocks>,
    recent: Recent,
    /// Tablespace and database of folders that were made or removed as a whole.
    databases: BTreeSet<(u32, u32)>,
    bytes: usize,
    everything: Option<Everything>,
}

#[derive(Clone, Debug)]
struct Recent([Option<((Relation, Fork), usize)>; RECENT]);

impl Default for Recent {
    fn default() -> Self {
        Self([None; RECENT])
    }
}

impl Changes {
    /// Adds what a record changed. Records may come again or overlap; their order does not matter.
    ///
    /// # Errors
    /// [`WalError::Record`] when its contents contradict themselves; the changes are then not complete.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        if self.everything.is_some() {
            return Ok(());
        }
        match record.rmgr {
            Rmgr::SMGR | Rmgr::DATABASE => self.apply_files(record)?,
            Rmgr::XACT if record.info & XACT_HAS_FLAGS != 0 => {
                let operation = record.info & event::OPERATION;
                if ENDINGS.contains(&operation) {
                    for relation in xact::dropped(record)? {
                        self.limit((relation, Fork::Main), 0);
                        self.limit((relation, Fork::Init), 0);
                    }
                }
            }
            Rmgr::XLOG if record.info & INFO == PARAMETER_CHANGE => {
                self.apply_parameters(record)?
            }
            _ => {}
        }
        record.each_block(|relation, fork, block| match fork {
            Fork::Main | Fork::Init => self.mark((relation, fork), block),
            Fork::FreeSpace | Fork::Visibility => {}
        })
    }

    /// Returns why all blocks count as changed, if they do.
    pub fn everything(&self) -> Option<Everything> {
        self.everything
    }

    /// Tells whether all of a relation's files count as changed.
    pub fn is_whole(&self, relation: Relation) -> bool {
        self.everything.is_some()
            || self
                .databases
                .contains(&(relation.tablespace, relation.database))
            || self
                .blocks(relation, Fork::Main)
                .is_some_and(|blocks| blocks.limit() == Some(0))
    }

    /// Tells whether one block of a relation's contents counts as changed.
    pub fn contains(&self, relation: Relation, block: u32) -> bool {
        self.is_whole(relation)
            || self
                .blocks(relation, Fork::Main)
                .is_some_and(|blocks| blocks.contains(block))
    }

    /// Returns the changed blocks of a relation's contents that lie in `within`, in order, without gaps.
    pub fn ranges(&self, relation: Relation, within: Range<u32>) -> Vec<Range<u32>> {
        if within.is_empty() {
            return Vec::new();
        }
        if self.is_whole(relation) {
            return vec![within];
        }
        self.blocks(relation, Fork::Main)
            .map(|blocks| blocks.ranges(within))
            .unwrap_or_default()
    }

    /// Returns what was changed of one fork of a relation, if anything was named.
    pub fn blocks(&self, relation: Relation, fork: Fork) -> Option<&Blocks> {
        self.forks.get(*self.index.get(&(relation, fork))?)
    }

    /// Returns every fork that was named, in order.
    pub fn forks(&self) -> impl Iterator<Item = (Relation, Fork, &Blocks)> {
        self.index.iter().filter_map(|((relation, fork), at)| {
            let blocks = self.forks.get(*at)?;
            Some((*relation, *fork, blocks))
        })
    }

    /// Returns tablespace and database of the folders that were made or removed as a whole.
    pub fn databases(&self) -> impl Iterator<Item = (u32, u32)> {
        self.databases.iter().copied()
    }

    fn apply_files(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        let cut = || record.wrong("a change of files is cut");
        let mut fields = Fields::new(record.main_data()?);
        let info = record.info & INFO;
        match record.rmgr {
            Rmgr::SMGR if info == SMGR_CREATE => {
                let relation = Relation::read(&mut fields).ok_or_else(cut)?;
                let fork = fields.u32().and_then(Fork::from_number).ok_or_else(cut)?;
                if matches!(fork, Fork::Main | Fork::Init) {
                    self.limit((relation, fork), 0);
                }
            }
            Rmgr::SMGR if info == SMGR_TRUNCATE => {
                let blocks = fields.u32().ok_or_else(cut)?;
                let relation = Relation::read(&mut fields).ok_or_else(cut)?;
                if fields.u32().ok_or_else(cut)? & TRUNCATES_MAIN != 0 {
                    self.limit((relation, Fork::Main), blocks);
                }
            }
            Rmgr::DATABASE if info == database_drop(record.version) => {
                if let Some(Event::DatabaseDrop {
                    database,
                    tablespaces,
                }) = record.event()?
                {
                    for tablespace in tablespaces {
                        self.database(tablespace, database);
                    }
                }
            }
            Rmgr::DATABASE if is_database_create(record.version, info) => {
                let database = fields.u32().ok_or_else(cut)?;
                let tablespace = fields.u32().ok_or_else(cut)?;
                self.database(tablespace, database);
            }
            Rmgr::SMGR | Rmgr::DATABASE => {
                return Err(record.wrong("it changes files in a way that is not known"));
            }
            _ => {}
        }
        Ok(())
    }

    fn apply_parameters(&mut self, record: &Record<'_>) -> Result<(), WalError> {
        let mut fields = Fields::new(record.main_data()?);
        let level = fields.take(20).and_then(|_| fields.u32());
        match level {
            Some(WAL_LEVEL_MINIMAL) => self.give_up(Everything::MinimalLog),
            Some(_) => {}
            None => return Err(record.wrong("a change of parameters is cut")),
        }
        Ok(())
    }

    fn mark(&mut self, key: (Relation, Fork), block: u32) {
        let Some(blocks) = self.entry(key) else {
            return;
        };
        let more = blocks.insert(block);
        if more > 0 {
            self.bytes = self.bytes.saturating_add(more);
            self.keep_small();
        }
    }

    fn limit(&mut self, key: (Relation, Fork), limit: u32) {
        if let Some(blocks) = self.entry(key) {
            let less = blocks.cut(limit);
            self.bytes = self.bytes.saturating_sub(less);
        }
    }

    fn database(&mut self, tablespace: u32, database: u32) {
        self.databases.insert((tablespace, database));
        if self.databases.len() > limits::CHANGED_FORKS {
            self.give_up(Everything::TooMany);
        }
    }

    /// Returns the blocks of a fork, making room for it if need be.
    fn entry(&mut self, key: (Relation, Fork)) -> Option<&mut Blocks> {
        let slot = usize::try_from(key.0.file).unwrap_or(0) % RECENT;
        let recent = self.recent.0.get(slot).copied().flatten();
        if let Some((_, at)) = recent.filter(|(known, _)| *known == key) {
            return self.forks.get_mut(at);
        }
        let fresh = self.forks.len();
        let at = *self.index.entry(key).or_insert(fresh);
        if at == fresh {
            self.forks.push(Blocks::default());
            if self.forks.len() > limits::CHANGED_FORKS {
                self.give_up(Everything::TooMany);
                return None;
            }
        }
        if let Some(place) = self.recent.0.get_mut(slot) {
            *place = Some((key, at));
        }
        self.forks.get_mut(at)
    }

    /// Lets the relation that takes the most memory count as changed whole, while it is too much.
    fn keep_small(&mut self) {
        while self.bytes > limits::CHANGED_BITMAP_BYTES {
            let Some(largest) = self.forks.iter_mut().max_by_key(|blocks| blocks.bytes()) else {
                return;
            };
            let less = largest.cut(0);
            if less == 0 {
                return;
            }
            self.bytes = self.bytes.saturating_sub(less);
        }
    }

    fn give_up(&mut self, why: Everything) {
        *self = Self {
            everything: Some(why),
            ..Self::default()
        };
    }
}

/// Before 15 there was one way to create a database; since then there are two.
fn is_database_create(version: WalVersion, info: u8) -> bool {
    match version {
        WalVersion::V13 | WalVersion::V14 => info == 0x00,
        WalVersion::V15 | WalVersion::V16 | WalVersion::V17 | WalVersion::V18 => info <= 0x10,
    }
}
