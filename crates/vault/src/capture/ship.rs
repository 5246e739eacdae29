//! From the spool into the repository: tails of the open segment, whole segments when they close.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use holdfast_core::Lsn;

use super::{Capture, CaptureError};
use crate::limits;
use crate::spool::{Cluster, Segment, Stored};
use crate::standing::trouble;

/// How far the repository has what the spool has.
pub(super) struct Shipper<'a> {
    capture: &'a Capture,
    /// Per timeline, the end of what the repository has.
    ends: BTreeMap<u32, Lsn>,
    histories: BTreeSet<u32>,
}

impl Capture {
    /// Ships every [`limits::SHIP_EVERY`] until the stream's end of the channel is dropped, and then
    /// once more.
    pub(super) fn ship_until(&self, ended: &Receiver<()>) {
        let mut shipper = Shipper {
            capture: self,
            ends: BTreeMap::new(),
            histories: BTreeSet::new(),
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
        self.shipped(timeline, at);
        while at < durable {
            let Some(segment) = first(at) else { break };
            at = at.max(segment.start);
            at = self.ship_segment(cluster, segment, at, durable)?;
            self.shipped(timeline, at);
        }
        Ok(())
    }

    /// Ships one segment, or what is new of it, and returns up to where the repository has it.
    fn ship_segment(
        &self,
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
            let plan = capture
                .spool
                .plan_removal(segment.timeline, segment.end(size), size)?;
            capture.spool.perform_removal(&plan, size)?;
            return Ok(segment.end(size));
        }
        let length = durable.since(from).0.min(limits::TAIL_BYTES);
        let bytes = capture.spool.read(segment, size, from, length)?;
        if bytes.is_empty() {
            return Ok(durable);
        }
        capture.repository.put_tail(&place, from, &bytes)?;
        let shipped = u64::try_from(bytes.len()).unwrap_or(0);
        Ok(Lsn(from.0.saturating_add(shipped)))
    }

    fn shipped(&mut self, timeline: u32, end: Lsn) {
        self.ends.insert(timeline, end);
        let mut facts = self.capture.standing.facts();
        if facts.timeline <= timeline {
            facts.shipped = end;
        }
    }
}
