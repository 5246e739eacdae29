//! Where sequences stand: `setval` survives a ROLLBACK, so what was set behind the door's back is put
//! back.

use std::collections::HashMap;

use holdfast_core::ErrorChain;

use super::Control;

/// Where sequences stood, by number and file.
pub(in crate::door::pg) type Sample = HashMap<(u32, u32), Option<i64>>;

impl Control {
    /// Says where the sequences of a database stand, apart from those that are locked.
    pub(in crate::door::pg) async fn sequences(
        &self,
        database: &str,
        locked: &[u32],
    ) -> Result<Sample, String> {
        let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
        let client = self.client(database).await?;
        let rows = client.query(QUESTION, &[&locked]).await.map_err(bad)?;
        let mut sample = Sample::new();
        for row in rows {
            let key = (row.try_get(0).map_err(bad)?, row.try_get(1).map_err(bad)?);
            sample.insert(key, row.try_get(2).map_err(bad)?);
        }
        Ok(sample)
    }

    /// Puts sequences back that went backwards or jumped, and names them.
    ///
    /// A sequence never stands below what its column holds, so no number is given twice.
    pub(in crate::door::pg) async fn mend(
        &self,
        database: &str,
        before: &Sample,
        locked: &[u32],
    ) -> Result<Vec<String>, String> {
        let now = self.sequences(database, locked).await?;
        let mut mended = Vec::new();
        for (key, then) in before {
            let Some(value) = now.get(key) else { continue };
            let (Some(then), back) = (then, value.unwrap_or(i64::MIN)) else {
                continue;
            };
            let ahead = back.saturating_sub(*then);
            if (0..=LIMIT_AHEAD).contains(&ahead) {
                continue;
            }
            // Others may have taken numbers since the sample.
            let room = if ahead > 0 { ROOM } else { 0 };
            mended.push(
                self.put_back(database, key.0, then.saturating_add(room))
                    .await?,
            );
        }
        mended.sort_unstable();
        Ok(mended)
    }

    async fn put_back(&self, database: &str, sequence: u32, value: i64) -> Result<String, String> {
        let bad = |error: tokio_postgres::Error| ErrorChain(&error).to_string();
        let client = self.client(database).await?;
        let found = client
            .query_one(OWNED_BY, &[&sequence])
            .await
            .map_err(bad)?;
        let name: String = found.try_get(0).map_err(bad)?;
        let column: Option<String> = found.try_get(1).map_err(bad)?;
        let highest = column.unwrap_or_else(|| "NULL".to_owned());
        let back = format!(
            "SELECT pg_catalog.setval({sequence}::oid::regclass, GREATEST({value}, ({highest})))"
        );
        client.batch_execute(&back).await.map_err(bad)?;
        tracing::warn!(sequence = %name, "a sequence was set behind the door and was put back");
        Ok(name)
    }
}

/// Numbers that a sequence may go ahead within one transaction.
const LIMIT_AHEAD: i64 = 1_000_000;

/// Numbers that are left for those who took some at the same time.
const ROOM: i64 = 1_000;

const QUESTION: &str = "SELECT c.oid, c.relfilenode, \
    CASE WHEN c.relkind = 'S' AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT') \
      THEN pg_catalog.pg_sequence_last_value(c.oid) END \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND s.seqincrement > 0 AND NOT s.seqcycle \
    AND c.oid <> ALL($1) \
    ORDER BY c.oid LIMIT 5000";

const OWNED_BY: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), \
    (SELECT pg_catalog.format('SELECT pg_catalog.max(%I) FROM %I.%I', a.attname, m.nspname, t.relname) \
      FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class t ON t.oid = d.refobjid \
      JOIN pg_catalog.pg_namespace m ON m.oid = t.relnamespace \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid \
      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') \
      LIMIT 1) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
