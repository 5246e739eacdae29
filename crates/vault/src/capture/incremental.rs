//! Restore points that are built on the one before: only what changed is read and stored.
//!
//! What changed is known from the log. The blocks are read through SQL in backup mode; where the
//! role may not do that, a whole base backup is read and only the changed blocks are stored. When
//! what changed cannot be known for certain, a full base backup is taken instead and says why.

mod error;
mod files;
mod log;
mod plan;
mod read;
mod schedule;
mod seal;
mod session;
mod stream;

use std::collections::BTreeMap;
use std::time::Instant;

use holdfast_core::{ByteCount, Coded, ErrorChain, Lsn, PointId};
use holdfast_wire::pg::control::{CONTROL_BYTES, ControlFile};
use holdfast_wire::pg::wal::Changes;

pub(crate) use error::IncrementalError;
pub(crate) use log::ChangeLog;
pub(super) use schedule::{Due, Schedule};
pub(super) use stream::{Filter, Onto, onto};

use super::{Capture, CaptureError};
use crate::limits;
use crate::repository::{
    EngineStart, Point, PointEnd, PointStart, PointWriter, PostgresPoint, PostgresStart, Tablespace,
};
use crate::source::SourceError;
use crate::spool::Cluster;
use crate::standing::Busy;
use crate::status::{PointReading, ReadingWay};
use plan::{Job, Listing, Planner};
use read::{Done, Reading};
use session::{Ask, Ended, Session, Shape, Unable, Whose};

const CONTROL: &str = "global/pg_control";
const STEP: &str = "take a restore point";

impl Capture {
    /// Takes a restore point that is built on `parent`, or a full base backup when that cannot be.
    pub(super) fn next_point(&self, parent: &PointId) -> Result<PointId, CaptureError> {
        let parent = self
            .repository
            .reader()
            .point(&self.standing.config.name, parent)?;
        let error = match self.point_on(&parent) {
            Err(CaptureError::Incremental(error)) => error,
            other => return other,
        };
        let (code, why) = (error.code(), ErrorChain(&error).to_string());
        let source = self.standing.config.name.as_str();
        tracing::warn!(source, %code, "a full base backup is taken: {why}");
        self.note("point.full_instead", |draft| {
            draft
                .with("code", code.to_string())
                .with("why", why.as_str())
        });
        self.base(Some(why))
    }

    fn point_on(&self, parent: &Point) -> Result<PointId, CaptureError> {
        let Some(known) = parent.summary().postgres.clone() else {
            return Err(incomplete("the parent is of something else"));
        };
        let session = match Session::open(&self.standing.url(), &self.stop) {
            Ok(session) => session,
            // A role that may only replicate, or a server that lets it do nothing else.
            Err(CaptureError::Source(
                error @ (SourceError::Refused { .. } | SourceError::Password { .. }),
            )) => Err(Unable::Login(ErrorChain(&error).to_string())),
            Err(error) => return Err(error),
        };
        match session {
            Ok(session) => self.point_by_blocks(session, parent, &known),
            Err(unable) => self.base_on(parent, unable.to_string()),
        }
    }

    /// Reads the changed blocks through SQL.
    fn point_by_blocks(
        &self,
        mut session: Session,
        parent: &Point,
        known: &PostgresPoint,
    ) -> Result<PointId, CaptureError> {
        let (began, whose) = (Instant::now(), session.whose);
        let cluster = self.known_cluster()?;
        let found = session.shape.system_identifier;
        if found != cluster.system_identifier || found != known.system_identifier {
            return Err(CaptureError::OtherCluster {
                known: known.system_identifier,
                found,
            });
        }
        check_checksums(parent, session.shape.checksums)?;
        let busy = self.standing.busy("restore point");
        let _turn = self.budget.base(&self.stop);
        self.changes.begin();
        let start = session.begin()?;
        if whose == Whose::Mirror && start.1 <= known.start_lsn {
            return Err(incomplete("the mirror has no newer checkpoint"));
        }
        self.changes_start(&cluster, start);
        let tablespaces = match whose {
            // On the mirror they are folders, and lie nowhere.
            Whose::Mirror => known.tablespaces.clone(),
            Whose::Source => session.tablespaces()?,
        };
        let listing = session.list()?;
        let changes = self.changed_until(&cluster, known, start)?;
        let mut writer = self.begin_on(parent, &cluster, start, &tablespaces)?;
        let jobs = jobs(&session, (&listing, tablespaces), &changes, parent)?;
        let done = self.read_jobs(&mut session, &mut writer, &busy, &jobs)?;
        put_control(&mut session, &mut writer)?;
        let shape = session.shape.clone();
        let mut ended = session.end()?;
        // Blocks that were not read again may be as new as the parent's end.
        ended.stop_lsn = ended.stop_lsn.max(known.stop_lsn);
        match whose {
            Whose::Mirror => read::put(
                &mut writer,
                "backup_label",
                shape.file_mode,
                ended.label.as_bytes(),
            )?,
            Whose::Source => put_label(&mut writer, &ended, &shape, parent)?,
        }
        busy.says(format!(
            "restore point: waiting for the log up to {}",
            ended.stop_lsn
        ));
        self.await_log(start.0, ended.stop_lsn)?;
        let point = writer.finish(PointEnd::Postgres {
            stop_lsn: ended.stop_lsn,
            backup_manifest: None,
        })?;
        self.changes.commit();
        self.made_on(
            parent,
            &point,
            (start.1, ended.stop_lsn),
            (began, done.read),
        );
        let way = match whose {
            Whose::Mirror => ReadingWay::Mirror,
            Whose::Source => ReadingWay::ChangedBlocks,
        };
        self.read_as(way, None, done.read);
        Ok(point)
    }

    fn read_jobs(
        &self,
        session: &mut Session,
        writer: &mut PointWriter,
        busy: &Busy<'_>,
        jobs: &[Job],
    ) -> Result<Done, CaptureError> {
        let mut reading = Reading {
            session,
            writer,
            busy,
            done: Done::default(),
        };
        reading.run(jobs)?;
        let done = reading.done;
        let source = self.standing.config.name.as_str();
        tracing::debug!(
            source,
            read = done.read,
            parts = done.parts,
            "changed blocks read"
        );
        Ok(done)
    }

    /// Waits for the log up to the start of a backup and returns what it changed since the parent.
    pub(super) fn changed_until(
        &self,
        cluster: &Cluster,
        parent: &PostgresPoint,
        (timeline, start): (u32, Lsn),
    ) -> Result<Changes, CaptureError> {
        self.await_durable(timeline, start)?;
        let changes = self.changed(cluster, parent, (timeline, start))?;
        match changes.everything() {
            Some(why) => Err(IncrementalError::Everything(why).into()),
            None => Ok(changes),
        }
    }

    fn await_durable(&self, timeline: u32, at: Lsn) -> Result<(), CaptureError> {
        let deadline = Instant::now() + limits::BASE_LOG_WAIT;
        while Instant::now() < deadline {
            if self.stop.is_cancelled() {
                return Err(SourceError::Stopped { step: STEP }.into());
            }
            let durable = self.standing.facts().logs.get(&timeline).copied();
            if durable.is_some_and(|end| end >= at) {
                return Ok(());
            }
            self.pause(limits::LOG_POLL);
        }
        Err(incomplete("the log that it begins with did not arrive"))
    }

    /// Begins a restore point that keeps what its parent has.
    pub(super) fn begin_on(
        &self,
        parent: &Point,
        cluster: &Cluster,
        (timeline, start_lsn): (u32, Lsn),
        tablespaces: &[Tablespace],
    ) -> Result<PointWriter, CaptureError> {
        let known = parent.summary().postgres.as_ref();
        let engine = EngineStart::Postgres(PostgresStart {
            system_identifier: cluster.system_identifier,
            major: known.map_or(0, |known| known.major),
            timeline,
            start_lsn,
            segment_bytes: cluster.segment_bytes.get_u32(),
            tablespaces: tablespaces.to_vec(),
        });
        let writer = self.repository.begin_point(PointStart {
            source: self.standing.config.name.clone(),
            engine,
            parent: Some(parent.summary().point.clone()),
        })?;
        Ok(writer)
    }

    /// Notes a new restore point in the facts and in the ledger.
    pub(super) fn made_on(
        &self,
        parent: &Point,
        point: &PointId,
        (start, stop): (Lsn, Lsn),
        (began, read): (Instant, u64),
    ) {
        {
            let mut facts = self.standing.facts();
            facts.base = Some((point.clone(), start));
            facts.log_trouble = None;
        }
        self.note("point.made", |draft| {
            draft
                .with("point", point.as_str())
                .with("parent", parent.summary().point.as_str())
                .with("start", start.to_string())
                .with("stop", stop.to_string())
                .with("read", read)
                .with("seconds", began.elapsed().as_secs_f64())
        });
    }

    /// Notes how the newest restore point was read.
    pub(super) fn read_as(&self, way: ReadingWay, why: Option<String>, read: u64) {
        let read = ByteCount(read);
        self.standing.facts().reading = Some(PointReading { way, why, read });
    }

    pub(super) fn known_cluster(&self) -> Result<Cluster, CaptureError> {
        let cluster = self.spool.cluster()?;
        cluster.ok_or_else(|| incomplete("the cluster is not known"))
    }
}

/// Decides what is read of each file.
fn jobs(
    session: &Session,
    (listing, tablespaces): (&Listing, Vec<Tablespace>),
    changes: &Changes,
    parent: &Point,
) -> Result<Vec<Job>, CaptureError> {
    let links = tablespaces.into_iter();
    let links = links.map(|one| (format!("pg_tblspc/{}", one.oid), one.location));
    let links: BTreeMap<String, String> = links.collect();
    let planner = Planner {
        changes,
        segment_blocks: session.shape.segment_blocks,
        links: &links,
    };
    let mut jobs = planner.plan(listing, parent.files())?;
    // What the mirror has of its own stays as the parent has it.
    jobs.retain(|job| {
        let is_own = session.whose == Whose::Mirror && files::is_of_mirror(&job.path);
        job.path != CONTROL && !is_own
    });
    Ok(jobs)
}

/// Refuses to go on when all pages were given checksums, or lost them, while the server was stopped.
pub(super) fn check_checksums(parent: &Point, now: bool) -> Result<(), CaptureError> {
    let control = parent.read_at(CONTROL, 0, CONTROL_BYTES)?;
    let control =
        ControlFile::parse(&control).map_err(|source| IncrementalError::Control { source })?;
    if control.checksums == now {
        return Ok(());
    }
    let word = |has: bool| if has { "checksums" } else { "no checksums" };
    Err(IncrementalError::Checksums {
        before: word(control.checksums),
        now: word(now),
    }
    .into())
}

/// Reads the control file last, and again while it is torn.
fn put_control(session: &mut Session, writer: &mut PointWriter) -> Result<(), CaptureError> {
    let asked = [Ask {
        path: CONTROL,
        offset: 0,
        bytes: 8192,
    }];
    let mut last = None;
    for _ in 0..limits::CONTROL_TRIES {
        let mut content = bytes::Bytes::new();
        session.read(&asked, &mut |_, bytes| {
            content = bytes.unwrap_or_default();
            Ok(())
        })?;
        match ControlFile::parse(&content) {
            Ok(_) => return read::put(writer, CONTROL, session.shape.file_mode, &content),
            Err(source) => last = Some(source),
        }
    }
    match last {
        Some(source) => Err(IncrementalError::Control { source }.into()),
        None => Err(incomplete("the control file was not read")),
    }
}

/// Writes what the end of the backup says: where replay begins, and the tablespaces.
fn put_label(
    writer: &mut PointWriter,
    ended: &Ended,
    shape: &Shape,
    parent: &Point,
) -> Result<(), CaptureError> {
    read::put(
        writer,
        "backup_label",
        shape.file_mode,
        ended.label.as_bytes(),
    )?;
    if !ended.map.is_empty() {
        return read::put(
            writer,
            "tablespace_map",
            shape.file_mode,
            ended.map.as_bytes(),
        );
    }
    if parent.file("tablespace_map")?.is_some() {
        writer.remove("tablespace_map")?;
    }
    Ok(())
}

fn incomplete(what: &'static str) -> CaptureError {
    CaptureError::Incomplete { what }
}
