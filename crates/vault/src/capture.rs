//! Capture of one source: its log into the spool, the spool into the repository, base backups.
//!
//! The stream has a thread, because it waits for the source and for the spool's disk, and shipping
//! another. Both sleep while the source is quiet. A base backup takes a thread only while it is taken.
//! None of them can hold up the stream.

mod base;
mod bound;
mod error;
mod heal;
mod incremental;
mod links;
mod pace;
mod prepare;
mod ship;
mod slot;
mod stream;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_core::ledger::Draft;
use holdfast_core::{Coded, Lsn, Principal, Timestamp};
use holdfast_store::ledger::Ledger;
use holdfast_wire::pg::wal::{WalReader, WalShape};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(crate) use error::CaptureError;
pub(crate) use incremental::ChangeLog;
pub(crate) use links::Waker;
pub(crate) use ship::Budget;

use crate::config::{Clock, PointsConfig};
use crate::limits;
use crate::repository::{Repository, RepositoryError, WalPlace};
use crate::source::explain;
use crate::spool::{Cluster, Segment, Spool, SpoolError, Stored};
use crate::standing::{Standing, trouble};
use crate::status::{CaptureState, ProofStatus};
use links::Links;
use stream::Ended;

/// Everything that capture of one source needs.
#[derive(Clone)]
pub(crate) struct Capture {
    pub(crate) standing: Arc<Standing>,
    pub(crate) spool: Spool,
    pub(crate) repository: Repository,
    pub(crate) ledger: Ledger,
    pub(crate) clock: Clock,
    pub(crate) links: Arc<Links>,
    pub(crate) budget: Budget,
    /// The repository's folder, where it is one: its disk is everybody's.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) points: PointsConfig,
    /// Which blocks the log changed, as far as it was shipped.
    pub(crate) changes: ChangeLog,
    pub(crate) stop: CancellationToken,
}

/// A thread of ours, and word of its end.
struct Part {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Part {
    fn begin(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (ends, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            let _ends = ends;
            work();
        })?;
        Ok(Self { thread, ended })
    }

    async fn ended(self) {
        // Its half of the channel is dropped, whatever ends it.
        let _ = self.ended.await;
        if self.thread.join().is_err() {
            tracing::error!("a part of capture ended by a defect");
        }
    }
}

/// Lets the shipper end when the stream has ended, whatever ended it.
struct EndsStream<'a>(&'a Capture);

impl Drop for EndsStream<'_> {
    fn drop(&mut self) {
        self.0.links.board.end();
    }
}

impl Capture {
    /// Makes the links between the parts of one source's capture.
    pub(crate) fn links(spool: &Spool) -> Result<Arc<Links>, SpoolError> {
        let failed = |source| SpoolError::Io {
            step: "make a signal for",
            path: spool.folder().to_owned(),
            source,
        };
        Links::new().map(Arc::new).map_err(failed)
    }

    /// Captures until told to stop; returns when everything that arrived is in the repository, or at
    /// least in the spool.
    pub(crate) async fn run(self) {
        let (stop, links) = (self.stop.clone(), Arc::clone(&self.links));
        let waking = tokio::spawn(async move {
            stop.cancelled().await;
            links.stream.wake();
        });
        let links = Arc::clone(&self.links);
        let _ = self.standing.wakes.set(Box::new(move || {
            links.stream.wake();
            links.base.notify_one();
        }));
        let name = self.standing.config.name.clone();
        let (streamer, shipper, runtime) = (self.clone(), self.clone(), Handle::current());
        let stream = Part::begin(&format!("stream {name}"), move || {
            let _ends = EndsStream(&streamer);
            streamer.stream_until_stopped();
        });
        let ship = Part::begin(&format!("ship {name}"), move || {
            shipper.ship_until_ended(runtime);
        });
        if stream.is_err() {
            self.links.board.end();
        }
        let parts = [stream, ship];
        if parts.iter().all(Result::is_ok) {
            self.base_until_stopped().await;
        }
        for part in parts {
            match part {
                Ok(part) => part.ended().await,
                Err(error) => tracing::error!(source = %name, %error, "no thread for capture"),
            }
        }
        waking.abort();
    }

    /// Finds out from the spool what of it can be trusted before the source was asked.
    pub(crate) fn recall(&self) -> Result<(), CaptureError> {
        // Only a base behind the last hole is continued by today's log.
        let log_from = self.spool.unbroken_from()?;
        self.standing.facts().log_from = log_from;
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
        let whole = self.whole_records(&cluster, newest)?;
        let mut facts = self.standing.facts();
        facts.system_identifier = Some(cluster.system_identifier);
        for (index, one) in stored.iter().enumerate() {
            let is_newest = index.checked_add(1) == Some(stored.len());
            // Only the newest segment can be torn: of it, whole records alone are trusted.
            let end = if is_newest { whole } else { one.end() };
            facts.logs.insert(one.segment.timeline, end);
            facts.timeline = one.segment.timeline;
            facts.flushed = end;
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
        let end = reader.record_end().unwrap_or(segment.start);
        let behind = usize::try_from(end.since(segment.start).0).unwrap_or(usize::MAX);
        let is_room = bytes.iter().skip(behind).all(|byte| *byte == 0);
        if is_room && stored.bytes < size.get() {
            self.spool.trim(segment, size, end)?;
        } else if let Err(error) = read {
            tracing::warn!(
                segment = segment.name(size),
                "the spool's end is torn: {error}"
            );
        }
        Ok(end)
    }

    fn stream_until_stopped(&self) {
        let mut wait = limits::BACKOFF_MIN;
        while !self.stop.is_cancelled() {
            let (began, had) = (Instant::now(), self.standing.facts().flushed);
            match self.prepare().and_then(|prepared| self.stream(prepared)) {
                Ok(Ended::Stopped) => break,
                Ok(Ended::Timeline) => wait = limits::BACKOFF_MIN,
                Err(CaptureError::Source(crate::source::SourceError::Stopped { .. })) => break,
                Err(error) => {
                    // It worked for a while, or took something in.
                    let has = self.standing.facts().flushed;
                    if has > had || began.elapsed() > limits::BACKOFF_MAX {
                        wait = limits::BACKOFF_MIN;
                    }
                    self.failed(error);
                    self.rest(wait);
                    wait = wait.saturating_mul(2).min(limits::BACKOFF_MAX);
                }
            }
        }
        let mut facts = self.standing.facts();
        facts.stopped_at.get_or_insert_with(Instant::now);
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
            let after = {
                let mut facts = self.standing.facts();
                facts.missing = true;
                facts.flushed
            };
            self.note("source.log_missing", |draft| {
                draft.with("after", after.to_string())
            });
        }
        let trouble = trouble(&error);
        if self.standing.stopped(state, trouble.clone()) {
            let source = self.standing.config.name.as_str();
            tracing::warn!(source, code = trouble.code, "{}", trouble.what);
        }
    }

    /// Notes that the stream runs from a segment on.
    fn streaming(&self, from: Segment) -> Result<(), CaptureError> {
        let is_broken = self.standing.facts().missing;
        if is_broken {
            // Before anything behind the hole can be taken for a continuation of what is before it.
            self.spool.keep_unbroken_from(from.start)?;
        }
        let mut facts = self.standing.facts();
        if is_broken {
            facts.missing = false;
            facts.log_from = from.start;
            // No base is continued and nothing is proven until there is a new one.
            facts.point = None;
            facts.proof = None;
            facts.proof_status = ProofStatus::default();
            facts.base_trouble = Some(trouble(&CaptureError::Broken { from: from.start }));
        }
        facts.state = CaptureState::Streaming;
        facts.trouble = None;
        facts.stopped_at = None;
        facts.slot_taken_since = None;
        drop(facts);
        self.links.base.notify_one();
        Ok(())
    }

    /// Waits before the stream begins again, unless we are told to stop.
    fn rest(&self, wait: Duration) {
        let (deadline, generation) = (Instant::now() + wait, self.standing.generation());
        while !self.stop.is_cancelled() && Instant::now() < deadline {
            if self.standing.generation() != generation {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.links.stream.wait(left);
        }
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
