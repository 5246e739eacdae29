//! From the spool into the repository: tails of the open segment, whole segments when they close.
//!
//! One thread a source decides, and sleeps while nothing arrives; the uploads run beside it, several
//! at a time, and their memory is counted for all sources together.

mod line;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::Lsn;
use holdfast_wire::pg::wal::WalShape;
use tokio::runtime::Handle;

use super::{Capture, CaptureError};
use crate::config::AckAt;
use crate::limits;
use crate::repository::log::Origin;
use crate::spool::{Cluster, Segment, Stored};
use crate::standing::trouble;
use crate::watch::{LogWatch, WatchError};
use line::{Cut, CutKind, Line, Next, Reach};
use upload::{Payload, Upload};

pub(crate) use upload::Budget;
pub(super) use upload::Done;

/// How far the repository has what the spool has.
struct Shipper<'a> {
    capture: &'a Capture,
    runtime: Handle,
    cluster: Option<Cluster>,
    lines: BTreeMap<u32, Line<Arc<Payload>>>,
    /// Up to where closed segments were removed from the spool.
    removed: BTreeMap<u32, Lsn>,
    histories: BTreeSet<u32>,
    /// Reads the log of one timeline as it becomes safe.
    watch: Option<(u32, LogWatch)>,
    /// What was lost last and is not stored yet.
    lost: Option<Cut>,
    /// From which position on the stream is to wake us.
    wanted: Lsn,
    /// When to try again after a failure.
    again: Option<Instant>,
    wait: Duration,
}

impl Capture {
    /// Ships whatever becomes durable, until the stream has ended and nothing is left.
    pub(super) fn ship_until_ended(&self, runtime: Handle) {
        let mut shipper = Shipper {
            capture: self,
            runtime,
            cluster: None,
            lines: BTreeMap::new(),
            removed: BTreeMap::new(),
            histories: BTreeSet::new(),
            watch: None,
            lost: None,
            wanted: Lsn::ZERO,
            again: None,
            wait: limits::BACKOFF_MIN,
        };
        let mut deadline = Some(Instant::now());
        let mut has_ended = false;
        loop {
            let news = self.links.board.take(deadline);
            for done in news.done {
                shipper.finish(done);
            }
            if news.ended && !has_ended {
                // Whatever failed before is tried once more.
                has_ended = true;
                shipper.again = None;
            }
            self.links.board.want(Lsn::ZERO);
            shipper.wanted = Lsn(u64::MAX);
            deadline = shipper.go_on(has_ended);
            self.links.board.want(shipper.wanted);
            if has_ended && shipper.is_still() && (shipper.again.is_some() || deadline.is_none()) {
                break;
            }
        }
    }
}

impl Shipper<'_> {
    /// Does what can be done now and returns when to look again; `None` is when something happens.
    fn go_on(&mut self, has_ended: bool) -> Option<Instant> {
        let now = Instant::now();
        if let Some(again) = self.again.filter(|again| *again > now) {
            return (!has_ended).then_some(again);
        }
        self.again = None;
        match self.step(has_ended, now) {
            Ok(next) => {
                if self.lost.is_none() && !self.lines.values().any(Line::has_failed) {
                    self.capture.standing.facts().ship_trouble = None;
                }
                next
            }
            Err(error) => {
                self.fail(&error);
                self.again
            }
        }
    }

    fn is_still(&self) -> bool {
        self.lines.values().all(Line::is_still)
    }

    fn step(&mut self, ended: bool, now: Instant) -> Result<Option<Instant>, CaptureError> {
        let capture = self.capture;
        let cluster = match self.cluster {
            Some(cluster) => cluster,
            None => match capture.spool.cluster()? {
                Some(cluster) => *self.cluster.insert(cluster),
                None => {
                    self.wanted = Lsn::ZERO;
                    return Ok(None);
                }
            },
        };
        let logs = capture.standing.facts().logs.clone();
        self.put_histories(&cluster, logs.keys())?;
        let ended = ended || capture.links.board.is_hurried();
        let mut next: Option<Instant> = None;
        let newest = logs.last_key_value().map(|(timeline, _)| *timeline);
        for (timeline, durable) in logs {
            if !self.lines.contains_key(&timeline) && !self.begin(&cluster, timeline)? {
                self.wanted = Lsn::ZERO;
                continue;
            }
            let reach = Reach {
                durable,
                ended,
                now,
            };
            let at = self.send_all(&cluster, timeline, reach)?;
            next = next.into_iter().chain(at).min();
            let line = self.lines.get(&timeline);
            if let Some(line) = line.filter(|_| Some(timeline) == newest) {
                self.wanted = self.wanted.min(line.wants(durable, at));
            }
        }
        Ok(next)
    }

    fn put_histories<'b>(
        &mut self,
        cluster: &Cluster,
        timelines: impl Iterator<Item = &'b u32>,
    ) -> Result<(), CaptureError> {
        let new: Vec<u32> = timelines
            .filter(|timeline| **timeline > 1 && !self.histories.contains(timeline))
            .copied()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        for (timeline, text) in self.capture.spool.histories()? {
            if self.histories.insert(timeline) {
                let place = self.capture.place(cluster, timeline);
                let put = self.capture.repository.put_history(&place, &text);
                if put.is_err() {
                    self.histories.remove(&timeline);
                }
                put?;
            }
        }
        self.histories.extend(new);
        Ok(())
    }

    /// Finds out how far the repository is with a timeline; `false` when the spool has nothing of it.
    ///
    /// Whatever is older than the spool's oldest segment was stored before that was removed.
    fn begin(&mut self, cluster: &Cluster, timeline: u32) -> Result<bool, CaptureError> {
        let (capture, size) = (self.capture, cluster.segment_bytes);
        let stored: Vec<Stored> = capture.spool.stored(size)?;
        let mut own = stored.iter().filter(|one| one.segment.timeline == timeline);
        let Some(first) = own.clone().next() else {
            return Ok(false);
        };
        let log = capture
            .repository
            .reader()
            .log(&capture.place(cluster, timeline))?;
        let done = log
            .end_from(first.segment.start)
            .unwrap_or(first.segment.start);
        let mut line = Line::new(timeline, done, size, capture.standing.config.ack);
        let is_whole = |segment: Segment| {
            let whole = |origin: &Origin| matches!(origin, Origin::Segment(_));
            let mut pieces = log.pieces.iter();
            pieces.any(|piece| piece.start == segment.start && whole(&piece.origin))
        };
        for one in own.by_ref() {
            if one.segment.end(size) <= done && !is_whole(one.segment) {
                line.owe(one.segment);
            }
        }
        self.lines.insert(timeline, line);
        self.shipped(timeline, done);
        let open = Segment::containing(timeline, done, size);
        if open.start < done && stored.iter().any(|one| one.segment == open) {
            let known = done.since(open.start).0;
            let bytes = capture.spool.read(open, size, open.start, known)?;
            self.watch(cluster, open.timeline, (open.start, &bytes));
        }
        Ok(true)
    }

    /// Sends whatever may go now and returns when more may go.
    fn send_all(
        &mut self,
        cluster: &Cluster,
        timeline: u32,
        reach: Reach,
    ) -> Result<Option<Instant>, CaptureError> {
        loop {
            let Some(durable) = self.durable_here(cluster, timeline, reach.durable)? else {
                return Ok(None);
            };
            let Some(line) = self.lines.get_mut(&timeline) else {
                return Ok(None);
            };
            line.recover();
            let reach = Reach { durable, ..reach };
            let cut = match line.next(reach) {
                Next::At(at) => return Ok(Some(at)),
                Next::Wait => return Ok(None),
                Next::Cut(cut) => cut,
            };
            let Some(payload) = Payload::read(self.capture, cluster, cut)? else {
                return Ok(Some(reach.now + limits::POLL));
            };
            let payload = Arc::new(payload);
            line.begun(cut, Arc::clone(&payload), reach.now);
            let upload = Upload::new(Arc::clone(&self.capture.links), cut);
            let repository = self.capture.repository.clone();
            let place = self.capture.place(cluster, timeline);
            self.runtime.spawn_blocking(move || {
                let (from, bytes) = payload.content();
                let result = match cut.kind {
                    CutKind::Segment | CutKind::Whole => {
                        repository.put_segment(&place, from, bytes)
                    }
                    CutKind::Tail => repository.put_tail(&place, from, bytes),
                };
                // The memory is given back before the shipper asks for more.
                drop(payload);
                upload.ends(result);
            });
        }
    }

    /// Returns up to where the spool has the log that continues what was sent: the log may have a hole,
    /// and then what is before it goes first. Nothing is returned until all of that is stored.
    fn durable_here(
        &mut self,
        cluster: &Cluster,
        timeline: u32,
        durable: Lsn,
    ) -> Result<Option<Lsn>, CaptureError> {
        let log_from = self.capture.standing.facts().log_from;
        let Some(line) = self.lines.get_mut(&timeline) else {
            return Ok(None);
        };
        if durable <= log_from || line.sent() >= log_from {
            return Ok(Some(durable));
        }
        let stored = self.capture.spool.stored(cluster.segment_bytes)?;
        let before = stored
            .iter()
            .filter(|one| one.segment.timeline == timeline && one.segment.start < log_from);
        let end = before.map(Stored::end).max().unwrap_or_default();
        if line.sent() < end {
            return Ok(Some(end));
        }
        if !line.is_still() {
            return Ok(None);
        }
        let place = self.capture.place(cluster, timeline);
        let log = self.capture.repository.reader().log(&place)?;
        line.jump(log.end_from(log_from).unwrap_or(log_from));
        let done = line.done();
        self.shipped(timeline, done);
        Ok(Some(durable))
    }

    fn finish(&mut self, done: Done) {
        let Done { cut, result } = done;
        let (Some(cluster), Some(line)) = (self.cluster, self.lines.get_mut(&cut.timeline)) else {
            return;
        };
        if let Err(error) = result {
            line.lost(cut);
            self.lost = Some(cut);
            self.fail(&error.into());
            return;
        }
        let safe = line.stored(cut);
        let (end, whole) = (line.done(), line.whole_until());
        let is_mended = self.lost.is_some_and(|lost| {
            lost.timeline == cut.timeline
                && (lost == cut || (lost.kind != CutKind::Whole && lost.end <= end))
        });
        if is_mended {
            self.lost = None;
            self.wait = limits::BACKOFF_MIN;
        }
        // Read first: whoever sees that a position has come relies on its commits being known.
        let is_more = !safe.is_empty();
        for payload in safe {
            self.watch(&cluster, cut.timeline, payload.content());
        }
        if is_more {
            self.shipped(cut.timeline, end);
        }
        if let Err(error) = self.remove(&cluster, cut.timeline, whole) {
            self.fail(&error);
        }
    }

    /// Removes from the spool the closed segments that the repository has whole.
    fn remove(&mut self, cluster: &Cluster, timeline: u32, whole: Lsn) -> Result<(), CaptureError> {
        let removed = self.removed.entry(timeline).or_default();
        if *removed >= whole {
            return Ok(());
        }
        let (spool, size) = (&self.capture.spool, cluster.segment_bytes);
        let plan = spool.plan_removal(timeline, whole, size)?;
        spool.perform_removal(&plan, size)?;
        *removed = whole;
        Ok(())
    }

    /// Notes a failure: it is told once, and tried again a little later each time.
    fn fail(&mut self, error: &CaptureError) {
        let trouble = trouble(error);
        let mut facts = self.capture.standing.facts();
        if facts.ship_trouble.is_none() {
            let source = self.capture.standing.config.name.as_str();
            tracing::warn!(source, code = trouble.code, "{}", trouble.what);
        }
        facts.ship_trouble = Some(trouble);
        drop(facts);
        self.again = Some(Instant::now() + self.wait);
        self.wait = self.wait.saturating_mul(2).min(limits::BACKOFF_MAX);
    }

    /// Reads what has just become safe: newest commit, and what was destroyed.
    fn watch(&mut self, cluster: &Cluster, timeline: u32, (start, bytes): (Lsn, &[u8])) {
        let capture = self.capture;
        capture.changes.feed(cluster, timeline, start, bytes);
        let fresh = || {
            let shape = WalShape {
                segment_bytes: cluster.segment_bytes.get_u32(),
                system_identifier: Some(cluster.system_identifier),
            };
            LogWatch::new(
                capture.standing.config.name.clone(),
                shape,
                capture.ledger.clone(),
                capture.clock.clone(),
            )
        };
        let watch = match &mut self.watch {
            // After a hole or on another timeline nothing of before continues.
            Some((of, watch))
                if *of == timeline && watch.position().is_none_or(|next| start <= next) =>
            {
                watch
            }
            other => &mut other.insert((timeline, fresh())).1,
        };
        if let Err(error) = watch.feed(start, bytes) {
            let source = capture.standing.config.name.as_str();
            let trouble = trouble(&error);
            let is_new = capture.standing.facts().log_trouble.is_none();
            if is_new {
                tracing::warn!(source, code = trouble.code, "{}", trouble.what);
            }
            if matches!(error, WatchError::Wal { .. }) {
                let read = self.watch.as_ref().and_then(|(_, w)| w.record_end());
                self.watch = None;
                capture.standing.facts().log_trouble = Some(trouble);
                capture.damaged(read.unwrap_or(start).max(start));
            }
        }
        let newest = self.watch.as_ref().and_then(|(_, w)| w.newest_commit());
        let mut facts = capture.standing.facts();
        facts.newest_commit = facts.newest_commit.max(newest);
        facts.safe_until = facts.newest_commit;
    }

    fn shipped(&mut self, timeline: u32, end: Lsn) {
        let mut facts = self.capture.standing.facts();
        facts.shipped_logs.insert(timeline, end);
        if facts.timeline <= timeline {
            facts.shipped = end;
        }
        drop(facts);
        if self.capture.standing.config.ack == AckAt::Repository {
            self.capture.links.stream.wake();
        }
    }
}
