//! What was seen of a source lately and need not be asked again at once.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Instant;

use holdfast_core::ErrorChain;

use super::super::evidence::Said;
use super::{Control, Outside};
use crate::limits::{PG_SEEN_LASTS, PG_SEEN_MAX};

/// Answers of guard's own connections, with when they came.
#[derive(Default)]
pub(super) struct Lately {
    relations: HashMap<(String, u32), (Outside, Instant)>,
    lets: HashMap<(String, String), (Lets, Instant)>,
}

/// What a login asks about its role and database.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Lets {
    /// The role may call what works over connections of its own.
    pub leads_out: bool,
    /// What openly reads may run without the gate.
    pub reads_pass: bool,
}

impl Control {
    /// Finds relations that were seen a moment ago and that the transaction has as they were then; or
    /// `None`, and they must be looked at.
    ///
    /// A relation that the transaction has changed, made or removed has another file or is gone, so it
    /// is never found. What may be as old as [`PG_SEEN_LASTS`] is its name, which nobody can change while
    /// the transaction has it locked.
    pub(in super::super) fn seen(
        &self,
        database: &str,
        said: &Said,
        oids: &[u32],
    ) -> Option<HashMap<u32, Outside>> {
        let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashMap::new();
        for oid in oids {
            let (outside, at) = lately.relations.get(&(database.to_owned(), *oid))?;
            let is_young = at.elapsed() < PG_SEEN_LASTS;
            let mut locks = said.locks.iter().filter(|lock| lock.oid == *oid);
            let is_same = locks.all(|lock| lock.is_there && lock.file == outside.file);
            if !is_young || !is_same || outside.temporary {
                return None;
            }
            seen.insert(*oid, outside.clone());
        }
        Some(seen)
    }

    /// Keeps what was seen.
    pub(super) fn keep(&self, database: &str, found: &HashMap<u32, Outside>) {
        let now = Instant::now();
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.relations.len().saturating_add(found.len()) > PG_SEEN_MAX {
            lately.relations.clear();
        }
        for (oid, outside) in found.iter().take(PG_SEEN_MAX) {
            let key = (database.to_owned(), *oid);
            lately.relations.insert(key, (outside.clone(), now));
        }
    }

    /// Tells what a session of a role is let do; in doubt everything goes through the gate, which costs
    /// time only.
    pub(in super::super) async fn lets(&self, database: &str, role: &str) -> Lets {
        let key = (database.to_owned(), role.to_owned());
        let known = {
            let lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
            lately.lets.get(&key).copied()
        };
        if let Some((lets, at)) = known
            && at.elapsed() < PG_SEEN_LASTS
        {
            return lets;
        }
        let Ok(lets) = self.ask_lets(database, role).await else {
            return Lets {
                leads_out: true,
                reads_pass: false,
            };
        };
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.lets.len() >= PG_SEEN_MAX {
            lately.lets.clear();
        }
        lately.lets.insert(key, (lets, Instant::now()));
        lets
    }

    async fn ask_lets(&self, database: &str, role: &str) -> Result<Lets, String> {
        let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
        let client = self.client(database).await?;
        let row = client.query_one(LETS, &[&role]).await.map_err(bad)?;
        let can_remove: bool = row.try_get(0).map_err(bad)?;
        Ok(Lets {
            leads_out: row.try_get(1).map_err(bad)?,
            reads_pass: !can_remove,
        })
    }
}

/// Whether the server lets a session that only reads remove large objects, and has some; and whether the
/// role may call what works over connections of its own.
///
/// SOURCE: PostgreSQL 16's release notes: large objects cannot be written in READ ONLY any more.
const LETS: &str = "SELECT pg_catalog.current_setting('server_version_num')::int4 < 160000 \
    AND EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata), \
    EXISTS (SELECT FROM pg_catalog.pg_proc p \
    WHERE (p.proname LIKE 'dblink%' OR p.proname LIKE 'http%' OR p.proname LIKE 'pg_background%' \
      OR p.proname IN ('lo_export', 'lo_import', 'pg_read_file', 'pg_read_binary_file')) \
    AND pg_catalog.has_function_privilege($1::pg_catalog.name, p.oid, 'EXECUTE'))";
