//! Base backups: taken while the stream runs, so that nothing is missed.

mod content;

use std::time::Instant;

use bytes::Bytes;
use content::Content;
use holdfast_core::{ByteCount, Lsn, PointId};
use holdfast_wire::pg::basebackup::BaseMessage;
use holdfast_wire::pg::replication::{
    BaseBackupOptions, base_backup, columns, row, server_message,
};
use tokio::sync::OwnedSemaphorePermit;

use super::bound::Bound;
use super::incremental::{Due, Onto, Schedule, onto};
use super::{Capture, CaptureError};
use crate::limits;
use crate::repository::{EngineStart, Point, PointEnd, PointStart, PostgresStart, Tablespace};
use crate::source::{Allowance, Connection, SourceError, from_reply};
use crate::spool::Cluster;
use crate::standing::{Busy, trouble};
use crate::status::{CaptureState, ReadingWay};

const STEP: &str = "take a base backup";

impl Capture {
    /// Takes a base backup whenever the repository has none that the log continues, and the restore
    /// points that are due.
    pub(super) async fn base_until_stopped(&self) {
        let mut wait = limits::BACKOFF_MIN;
        let mut is_owed = false;
        let mut schedule = Schedule::default();
        let mut held_until: Option<Instant> = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.links.base.notified() => {}
                () = tokio::time::sleep(wait), if is_owed => {}
                () = tokio::time::sleep(limits::DUE_LOOK), if !is_owed => {}
            }
            // When the stream begins again, it asks for it again.
            is_owed = false;
            let is_held = held_until.is_some_and(|until| Instant::now() < until);
            if is_held || self.standing.facts().state != CaptureState::Streaming {
                continue;
            }
            let (taking, mut known) = (self.clone(), std::mem::take(&mut schedule));
            let taken = tokio::task::spawn_blocking(move || {
                let result = taking.point_that_is_due(&mut known);
                (known, result)
            });
            let taken = taken.await.map(|(known, result)| {
                schedule = known;
                result
            });
            match taken {
                Ok(Ok(point)) => {
                    let mut facts = self.standing.facts();
                    facts.base_trouble = None;
                    facts.point_wanted &= facts.point.as_ref() == Some(&point);
                    facts.point = Some(point);
                    drop(facts);
                    self.standing.changed.notify_one();
                    wait = limits::BACKOFF_MIN;
                }
                Ok(Err(_)) if self.stop.is_cancelled() => return,
                Ok(Err(error)) => {
                    if matches!(error, CaptureError::Endless { .. }) {
                        held_until = Instant::now().checked_add(limits::BASE_LIED_WAIT);
                    }
                    let trouble = trouble(&error);
                    let source = self.standing.config.name.as_str();
                    tracing::warn!(source, code = trouble.code, "{}", trouble.what);
                    self.standing.facts().base_trouble = Some(trouble);
                    wait = wait.saturating_mul(2).min(limits::BACKOFF_MAX);
                    is_owed = true;
                }
                Err(error) => {
                    tracing::error!(%error, "a base backup ended by a defect");
                    wait = limits::BACKOFF_MAX;
                    is_owed = true;
                }
            }
        }
    }

    /// Takes the restore point that is due, if one is, and returns the newest.
    fn point_that_is_due(&self, schedule: &mut Schedule) -> Result<PointId, CaptureError> {
        self.heal()?;
        match self.newest_point()? {
            Some(point) => match self.sealed(schedule, &point)? {
                Some(point) => Ok(point),
                None => match schedule.due(self, &point)? {
                    Due::Full => self.base(None),
                    Due::Next => self.next_point(&point),
                    Due::Nothing => Ok(point),
                },
            },
            None => self.base(None),
        }
    }

    /// Returns the newest base that today's log continues.
    pub(super) fn newest_point(&self) -> Result<Option<PointId>, CaptureError> {
        let (known, log_from) = {
            let facts = self.standing.facts();
            (facts.base.clone(), facts.log_from)
        };
        let known = match known {
            Some(known) => Some(known),
            None => {
                let newest = self.repository.newest_base(&self.standing.config.name)?;
                newest.map(|base| (base.point, base.start_lsn))
            }
        };
        self.standing.facts().base.clone_from(&known);
        Ok(known
            .filter(|(_, start)| *start >= log_from)
            .map(|(point, _)| point))
    }

    /// Takes a base backup that stands on its own; `why` tells why not less was read.
    pub(super) fn base(&self, why: Option<String>) -> Result<PointId, CaptureError> {
        let began = Instant::now();
        let (point, start, stop, read) = self.backup(None)?;
        {
            let mut facts = self.standing.facts();
            facts.base = Some((point.clone(), start));
            facts.log_trouble = None;
        }
        let took = began.elapsed();
        self.note("point.made", |draft| {
            draft
                .with("point", point.as_str())
                .with("start", start.to_string())
                .with("stop", stop.to_string())
                .with("seconds", took.as_secs_f64())
        });
        self.read_as(ReadingWay::Full, why, read);
        Ok(point)
    }

    /// Reads a whole base backup, of which only what changed since `parent` is stored.
    pub(super) fn base_on(&self, parent: &Point, why: String) -> Result<PointId, CaptureError> {
        let began = Instant::now();
        let (point, start, stop, read) = self.backup(Some(parent))?;
        self.made_on(parent, &point, (start, stop), (began, read));
        self.read_as(ReadingWay::Everything, Some(why), read);
        Ok(point)
    }

    /// Receives a base backup; returns also where replay begins and ends, and how much was read.
    fn backup(&self, parent: Option<&Point>) -> Result<(PointId, Lsn, Lsn, u64), CaptureError> {
        let mut connection = self.connect()?;
        let cluster = self.known_cluster()?;
        let busy = self.standing.busy("base backup");
        let onto = match parent {
            Some(parent) => Some(onto(&mut connection, parent)?),
            None => None,
        };
        self.changes.begin();
        let command = base_backup(&BaseBackupOptions {
            label: "holdfast",
            major: connection.major(),
        });
        connection.begin(&command, STEP)?;
        let mut base = Base {
            capture: self,
            cluster,
            major: connection.major(),
            busy: &busy,
            results: Vec::new(),
            total: ByteCount(0),
            copies: 0,
            received: 0,
            window: Window::begin(),
            bound: Bound::new(self.folder.clone()),
            turn: None,
            onto,
            content: Content::default(),
        };
        base.receive(&mut connection)?;
        let (start, stop) = (base.position(0)?, base.position(2)?);
        let (writer, manifest, read) = base.content.finish()?;
        busy.says(format!("base backup: waiting for the log up to {stop}"));
        self.await_log(start.timeline, stop.lsn)?;
        let point = writer.finish(PointEnd::Postgres {
            stop_lsn: stop.lsn,
            backup_manifest: Some(manifest),
        })?;
        self.changes.commit();
        Ok((point, start.lsn, stop.lsn, read))
    }

    /// Waits until the repository has the log without which the base is nothing.
    pub(super) fn await_log(&self, timeline: u32, stop: Lsn) -> Result<(), CaptureError> {
        self.links.board.hurry();
        let waited = self.await_shipped(timeline, stop);
        self.links.board.calm();
        waited
    }

    fn await_shipped(&self, timeline: u32, stop: Lsn) -> Result<(), CaptureError> {
        let deadline = Instant::now() + limits::BASE_LOG_WAIT;
        while Instant::now() < deadline {
            if self.stop.is_cancelled() {
                return Err(SourceError::Stopped { step: STEP }.into());
            }
            let shipped = self.standing.facts().shipped_logs.get(&timeline).copied();
            if shipped.is_some_and(|end| end >= stop) {
                return Ok(());
            }
            self.pause(limits::LOG_POLL);
        }
        Err(CaptureError::Incomplete {
            what: "its log did not arrive",
        })
    }
}

#[derive(Clone, Copy)]
struct Position {
    lsn: Lsn,
    timeline: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lsn.fmt(f)
    }
}

type Rows = Vec<Vec<Option<Bytes>>>;

/// A base backup that is being received.
struct Base<'a> {
    capture: &'a Capture,
    cluster: Cluster,
    major: u32,
    busy: &'a Busy<'a>,
    /// The three sets of rows around the archives: start, tablespaces, end.
    results: Vec<Rows>,
    total: ByteCount,
    /// How many copy streams have begun.
    copies: usize,
    /// Bytes of the archives so far, where the server does not count them.
    received: u64,
    window: Window,
    bound: Bound,
    /// Few are taken in at once; a slow one does not keep the others waiting for ever.
    turn: Option<(Instant, OwnedSemaphorePermit)>,
    /// The restore point that this one is built on, until it begins.
    onto: Option<Onto>,
    content: Content,
}

impl Base<'_> {
    fn receive(&mut self, connection: &mut Connection) -> Result<(), CaptureError> {
        let mut allowance = Allowance::default();
        loop {
            let frame = connection.next(limits::BASE_SILENCE, STEP)?;
            if let Some((since, _)) = &self.turn
                && since.elapsed() > limits::BASE_TURN
            {
                self.turn = None;
            }
            if frame.tag == b'd' {
                self.window.take(&frame.body)?;
                self.bound.take(frame.body.len())?;
            } else {
                allowance.take(&frame, STEP)?;
                self.window.take(&[])?;
            }
            match frame.tag {
                b'T' => {
                    columns(&frame.body).map_err(from_reply(STEP))?;
                    if self.results.len() >= RESULTS {
                        return Err(
                            SourceError::nonsense(STEP, "more answers than asked for").into()
                        );
                    }
                    self.results.push(Vec::new());
                }
                b'D' => {
                    let values = row(&frame.body).map_err(from_reply(STEP))?;
                    if let Some(rows) = self.results.last_mut().filter(|r| r.len() < ROWS_MAX) {
                        rows.push(values);
                    }
                }
                b'H' => self.copy_begins()?,
                b'd' if self.major < ONE_COPY => self.old_data(frame.body)?,
                b'c' if self.major < ONE_COPY => self.content.end_copy()?,
                b'd' => match BaseMessage::parse(&frame.body)? {
                    BaseMessage::Progress(done) => self.progress(done),
                    message => self.content.take(message)?,
                },
                b'E' => {
                    return Err(SourceError::Refused {
                        step: STEP,
                        source: Box::new(server_message(&frame.body)),
                    }
                    .into());
                }
                b'Z' => return Ok(()),
                b'c' | b'C' | b'N' | b'S' => {}
                other => return Err(SourceError::nonsense(STEP, format!("message {other}")).into()),
            }
        }
    }

    fn progress(&self, done: ByteCount) {
        let total = self.total.0.max(done.0);
        let text = format!("base backup: {done} of {}", ByteCount(total));
        self.busy.says(text);
    }

    /// Begins the base with the first copy stream; before version 15 each archive has its own, in the
    /// order of the tablespaces' rows, and the manifest has the last.
    fn copy_begins(&mut self) -> Result<(), CaptureError> {
        if self.copies == 0 {
            self.begin()?;
        } else if self.major >= ONE_COPY {
            return Err(SourceError::nonsense(STEP, "a second copy stream").into());
        }
        let number = self.copies;
        self.copies = self.copies.saturating_add(1);
        if self.major >= ONE_COPY {
            return Ok(());
        }
        let spaces = self.results.get(1).map_or(&[][..], Vec::as_slice);
        let oid = spaces.get(number).map(|row| row.first().cloned().flatten());
        self.content.take(match oid {
            None if number > spaces.len() => {
                return Err(SourceError::nonsense(STEP, "a copy stream too many").into());
            }
            None => BaseMessage::Manifest,
            Some(oid) => BaseMessage::Archive {
                name: match oid {
                    Some(oid) => format!("{}.tar", String::from_utf8_lossy(&oid)),
                    None => "base.tar".to_owned(),
                },
                location: String::new(),
            },
        })
    }

    fn old_data(&mut self, bytes: Bytes) -> Result<(), CaptureError> {
        let before = self.received / PROGRESS_BYTES;
        let count = u64::try_from(bytes.len()).unwrap_or(0);
        self.received = self.received.saturating_add(count);
        if self.received / PROGRESS_BYTES > before {
            self.progress(ByteCount(self.received));
        }
        self.content.take(BaseMessage::Data(bytes))
    }

    /// Begins the base in the repository: start and tablespaces are known now.
    fn begin(&mut self) -> Result<(), CaptureError> {
        let start = self.position(0)?;
        let turn = self.capture.budget.base(&self.capture.stop);
        self.turn = turn.map(|turn| (Instant::now(), turn));
        let at = (start.timeline, start.lsn);
        self.capture.changes_start(&self.cluster, at);
        let rows = self.results.get(1).map_or(&[][..], Vec::as_slice);
        let mut tablespaces = Vec::new();
        for values in rows {
            let text = |at: usize| {
                let value = values.get(at)?.as_ref()?;
                std::str::from_utf8(value).ok()
            };
            let kibibytes: u64 = text(2).and_then(|text| text.parse().ok()).unwrap_or(0);
            let bytes = kibibytes.saturating_mul(1024);
            self.total.0 = self.total.0.saturating_add(bytes);
            self.bound.announce(bytes);
            if let Some(oid) = text(0).and_then(|text| text.parse().ok()) {
                tablespaces.push(Tablespace {
                    oid,
                    location: text(1).unwrap_or_default().to_owned(),
                });
            }
        }
        if let Some(onto) = self.onto.take() {
            let known = onto.known();
            let changes = self.capture.changed_until(&self.cluster, known, at)?;
            let parent = &onto.parent;
            let writer = self
                .capture
                .begin_on(parent, &self.cluster, at, &tablespaces)?;
            self.content.writer = Some(writer);
            self.content.filter = Some(onto.filter(changes, start.lsn));
            return Ok(());
        }
        let engine = EngineStart::Postgres(PostgresStart {
            system_identifier: self.cluster.system_identifier,
            major: self.major,
            timeline: start.timeline,
            start_lsn: start.lsn,
            segment_bytes: self.cluster.segment_bytes.get_u32(),
            tablespaces,
        });
        let writer = self.capture.repository.begin_point(PointStart {
            source: self.capture.standing.config.name.clone(),
            engine,
            parent: None,
        })?;
        self.content.writer = Some(writer);
        Ok(())
    }

    fn position(&self, result: usize) -> Result<Position, CaptureError> {
        let text = |at: usize| {
            let value = self.results.get(result)?.first()?.get(at)?.as_ref()?;
            std::str::from_utf8(value).ok()
        };
        let lsn = text(0).and_then(|text| text.parse().ok());
        let timeline = text(1).and_then(|text| text.parse().ok());
        match (lsn, timeline) {
            (Some(lsn), Some(timeline)) => Ok(Position { lsn, timeline }),
            _ => Err(CaptureError::Incomplete {
                what: "a position is missing",
            }),
        }
    }
}

/// How much has come in the present stretch of time: a source that sends next to nothing for ever is
/// silent.
struct Window {
    began: Instant,
    bytes: u64,
}

impl Window {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            bytes: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), CaptureError> {
        let count = u64::try_from(bytes.len()).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes >= limits::BASE_LEAST_BYTES {
            *self = Self::begin();
        } else if self.began.elapsed() > limits::BASE_SILENCE {
            return Err(CaptureError::Incomplete {
                what: "it hardly goes on",
            });
        }
        Ok(())
    }
}

/// From this version on there is one copy stream for everything.
const ONE_COPY: u32 = 15;
/// Start, tablespaces, end.
const RESULTS: usize = 3;
/// How often the progress of an older server is told.
const PROGRESS_BYTES: u64 = 8 << 20;
const ROWS_MAX: usize = 100_000;
