//! Capture of one source: its log into the spool, the spool into the repository, base backups.
//!
//! Three threads, because each waits for something else: the stream for the source and the spool's
//! disk, shipping for the repository, a base backup for both. None of them can hold up the stream.

mod base;
mod error;
mod prepare;
mod ship;
mod stream;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_core::ledger::Draft;
use holdfast_core::{Coded, Lsn, Principal, Timestamp};
use holdfast_store::ledger::Ledger;
use holdfast_wire::pg::wal::{WalReader, WalShape};
use tokio_util::sync::CancellationToken;

pub(crate) use error::CaptureError;

use crate::config::Clock;
use crate::limits;
use crate::repository::{Repository, RepositoryError, WalPlace};
use crate::source::explain;
use crate::spool::{Cluster, Segment, Spool, Stored};
use crate::standing::{Standing, trouble};
use crate::status::CaptureState;
use stream::Ended;

/// Everything that capture of one source needs.
#[derive(Clone)]
pub(crate) struct Capture {
    pub(crate) standing: Arc<Standing>,
    pub(crate) spool: Spool,
    pub(crate) repository: Repository,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
    pub(crate) stop: CancellationToken,
}

impl Capture {
    /// Captures until told to stop; returns when everything that arrived is in the repository, or at
    /// least in the spool.
    pub(crate) async fn run(self) {
        let (alive, ended) = mpsc::channel::<()>();
        let (streamer, shipper, baser) = (self.clone(), self.clone(), self);
        let stream = tokio::task::spawn_blocking(move || {
            streamer.stream_until_stopped();
            drop(alive);
        });
        let ship = tokio::task::spawn_blocking(move || shipper.ship_until(&ended));
        let base = tokio::task::spawn_blocking(move || baser.base_until_stopped());
        for task in [stream, ship, base] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of capture ended");
            }
        }
    }

    /// Finds out from the spool what of it can be trusted before the source was asked.
    pub(crate) fn recall(&self) -> Result<(), CaptureError> {
        let point = self.newest_point()?;
        self.standing.facts().point = point;
        let Some(cluster) = self.spool.cluster()? else {
            return Ok(());
        };
        let size = cluster.segment_bytes;
        let stored = self.spool.stored(size)?;
        let Some(newest) = stored.last() else {
            return Ok(());
        };
        let kept = self.log_end(&cluster, newest.segment.timeline)?;
        let whole = self.whole_records(&cluster, newest)?;
        let mut facts = self.standing.facts();
        facts.system_identifier = Some(cluster.system_identifier);
        let mut run: Option<(Segment, Lsn)> = None;
        for (index, one) in stored.iter().enumerate() {
            let is_newest = index.checked_add(1) == Some(stored.len());
            // Only the newest segment can be torn: of it, whole records alone are trusted.
            let end = if is_newest { whole } else { one.end() };
            facts.logs.insert(one.segment.timeline, end);
            facts.timeline = one.segment.timeline;
            facts.flushed = end;
            let continues = run.is_some_and(|(first, end)| {
                first.timeline == one.segment.timeline && end == one.segment.start
            });
            let first = run
                .filter(|_| continues)
                .map_or(one.segment, |(first, _)| first);
            run = Some((first, one.end()));
        }
        // A hole that was there before: only a base behind it is continued by today's log.
        if let (Some((first, _)), Some(kept)) = (run, kept)
            && kept < first.start
        {
            facts.log_from = first.start;
        }
        Ok(())
    }

    /// Returns the end of the last record of a segment whose checksum is right.
    fn whole_records(&self, cluster: &Cluster, stored: &Stored) -> Result<Lsn, CaptureError> {
        let (segment, size) = (stored.segment, cluster.segment_bytes);
        let bytes = self
            .spool
            .read(segment, size, segment.start, stored.bytes)?;
        let mut reader = WalReader::new(WalShape {
            segment_bytes: size.get_u32(),
            system_identifier: Some(cluster.system_identifier),
        });
        let read = reader.feed(segment.start, &bytes, &mut |_| Ok(()));
        if let Err(error) = read {
            tracing::warn!(
                segment = segment.name(size),
                "the spool's end is torn: {error}"
            );
        }
        Ok(reader.record_end().unwrap_or(segment.start))
    }

    fn stream_until_stopped(&self) {
        let mut wait = limits::BACKOFF_MIN;
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            match self.prepare().and_then(|prepared| self.stream(prepared)) {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Timeline) => wait = limits::BACKOFF_MIN,
                Err(CaptureError::Source(crate::source::SourceError::Stopped { .. })) => break,
                Err(error) => {
                    if began.elapsed() > limits::BACKOFF_MAX {
                        wait = limits::BACKOFF_MIN;
                    }
                    self.failed(error);
                    self.pause(wait);
                    wait = wait.saturating_mul(2).min(limits::BACKOFF_MAX);
                }
            }
        }
        let mut facts = self.standing.facts();
        let now = self.now();
        facts.stopped_at.get_or_insert(now);
        facts.state = CaptureState::Disconnected;
    }

    fn failed(&self, error: CaptureError) {
        let error = match error {
            CaptureError::Source(error) => {
                CaptureError::Source(explain(&self.standing.config, error))
            }
            error => error,
        };
        let state = if error.needs_a_person() {
            CaptureState::Failed
        } else {
            CaptureState::Disconnected
        };
        if let CaptureError::Missing { .. } = error {
            self.standing.facts().missing = true;
            self.note("source.log_missing", |draft| {
                draft.with("after", self.standing.facts().flushed.to_string())
            });
        }
        let trouble = trouble(&error);
        if self.standing.stopped(state, trouble.clone(), self.now()) {
            let source = self.standing.config.name.as_str();
            tracing::warn!(source, code = trouble.code, "{}", trouble.what);
        }
    }

    /// Notes that the stream runs from a segment on.
    fn streaming(&self, from: Segment) {
        let mut facts = self.standing.facts();
        if facts.missing {
            facts.missing = false;
            facts.log_from = from.start;
        }
        facts.state = CaptureState::Streaming;
        facts.trouble = None;
        facts.stopped_at = None;
    }

    fn pause(&self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while !self.stop.is_cancelled() && Instant::now() < deadline {
            std::thread::sleep(limits::POLL.min(wait));
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Writes down in the ledger what happened; capture goes on even when that fails, because what it
    /// does takes nothing away.
    fn note(&self, kind: &str, fill: impl FnOnce(Draft) -> Draft) {
        let draft = Draft::new(kind, Principal::service("vault"), self.now())
            .source(self.standing.config.name.clone());
        if let Err(error) = self.ledger.append(fill(draft)) {
            let code = error.code();
            tracing::error!(%code, kind, "the ledger cannot be written: {error}");
        }
    }

    fn place(&self, cluster: &Cluster, timeline: u32) -> WalPlace {
        WalPlace {
            source: self.standing.config.name.clone(),
            system_identifier: cluster.system_identifier,
            timeline,
            segment_bytes: cluster.segment_bytes.get_u32(),
        }
    }

    fn log_end(&self, cluster: &Cluster, timeline: u32) -> Result<Option<Lsn>, RepositoryError> {
        self.repository.log_end(&self.place(cluster, timeline))
    }

    /// Returns the cluster that the repository knows under this name.
    fn repository_cluster(&self, found: Cluster) -> Result<Option<Cluster>, RepositoryError> {
        let base = self.repository.newest_base(&self.standing.config.name)?;
        Ok(base.map(|base| Cluster {
            system_identifier: base.system_identifier,
            ..found
        }))
    }
}
