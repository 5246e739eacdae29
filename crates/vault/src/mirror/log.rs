//! Where the mirror's log comes from: the spool, and the repository for what the spool no longer has.

use std::io;
use std::sync::Arc;

use holdfast_core::{Lsn, SourceName};
use holdfast_wire::pg::replication::TimelineHistory;

use super::MirrorError;
use crate::limits;
use crate::repository::{Reader, WalPlace};
use crate::restore::log::segment;
use crate::spool::{Cluster, Segment, Spool, SpoolError};
use crate::standing::Standing;

/// Reads the log of one source.
pub(super) struct KeptLog {
    pub(super) source: SourceName,
    pub(super) spool: Spool,
    pub(super) reader: Reader,
    pub(super) cluster: Cluster,
    /// What capture says of the spool; without it the spool itself is believed.
    pub(super) standing: Option<Arc<Standing>>,
    /// A segment that was read from the repository.
    fetched: Option<(Segment, Vec<u8>)>,
}

impl KeptLog {
    pub(super) fn new(
        source: SourceName,
        (spool, reader): (Spool, Reader),
        cluster: Cluster,
        standing: Option<Arc<Standing>>,
    ) -> Self {
        Self {
            source,
            spool,
            reader,
            cluster,
            standing,
            fetched: None,
        }
    }

    fn place(&self, timeline: u32) -> WalPlace {
        WalPlace {
            source: self.source.clone(),
            system_identifier: self.cluster.system_identifier,
            timeline,
            segment_bytes: self.cluster.segment_bytes.get_u32(),
        }
    }

    /// Returns up to where a timeline's log is durable, as far as that is known without asking the
    /// repository.
    pub(super) fn end(&self, timeline: u32) -> Result<Option<Lsn>, MirrorError> {
        if let Some(standing) = &self.standing {
            return Ok(standing.facts().logs.get(&timeline).copied());
        }
        let stored = self.spool.stored(self.cluster.segment_bytes)?;
        let of_timeline = stored.iter().rfind(|one| one.segment.timeline == timeline);
        Ok(of_timeline.map(crate::spool::Stored::end))
    }

    /// Returns up to where spool and repository have a timeline's log from `from` on.
    pub(super) fn end_anywhere(
        &self,
        timeline: u32,
        from: Lsn,
    ) -> Result<Option<Lsn>, MirrorError> {
        let known = self.end(timeline)?;
        let kept = self.reader.log(&self.place(timeline))?.end_from(from);
        Ok(known.max(kept))
    }

    /// Reads what is there of the log from `at` on, up to `end`; empty when nothing is.
    pub(super) fn read(
        &mut self,
        timeline: u32,
        at: Lsn,
        end: Lsn,
    ) -> Result<Vec<u8>, MirrorError> {
        let size = self.cluster.segment_bytes;
        let wanted = Segment::containing(timeline, at, size);
        let length = end.min(wanted.end(size)).since(at).0;
        let length = length.min(limits::MIRROR_BYTES);
        if length == 0 {
            return Ok(Vec::new());
        }
        match self.spool.read(wanted, size, at, length) {
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
            Ok(_) => {}
            // The repository has what is no longer here.
            Err(SpoolError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        self.fetch(wanted)?;
        let Some((_, whole)) = self
            .fetched
            .as_ref()
            .filter(|(segment, _)| *segment == wanted)
        else {
            return Ok(Vec::new());
        };
        let from = usize::try_from(at.since(wanted.start).0).unwrap_or(usize::MAX);
        let to = from.saturating_add(usize::try_from(length).unwrap_or(0));
        let there = whole.get(from..to.min(whole.len())).unwrap_or_default();
        Ok(there.to_vec())
    }

    fn fetch(&mut self, wanted: Segment) -> Result<(), MirrorError> {
        let whole = usize::try_from(self.cluster.segment_bytes.get()).unwrap_or(usize::MAX);
        let is_whole =
            |(segment, bytes): &(Segment, Vec<u8>)| *segment == wanted && bytes.len() >= whole;
        if self.fetched.as_ref().is_some_and(is_whole) {
            return Ok(());
        }
        let at = self.place(wanted.timeline);
        let log = self.reader.log(&at)?;
        let pieces: Vec<_> = log.pieces.iter().collect();
        let bytes = segment(&self.reader, &at, &pieces, wanted.start)?;
        self.fetched = Some((wanted, bytes));
        Ok(())
    }

    /// Returns the histories that lead on from a timeline, newest first, each with its text.
    pub(super) fn histories(
        &self,
        after: u32,
    ) -> Result<Vec<(u32, Vec<u8>, TimelineHistory)>, MirrorError> {
        let mut found: Vec<(u32, Vec<u8>, TimelineHistory)> = Vec::new();
        let newest = self
            .standing
            .as_ref()
            .map_or(u32::MAX, |standing| standing.facts().timeline);
        let mut texts = self.spool.histories()?;
        if texts.is_empty() && self.standing.is_none() {
            for timeline in self.reader.histories(&self.place(after))? {
                texts.push((timeline, self.reader.history(&self.place(timeline))?));
            }
        }
        for (timeline, text) in texts {
            let is_wanted = timeline > after && timeline <= newest;
            if let Some(history) = is_wanted
                .then(|| TimelineHistory::parse(&text).ok())
                .flatten()
            {
                found.push((timeline, text, history));
            }
        }
        found.sort_by_key(|(timeline, _, _)| std::cmp::Reverse(*timeline));
        Ok(found)
    }
}
