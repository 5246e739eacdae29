//! A drill of a directory: it is really restored, and what lies on the disk then is compared.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use holdfast_core::{
    ByteCount, Check, CheckOutcome, DrillDetails, DrillOf, DrillReport, ErrorChain, Lsn, SourceName,
};

use super::folder::Folder;
use super::rows::Rows;
use super::run::{FOLDER, RESTORE, conclude, is_about_the_point};
use super::tally::check;
use super::{DrillContext, DrillError, Drilled, Job};
use crate::engine::directory::{DirectoryStatus, decode};
use crate::limits;
use crate::repository::{FileRecord, Point, RecordKind, RepositoryError};
use crate::restore::{DirectoryRequest, ProgressFn, RestoreTarget, Ways, write_directory};

const COMPLETE: &str = "everything in the directory is kept";
const CONTENTS: &str = "contents on disk";
const NAMES: &str = "names, kinds and sizes on disk";

/// Runs one drill of a directory; blocks.
pub(super) fn run(
    ctx: &DrillContext,
    (source, standing): (&SourceName, &DirectoryStatus),
    job: &Job,
) -> Result<Drilled, DrillError> {
    let began = (ctx.clock)();
    let reader = ctx.repository.reader();
    let mut points = reader.points(source).map_err(DrillError::Repository)?;
    if let Some(wanted) = &job.point {
        points.retain(|one| one.point == *wanted);
    }
    let newest = points.pop();
    let newest = newest.ok_or_else(|| DrillError::NoPoint(source.clone()))?;
    let point = reader
        .point(source, &newest.point)
        .map_err(DrillError::Repository)?;
    let wished = ctx.config.dir.clone();
    let wished = wished.unwrap_or_else(|| ctx.place.state.join(FOLDER));
    let folder = Folder::make(&wished, source, None)?;
    let begun = Instant::now();
    let request = DirectoryRequest {
        source: source.clone(),
        at: RestoreTarget::Latest,
        into: folder.path().join(super::folder::DATA),
        ways: Ways::default(),
    };
    let tell = job.teller();
    let progress: ProgressFn = Arc::new(move |progress| {
        let percent = progress.done.0.saturating_mul(100) / progress.total.0.max(1);
        tell(format!("drill: files {} %", percent.min(100)));
    });
    let mut checks = Vec::new();
    let mut restored = ByteCount(0);
    let written = write_directory(&point, &request, &progress);
    let rto = begun.elapsed();
    match written {
        Ok(done) => {
            restored = done.bytes;
            let detail = format!("{} files, {}", done.files, done.bytes);
            checks.push(check(RESTORE, CheckOutcome::Passed, detail));
            compare(&point, &request.into, &mut checks).map_err(DrillError::Repository)?;
        }
        Err(error) if is_about_the_point(&error) => {
            let what = ErrorChain(&error).to_string();
            checks.push(check(RESTORE, CheckOutcome::Failed, what));
        }
        Err(error) => return Err(DrillError::Restore(error)),
    }
    if job.of == DrillOf::Newest {
        checks.push(complete(&newest.point, standing));
    }
    short_of_room(source, &checks, &folder)?;
    drop(folder);
    let details = DrillDetails {
        began: Some(began),
        paced: job.is_paced(&ctx.config),
        ..DrillDetails::new(job.of, newest.began.to_string())
    };
    let report = DrillReport {
        source: source.clone(),
        system_identifier: 0,
        point: newest.point,
        timeline: 0,
        reached: Lsn::ZERO,
        covers_until: newest.began,
        drilled_at: (ctx.clock)(),
        rto,
        restored,
        checks,
        details,
    };
    conclude(ctx, report, Rows::new())
}

/// Refuses to say anything of the point when something failed and this machine lacked something.
fn short_of_room(source: &SourceName, checks: &[Check], folder: &Folder) -> Result<(), DrillError> {
    let mut failed = checks.iter();
    let failed = failed.find(|check| check.outcome == CheckOutcome::Failed);
    match (failed, super::room::missing(folder.path())) {
        (Some(check), Some(what)) => Err(DrillError::Room {
            name: source.clone(),
            what: format!("{what}; what failed then: {}", check.name),
        }),
        _ => Ok(()),
    }
}

/// Tells whether the point has everything that lay in the directory, as far as that is known.
fn complete(point: &holdfast_core::PointId, standing: &DirectoryStatus) -> Check {
    if standing.point.as_ref() != Some(point) {
        let detail = "the point was made before the vault was started".to_owned();
        return check(COMPLETE, CheckOutcome::NotRun, detail);
    }
    if standing.missing == 0 {
        let unsettled = standing.unsettled;
        let detail = format!("{unsettled} files changed while they were read");
        return check(COMPLETE, CheckOutcome::Passed, detail);
    }
    let first = standing.left_out.first();
    let named = first.map_or_else(String::new, |left| {
        format!(", such as `{}`: {}", left.path, left.why)
    });
    let detail = format!("{} are not{named}", standing.missing);
    check(COMPLETE, CheckOutcome::Failed, detail)
}

/// Compares what lies on the disk with what the repository says.
fn compare(point: &Point, root: &Path, checks: &mut Vec<Check>) -> Result<(), RepositoryError> {
    let (mut files, mut bytes) = (0_u64, 0_u64);
    let (mut odd, mut wrong) = (Vec::new(), Vec::new());
    for named in point.files() {
        let (kept, record) = named?;
        let path = root.join(decode(&kept));
        files = files.saturating_add(1);
        if !is_there(&path, &record) {
            odd.push(kept);
        } else if record.kind == RecordKind::File {
            bytes = bytes.saturating_add(record.size);
            if !is_content(point, &kept, &path, record.size)? {
                wrong.push(kept);
            }
        }
    }
    let told = |found: Vec<String>, passed: String| match found.first() {
        None => (CheckOutcome::Passed, passed),
        Some(first) => {
            let first = holdfast_core::Untrusted(first);
            let detail = format!("{} are wrong, such as `{first}`", found.len());
            (CheckOutcome::Failed, detail)
        }
    };
    let (outcome, detail) = told(odd, format!("{files} compared"));
    checks.push(check(NAMES, outcome, detail));
    let (outcome, detail) = told(wrong, format!("{} compared", ByteCount(bytes)));
    checks.push(check(CONTENTS, outcome, detail));
    Ok(())
}

fn is_there(path: &Path, record: &FileRecord) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| match record.kind {
        RecordKind::Directory => found.is_dir(),
        RecordKind::File => found.is_file() && found.size() == record.size,
        RecordKind::Hardlink => found.is_file() && found.nlink() > 1,
        RecordKind::Symlink => std::fs::read_link(path)
            .is_ok_and(|target| record.target.as_deref().map(decode) == Some(target)),
    })
}

fn is_content(point: &Point, kept: &str, path: &Path, size: u64) -> Result<bool, RepositoryError> {
    let Ok(file) = File::open(path) else {
        return Ok(false);
    };
    let mut buffer = vec![0; limits::DIRECTORY_READ_BYTES];
    let mut offset = 0_u64;
    while offset < size {
        let wanted = point.read_at(kept, offset, buffer.len())?;
        let Some(found) = buffer
            .get_mut(..wanted.len())
            .filter(|found| !found.is_empty())
        else {
            return Ok(false);
        };
        if file.read_exact_at(found, offset).is_err() || *found != *wanted {
            return Ok(false);
        }
        offset = offset.saturating_add(u64::try_from(wanted.len()).unwrap_or(u64::MAX));
    }
    Ok(true)
}
