//! Feeding a mirror: the log is read ahead, and only what may be replayed is put where it looks.

use holdfast_core::{Lsn, Timestamp};
use holdfast_wire::pg::wal::WalShape;

use super::MirrorError;
use super::log::KeptLog;
use crate::restore::Standby;
use crate::spool::Segment;
use crate::watch::{Brink, Checkpointed, CutAt, LookAhead};

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It stands before something that destroys.
    Brink(Brink),
    /// Everything up to the cut was fed.
    Cut,
    /// Something was read or fed.
    Fed,
    /// There is nothing more at the moment.
    Idle,
}

/// Where a timeline was left, and for which.
struct Left {
    at: Lsn,
    next: u32,
    histories: Vec<(u32, Vec<u8>)>,
}

/// Feeds one mirror.
pub(super) struct Feeder {
    log: KeptLog,
    standby: Standby,
    timeline: u32,
    /// The mirror has the log up to here.
    fed: Lsn,
    /// Where the look ahead began.
    begins: Lsn,
    ahead: LookAhead,
    /// What was read ahead and not fed yet, from `fed` on.
    pending: Vec<u8>,
    newest_commit: Option<Timestamp>,
    /// The end of the last record that was given before the look ahead began.
    given: Lsn,
    /// No commit that lies before what was read is newer than this.
    before_that: Timestamp,
    /// Where the log is cut off, once it was asked to take over.
    cut: Option<CutAt>,
    /// What could be read of the log ended in the middle.
    is_torn: bool,
}

impl Feeder {
    /// Begins with the segment that contains `from`, which is replayed up to there already.
    ///
    /// What destroys before `minimum` does not stop it: before that the mirror is not consistent.
    pub(super) fn begin(
        log: KeptLog,
        standby: Standby,
        (timeline, from): (u32, Lsn),
        (minimum, before_that): (Lsn, Timestamp),
    ) -> Self {
        let begins = log.cluster.segment_bytes.floor(from);
        let ahead = LookAhead::careful(shape(&log), minimum);
        Self {
            log,
            standby,
            timeline,
            fed: begins,
            begins,
            ahead,
            pending: Vec::new(),
            newest_commit: None,
            before_that,
            given: Lsn::ZERO,
            cut: None,
            is_torn: false,
        }
    }

    pub(super) fn timeline(&self) -> u32 {
        self.timeline
    }

    /// Returns the end of the last record that the mirror may replay now.
    pub(super) fn behind(&self) -> Lsn {
        self.given.max(self.ahead.behind())
    }

    /// Returns the newest commit that the mirror was given.
    pub(super) fn newest_commit(&self) -> Option<Timestamp> {
        self.newest_commit.max(self.ahead.newest_commit())
    }

    /// Returns the newest checkpoint of the source that the mirror has replayed.
    pub(super) fn checkpoint(&mut self, replayed: Lsn) -> Option<Checkpointed> {
        self.ahead.checkpoint(replayed)
    }

    /// Lets the log go on past the brink.
    pub(super) fn release(&mut self) {
        self.ahead.release();
    }

    /// Feeds from now on what lies before the cut, whatever it does; `false` when that is past.
    pub(super) fn aim(&mut self, cut: CutAt) -> bool {
        let is_past = match cut {
            CutAt::After(lsn) | CutAt::Before(lsn) => lsn < self.fed,
            CutAt::Time(time) => time < self.before_that || self.newest_commit() > Some(time),
            CutAt::Never => false,
        };
        if is_past {
            return false;
        }
        self.newest_commit = self.newest_commit();
        self.given = self.behind();
        self.cut = Some(cut);
        self.begins = self.log.cluster.segment_bytes.floor(self.fed);
        self.ahead = LookAhead::until(shape(&self.log), self.fed, cut);
        self.pending.clear();
        true
    }

    /// Reads ahead and feeds what may be fed.
    pub(super) fn step(&mut self) -> Result<Step, MirrorError> {
        let has_fed = self.feed()?;
        if let Some(brink) = self.ahead.brink() {
            return Ok(Step::Brink(brink));
        }
        if self.ahead.is_cut() {
            return Ok(Step::Cut);
        }
        if let Some(at) = self.ahead.tablespace() {
            return Err(MirrorError::Tablespace { at });
        }
        let left = self.left()?;
        let at = self.ahead.position().unwrap_or(self.begins);
        let end = match self.log.end(self.timeline)? {
            Some(end) => Some(end),
            // An older timeline is in the repository alone.
            None => self.log.end_anywhere(self.timeline, at)?,
        };
        let end = end.unwrap_or(at);
        let end = left.as_ref().map_or(end, |left| end.min(left.at));
        if at < end && !self.is_torn {
            let bytes = self.log.read(self.timeline, at, end)?;
            if !bytes.is_empty() {
                self.take(at, &bytes)?;
                return Ok(Step::Fed);
            }
        }
        match left {
            Some(left) if at >= left.at => self.turn(left).map(|()| Step::Fed),
            _ if has_fed => Ok(Step::Fed),
            _ => Ok(Step::Idle),
        }
    }

    fn take(&mut self, at: Lsn, bytes: &[u8]) -> Result<(), MirrorError> {
        if let Err(source) = self.ahead.feed(at, bytes) {
            // Without a vault nobody has looked at the end of the spool: it may be torn.
            if self.log.standing.is_some() {
                return Err(MirrorError::Log { at, source });
            }
            self.is_torn = true;
        }
        let next = self.fed.0.saturating_add(length(&self.pending));
        let skip = usize::try_from(next.saturating_sub(at.0)).unwrap_or(usize::MAX);
        self.pending
            .extend_from_slice(bytes.get(skip..).unwrap_or_default());
        Ok(())
    }

    fn feed(&mut self) -> Result<bool, MirrorError> {
        let limit = self.ahead.limit();
        let free = usize::try_from(limit.since(self.fed).0).unwrap_or(usize::MAX);
        let free = free.min(self.pending.len());
        if limit <= self.fed || free == 0 {
            return Ok(false);
        }
        let rest = self.pending.split_off(free);
        let bytes = std::mem::replace(&mut self.pending, rest);
        let size = self.log.cluster.segment_bytes;
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            let segment = Segment::containing(self.timeline, self.fed, size);
            let room = segment.end(size).since(self.fed).0;
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            let offset = self.fed.since(segment.start).0;
            self.standby
                .put_log(&segment.name(size), (offset, now), size.get())?;
            self.fed = Lsn(self.fed.0.saturating_add(length(now)));
            bytes = later;
        }
        Ok(true)
    }

    /// Tells where the source has left this timeline, once capture follows another.
    fn left(&self) -> Result<Option<Left>, MirrorError> {
        let is_newest = |standing: &std::sync::Arc<crate::standing::Standing>| {
            standing.facts().timeline <= self.timeline
        };
        if self.log.standing.as_ref().is_some_and(is_newest) {
            return Ok(None);
        }
        let histories = self.log.histories(self.timeline)?;
        let leaving = histories.iter().find_map(|(timeline, _, history)| {
            let at = history.left_at(self.timeline)?;
            let next = history
                .switches
                .iter()
                .map(|switch| switch.timeline)
                .find(|next| *next > self.timeline)
                .unwrap_or(*timeline);
            Some((at, next))
        });
        let Some((at, next)) = leaving else {
            return Ok(None);
        };
        if self.fed > at {
            return Err(MirrorError::Diverged {
                timeline: self.timeline,
                left: at,
                fed: self.fed,
            });
        }
        let texts = histories.into_iter();
        let histories = texts.map(|(timeline, text, _)| (timeline, text)).collect();
        Ok(Some(Left {
            at,
            next,
            histories,
        }))
    }

    /// Goes on with the next timeline, whose first file repeats the end of this one.
    fn turn(&mut self, left: Left) -> Result<(), MirrorError> {
        for (timeline, text) in &left.histories {
            self.standby.put_history(*timeline, text)?;
        }
        self.newest_commit = self.newest_commit();
        self.given = self.behind();
        self.timeline = left.next;
        self.fed = self.log.cluster.segment_bytes.floor(left.at);
        self.begins = self.fed;
        self.ahead = match self.cut {
            Some(cut) => LookAhead::until(shape(&self.log), left.at, cut),
            None => LookAhead::careful(shape(&self.log), left.at),
        };
        self.pending.clear();
        Ok(())
    }
}

fn shape(log: &KeptLog) -> WalShape {
    WalShape {
        segment_bytes: log.cluster.segment_bytes.get_u32(),
        system_identifier: Some(log.cluster.system_identifier),
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
