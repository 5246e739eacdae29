//! The vault as a whole: opens what it keeps, runs capture, ships and drills, and answers questions.

use std::path::PathBuf;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use holdfast_core::{
    Code, Coded, DrillReport, NoWayBack, SourceName, Timestamp, WayBack, WayBackAnswer,
};
use holdfast_store::ledger::Ledger;
use tokio_util::sync::CancellationToken;

use crate::capture::Capture;
use crate::config::{Clock, VaultConfig};
use crate::drill::DrillError;
use crate::repository::{Repository, RepositoryError};
use crate::spool::{Spool, SpoolError};
use crate::standing::{Standing, Standings};
use crate::status::SourceStatus;

/// The running vault; clones share it.
#[derive(Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

struct Shared {
    config: VaultConfig,
    ledger: Ledger,
    key: SigningKey,
    clock: Clock,
    repository: Repository,
    standings: Standings,
}

/// Why the vault cannot be opened or go on as a whole; a source's own trouble is in its status.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// What is kept of a source cannot be read back.
    #[error("cannot take up `{name}` again")]
    Recall {
        /// Which source.
        name: SourceName,
        /// Its code.
        code: Code,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository cannot be used.
    #[error("cannot open the repository")]
    Repository(#[from] RepositoryError),
    /// The spool cannot be used.
    #[error("cannot open the spool")]
    Spool(#[from] SpoolError),
    /// The state directory cannot be made.
    #[error("cannot make the state directory `{}`", path.display())]
    State {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Coded for VaultError {
    fn code(&self) -> Code {
        match self {
            Self::Recall { code, .. } => *code,
            Self::Repository(error) => error.code(),
            Self::Spool(error) => error.code(),
            Self::State { .. } => Code::ZS304,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Recall { .. } => {
                Some("nothing was changed; check the state directory and the repository".to_owned())
            }
            Self::Repository(error) => error.hint(),
            Self::Spool(error) => error.hint(),
            Self::State { .. } => Some("check who owns it; nothing was captured".to_owned()),
        }
    }
}

impl Vault {
    /// Opens repository (as the one writer), spool and keys; blocks, and connects to nothing yet.
    ///
    /// # Errors
    /// [`VaultError`] when the repository or the state directory cannot be used.
    pub fn open(
        config: VaultConfig,
        ledger: Ledger,
        key: SigningKey,
        clock: Clock,
    ) -> Result<Self, VaultError> {
        std::fs::create_dir_all(&config.state).map_err(|source| VaultError::State {
            path: config.state.clone(),
            source,
        })?;
        let repository = Repository::open_writer(&config.repository, key.clone(), clock.clone())?;
        let now = clock();
        let standings = config
            .sources
            .iter()
            .map(|source| {
                (
                    source.name.clone(),
                    Arc::new(Standing::new(source.clone(), now)),
                )
            })
            .collect();
        let vault = Self {
            shared: Arc::new(Shared {
                config,
                ledger,
                key,
                clock,
                repository,
                standings,
            }),
        };
        for standing in vault.shared.standings.values() {
            let capture = vault.capture(standing, &CancellationToken::new())?;
            capture.recall().map_err(|error| VaultError::Recall {
                name: standing.config.name.clone(),
                code: error.code(),
                source: Box::new(error),
            })?;
        }
        Ok(vault)
    }

    /// Captures, ships and drills until `stop`; returns after everything is flushed.
    ///
    /// # Errors
    /// [`VaultError`] when a part of the vault itself fails; trouble with one source does not end it.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), VaultError> {
        let captures = self.shared.standings.values();
        let captures: Vec<Capture> = captures
            .map(|standing| self.capture(standing, &stop))
            .collect::<Result<_, _>>()?;
        let mut parts = tokio::task::JoinSet::new();
        for capture in captures {
            parts.spawn(capture.run());
        }
        while parts.join_next().await.is_some() {}
        Ok(())
    }

    fn capture(
        &self,
        standing: &Arc<Standing>,
        stop: &CancellationToken,
    ) -> Result<Capture, SpoolError> {
        let shared = &self.shared;
        Ok(Capture {
            standing: standing.clone(),
            spool: Spool::open(&shared.config.state, &standing.config.name)?,
            repository: shared.repository.clone(),
            ledger: shared.ledger.clone(),
            clock: shared.clock.clone(),
            stop: stop.clone(),
        })
    }

    /// Tells how every source stands, from memory.
    pub fn status(&self) -> Vec<SourceStatus> {
        let now = (self.shared.clock)();
        self.shared
            .standings
            .values()
            .map(|standing| standing.status(now))
            .collect()
    }

    /// Restores the newest point for real and checks it; the proof is signed and kept.
    ///
    /// # Errors
    /// [`DrillError`] when there was nothing to restore or the drill could not be run.
    pub async fn drill(&self, source: &SourceName) -> Result<DrillReport, DrillError> {
        match self.shared.standings.get(source) {
            None => Err(DrillError::Unknown(source.clone())),
            Some(_) => Err(DrillError::NoPoint(source.clone())),
        }
    }
}

impl WayBack for Vault {
    fn way_back(&self, source: &SourceName, now: Timestamp) -> Result<WayBackAnswer, NoWayBack> {
        match self.shared.standings.get(source) {
            None => Err(NoWayBack::UnknownSource(source.clone())),
            Some(standing) => standing.way_back(now),
        }
    }
}
