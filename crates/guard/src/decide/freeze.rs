//! The freeze: everything denied to agents until a human thaws it.

use holdfast_core::ledger::Draft;
use holdfast_core::{Code, Coded, Principal, Timestamp};
use holdfast_store::ledger::{Ledger, LedgerError};
use holdfast_store::record::{Record, RecordError, Records};
use serde::{Deserialize, Serialize};

/// Everything denied to agents until a human thaws it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Whether it is on.
    pub frozen: bool,
    /// Who last changed it.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
}

impl Record for Freeze {
    const KIND: &'static str = "freeze";
}

impl Freeze {
    /// Reads how it stands, or `None` when nobody has ever frozen anything.
    pub(super) fn find(records: &Records) -> Result<Option<Self>, RecordError> {
        Ok(records.find::<Self>(ID)?.map(|(freeze, _)| freeze))
    }

    /// Writes it into the ledger.
    pub(super) fn record(&self, ledger: &Ledger) -> Result<(), FreezeError> {
        let kind = if self.frozen {
            "agents.frozen"
        } else {
            "agents.thawed"
        };
        let entry = Draft::new(kind, self.by.clone(), self.at);
        ledger.append(entry).map_err(FreezeError::Ledger)?;
        Ok(())
    }

    /// Keeps it, so that it outlives this process.
    pub(super) fn keep(&self, records: &Records) -> Result<(), RecordError> {
        match records.find::<Self>(ID)? {
            Some((_, version)) => records.replace(ID, version, self),
            None => records.insert(ID, self),
        }
    }
}

/// There is one freeze for all agents.
const ID: &str = "all";

/// Why a freeze or thaw could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// The ledger could not be written.
    #[error("the freeze or thaw cannot be recorded")]
    Ledger(#[source] LedgerError),
    /// The state file could not be written.
    #[error("the freeze or thaw cannot be kept")]
    Record(#[source] RecordError),
}

impl Coded for FreezeError {
    fn code(&self) -> Code {
        match self {
            Self::Ledger(error) => error.code(),
            Self::Record(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some("agents stay frozen in the running process; mend the disk and repeat".to_owned())
    }
}
