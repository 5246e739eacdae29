//! Leases: short-lived authority of an agent at a source, for a stated purpose.

pub mod role;
pub mod weak;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holdfast_core::ledger::Draft;
use holdfast_core::{
    Code, Coded, Digest, LeaseId, Principal, RowCount, Secret, SourceName, Timestamp, Untrusted,
};
use holdfast_store::ledger::{Ledger, LedgerError};
use holdfast_store::record::{Record, RecordError, Records};
use serde::{Deserialize, Serialize};

use crate::clock::{self, RandomError};
use crate::limits::{LEASE_LASTS_MAX, LEASE_ROWS_WINDOW};

/// What a lease may do at a PostgreSQL source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseMode {
    /// Rights to change rows.
    Data,
    /// Rights to read.
    ReadOnly,
    /// The owner's rights, so that migrations work; the evidence gate is then the barrier.
    Schema,
}

/// How many rows a lease may change without being held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowBudget {
    /// In one transaction.
    pub transaction: RowCount,
    /// In any hour.
    pub hour: RowCount,
}

impl Default for RowBudget {
    fn default() -> Self {
        Self {
            transaction: RowCount(100),
            hour: RowCount(250),
        }
    }
}

/// The PostgreSQL side of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PgLease {
    /// The role that was created for it; also the user name at the door.
    pub role: String,
    /// The database it leads to.
    pub database: String,
    /// Verifier of the token in PostgreSQL's own form, `SCRAM-SHA-256$…`.
    pub scram: String,
    /// Of which source that is a copy; then nothing but the copy is touched under this lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_of: Option<SourceName>,
}

/// What is asked for when a lease is issued.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// Where it leads.
    pub source: SourceName,
    /// Which agent gets it.
    pub agent: String,
    /// What for.
    pub purpose: String,
    /// What it may do.
    pub mode: LeaseMode,
    /// How many rows it may change.
    pub budget: RowBudget,
    /// How long it lasts.
    pub lasts: Duration,
}

/// A lease as it is kept. It holds no secret that opens anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Digest of the token.
    pub token: Digest,
    /// Where it leads.
    pub source: SourceName,
    /// Which agent has it.
    pub agent: String,
    /// What for.
    pub purpose: String,
    /// What it may do.
    pub mode: LeaseMode,
    /// How many rows it may change.
    pub budget: RowBudget,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// Its PostgreSQL side, where its source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg: Option<PgLease>,
}

impl Record for Lease {
    const KIND: &'static str = "lease";
}

impl Lease {
    /// Returns who acts under this lease.
    pub fn principal(&self) -> Principal {
        Principal::agent(self.agent.clone())
    }

    /// Returns why the lease opens nothing now, or `None` when it does.
    pub fn ended(&self, now: Timestamp) -> Option<LeaseError> {
        let id = self.id.clone();
        match self.revoked {
            Some(at) => Some(LeaseError::Revoked { id, at }),
            None if now >= self.expires => Some(LeaseError::Expired {
                id,
                at: self.expires,
            }),
            None => None,
        }
    }
}

/// Why a lease is not given or does not open anything.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The purpose or agent is empty or too long.
    #[error("a lease needs an agent and a purpose of 1 to 200 characters")]
    BadRequest,
    /// It ended by itself.
    #[error("{id} expired at {at}")]
    Expired {
        /// Which lease.
        id: LeaseId,
        /// When.
        at: Timestamp,
    },
    /// The ledger could not be written, so nothing was done.
    #[error("the lease cannot be recorded")]
    Ledger(#[source] LedgerError),
    /// It was asked to last too long.
    #[error("a lease may last at most {} h", LEASE_LASTS_MAX.as_secs() / 3600)]
    TooLong,
    /// No randomness for a token.
    #[error("no token can be made")]
    Random(#[source] RandomError),
    /// The state file could not be read or written.
    #[error("the lease cannot be kept")]
    Record(#[source] RecordError),
    /// A human revoked it.
    #[error("{id} was revoked at {at}")]
    Revoked {
        /// Which lease.
        id: LeaseId,
        /// When.
        at: Timestamp,
    },
    /// No lease has this token or id.
    #[error("no lease `{0}` is known")]
    Unknown(String),
}

impl Coded for LeaseError {
    fn code(&self) -> Code {
        match self {
            Self::BadRequest | Self::TooLong => Code::ZU401,
            Self::Expired { .. } | Self::Revoked { .. } | Self::Unknown(_) => Code::ZL401,
            Self::Ledger(error) => error.code(),
            Self::Random(_) => Code::ZS202,
            Self::Record(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Expired { .. } | Self::Revoked { .. } | Self::Unknown(_) => {
                Some("a human issues a new one with `holdfast lease issue`".to_owned())
            }
            Self::BadRequest | Self::TooLong | Self::Random(_) => None,
            Self::Ledger(error) => error.hint(),
            Self::Record(error) => error.hint(),
        }
    }
}

/// A lease that was just issued, with the token that only its agent gets.
#[derive(Debug)]
pub struct Issued {
    /// The lease as it is kept.
    pub lease: Lease,
    /// The token; it is not kept anywhere.
    pub token: Secret,
}

/// All leases and what they have used. Clones share one state.
#[derive(Clone)]
pub struct Leases {
    records: Records,
    ledger: Ledger,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    by_token: BTreeMap<Digest, Lease>,
    used: BTreeMap<LeaseId, Used>,
}

/// Rows that a lease has changed lately.
#[derive(Default)]
struct Used {
    each: VecDeque<(Timestamp, RowCount)>,
    sum: u128,
}

impl Leases {
    /// Reads the leases that are kept.
    ///
    /// # Errors
    /// [`LeaseError::Record`].
    pub fn open(records: Records, ledger: Ledger) -> Result<Self, LeaseError> {
        let leases = records.list::<Lease>().map_err(LeaseError::Record)?;
        let by_token = leases
            .into_iter()
            .map(|(lease, _)| (lease.token, lease))
            .collect();
        let state = State {
            by_token,
            used: BTreeMap::new(),
        };
        Ok(Self {
            records,
            ledger,
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Draws the token of a lease to be issued, so that a door can prepare for it.
    ///
    /// # Errors
    /// [`LeaseError::Random`].
    pub fn draw_token() -> Result<Secret, LeaseError> {
        let random = clock::random::<20>().map_err(LeaseError::Random)?;
        let text = data_encoding::BASE32_NOPAD
            .encode(&random)
            .to_ascii_lowercase();
        Ok(Secret::new(format!("hfl_{text}")))
    }

    /// Draws the id of a lease to be issued.
    ///
    /// # Errors
    /// [`LeaseError::Random`].
    pub fn draw_id() -> Result<LeaseId, LeaseError> {
        Ok(LeaseId::from_random(
            clock::random().map_err(LeaseError::Random)?,
        ))
    }

    /// Issues a lease: recorded first, then kept, then it opens.
    ///
    /// # Errors
    /// [`LeaseError`]; no lease was issued.
    pub fn issue(
        &self,
        request: LeaseRequest,
        (id, token): (LeaseId, Secret),
        pg: Option<PgLease>,
        by: Principal,
    ) -> Result<Issued, LeaseError> {
        let named = |text: &str| (1..=200).contains(&text.chars().count());
        if !named(&request.agent) || !named(&request.purpose) {
            return Err(LeaseError::BadRequest);
        }
        if request.lasts > LEASE_LASTS_MAX {
            return Err(LeaseError::TooLong);
        }
        let now = clock::now();
        let lease = Lease {
            id,
            token: Digest::of(token.expose().as_bytes()),
            source: request.source,
            agent: request.agent,
            purpose: request.purpose,
            mode: request.mode,
            budget: request.budget,
            issued: now,
            expires: now.plus(request.lasts),
            revoked: None,
            pg,
        };
        let entry = Draft::new("lease.issued", by, now)
            .source(lease.source.clone())
            .lease(lease.id.clone())
            .with("agent", lease.agent.clone())
            .with("purpose", lease.purpose.clone())
            .with("mode", serde_json::json!(lease.mode))
            .with("expires", lease.expires.to_string());
        self.ledger.append(entry).map_err(LeaseError::Ledger)?;
        self.records
            .insert(lease.id.as_str(), &lease)
            .map_err(LeaseError::Record)?;
        self.lock().by_token.insert(lease.token, lease.clone());
        Ok(Issued { lease, token })
    }

    /// Finds the lease that a token opens.
    ///
    /// # Errors
    /// [`LeaseError`] when there is none or it has ended.
    pub fn authenticate(&self, token: &str) -> Result<Lease, LeaseError> {
        let digest = Digest::of(token.as_bytes());
        let lease = self.lock().by_token.get(&digest).cloned();
        let lease = lease.ok_or_else(|| LeaseError::Unknown("(token)".to_owned()))?;
        match lease.ended(clock::now()) {
            Some(ended) => Err(ended),
            None => Ok(lease),
        }
    }

    /// Finds the lease with this id, whether it has ended or not.
    ///
    /// # Errors
    /// [`LeaseError::Unknown`].
    pub fn find(&self, id: &LeaseId) -> Result<Lease, LeaseError> {
        let state = self.lock();
        let found = state
            .by_token
            .values()
            .find(|lease| lease.id == *id)
            .cloned();
        found.ok_or_else(|| LeaseError::Unknown(id.to_string()))
    }

    /// Finds the lease that a PostgreSQL role was created for, whether it has ended or not.
    ///
    /// # Errors
    /// [`LeaseError::Unknown`].
    pub fn find_role(&self, role: &str) -> Result<Lease, LeaseError> {
        let state = self.lock();
        let is_role = |lease: &&Lease| lease.pg.as_ref().is_some_and(|pg| pg.role == role);
        let found = state.by_token.values().find(is_role).cloned();
        found.ok_or_else(|| LeaseError::Unknown(Untrusted(role).to_string()))
    }

    /// Returns all leases, newest first.
    pub fn list(&self) -> Vec<Lease> {
        let mut leases: Vec<Lease> = self.lock().by_token.values().cloned().collect();
        leases.sort_by(|a, b| b.issued.cmp(&a.issued).then_with(|| a.id.cmp(&b.id)));
        leases
    }

    /// Ends a lease at once. Doors close its sessions.
    ///
    /// # Errors
    /// [`LeaseError`]; [`LeaseError::Revoked`] when it was revoked before.
    pub fn revoke(&self, id: &LeaseId, by: Principal) -> Result<Lease, LeaseError> {
        let now = clock::now();
        let found = self
            .records
            .find::<Lease>(id.as_str())
            .map_err(LeaseError::Record)?;
        let (mut lease, version) = found.ok_or_else(|| LeaseError::Unknown(id.to_string()))?;
        if let Some(at) = lease.revoked {
            return Err(LeaseError::Revoked { id: id.clone(), at });
        }
        lease.revoked = Some(now);
        // The lease stops opening before anything is written: a failed write must not keep it alive.
        self.lock().by_token.insert(lease.token, lease.clone());
        self.records
            .replace(id.as_str(), version, &lease)
            .map_err(LeaseError::Record)?;
        let entry = Draft::new("lease.revoked", by, now)
            .source(lease.source.clone())
            .lease(lease.id.clone());
        self.ledger.append(entry).map_err(LeaseError::Ledger)?;
        Ok(lease)
    }

    /// Returns the rows that a lease has changed within the last hour.
    pub fn rows_this_hour(&self, id: &LeaseId, now: Timestamp) -> RowCount {
        let mut state = self.lock();
        let Some(used) = state.used.get_mut(id) else {
            return RowCount(0);
        };
        let begin = now.minus(LEASE_ROWS_WINDOW);
        while let Some((at, rows)) = used.each.front()
            && *at < begin
        {
            used.sum = used.sum.saturating_sub(rows.0.into());
            used.each.pop_front();
        }
        RowCount(u64::try_from(used.sum).unwrap_or(u64::MAX))
    }

    /// Counts rows against a lease; they count even when the change later turns out not to be done.
    pub fn use_rows(&self, id: &LeaseId, rows: RowCount, at: Timestamp) {
        if rows.0 > 0 {
            let mut state = self.lock();
            let used = state.used.entry(id.clone()).or_default();
            used.sum = used.sum.saturating_add(rows.0.into());
            used.each.push_back((at, rows));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
