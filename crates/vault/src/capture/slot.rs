//! The replication slot: made, and made anew when it is lost, so that the source keeps our log again.
//!
//! A slot is lost when the source invalidated it (`max_slot_wal_keep_size`), when somebody dropped it,
//! or when somebody else streams from it. None of that waits for a person: the log may still be there,
//! and if not, a new base follows.

use std::time::Instant;

use holdfast_core::Lsn;
use holdfast_wire::pg::replication::{
    create_physical_slot, drop_slot, quote_identifier, quote_literal,
};

use super::{Capture, CaptureError};
use crate::limits;
use crate::source::{Connection, Purpose, Reply, SourceError};
use crate::spool::SpoolError;

const STEP: &str = "look at the replication slot";

/// Why a slot was lost, as the ledger says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Dropped,
    Invalidated,
    Taken,
}

impl Lost {
    fn word(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Invalidated => "invalidated",
            Self::Taken => "taken",
        }
    }
}

impl Capture {
    /// Makes sure that a slot of ours exists and keeps log; returns where that begins.
    pub(super) fn slot(&self, connection: &mut Connection) -> Result<Option<Lsn>, CaptureError> {
        let name = self.slot_name()?;
        let found = self.read_slot(connection, &name)?;
        let reserved = match found.value("slot_type") {
            Some("physical") if self.is_refused() => {
                self.drop_slot(connection, &name)?;
                self.lost_slot(&name, Lost::Invalidated);
                self.make_slot(connection, &name)?
            }
            // It always reserves log when it is made: without any it was invalidated.
            Some("physical") => match restart(&found) {
                Some(at) => Some(at),
                None => {
                    self.drop_slot(connection, &name)?;
                    self.lost_slot(&name, Lost::Invalidated);
                    self.make_slot(connection, &name)?
                }
            },
            Some(_) => return self.leave_slot(&name).and_then(|()| self.slot(connection)),
            None => {
                let was_there = {
                    let facts = self.standing.facts();
                    facts.flushed > Lsn::ZERO && !facts.slot_left
                };
                if was_there {
                    self.lost_slot(&name, Lost::Dropped);
                }
                self.make_slot(connection, &name)?
            }
        };
        Ok(reserved)
    }

    fn make_slot(
        &self,
        connection: &mut Connection,
        name: &str,
    ) -> Result<Option<Lsn>, CaptureError> {
        connection.query(&create_physical_slot(name), "make a replication slot")?;
        {
            let mut facts = self.standing.facts();
            facts.slot_refused = false;
            facts.slot_left = false;
        }
        self.note("source.slot_made", |draft| draft.with("slot", name));
        Ok(restart(&self.read_slot(connection, name)?))
    }

    /// Drops a slot of ours that keeps nothing any more.
    fn drop_slot(&self, connection: &mut Connection, name: &str) -> Result<(), CaptureError> {
        connection.query(&drop_slot(name), "drop the lost replication slot")?;
        Ok(())
    }

    fn lost_slot(&self, name: &str, lost: Lost) {
        let (why, source) = (lost.word(), self.standing.config.name.as_str());
        tracing::warn!(source, slot = name, why, "the replication slot was lost");
        self.note("source.slot_lost", |draft| {
            draft.with("slot", name).with("why", why)
        });
    }

    fn is_refused(&self) -> bool {
        self.standing.facts().slot_refused
    }

    /// Notes that the source did not let us stream; tells what it means when it is about the slot.
    pub(super) fn slot_refused(&self, error: CaptureError) -> CaptureError {
        let CaptureError::Source(source) = error else {
            return error;
        };
        match source.sqlstate() {
            // Object in use.
            Some("55006") => {
                let since = {
                    let mut facts = self.standing.facts();
                    *facts.slot_taken_since.get_or_insert_with(Instant::now)
                };
                if since.elapsed() >= limits::SLOT_TAKEN_WAIT || self.is_taken_by_another() {
                    self.standing.facts().slot_taken_since = None;
                    let name = self.slot_name().map_err(CaptureError::from);
                    if let Err(error) = name.and_then(|name| self.leave_slot(&name)) {
                        return error;
                    }
                }
                CaptureError::SlotTaken { source }
            }
            // Not in prerequisite state: PostgreSQL 18 says so of a slot that it invalidated.
            Some("55000") => {
                self.standing.facts().slot_refused = true;
                CaptureError::Source(source)
            }
            _ => CaptureError::Source(source),
        }
    }

    /// Asks who streams from our slot; a stream of ours that the source has not noticed to be dead is
    /// not told from another vault.
    fn is_taken_by_another(&self) -> bool {
        let Ok(name) = self.slot_name() else {
            return false;
        };
        let sql = format!(
            "SELECT r.application_name FROM pg_replication_slots s \
             JOIN pg_stat_replication r ON r.pid = s.active_pid \
             WHERE s.slot_name = {} AND r.application_name IS DISTINCT FROM {}",
            quote_literal(&name),
            quote_literal(crate::source::APPLICATION_NAME)
        );
        let url = &self.standing.url();
        let asked = Connection::open_until(url, Purpose::Query, &self.stop)
            .and_then(|mut connection| connection.query(&sql, STEP));
        // What the role may not see is NULL and counts for nothing.
        asked.is_ok_and(|reply| reply.single().is_some_and(|name| !name.is_empty()))
    }

    /// Leaves a slot to whoever has it; the next one has another name.
    fn leave_slot(&self, name: &str) -> Result<(), CaptureError> {
        self.lost_slot(name, Lost::Taken);
        let first = self.first_slot_name();
        let number = name.strip_prefix(&format!("{first}_"));
        let number: u32 = number.and_then(|text| text.parse().ok()).unwrap_or(1);
        let next = format!("{first}_{}", number.saturating_add(1));
        if next.len() > limits::SLOT_NAME_BYTES {
            return Err(SourceError::nonsense(STEP, "its name is used by others").into());
        }
        self.spool.keep_slot(&next)?;
        self.standing.facts().slot_left = true;
        Ok(())
    }

    /// Asks for `slot_type` and `restart_lsn` of a slot; both are missing when there is none.
    ///
    /// Versions 13 and 14 have no command for it, so the view is asked over a connection for SQL.
    fn read_slot(&self, connection: &mut Connection, name: &str) -> Result<Reply, SourceError> {
        if connection.major() >= 15 {
            let read = format!("READ_REPLICATION_SLOT {}", quote_identifier(name));
            return connection.query(&read, STEP);
        }
        let url = &self.standing.url();
        let sql = format!(
            "SELECT slot_type, restart_lsn::text AS restart_lsn FROM pg_replication_slots \
             WHERE slot_name = {}",
            quote_literal(name)
        );
        Connection::open_until(url, Purpose::Query, &self.stop)?.query(&sql, STEP)
    }

    /// Returns the name of the slot that keeps the source's log for us.
    pub(super) fn slot_name(&self) -> Result<String, SpoolError> {
        let kept = self.spool.slot()?;
        Ok(kept.unwrap_or_else(|| self.first_slot_name()))
    }

    fn first_slot_name(&self) -> String {
        crate::source::slot_name(&self.standing.config.name)
    }
}

fn restart(found: &Reply) -> Option<Lsn> {
    found
        .value("restart_lsn")
        .and_then(|text| text.parse().ok())
}
