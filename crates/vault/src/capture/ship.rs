//! From the spool into the repository: tails of the open segment, whole segments when they close.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use holdfast_core::Lsn;
use holdfast_wire::pg::wal::WalShape;

use super::{Capture, CaptureError};
use crate::limits;
use crate::spool::{Cluster, Segment, Stored};
use crate::standing::trouble;
use crate::watch::{LogWatch, WatchError};

/// How far the repository has what the spool has.
pub(super) struct Shipper<'a> {
    capture: &'a Capture,
    /// Per timeline, the end of what the repository has.
    ends: BTreeMap<u32, Lsn>,
    histories: BTreeSet<u32>,
    /// Reads the log of one timeline as it is shipped.
    watch: Option<(u32, LogWatch)>,
}

impl Capture {
    /// Ships every [`limits::SHIP_EVERY`] until the stream's end of the channel is dropped, and then
    /// once more.
    pub(super) fn ship_until(&self, ended: &Receiver<()>) {
        let mut shipper = Shipper {
            capture: self,
            ends: BTreeMap::new(),
            histories: BTreeSet::new(),
            watch: None,
        };
        loop {
            let waited = ended.recv_timeout(limits::SHIP_EVERY);
            let is_last = matches!(waited, Err(RecvTimeoutError::Disconnected));
            let result = shipper.ship();
            let trouble = result.err().map(|error| trouble(&error));
            let mut facts = self.standing.facts();
            if let Some(new) = trouble.as_ref().filter(|_| facts.ship_trouble.is_none()) {
                let source = self.standing.config.name.as_str();
                tracing::warn!(source, code = new.code, "{}", new.what);
            }
            facts.ship_trouble = trouble;
            if is_last {
                break;
            }
        }
    }
}

impl Shipper<'_> {
    fn ship(&mut self) -> Result<(), CaptureError> {
        let capture = self.capture;
        let Some(cluster) = capture.spool.cluster()? else {
            return Ok(());
        };
        for (timeline, text) in capture.spool.histories()? {
            if !self.histories.contains(&timeline) {
                let place = capture.place(&cluster, timeline);
                capture.repository.put_history(&place, &text)?;
                self.histories.insert(timeline);
            }
        }
        // The ends are read before the files: what is there up to them is durable.
        let logs = capture.standing.facts().logs.clone();
        let stored = capture.spool.stored(cluster.segment_bytes)?;
        for (timeline, durable) in logs {
            self.ship_timeline(&cluster, timeline, durable, &stored)?;
        }
        Ok(())
    }

    fn ship_timeline(
        &mut self,
        cluster: &Cluster,
        timeline: u32,
        durable: Lsn,
        stored: &[Stored],
    ) -> Result<(), CaptureError> {
        let size = cluster.segment_bytes;
        let first = |after: Lsn| {
            stored
                .iter()
                .map(|stored| stored.segment)
                .find(|segment| segment.timeline == timeline && segment.end(size) > after)
        };
        let mut at = match self.ends.get(&timeline) {
            Some(end) => *end,
            None => match (self.capture.log_end(cluster, timeline)?, first(Lsn::ZERO)) {
                (Some(end), _) => end,
                (None, Some(segment)) => segment.start,
                (None, None) => return Ok(()),
            },
        };
        let is_first = !self.ends.contains_key(&timeline);
        self.shipped(timeline, at);
        if is_first && let Some(segment) = first(at).filter(|segment| segment.start < at) {
            let known = at.since(segment.start).0;
            let bytes = self
                .capture
                .spool
                .read(segment, size, segment.start, known)?;
            self.watch(cluster, segment, segment.start, &bytes);
        }
        while at < durable {
            let Some(segment) = first(at) else { break };
            let from = at.max(segment.start);
            let end = self.ship_segment(cluster, segment, from, durable)?;
            if end <= at {
                break;
            }
            at = end;
            self.shipped(timeline, at);
        }
        Ok(())
    }

    /// Ships one segment, or what is new of it, and returns up to where the repository has it.
    fn ship_segment(
        &mut self,
        cluster: &Cluster,
        segment: Segment,
        from: Lsn,
        durable: Lsn,
    ) -> Result<Lsn, CaptureError> {
        let capture = self.capture;
        let size = cluster.segment_bytes;
        let place = capture.place(cluster, segment.timeline);
        if durable >= segment.end(size) {
            let bytes = capture
                .spool
                .read(segment, size, segment.start, size.get())?;
            capture
                .repository
                .put_segment(&place, segment.start, &bytes)?;
            self.watch(cluster, segment, segment.start, &bytes);
            let plan = capture
                .spool
                .plan_removal(segment.timeline, segment.end(size), size)?;
            capture.spool.perform_removal(&plan, size)?;
            return Ok(segment.end(size));
        }
        let length = durable.since(from).0.min(limits::TAIL_BYTES);
        let bytes = capture.spool.read(segment, size, from, length)?;
        if bytes.is_empty() {
            return Ok(from);
        }
        capture.repository.put_tail(&place, from, &bytes)?;
        self.watch(cluster, segment, from, &bytes);
        let shipped = u64::try_from(bytes.len()).unwrap_or(0);
        Ok(Lsn(from.0.saturating_add(shipped)))
    }

    /// Reads what has just become safe: newest commit, and what was destroyed.
    fn watch(&mut self, cluster: &Cluster, segment: Segment, start: Lsn, bytes: &[u8]) {
        let capture = self.capture;
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
            Some((timeline, watch))
                if *timeline == segment.timeline
                    && watch.position().is_none_or(|next| start <= next) =>
            {
                watch
            }
            other => &mut other.insert((segment.timeline, fresh())).1,
        };
        if let Err(error) = watch.feed(start, bytes) {
            let source = capture.standing.config.name.as_str();
            let trouble = trouble(&error);
            tracing::warn!(source, code = trouble.code, "{}", trouble.what);
            if matches!(error, WatchError::Wal { .. }) {
                self.watch = None;
            }
        }
        let newest = self.watch.as_ref().and_then(|(_, w)| w.newest_commit());
        let mut facts = capture.standing.facts();
        facts.newest_commit = facts.newest_commit.max(newest);
        facts.safe_until = facts.newest_commit;
    }

    fn shipped(&mut self, timeline: u32, end: Lsn) {
        self.ends.insert(timeline, end);
        let mut facts = self.capture.standing.facts();
        facts.shipped_logs.insert(timeline, end);
        if facts.timeline <= timeline {
            facts.shipped = end;
        }
    }
}
