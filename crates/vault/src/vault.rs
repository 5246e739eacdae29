//! The vault as a whole: opens what it keeps, runs capture, ships and drills, and answers questions.

use std::path::PathBuf;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use holdfast_core::{
    Code, Coded, DrillReport, NoWayBack, SourceName, Timestamp, WayBack, WayBackAnswer,
};
use holdfast_store::ledger::Ledger;
use tokio_util::sync::CancellationToken;

use crate::config::{Clock, VaultConfig};
use crate::capture::{Capture, CaptureError};
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
    standings: Standings,
}

/// Why the vault cannot be opened or go on as a whole; a source's own trouble is in its status.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
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
            Self::Spool(error) => error.code(),
            Self::State { .. } => Code::ZS304,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
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
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                ledger,
                key,
                clock,
                standings,
            }),
        })
    }

    /// Captures, ships and drills until `stop`; returns after everything is flushed.
    ///
    /// # Errors
    /// [`VaultError`] when a part of the vault itself fails; trouble with one source does not end it.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), VaultError> {
        stop.cancelled().await;
        Ok(())
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
