//! Running the steps of a held action on a clone, as the lease would, and measuring what they do.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use holdfast_core::{
    ErrorChain, LockTaken, NoRehearsal, ObjectChange, ObjectFate, RehearsalFrame, RehearsalRequest,
    RehearsalStep, RowCount, StepFailed, StepRun, TableRows,
};
use holdfast_wire::pg::replication::{ServerMessage, server_message};

use super::locks::Locks;
use super::objects::{Objects, is_table};
use crate::limits;
use crate::source::{Connection, SourceError};

const STEP: &str = "rehearse a statement";
const MEASURE: &str = "measure a rehearsal";

/// The connections of one rehearsal.
pub(super) struct Actors {
    /// Ours, with all rights; nothing of the action runs on it.
    pub(super) keeper: Connection,
    /// The same, to look at locks while the keeper is busy.
    pub(super) watcher: Connection,
    /// The lease's, with its rights only.
    pub(super) lease: Connection,
}

/// When a rehearsal has to end.
pub(super) struct Patience<'a> {
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
    pub(super) cancelled: &'a dyn Fn() -> bool,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) steps: Vec<StepRun>,
    pub(super) failed: Option<StepFailed>,
    pub(super) rows: Vec<TableRows>,
    pub(super) objects: Vec<ObjectChange>,
    pub(super) locks: Vec<LockTaken>,
    pub(super) notes: Vec<String>,
    /// Something stays on the clone, so nothing else may be rehearsed on it.
    pub(super) is_spent: bool,
}

/// How one step ended.
enum Ended {
    Done(StepRun),
    Failed(ServerMessage),
    /// The time was up; the backend was ended.
    TooLong,
}

/// Runs everything and measures it.
pub(super) fn run(
    mut actors: Actors,
    request: &RehearsalRequest,
    patience: &Patience<'_>,
) -> Result<Ran, NoRehearsal> {
    let before = Objects::read(&mut actors.keeper).map_err(broken)?;
    let process = actors
        .lease
        .query("SELECT pg_catalog.pg_backend_pid()", MEASURE)
        .map_err(broken)?;
    let process: u32 = process
        .single()
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| broken(SourceError::nonsense(MEASURE, "no process")))?;
    let mut run = Run {
        keeper: actors.keeper,
        lease: actors.lease,
        locks: Locks::watch(actors.watcher, process),
        process,
        status: b'I',
        patience,
        ran: Ran::default(),
    };
    run.prepare(request)?;
    let is_through = run.steps(request)?;
    let end = Instant::now();
    let after = run.measure(request.frame, is_through, &before)?;
    let Run { locks, mut ran, .. } = run;
    let end = (request.frame == RehearsalFrame::Transaction).then_some(end);
    ran.locks = locks.taken(end, (&before, &after));
    Ok(ran)
}

struct Run<'a> {
    keeper: Connection,
    lease: Connection,
    locks: Locks,
    process: u32,
    /// What the server last said of the transaction: `I`, `T` or `E`.
    status: u8,
    patience: &'a Patience<'a>,
    ran: Ran,
}

impl Run<'_> {
    /// Puts the session into the state that the agent's had, and begins.
    fn prepare(&mut self, request: &RehearsalRequest) -> Result<(), NoRehearsal> {
        for setting in &request.session {
            if let Ended::Failed(said) = self.step(setting)? {
                let note = format!("a setting of the session could not be made: {said}");
                self.ran.notes.push(note);
            }
        }
        if request.frame == RehearsalFrame::Transaction {
            self.lease.query("BEGIN READ WRITE", STEP).map_err(broken)?;
            self.status = b'T';
        } else {
            // What runs by itself stays.
            self.ran.is_spent = true;
        }
        Ok(())
    }

    /// Runs the steps; tells whether all of them did.
    fn steps(&mut self, request: &RehearsalRequest) -> Result<bool, NoRehearsal> {
        let looks_often = request.steps.len() <= limits::REHEARSAL_STEPS_LOOKED_AT;
        for (at, step) in request.steps.iter().enumerate() {
            let number = at.saturating_add(1);
            let ended = self.step(step)?;
            if looks_often && !matches!(ended, Ended::TooLong) {
                self.locks
                    .look(&mut self.keeper, self.process)
                    .map_err(broken)?;
            }
            if !self.take(number, ended) {
                return Ok(false);
            }
        }
        if request.frame == RehearsalFrame::Bare {
            return Ok(true);
        }
        if self.status != b'T' {
            self.ran.is_spent = true;
            let note = "it ended its transaction by itself, so rows were not counted";
            self.ran.notes.push(note.to_owned());
            return Ok(true);
        }
        let deferred = RehearsalStep {
            text: holdfast_core::Verbatim(b"SET CONSTRAINTS ALL IMMEDIATE".to_vec()),
            parameters: None,
        };
        let ended = self.step(&deferred)?;
        let is_through = self.take(request.steps.len().saturating_add(1), ended);
        if is_through {
            self.ran.steps.pop();
        }
        Ok(is_through)
    }

    /// Notes how a step ended; tells whether the next one runs.
    fn take(&mut self, number: usize, ended: Ended) -> bool {
        let failed = |code: &str, message: String| StepFailed {
            step: number,
            code: code.to_owned(),
            message,
        };
        match ended {
            Ended::Done(run) => {
                self.ran.steps.push(run);
                return true;
            }
            Ended::Failed(said) => {
                let mut message = said.message.clone();
                if !said.detail.is_empty() {
                    message = format!("{message} ({})", said.detail);
                }
                self.ran.failed = Some(failed(&said.sqlstate, message));
            }
            Ended::TooLong => {
                self.ran.is_spent = true;
                let seconds = self.patience.limit.as_secs_f64();
                let message = format!("it still ran after {seconds} s and was ended");
                self.ran.failed = Some(failed("57014", message));
            }
        }
        false
    }

    /// Sends one step and reads its answer to the end, throwing its rows away.
    fn step(&mut self, step: &RehearsalStep) -> Result<Ended, NoRehearsal> {
        let mut out = BytesMut::new();
        write(step, &mut out);
        let begun = Instant::now();
        self.lease.send(&out, STEP).map_err(broken)?;
        let (mut tag, mut failed) = (String::new(), None);
        loop {
            let frame = match self.lease.next(limits::REHEARSAL_POLL, STEP) {
                Ok(frame) => frame,
                Err(SourceError::Silent { .. }) => {
                    if let Some(ended) = self.patience()? {
                        return Ok(ended);
                    }
                    continue;
                }
                Err(error) => return Err(broken(error)),
            };
            match frame.tag {
                b'C' => tag = text(&frame.body),
                b'E' => {
                    let said = server_message(&frame.body);
                    if said.severity == "FATAL" || said.severity == "PANIC" {
                        return Err(broken(SourceError::Refused {
                            step: STEP,
                            source: Box::new(said),
                        }));
                    }
                    failed.get_or_insert(said);
                }
                b'G' => {
                    let why = "the rows of a COPY are not kept".to_owned();
                    return Err(NoRehearsal::NotHere { why });
                }
                b'Z' => {
                    self.status = frame.body.first().copied().unwrap_or(b'I');
                    break;
                }
                b'D' | b'd' if begun.elapsed() > limits::REHEARSAL_POLL => {
                    // A server that never pauses must be ended as well.
                    if let Some(ended) = self.patience()? {
                        return Ok(ended);
                    }
                }
                _ => {}
            }
        }
        Ok(match failed {
            Some(said) => Ended::Failed(said),
            None => Ended::Done(StepRun {
                tag,
                took: begun.elapsed(),
            }),
        })
    }

    /// Ends the backend when the time is up or nobody wants the answer any more.
    fn patience(&mut self) -> Result<Option<Ended>, NoRehearsal> {
        if (self.patience.cancelled)() {
            return Err(NoRehearsal::Cancelled);
        }
        if Instant::now() < self.patience.deadline {
            return Ok(None);
        }
        self.locks
            .look(&mut self.keeper, self.process)
            .map_err(broken)?;
        let end = format!("SELECT pg_catalog.pg_terminate_backend({})", self.process);
        self.keeper.query(&end, MEASURE).map_err(broken)?;
        Ok(Some(Ended::TooLong))
    }

    /// Asks what was done, and takes it back where that is possible; returns the objects afterwards.
    fn measure(
        &mut self,
        frame: RehearsalFrame,
        is_through: bool,
        before: &Objects,
    ) -> Result<Objects, NoRehearsal> {
        let is_open = frame == RehearsalFrame::Transaction && self.status == b'T';
        let after = if is_through && is_open {
            let after = Objects::read(&mut self.lease).map_err(broken)?;
            let rows = self.rows(before, &after)?;
            self.lease.query("ROLLBACK", MEASURE).map_err(broken)?;
            let changes = before.changes(&after);
            self.ran.objects = self.counted(changes, &rows)?;
            let is_known = |rows: &TableRows| before.tables().any(|(_, name)| name == rows.table);
            self.ran.rows = rows.into_iter().filter(is_known).collect();
            after
        } else if self.ran.is_spent {
            let after = Objects::read(&mut self.keeper).map_err(broken)?;
            self.ran.objects = before.changes(&after);
            after
        } else {
            Objects::default()
        };
        if frame == RehearsalFrame::Bare {
            let note = "it runs outside of transactions: rows were not counted, and production cannot be measured before it is done";
            self.ran.notes.push(note.to_owned());
        }
        Ok(after)
    }

    /// Asks the transaction which rows it changed, as guard does on production.
    fn rows(&mut self, before: &Objects, after: &Objects) -> Result<Vec<TableRows>, NoRehearsal> {
        let mut names: std::collections::BTreeMap<u32, &str> = after.tables().collect();
        names.extend(before.tables());
        let oids: Vec<String> = names.keys().map(u32::to_string).collect();
        let sql = format!(
            "SELECT o::pg_catalog.text, pg_catalog.pg_stat_get_xact_tuples_inserted(o)::pg_catalog.text, \
             pg_catalog.pg_stat_get_xact_tuples_updated(o)::pg_catalog.text, \
             pg_catalog.pg_stat_get_xact_tuples_deleted(o)::pg_catalog.text \
             FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) o",
            oids.join(",")
        );
        let reply = self.lease.query(&sql, MEASURE).map_err(broken)?;
        let mut rows = Vec::new();
        for row in reply.rows() {
            let number = |at: usize| -> u64 {
                let field = row.get(at).and_then(Option::as_deref);
                field.and_then(|text| text.parse().ok()).unwrap_or_default()
            };
            let oid = u32::try_from(number(0)).unwrap_or_default();
            let Some(name) = names.get(&oid) else {
                continue;
            };
            let table = TableRows {
                table: (*name).to_owned(),
                inserted: RowCount(number(1)),
                updated: RowCount(number(2)),
                deleted: RowCount(number(3)),
            };
            if table.inserted.0 > 0 || table.updated.0 > 0 || table.deleted.0 > 0 {
                rows.push(table);
            }
        }
        rows.sort_by(|a, b| a.table.cmp(&b.table));
        Ok(rows)
    }

    /// Counts the rows of what is gone or written anew, now that it is back, within a time.
    fn counted(
        &mut self,
        mut changes: Vec<ObjectChange>,
        rows: &[TableRows],
    ) -> Result<Vec<ObjectChange>, NoRehearsal> {
        let until = Instant::now() + limits::REHEARSAL_COUNTS;
        let mut is_cut = false;
        for change in changes.iter_mut().filter(|change| is_table(&change.kind)) {
            if change.fate == ObjectFate::Created {
                let new = rows.iter().find(|rows| rows.table == change.name);
                change.rows = new.map(|rows| rows.inserted);
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if change.fate == ObjectFate::Altered {
                continue;
            }
            if left.is_zero() {
                is_cut = true;
                continue;
            }
            let sql = format!(
                "SET statement_timeout = {}; SELECT count(*) FROM {}",
                left.as_millis().max(1),
                change.name
            );
            match self.keeper.query(&sql, MEASURE) {
                Ok(reply) => {
                    let count = reply.single().and_then(|count| count.parse().ok());
                    change.rows = count.map(RowCount);
                }
                Err(SourceError::Refused { .. }) => is_cut = true,
                Err(error) => return Err(broken(error)),
            }
        }
        if is_cut {
            let note = "not every table that goes could be counted in time";
            self.ran.notes.push(note.to_owned());
        }
        Ok(changes)
    }
}

/// The rehearsal itself could not go on.
pub(super) fn broken(error: SourceError) -> NoRehearsal {
    NoRehearsal::Clone {
        why: ErrorChain(&error).to_string(),
    }
}

fn text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.trim_end_matches('\0').to_owned()
}

/// Writes a step as its client sent it.
fn write(step: &RehearsalStep, out: &mut BytesMut) {
    let text = step.text.0.as_slice();
    let Some(bound) = &step.parameters else {
        return message(b'Q', &[text, b"\0"], out);
    };
    let none = [0, 0];
    let types = match bound.types.0.is_empty() {
        true => none.as_slice(),
        false => bound.types.0.as_slice(),
    };
    message(b'P', &[b"\0", text, b"\0", types], out);
    message(b'B', &[b"\0\0", &bound.values.0], out);
    message(b'E', &[b"\0", &[0; 4]], out);
    message(b'S', &[], out);
}

fn message(tag: u8, parts: &[&[u8]], out: &mut BytesMut) {
    let length = parts
        .iter()
        .fold(4_usize, |sum, part| sum.saturating_add(part.len()));
    out.put_u8(tag);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for part in parts {
        out.put_slice(part);
    }
}
