//! Restore points that are sealed from the mirror: the source is not asked, and does not notice.
//!
//! PostgreSQL backs up a standby: the backup begins at its newest restartpoint and ends where its control
//! file says that the files are consistent. Blocks that the log named since the parent are read of it.
//!
//! # Source
//! PostgreSQL 13 to 18, `access/transam/xlog.c`, `do_pg_backup_start`, `do_pg_backup_stop`: a standby's
//! backup starts at `ControlFile->checkPointCopy.redo` and stops at `ControlFile->minRecoveryPoint`.

use std::time::Duration;

use holdfast_core::{Coded, ErrorChain, PointId};

use super::session::Session;
use super::{Schedule, incomplete};
use crate::capture::{Capture, CaptureError};
use crate::limits;
use crate::mirror::Ready;

impl Capture {
    /// Seals a point from the mirror when one is due, and returns the newest; `None` when restore points
    /// are to be read from the source.
    pub(in crate::capture) fn sealed(
        &self,
        schedule: &mut Schedule,
        point: &PointId,
    ) -> Result<Option<PointId>, CaptureError> {
        let board = &self.standing.mirror;
        let Some(ready) = board.ready() else {
            return Ok(None);
        };
        let Some(newest) = schedule.newest(self, point)? else {
            return Ok(None);
        };
        let redo = ready.checkpoint.map(|checkpoint| checkpoint.redo);
        let is_newer = redo.is_some_and(|redo| redo > newest.start_lsn);
        let is_wanted = self.standing.facts().point_wanted;
        // Points may not go back behind one that was read from the source meanwhile.
        if !is_newer || ready.replayed < newest.stop_lsn {
            // The newest point leads there through the same log: there would be nothing to gain.
            board.let_pass(ready.brink);
            return Ok((!is_wanted).then(|| point.clone()));
        }
        let now = self.now();
        let age = if newest.began <= now {
            now.since(newest.began)
        } else {
            Duration::ZERO
        };
        let log = redo.unwrap_or_default().since(newest.start_lsn).0;
        let is_due = ready.brink.is_some()
            || is_wanted
            || age >= self.points.every.min(limits::MIRROR_SEAL_EVERY)
            || log >= self.points.log_bytes.min(limits::MIRROR_SEAL_LOG);
        if !is_due {
            return Ok(Some(point.clone()));
        }
        match self.seal(&ready, point) {
            Ok(sealed) => {
                board.sealed();
                board.let_pass(ready.brink);
                Ok(Some(sealed))
            }
            Err(error) if self.stop.is_cancelled() => Err(error),
            Err(error) => {
                let (code, what) = (error.code(), ErrorChain(&error).to_string());
                let source = self.standing.config.name.as_str();
                tracing::warn!(source, %code, "no point was sealed from the mirror: {what}");
                board.unfit();
                Ok(None)
            }
        }
    }

    fn seal(&self, ready: &Ready, parent: &PointId) -> Result<PointId, CaptureError> {
        let name = &self.standing.config.name;
        let parent = self.repository.reader().point(name, parent)?;
        let Some(known) = parent.summary().postgres.clone() else {
            return Err(incomplete("the parent is of something else"));
        };
        let connection = ready
            .local
            .connect("postgres")
            .or_else(|_| ready.local.connect("template1"))?;
        let session = Session::of_mirror(connection)?;
        self.point_by_blocks(session, &parent, &known)
    }
}
