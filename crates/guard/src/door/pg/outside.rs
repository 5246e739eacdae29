//! What the rest of the world sees of the things that an open transaction has touched.

mod function;
mod seen;
mod sequences;
mod sight;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_postgres::Client;

use holdfast_core::{ErrorChain, Lsn};
use holdfast_wire::pg::url::ConnectionUrl;

use super::dial;

pub(super) use function::Function;
use seen::Lately;
pub(super) use sequences::Sample;

/// A relation as others see it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outside {
    /// Schema and name, quoted where needed.
    pub name: String,
    pub kind: u8,
    pub file: u32,
    pub temporary: bool,
    /// Rows as the server estimates them; `None` when it never counted.
    pub rows: Option<u64>,
    /// The table, for an index.
    pub table: Option<u32>,
    /// The number of its owner, as text.
    pub owner: String,
}

/// Guard's own connections to one source, one a database.
pub(super) struct Control {
    url: ConnectionUrl,
    clients: Mutex<HashMap<String, Arc<Client>>>,
    /// What was seen lately.
    lately: std::sync::Mutex<Lately>,
}

impl Control {
    pub(super) fn new(url: ConnectionUrl) -> Self {
        Self {
            url,
            clients: Mutex::default(),
            lately: std::sync::Mutex::default(),
        }
    }

    /// Returns an open connection to `database`.
    pub(super) async fn client(&self, database: &str) -> Result<Arc<Client>, String> {
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(database).filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(dial::control(&self.url, database).await?);
        clients.insert(database.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    /// Returns how far the log of the source is durable; a standby does not tell.
    pub(super) async fn position(&self, database: &str) -> Result<Option<Lsn>, String> {
        let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
        let client = self.client(database).await?;
        let row = client.query_one(POSITION, &[]).await.map_err(bad)?;
        let position: Option<String> = row.try_get(0).map_err(bad)?;
        Ok(position.and_then(|position| position.parse().ok()))
    }

    /// Looks relations up as they are outside; those that do not exist there are left out.
    pub(super) async fn look(
        &self,
        database: &str,
        oids: &[u32],
    ) -> Result<HashMap<u32, Outside>, String> {
        if oids.is_empty() {
            return Ok(HashMap::new());
        }
        let client = self.client(database).await?;
        let rows = client
            .query(QUESTION, &[&oids])
            .await
            .map_err(|error| ErrorChain(&error).to_string())?;
        let mut found = HashMap::new();
        for row in rows {
            let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
            let estimate: f64 = row.try_get(5).map_err(bad)?;
            let kind: i8 = row.try_get(2).map_err(bad)?;
            let outside = Outside {
                name: row.try_get(1).map_err(bad)?,
                kind: kind.cast_unsigned(),
                file: row.try_get(3).map_err(bad)?,
                temporary: row.try_get(4).map_err(bad)?,
                rows: format!("{estimate:.0}").parse().ok(),
                table: row.try_get(6).map_err(bad)?,
                owner: row.try_get(7).map_err(bad)?,
            };
            found.insert(row.try_get(0).map_err(bad)?, outside);
        }
        self.keep(database, &found);
        Ok(found)
    }
}

const POSITION: &str = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
    ELSE pg_catalog.pg_current_wal_flush_lsn()::text END";

const QUESTION: &str = "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind, \
    c.relfilenode, c.relpersistence = 't', c.reltuples::float8, i.indrelid, c.relowner::text \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid WHERE c.oid = ANY($1)";
