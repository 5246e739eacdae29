//! Transactions that this door let be prepared.
//!
//! Each is recorded before the source prepares it, with the number that only it has there, so that
//! only what was measured under the same lease can be committed later, also after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_core::{Digest, DigestBuilder, ErrorChain, LeaseId, SourceName, Timestamp};
use holdfast_store::record::{Record, RecordError, Records};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::Door;
use super::outside::Control;
use crate::clock;
use crate::limits::{PG_PREPARED_LASTS_MAX, PG_PREPARED_LOOKS_EVERY};

/// A transaction that was let through at its `PREPARE TRANSACTION`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub source: SourceName,
    pub database: String,
    /// The name that the client gave it.
    pub gid: String,
    pub lease: LeaseId,
    /// Its number in the source.
    pub xid: u32,
    /// Of everything that ran in it.
    pub digest: Digest,
    pub at: Timestamp,
    /// It is not there any more, or never came to be.
    pub ended: bool,
}

impl Record for Kept {
    const KIND: &'static str = "pg-prepared";
}

impl Kept {
    fn id(&self) -> String {
        let digest = DigestBuilder::new("holdfast pg prepared transaction 1")
            .field(self.source.as_str().as_bytes())
            .field(self.database.as_bytes())
            .field(self.gid.as_bytes())
            .field(&self.xid.to_be_bytes())
            .field(&self.digest.0)
            .finish();
        digest.to_string()
    }
}

/// All of them. Clones share one state.
#[derive(Clone)]
pub(super) struct Prepared {
    records: Records,
    open: Arc<Mutex<BTreeMap<String, Kept>>>,
}

impl Prepared {
    /// Reads those that may still be there.
    pub(super) fn read(records: Records) -> Result<Self, RecordError> {
        let kept = records.list::<Kept>()?.into_iter().map(|(kept, _)| kept);
        let open = kept
            .filter(|kept| !kept.ended)
            .map(|kept| (kept.id(), kept));
        let open = Arc::new(Mutex::new(open.collect()));
        Ok(Self { records, open })
    }

    /// Records one; it is durable when this returns, and only then may it be prepared.
    pub(super) fn keep(&self, kept: &Kept) -> Result<(), RecordError> {
        match self.records.insert(&kept.id(), kept) {
            // The same number and text again: a server that counts anew.
            Err(RecordError::Exists { .. }) => self.write(kept)?,
            other => other?,
        }
        self.lock().insert(kept.id(), kept.clone());
        Ok(())
    }

    /// Notes that one is not there any more.
    pub(super) fn end(&self, kept: &Kept) -> Result<(), RecordError> {
        let ended = Kept {
            ended: true,
            ..kept.clone()
        };
        self.write(&ended)?;
        self.lock().remove(&kept.id());
        Ok(())
    }

    fn write(&self, kept: &Kept) -> Result<(), RecordError> {
        match self.records.find::<Kept>(&kept.id())? {
            Some((_, version)) => self.records.replace(&kept.id(), version, kept),
            None => self.records.insert(&kept.id(), kept),
        }
    }

    /// Finds those of a lease by the name that it gave.
    fn named(&self, lease: &LeaseId, database: &str, gid: &str) -> Vec<Kept> {
        let open = self.lock();
        let is_it =
            |kept: &&Kept| kept.lease == *lease && kept.database == database && kept.gid == gid;
        open.values().filter(is_it).cloned().collect()
    }

    /// Finds the one that the source has now under a name, if this lease had it prepared here.
    pub(super) async fn find(
        &self,
        control: &Control,
        lease: &LeaseId,
        (database, gid): (&str, &str),
    ) -> Result<Option<Kept>, String> {
        let named = self.named(lease, database, gid);
        if named.is_empty() {
            return Ok(None);
        }
        let there = control.prepared(database, gid).await?;
        Ok(named.into_iter().find(|kept| Some(kept.xid) == there))
    }

    fn all(&self) -> Vec<Kept> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Returns the number of the transaction that is prepared under a name in a database.
    async fn prepared(&self, database: &str, gid: &str) -> Result<Option<u32>, String> {
        let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
        let client = self.client(database).await?;
        let row = client.query_opt(THERE, &[&gid]).await.map_err(bad)?;
        let xid: Option<String> = match row {
            Some(row) => row.try_get(0).map_err(bad)?,
            None => None,
        };
        Ok(xid.and_then(|xid| xid.parse().ok()))
    }

    /// Throws a prepared transaction away, if it is the one that is meant; answers whether it is gone.
    async fn throw_away(&self, kept: &Kept) -> Result<(), String> {
        if self.prepared(&kept.database, &kept.gid).await? != Some(kept.xid) {
            return Ok(());
        }
        let client = self.client(&kept.database).await?;
        let gid = postgres_protocol::escape::escape_literal(&kept.gid);
        client
            .batch_execute(&format!("ROLLBACK PREPARED {gid}"))
            .await
            .map_err(|error| ErrorChain(&error).to_string())
    }
}

const THERE: &str = "SELECT p.transaction::text FROM pg_catalog.pg_prepared_xacts p \
    WHERE p.gid = $1 AND p.database = pg_catalog.current_database()";

impl Door {
    /// Throws away what nobody has ended in time, or whose lease has ended: its locks would stay.
    pub(super) async fn look_at_prepared(self: Arc<Self>, stop: CancellationToken) {
        let mut looks = tokio::time::interval(PG_PREPARED_LOOKS_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = BTreeSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let now = clock::now();
            for kept in self.prepared.all() {
                let Ok(lease) = self.leases.find(&kept.lease) else {
                    continue;
                };
                let is_live = lease.ended(now).is_none();
                if is_live && kept.at.plus(PG_PREPARED_LASTS_MAX) > now {
                    continue;
                }
                let Some(source) = self.source(&lease) else {
                    continue;
                };
                match source.control.throw_away(&kept).await {
                    Ok(()) => self.forget(kept).await,
                    Err(why) if told.insert(kept.id()) => {
                        tracing::warn!(%why, gid = %kept.gid, "a prepared transaction cannot be rolled back");
                    }
                    Err(_) => {}
                }
            }
        }
    }

    async fn forget(&self, kept: Kept) {
        let prepared = self.prepared.clone();
        let ending = tokio::task::spawn_blocking(move || prepared.end(&kept));
        if !matches!(ending.await, Ok(Ok(()))) {
            tracing::warn!("the end of a prepared transaction cannot be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(gid: &str, xid: u32) -> Kept {
        Kept {
            source: "prod".parse().unwrap(),
            database: "shop".to_owned(),
            gid: gid.to_owned(),
            lease: LeaseId::from_random([7; 8]),
            xid,
            digest: Digest::of(b"x"),
            at: Timestamp(1),
            ended: false,
        }
    }

    #[test]
    fn what_was_prepared_is_known_after_a_restart_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Prepared::read(Records::open(&folder.path().join("s.db")).unwrap()).unwrap();
        let prepared = open();
        prepared.keep(&kept("a", 1)).unwrap();
        // A name may come again, for another transaction.
        prepared.keep(&kept("a", 2)).unwrap();
        let lease = LeaseId::from_random([7; 8]);
        assert_eq!(open().named(&lease, "shop", "a").len(), 2);
        open().end(&kept("a", 1)).unwrap();
        assert_eq!(open().named(&lease, "shop", "a"), [kept("a", 2)]);
        assert!(open().named(&lease, "other", "a").is_empty());
        let other = LeaseId::from_random([8; 8]);
        assert!(open().named(&other, "shop", "a").is_empty());
    }
}
