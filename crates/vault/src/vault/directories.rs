//! Keeping directories: a restore point when it is time.

use std::sync::Arc;
use std::time::Duration;

use holdfast_core::ledger::Draft;
use holdfast_core::{PointId, Principal, SourceName, Timestamp};
use tokio_util::sync::CancellationToken;

use super::Vault;
use crate::engine::directory::{self, DirectoryError, DirectoryStanding, DirectoryStatus};
use crate::limits::{BACKOFF_MAX, POLL};
use crate::repository::RepositoryError;
use crate::standing::trouble;

impl Vault {
    /// Tells how every directory stands, from memory.
    pub fn directories(&self) -> Vec<DirectoryStatus> {
        let all = self.shared.directories.values();
        all.map(|standing| standing.status()).collect()
    }

    /// Makes a restore point of a directory now.
    ///
    /// # Errors
    /// [`DirectoryError`] when the directory or the repository cannot be used; `None` when there is no
    /// such directory.
    pub async fn keep_now(&self, source: &SourceName) -> Option<Result<PointId, DirectoryError>> {
        let standing = self.shared.directories.get(source)?.clone();
        Some(
            self.capture_directory(&standing, &CancellationToken::new())
                .await,
        )
    }

    /// Makes restore points of a directory until told to stop.
    pub(super) async fn keep_directory(
        self,
        standing: Arc<DirectoryStanding>,
        stop: CancellationToken,
    ) {
        let mut next = (self.shared.clock)();
        while !stop.is_cancelled() {
            let now = (self.shared.clock)();
            if next <= now {
                let wait = match self.capture_directory(&standing, &stop).await {
                    Ok(_) => standing.config.every,
                    Err(_) => BACKOFF_MAX.min(standing.config.every),
                };
                next = now.plus(wait);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL.max(Duration::from_millis(500))) => {}
            }
        }
    }

    async fn capture_directory(
        &self,
        standing: &Arc<DirectoryStanding>,
        stop: &CancellationToken,
    ) -> Result<PointId, DirectoryError> {
        let began = (self.shared.clock)();
        standing.facts().busy = Some("restore point");
        let repository = self.shared.repository.clone();
        let (config, stop) = (standing.config.clone(), stop.clone());
        let ended = tokio::task::spawn_blocking(move || {
            let captured = directory::capture(&repository, &config, &stop)?;
            let point = repository.reader().point(&config.name, &captured.point)?;
            Ok((captured, point.summary().clone()))
        });
        let gone = RepositoryError::System {
            step: "read the directory",
            what: "its thread has ended".to_owned(),
        };
        let ended = ended.await.unwrap_or(Err(gone.into()));
        let mut facts = standing.facts();
        facts.busy = None;
        match ended {
            Ok((captured, summary)) => {
                facts.trouble = None;
                facts.newest = Some(summary);
                facts.captured = Some(captured.clone());
                drop(facts);
                self.note_point(standing, &captured, began);
                Ok(captured.point)
            }
            Err(DirectoryError::Stopped) => Err(DirectoryError::Stopped),
            Err(error) => {
                let told = trouble(&error);
                let source = standing.config.name.as_str();
                tracing::warn!(source, code = told.code, "{}", told.what);
                facts.trouble = Some(told);
                Err(error)
            }
        }
    }

    fn note_point(
        &self,
        standing: &DirectoryStanding,
        captured: &directory::Captured,
        began: Timestamp,
    ) {
        let now = (self.shared.clock)();
        let draft = Draft::new("point.made", Principal::service("vault"), now)
            .source(standing.config.name.clone())
            .with("point", captured.point.as_str())
            .with("read_bytes", captured.read)
            .with("unsettled", captured.unsettled)
            .with("missing", captured.missing)
            .with("special", captured.special)
            .with("seconds", now.since(began).as_secs_f64());
        if let Err(error) = self.shared.ledger.append(draft) {
            tracing::error!("the ledger cannot be written: {error}");
        }
    }
}
