//! One drill from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::{
    ByteCount, Check, CheckOutcome, DrillReport, ErrorChain, Lsn, PointId, Proof, Timestamp,
    Untrusted,
};

use super::checks::{Checks, Rows, check, compare};
use super::folder::{self, Folder};
use super::server::Server;
use super::{DrillContext, DrillError, Drilled, memory, pages};
use crate::config::SourceConfig;
use crate::repository::BaseSummary;
use crate::restore::{
    ProgressFn, RestoreError, RestoreRequest, RestoreTarget, Restored, Start, restore_locally,
};
use crate::source::{Connection, SourceError};

/// The folder for drills below the vault's state directory.
pub(super) const FOLDER: &str = "drill";
pub(super) const RESTORE: &str = "restore to the end of the log";
const SERVICE: &str = "server takes a write";
const CHECKSUMS: &str = "page checksums";
/// Lines of a server's log that a check repeats.
const LOG_LINES: usize = 6;
const STOP: &str = "server stops in order";

/// What a drill has found so far.
struct Found {
    point: PointId,
    checks: Vec<Check>,
    rows: Rows,
    rto: Duration,
    reached: Lsn,
    covers_until: Timestamp,
    restored: ByteCount,
}

/// What the restored server says of itself.
struct Served {
    rto: Duration,
    reached: Option<Lsn>,
    newest_commit: Option<Timestamp>,
    has_checksums: bool,
}

/// Runs one drill; blocks.
pub(super) fn run(ctx: &DrillContext, source: &SourceConfig) -> Result<Drilled, DrillError> {
    let base = ctx
        .repository
        .newest_base(&source.name)
        .map_err(DrillError::Repository)?
        .ok_or_else(|| DrillError::NoPoint(source.name.clone()))?;
    let before = memory::rows_before(&ctx.ledger, &source.name, base.system_identifier)?;
    let wished = ctx.config.dir.clone();
    let wished = wished.unwrap_or_else(|| ctx.place.state.join(FOLDER));
    let account = folder::account(ctx.place.postgres.run_as.as_deref());
    let folder = Folder::make(&wished, &source.name, account)?;
    let mut found = try_out(ctx, source, &base, folder.path())?;
    drop(folder);
    if !found.rows.is_empty() || before.is_some() {
        let is_complete = found.checks.iter().any(is_complete_count);
        let compared = compare(before.as_ref(), &found.rows, is_complete);
        found.checks.push(compared);
    }
    let report = DrillReport {
        source: source.name.clone(),
        system_identifier: base.system_identifier,
        point: found.point,
        timeline: base.timeline,
        reached: found.reached,
        covers_until: found.covers_until,
        drilled_at: (ctx.clock)(),
        rto: found.rto,
        restored: found.restored,
        checks: found.checks,
    };
    conclude(ctx, report, &found.rows)
}

/// Records the drill, and signs and keeps the proof if it passed.
pub(super) fn conclude(
    ctx: &DrillContext,
    report: DrillReport,
    rows: &Rows,
) -> Result<Drilled, DrillError> {
    let proof = if report.passed() {
        let proof = Proof::attest(report.clone(), &ctx.key).map_err(DrillError::Proof)?;
        ctx.repository
            .put_proof(&report.source, proof.signed())
            .map_err(DrillError::Repository)?;
        Some(proof)
    } else {
        None
    };
    memory::record(&ctx.ledger, &report, rows)?;
    Ok(Drilled { report, proof })
}

/// Restores, starts, asks, stops and reads the pages.
fn try_out(
    ctx: &DrillContext,
    source: &SourceConfig,
    base: &BaseSummary,
    folder: &Path,
) -> Result<Found, DrillError> {
    let begun = Instant::now();
    let mut found = Found {
        point: base.point.clone(),
        checks: Vec::new(),
        rows: Rows::new(),
        rto: Duration::ZERO,
        reached: base.stop_lsn,
        covers_until: base.at,
        restored: ByteCount(0),
    };
    let data = folder.join(folder::DATA);
    let request = RestoreRequest::new(
        source.name.clone(),
        RestoreTarget::Latest,
        data.clone(),
        Start::Yes { port: None },
    );
    let progress: ProgressFn = Arc::new(|_| {});
    let mut server = Server::on(&data);
    match restore_locally(&ctx.place, &request, &progress) {
        Ok((restored, local)) => {
            found.restore_done(&restored);
            if let Some(local) = local {
                server.opened(local);
            }
        }
        Err(error) if is_about_the_point(&error) => {
            found.fail(RESTORE, explain(&error));
            return Ok(found);
        }
        Err(error) => return Err(DrillError::Restore(error)),
    }
    let deadline = Instant::now() + ctx.config.budget;
    let served = match serve(&server, begun) {
        Ok(served) => served,
        Err(error) => {
            found.fail(SERVICE, ErrorChain(&error).to_string());
            return Ok(found);
        }
    };
    found.service_done(&served);
    let mut checks = Checks::new(&server, deadline);
    checks.run(&source.assertions);
    let (checks, rows) = checks.finish();
    found.checks.extend(checks);
    found.rows = rows;
    match server.stop() {
        Ok(()) if served.has_checksums => {
            let checked = page_checksums(&data, deadline);
            found.checks.push(checked);
        }
        Ok(()) => {
            let why = "the source has none (initdb --data-checksums)".to_owned();
            found
                .checks
                .push(check(CHECKSUMS, CheckOutcome::NotRun, why));
        }
        Err(why) => found.fail(STOP, why),
    }
    Ok(found)
}

/// Says why a restore failed, with the end of the server's log where there is one.
fn explain(error: &RestoreError) -> String {
    let text = ErrorChain(error).to_string();
    match error {
        RestoreError::Server { log, .. } => {
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LOG_LINES);
            let tail = lines.get(from..).unwrap_or_default().join(" | ");
            format!("{text}: {}", Untrusted(&tail))
        }
        _ => text,
    }
}

impl Found {
    fn fail(&mut self, name: &str, detail: String) {
        self.checks.push(check(name, CheckOutcome::Failed, detail));
    }

    fn restore_done(&mut self, restored: &Restored) {
        self.point = restored.point.clone();
        self.restored = restored.bytes;
        self.reached = restored.wal_end.max(self.reached);
        self.covers_until = restored.newest_commit.unwrap_or(self.covers_until);
        let detail = format!("{} up to {}", restored.bytes, restored.wal_end);
        self.checks
            .push(check(RESTORE, CheckOutcome::Passed, detail));
    }

    fn service_done(&mut self, served: &Served) {
        self.rto = served.rto;
        self.reached = served.reached.unwrap_or(self.reached);
        self.covers_until = served.newest_commit.unwrap_or(self.covers_until);
        let seconds = served.rto.as_secs_f64();
        let detail = format!("committed {seconds:.2} s after the restore began");
        self.checks
            .push(check(SERVICE, CheckOutcome::Passed, detail));
    }
}

/// Commits a write and asks how far the server came.
fn serve(server: &Server, begun: Instant) -> Result<Served, SourceError> {
    const WRITE: &str = "write to the restored server";
    const ASK: &str = "ask how far the restored server came";
    let mut connection: Connection = server.connect_anywhere()?;
    connection.query(
        "CREATE SCHEMA holdfast_drill; CREATE TABLE holdfast_drill.written AS SELECT now() AS at",
        WRITE,
    )?;
    let written = connection.query("SELECT count(*) FROM holdfast_drill.written", WRITE)?;
    if written.single() != Some("1") {
        return Err(SourceError::nonsense(WRITE, "the row is not there"));
    }
    let rto = begun.elapsed();
    connection.query("DROP SCHEMA holdfast_drill CASCADE", WRITE)?;
    let reply = connection.query(
        "SELECT pg_catalog.pg_last_wal_replay_lsn() AS reached,
                (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint AS newest,
                pg_catalog.current_setting('data_checksums') AS checksums",
        ASK,
    )?;
    Ok(Served {
        rto,
        reached: reply.value("reached").and_then(|lsn| lsn.parse().ok()),
        newest_commit: reply
            .value("newest")
            .and_then(|micros| micros.parse().ok())
            .map(Timestamp),
        has_checksums: reply.value("checksums") == Some("on"),
    })
}

fn page_checksums(data: &Path, deadline: Instant) -> Check {
    match pages::read_all(data, &pages::Reading::until(deadline)) {
        Err(error) => check(CHECKSUMS, CheckOutcome::Failed, error.to_string()),
        Ok(read) => {
            let numbers = format!("{} pages in {} files", read.pages, read.files);
            match (&read.first_wrong, read.is_cut) {
                (Some((path, page)), _) => {
                    let file = path.strip_prefix(data).unwrap_or(path).display();
                    let wrong = read.wrong;
                    let text =
                        format!("{wrong} wrong, the first is page {page} of {file} ({numbers})");
                    check(CHECKSUMS, CheckOutcome::Failed, text)
                }
                (None, true) => {
                    let text = format!("the time was up after {numbers}, all of them right");
                    check(CHECKSUMS, CheckOutcome::NotRun, text)
                }
                (None, false) => check(CHECKSUMS, CheckOutcome::Passed, numbers),
            }
        }
    }
}

/// Whether every table was counted, so that a missing one is gone.
fn is_complete_count(check: &Check) -> bool {
    check.name == super::checks::TABLES_READ
        && check.outcome == CheckOutcome::Passed
        && !check.detail.contains("for want of time")
}

/// Whether a restore failed because of what is kept, and not because of this machine.
pub(super) fn is_about_the_point(error: &RestoreError) -> bool {
    matches!(
        error,
        RestoreError::Repository(_) | RestoreError::Server { .. } | RestoreError::Target { .. }
    )
}
