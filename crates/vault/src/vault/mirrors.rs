//! Mirrors of a running vault, and recovery by them.

use std::sync::mpsc::sync_channel;
use std::time::Instant;

use holdfast_core::ledger::Draft;
use holdfast_core::{Principal, SourceName};
use holdfast_store::ledger::LedgerError;
use tokio_util::sync::CancellationToken;

use super::{Vault, VaultError};
use crate::config::SourceConfig;
use crate::limits;
use crate::mirror::{Ask, Mirror, MirrorError, root};
use crate::moved::Moved;
use crate::recovery::{RecoverError, RecoverRequest, Recovered};
use crate::restore::aim;
use crate::source::kept_slot_name;
use crate::spool::Spool;

impl Vault {
    /// Makes the mirrors that are configured.
    pub(super) fn mirrors(&self, stop: &CancellationToken) -> Result<Vec<Mirror>, VaultError> {
        let shared = &self.shared;
        let config = &shared.config.points.mirrors;
        let standings = shared.standings.iter();
        let mirrored = standings.filter(|(name, _)| config.sources.contains(*name));
        mirrored
            .map(|(name, standing)| {
                Ok(Mirror {
                    place: self.place(),
                    root: root(&shared.config.state, config.dir.as_deref()),
                    standing: standing.clone(),
                    spool: Spool::open(&shared.config.state, name)?,
                    reader: shared.repository.reader().clone(),
                    ledger: shared.ledger.clone(),
                    clock: shared.clock.clone(),
                    stop: stop.clone(),
                    hold: config.hold,
                    reserve: config.reserve,
                })
            })
            .collect()
    }

    /// Takes up which servers have taken the place of sources.
    pub(super) fn remember_moves(&self) {
        for name in self.shared.standings.keys() {
            self.take_up_move(name);
        }
    }

    /// Goes on with the server that was noted to have taken a source's place; tells whether one has.
    pub fn take_up_move(&self, source: &SourceName) -> bool {
        let Some(standing) = self.shared.standings.get(source) else {
            return false;
        };
        let url = &standing.config.url;
        let moved = Moved::read(&self.shared.config.state, source, url);
        let has_moved = moved.is_some();
        if let Some(moved) = &moved {
            tracing::info!(%source, to = %moved, "a recovered server is the source");
        }
        standing.moves(moved);
        has_moved
    }

    /// Returns what is told of a source, with the server that is it now.
    pub fn source_now(&self, source: &SourceName) -> Option<SourceConfig> {
        let standing = self.shared.standings.get(source)?;
        Some(SourceConfig {
            url: standing.url(),
            ..standing.config.clone()
        })
    }

    /// Writes a step of a cut-over down.
    ///
    /// # Errors
    /// When the ledger cannot be written; the step must not be done then.
    pub fn note(&self, draft: Draft) -> Result<(), LedgerError> {
        self.shared.ledger.append(draft).map(drop)
    }

    /// Promotes the mirror of a source, and goes on protecting what it becomes; blocks.
    ///
    /// # Errors
    /// [`RecoverError`] when there is no mirror, or it has replayed more than is asked for: nothing was
    /// changed then.
    pub fn recover(&self, request: &RecoverRequest) -> Result<Recovered, RecoverError> {
        let began = Instant::now();
        let shared = &self.shared;
        let name = &request.source;
        let Some(standing) = shared.standings.get(name) else {
            let why = "the vault does not protect it".to_owned();
            return Err(MirrorError::None { why }.into());
        };
        let (cut, timeline) = aim(&self.place(), &request.restore())?;
        let (answer, answers) = sync_channel(1);
        let asked = standing.mirror.ask(Ask {
            cut,
            timeline,
            slot: kept_slot_name(&shared.config.state, name),
            answer,
        });
        if !asked {
            let why = "it does not follow".to_owned();
            return Err(MirrorError::None { why }.into());
        }
        let wait = limits::MIRROR_PROMOTE.saturating_mul(2);
        let promoted = answers.recv_timeout(wait).unwrap_or_else(|_| {
            let why = "it did not answer".to_owned();
            Err(MirrorError::None { why })
        })?;
        let promoted_s = began.elapsed().as_secs_f64();
        let now = (shared.clock)();
        let moved = Moved::new(
            &standing.config.url,
            promoted.local.port,
            promoted.directory.clone(),
            now,
        );
        // The server runs and is whole whatever becomes of the note.
        let kept = moved.keep(&shared.config.state, name);
        standing.moves(Some(moved));
        let draft = Draft::new("source.recovered", Principal::service("vault"), now)
            .source(name.clone())
            .with("at", request.at.to_string())
            .with("way", "mirror")
            .with("port", promoted.local.port)
            .with("directory", promoted.directory.display().to_string())
            .with("timeline", promoted.timeline)
            .with("seconds", promoted_s);
        if let Err(error) = shared.ledger.append(draft) {
            tracing::error!(%error, "the recovery is not recorded");
        }
        if let Err(error) = kept {
            let what = holdfast_core::ErrorChain(&error).to_string();
            tracing::error!(%what, "after a restart the vault looks for the old server");
        }
        Ok(Recovered::by_mirror(request, promoted, promoted_s))
    }
}

/// Keeps a mirror on a thread of its own, because it waits for its server.
pub(super) async fn keep(mirror: Mirror) {
    if let Err(error) = tokio::task::spawn_blocking(move || mirror.run()).await {
        tracing::error!(%error, "a mirror ended by a defect");
    }
}
