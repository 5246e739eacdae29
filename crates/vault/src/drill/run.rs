//! One drill from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::{
    ByteCount, Check, CheckOutcome, DrillDetails, DrillForm, DrillOf, DrillReport, ErrorChain, Lsn,
    PointId, Proof, Timestamp, Untrusted, rows_digest,
};

use super::checks::{Checks, TABLES_READ};
use super::folder::{self, Folder};
use super::open::{self, Opened};
use super::pace::Pace;
use super::rows::{Compared, Count, Rows, compare};
use super::server::Server;
use super::service::{Served, serve};
use super::tally::check;
use super::{DrillContext, DrillError, Drilled, Job, memory, pages, room};
use crate::clone::FormWish;
use crate::config::SourceConfig;
use crate::limits;
use crate::repository::{BaseSummary, RepositoryError};
use crate::restore::{
    Programs, ProgressFn, RestoreError, RestoreRequest, RestoreTarget, ServerLife, Start,
};

/// The folder for drills below the vault's state directory.
pub(super) const FOLDER: &str = "drill";
/// The check that everything could be brought.
pub(super) const RESTORE: &str = "restore to the end of the log";
const SERVICE: &str = "server takes a write";
const CHECKSUMS: &str = "page checksums";
/// Lines of a server's log that a check repeats.
const LOG_LINES: usize = 6;
/// What the system, and so the server, says where a mount cannot read from the repository.
const UNREADABLE: &str = "Input/output error";
const STOP: &str = "server stops in order";

/// What is drilled, and up to where.
struct Aim {
    base: BaseSummary,
    target: RestoreTarget,
}

/// What a drill has found so far.
struct Found {
    point: PointId,
    timeline: u32,
    checks: Vec<Check>,
    rows: Rows,
    rto: Duration,
    reached: Lsn,
    covers_until: Timestamp,
    restored: ByteCount,
    details: DrillDetails,
}

/// Runs one drill; blocks.
pub(super) fn run(
    ctx: &DrillContext,
    source: &SourceConfig,
    job: &Job,
) -> Result<Drilled, DrillError> {
    let aim = aim(ctx, source, job)?;
    let mut found = attempt((ctx, source), (&aim, job), ctx.config.form)?;
    let may_be_mounted = job.of == DrillOf::Newest && ctx.config.form != FormWish::Restored;
    if may_be_mounted && found.met_unreadable() {
        // To a server on a mount a storage that does not answer is a damaged disk; a restore tells them
        // apart.
        let failed = found.failed().join(", ");
        tracing::info!(source = %source.name, failed, "drilled again, restored in full");
        found = attempt((ctx, source), (&aim, job), FormWish::Restored)?;
    }
    found.compare_rows(ctx, source, aim.base.system_identifier);
    let report = DrillReport {
        source: source.name.clone(),
        system_identifier: aim.base.system_identifier,
        point: found.point,
        timeline: found.timeline,
        reached: found.reached,
        covers_until: found.covers_until,
        drilled_at: (ctx.clock)(),
        rto: found.rto,
        restored: found.restored,
        checks: found.checks,
        details: found.details,
    };
    conclude(ctx, report, found.rows)
}

/// Tries a point out in a folder of its own, opened in this form where that is possible.
fn attempt(
    (ctx, source): (&DrillContext, &SourceConfig),
    (aim, job): (&Aim, &Job),
    form: FormWish,
) -> Result<Found, DrillError> {
    let began = (ctx.clock)();
    let wished = ctx.config.dir.clone();
    let wished = wished.unwrap_or_else(|| ctx.place.state.join(FOLDER));
    let account = folder::account(ctx.place.postgres.run_as.as_deref());
    let folder = Folder::make(&wished, &source.name, account)?;
    let mut found = Found::begin(aim, job);
    found.details.began = Some(began);
    let pace = job.pace(&ctx.config);
    found.details.paced = job.is_paced(&ctx.config);
    found.try_out((ctx, source), (aim, job, form), (folder.path(), pace))?;
    if !found.failed().is_empty()
        && let Some(what) = room::missing(folder.path())
    {
        // Whatever went wrong may be because of that: it is known of no point.
        let name = source.name.clone();
        let what = format!("{what}; what failed then: {}", found.failed().join(", "));
        return Err(DrillError::Room { name, what });
    }
    Ok(found)
}

/// Records the drill, and signs and keeps the proof if it passed.
pub(super) fn conclude(
    ctx: &DrillContext,
    mut report: DrillReport,
    rows: Rows,
) -> Result<Drilled, DrillError> {
    let rows = memory::kept(rows);
    report.details.rows_digest = Some(rows_digest(&rows));
    let proof = match report.passed() {
        true => Some(Proof::attest(report.clone(), &ctx.key).map_err(DrillError::Proof)?),
        false => None,
    };
    // The ledger has every proof; the repository has one now and then, for the day when it is lost.
    let is_stored = {
        let history = ctx.history();
        let known = history.of(&report.source);
        known.is_some_and(|known| known.is_stored(&report.point, report.drilled_at))
    };
    let store = proof
        .as_ref()
        .filter(|_| !is_stored || report.alarm().is_some());
    if let Some(proof) = store {
        ctx.repository
            .put_proof(&report.source, proof.signed())
            .map_err(DrillError::Repository)?;
    }
    let signed = (proof.as_ref(), store.is_some());
    let entry = memory::record(&ctx.ledger, &report, &rows, signed)?;
    ctx.history().take(&entry);
    Ok(Drilled { report, proof })
}

/// Finds the point that is wanted, and the moment that it is brought to.
///
/// An older point is brought to a random position before the next one, so that its log is proven too.
fn aim(ctx: &DrillContext, source: &SourceConfig, job: &Job) -> Result<Aim, DrillError> {
    let no_point = || DrillError::NoPoint(source.name.clone());
    let mut bases = ctx
        .repository
        .reader()
        .bases(&source.name)
        .map_err(DrillError::Repository)?;
    let Some(point) = &job.point else {
        let base = bases.pop().ok_or_else(no_point)?;
        return Ok(Aim {
            base,
            target: RestoreTarget::Latest,
        });
    };
    let index = bases.iter().position(|base| base.point == *point);
    let index = index.ok_or_else(no_point)?;
    let next = bases.get(index.saturating_add(1)).cloned();
    let base = bases.swap_remove(index);
    let follows = |next: &BaseSummary| {
        (next.system_identifier, next.timeline) == (base.system_identifier, base.timeline)
    };
    let Some(next) = next.filter(follows) else {
        let target = match job.of {
            DrillOf::Newest => RestoreTarget::Latest,
            DrillOf::Older => RestoreTarget::Lsn(base.stop_lsn),
        };
        return Ok(Aim { base, target });
    };
    let span = next.start_lsn.since(base.stop_lsn).0;
    let at = base.stop_lsn.0.saturating_add(match span {
        0 => 0,
        span => super::random() % span,
    });
    Ok(Aim {
        base,
        target: RestoreTarget::Lsn(Lsn(at)),
    })
}

impl Found {
    fn begin(aim: &Aim, job: &Job) -> Self {
        Self {
            point: aim.base.point.clone(),
            timeline: aim.base.timeline,
            checks: Vec::new(),
            rows: Rows::new(),
            rto: Duration::ZERO,
            reached: aim.base.stop_lsn,
            covers_until: aim.base.at,
            restored: ByteCount(0),
            details: DrillDetails::new(job.of, aim.target.to_string()),
        }
    }

    /// Restores, starts, asks, stops and reads the pages.
    fn try_out(
        &mut self,
        (ctx, source): (&DrillContext, &SourceConfig),
        (aim, job, form): (&Aim, &Job, FormWish),
        (folder, pace): (&Path, Option<Arc<Pace>>),
    ) -> Result<(), DrillError> {
        let begun = Instant::now();
        let data = folder.join(folder::DATA);
        // Dropped in the opposite order: the server ends before its mount does.
        let held;
        let mut server = Server::on(&data);
        match self.restore((ctx, source), (aim, job, form), (&data, pace.clone())) {
            Ok(opened) => {
                let local = opened.local;
                held = opened.held;
                let major = aim.base.major;
                let programs = Programs::of(&ctx.place.postgres, major, &data).ok();
                server.opened(local, programs);
            }
            Err(error) if is_about_the_point(&error) => {
                self.fail(RESTORE, explain(&error));
                return Ok(());
            }
            Err(error) => return Err(DrillError::Restore(error)),
        }
        let served = match serve(&server, begun) {
            Ok(served) => served,
            Err(error) => {
                self.fail(SERVICE, ErrorChain(&error).to_string());
                return Ok(());
            }
        };
        self.service_done(&served);
        job.tell("drill: checking");
        let mut checks = Checks::new(&server, folder, ctx.config.budget);
        checks.run(&source.assertions, job.of);
        let deadline = checks.deadline();
        let (checks, rows) = checks.finish();
        self.checks.extend(checks);
        self.rows = rows;
        match server.stop() {
            Ok(()) if served.has_checksums => {
                job.tell("drill: reading pages");
                let read = page_checksums(&data, deadline, pace.as_deref());
                self.checks.push(read);
            }
            Ok(()) => {
                let why = "the source has none (initdb --data-checksums)";
                let check = check(CHECKSUMS, CheckOutcome::NotRun, why);
                self.checks.push(check);
            }
            Err(why) => self.fail(STOP, why),
        }
        drop(server);
        drop(held);
        Ok(())
    }

    /// Brings the point back and starts a server on it.
    fn restore(
        &mut self,
        (ctx, source): (&DrillContext, &SourceConfig),
        (aim, job, form): (&Aim, &Job, FormWish),
        (data, pace): (&Path, Option<Arc<Pace>>),
    ) -> Result<Opened, RestoreError> {
        let mut request = RestoreRequest::new(
            source.name.clone(),
            aim.target.clone(),
            data.to_owned(),
            Start::Yes { port: None },
        );
        request.point = Some(aim.base.point.clone());
        request.life = ServerLife::EndsWithUs;
        request.pace = pace;
        let tell = job.teller();
        let progress: ProgressFn = Arc::new(move |progress| {
            let percent = progress.done.0.saturating_mul(100) / progress.total.0.max(1);
            tell(format!("drill: {:?} {} %", progress.phase, percent.min(100)).to_lowercase());
        });
        let mut opened = open::open(ctx, (job.of, form, &request), &progress);
        let earliest = RestoreTarget::Lsn(aim.base.stop_lsn);
        if let (DrillOf::Older, Err(RestoreError::Target { .. })) = (job.of, &opened) {
            // The log behind it has a hole, or was left: the point itself is what counts.
            request.at = earliest;
            self.details.target = request.at.to_string();
            opened = open::open(ctx, (job.of, form, &request), &progress);
        }
        let opened = opened?;
        self.restore_done(&opened);
        Ok(opened)
    }

    fn fail(&mut self, name: &str, detail: String) {
        self.checks.push(check(name, CheckOutcome::Failed, detail));
    }

    /// Tells whether something failed because bytes could not be read at all.
    fn met_unreadable(&self) -> bool {
        let failed = |check: &&Check| check.outcome == CheckOutcome::Failed;
        let mut failed = self.checks.iter().filter(failed);
        failed.any(|check| check.detail.contains(UNREADABLE))
    }

    fn failed(&self) -> Vec<&str> {
        let failed = self.checks.iter();
        failed
            .filter(|check| check.outcome == CheckOutcome::Failed)
            .map(|check| check.name.as_str())
            .collect()
    }

    fn restore_done(&mut self, opened: &Opened) {
        let restored = &opened.restored;
        self.details.form = opened.form;
        self.point = restored.point.clone();
        self.timeline = restored.timeline;
        self.restored = restored.bytes;
        self.reached = restored.wal_end.max(self.reached);
        self.covers_until = restored.newest_commit.unwrap_or(self.covers_until);
        let (bytes, end) = (restored.bytes, restored.wal_end);
        let detail = match opened.form {
            DrillForm::Mounted => format!("{bytes} of log over the mounted point, up to {end}"),
            DrillForm::Restored => format!("{bytes} up to {end}"),
        };
        self.checks
            .push(check(RESTORE, CheckOutcome::Passed, detail));
    }

    fn service_done(&mut self, served: &Served) {
        self.rto = served.rto;
        self.reached = served.reached.unwrap_or(self.reached);
        self.covers_until = served.newest_commit.unwrap_or(self.covers_until);
        self.details.server.clone_from(&served.version);
        let seconds = served.rto.as_secs_f64();
        let mut detail = format!("committed {seconds:.2} s after the restore began");
        if self.details.paced {
            detail.push_str(", held back by the limits of drills");
        }
        self.checks
            .push(check(SERVICE, CheckOutcome::Passed, detail));
    }

    /// Compares with what earlier drills counted, and notes what lies before a loss.
    fn compare_rows(&mut self, ctx: &DrillContext, source: &SourceConfig, cluster: u64) {
        let totals = self
            .rows
            .values()
            .fold(0, |all: u64, rows| all.saturating_add(*rows));
        self.details.tables = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
        self.details.rows = totals;
        // Where there are more tables than are kept, which of them are may change.
        self.details.is_complete =
            self.rows.len() < limits::DRILL_TABLES && self.checks.iter().any(is_complete_count);
        if self.details.of == DrillOf::Older {
            return;
        }
        let history = ctx.history();
        let before = history.before(&source.name, cluster);
        if self.rows.is_empty() && before.is_none() {
            return;
        }
        let count = match self.details.is_complete {
            true => Count::Complete,
            false => Count::Partial,
        };
        let Compared {
            check,
            changes,
            losses,
        } = compare(before.map(|before| &before.rows), &self.rows, count);
        if !losses.is_empty() {
            self.details.before_loss = before.and_then(|before| before.proven.clone());
        }
        self.details.compared_with = before.and_then(|before| before.at);
        self.details.changes = changes;
        self.details.losses = losses;
        self.checks.push(check);
    }
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

fn page_checksums(data: &Path, deadline: Instant, pace: Option<&Pace>) -> Check {
    match pages::read_all(data, &pages::Reading::until(deadline).paced(pace)) {
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
    check.name == TABLES_READ && check.outcome == CheckOutcome::Passed
}

/// Whether a restore failed because of what is kept, and not because of this machine or of a storage
/// that does not answer.
pub(super) fn is_about_the_point(error: &RestoreError) -> bool {
    match error {
        RestoreError::Server { .. } | RestoreError::Target { .. } => true,
        RestoreError::Repository(error) => is_damage(error),
        _ => false,
    }
}

/// Whether the repository says that something in it is not as it was stored.
fn is_damage(error: &RepositoryError) -> bool {
    use holdfast_store::object::ObjectError;
    match error {
        RepositoryError::Object(error) => matches!(error, ObjectError::Missing(_)),
        RepositoryError::BaseMismatch { .. }
        | RepositoryError::Contradiction { .. }
        | RepositoryError::Damaged { .. }
        | RepositoryError::MissingLog { .. }
        | RepositoryError::NoFile { .. }
        | RepositoryError::ServerManifest(_)
        | RepositoryError::Signature { .. } => true,
        _ => false,
    }
}
