//! What guard keeps: its ledger, its records, its leases and holds.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use holdfast_guard::custody::Custody;
use holdfast_guard::decide::rows_of_entry;
use holdfast_guard::hold::Holds;
use holdfast_guard::lease::Leases;
use holdfast_store::ledger::{self, Ledger};
use holdfast_store::record::Records;

use crate::config::Config;
use crate::report::Failure;
use crate::wiring::{Half, now};

/// The file of guard's records.
const RECORDS: &str = "guard.sqlite";

/// Guard's state, opened by the one process that may write it.
#[derive(Clone)]
pub struct GuardState {
    /// The record of everything.
    pub ledger: Ledger,
    /// Leases, holds, approvers, custody.
    pub records: Records,
    /// Who may ask.
    pub leases: Leases,
    /// What waits.
    pub holds: Holds,
    /// What was taken from agents.
    pub custody: Custody,
    /// Held while a role is made or roles are swept: a role is there before its lease is kept.
    pub roles: Arc<tokio::sync::Mutex<()>>,
}

impl GuardState {
    /// Opens it; the ledger is verified whole, and what leases used up in the last hour is counted again.
    ///
    /// # Errors
    /// When another process has it, or it does not verify.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        let key = Half::Guard.key(config)?;
        let folder = Half::Guard.ledger(config);
        let ledger = Ledger::open(&folder, key, now())?;
        let records = Records::open(&config.guard_dir().join(RECORDS))?;
        let leases = Leases::open(records.clone(), ledger.clone())?;
        ledger::verify(&folder, &ledger.public_key(), |entry| {
            if let Some((lease, rows, at)) = rows_of_entry(entry) {
                leases.use_rows(&lease, rows, at);
            }
        })?;
        Ok(Self {
            holds: Holds::new(records.clone(), ledger.clone()),
            custody: Custody::new(records.clone(), ledger.clone()),
            ledger,
            records,
            leases,
            roles: Arc::default(),
        })
    }

    /// Returns how this guard marks what it makes in a source: its public key.
    pub fn guard_key(&self) -> String {
        HEXLOWER.encode(self.ledger.public_key().as_bytes())
    }
}
