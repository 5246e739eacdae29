//! What others see of the rows of the catalogs that an open transaction wrote.

use std::collections::HashSet;

use holdfast_core::ErrorChain;
use tokio_postgres::Client;

use super::super::changes::{self, Entry, LIMIT_ENTRIES, Sight, Taken};
use super::super::evidence::Said;
use super::Control;

impl Control {
    /// Looks up what others see, and what is known about names and functions.
    pub(in crate::door::pg) async fn sight(
        &self,
        (database, role): (&str, &str),
        said: &Said,
        inside: Vec<Entry>,
    ) -> Result<Sight, String> {
        let client = self.client(database).await?;
        let mut sight = Sight {
            outside: outside(&client, said, &inside).await?,
            harmless: harmless(&client, &inside).await?,
            ..Sight::default()
        };
        names(&client, role, &inside, &mut sight).await?;
        sight.inside = inside;
        Ok(sight)
    }
}

fn told(error: tokio_postgres::Error) -> String {
    ErrorChain(&error).to_string()
}

async fn outside(client: &Client, said: &Said, inside: &[Entry]) -> Result<Vec<Entry>, String> {
    let Some(xid) = said.transaction else {
        return Ok(Vec::new());
    };
    let asked: Vec<String> = changes::written(said)
        .map(|catalog| {
            let oids: HashSet<u32> = inside
                .iter()
                .filter(|entry| entry.catalog == catalog.oid)
                .map(|entry| entry.oid)
                .collect();
            let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
            let condition = format!(
                "(pg_catalog.age(x.xmax) <= pg_catalog.age('{xid}'::pg_catalog.xid) OR {} = ANY('{{{}}}'::pg_catalog.oid[]))",
                catalog.key(),
                oids.join(",")
            );
            catalog.select(&condition)
        })
        .collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client
        .query(&asked.join(" UNION ALL "), &[])
        .await
        .map_err(told)?;
    if rows.len() > LIMIT_ENTRIES.saturating_mul(4) {
        return Err("too much changes at once".to_owned());
    }
    rows.iter()
        .map(|row| {
            let field = |at: usize| row.try_get::<_, Option<&str>>(at).ok().flatten();
            changes::entry(&field).ok_or_else(|| "a catalog is not understood".to_owned())
        })
        .collect()
}

async fn harmless(client: &Client, inside: &[Entry]) -> Result<HashSet<u32>, String> {
    let calls: HashSet<u32> = inside
        .iter()
        .flat_map(|entry| entry.calls.iter().copied())
        .collect();
    if calls.is_empty() {
        return Ok(calls);
    }
    let calls: Vec<u32> = calls.into_iter().collect();
    let rows = client.query(HARMLESS, &[&calls]).await.map_err(told)?;
    rows.iter()
        .map(|row| row.try_get(0).map_err(told))
        .collect()
}

async fn names(
    client: &Client,
    role: &str,
    inside: &[Entry],
    sight: &mut Sight,
) -> Result<(), String> {
    let named: Vec<&str> = inside.iter().map(|entry| entry.name.as_str()).collect();
    let rows = client.query(NAMES, &[&role, &named]).await.map_err(told)?;
    for row in rows {
        let text = |at: usize| row.try_get::<_, String>(at).map_err(told);
        let oid: u32 = row.try_get(1).map_err(told)?;
        match text(0)?.as_str() {
            "role" => sight.role = oid.to_string(),
            "path" => drop(sight.paths.insert(text(2)?)),
            "schema" => drop(sight.schemas.insert(oid, text(2)?)),
            _ => {
                let catalog = text(0)?.parse().map_err(|_| "a name is not understood")?;
                sight.taken.push(Taken {
                    catalog,
                    name: text(2)?,
                    schema: oid,
                    owner: text(3)?,
                    arguments: row.try_get(4).map_err(told)?,
                });
            }
        }
    }
    Ok(())
}

/// Functions that compute: the server's own that are not volatile or only give a value, and those of
/// extensions that do nothing else.
const HARMLESS: &str = "SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.oid = ANY($1) AND ( \
    p.oid < 10000 AND (p.provolatile <> 'v' OR p.proname IN ('clock_timestamp', 'gen_random_uuid', \
      'nextval', 'pg_backend_pid', 'random', 'timeofday', 'uuidv4', 'uuidv7')) \
    OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
      AND e.extname IN ('btree_gin', 'btree_gist', 'citext', 'cube', 'earthdistance', \
        'fuzzystrmatch', 'hstore', 'intarray', 'isn', 'ltree', 'pg_trgm', 'pg_uuidv7', 'pgcrypto', \
        'pgx_ulid', 'postgis', 'unaccent', 'uuid-ossp', 'vector')))";

/// The lease's role; schemas that may stand in somebody's search path: those that are named like a
/// role, and those in a setting; all schemas; and names that are in use.
const NAMES: &str = "SELECT 'role', r.oid, '', '', NULL::int4 FROM pg_catalog.pg_roles r WHERE r.rolname = $1 \
    UNION ALL SELECT 'path', 0::oid, md5((ROW(s))::text), '', NULL FROM ( \
      SELECT 'public' AS s UNION SELECT rolname::text FROM pg_catalog.pg_roles \
      UNION SELECT btrim(p, ' \"''') FROM ( \
        SELECT setting AS path FROM pg_catalog.pg_settings WHERE name = 'search_path' \
        UNION SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path' \
        UNION SELECT substr(c, 13) FROM pg_catalog.pg_db_role_setting, unnest(setconfig) c \
          WHERE c LIKE 'search\\_path=%' \
        UNION SELECT substr(c, 13) FROM pg_catalog.pg_proc, unnest(proconfig) c \
          WHERE c LIKE 'search\\_path=%' \
      ) paths, regexp_split_to_table(path, ',') p) schemas \
    UNION ALL SELECT 'schema', n.oid, md5((ROW(n.nspname))::text), '', NULL FROM pg_catalog.pg_namespace n \
    UNION ALL SELECT '1259', c.relnamespace, md5((ROW(c.relname))::text), c.relowner::text, NULL \
      FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
      AND c.relpersistence <> 't' AND md5((ROW(c.relname))::text) = ANY($2) \
    UNION ALL SELECT '1255', p.pronamespace, md5((ROW(p.proname))::text), p.proowner::text, \
      CASE WHEN p.pronargdefaults = 0 AND p.provariadic = 0 THEN p.pronargs::int4 END \
      FROM pg_catalog.pg_proc p WHERE md5((ROW(p.proname))::text) = ANY($2) \
    UNION ALL SELECT '2617', o.oprnamespace, md5((ROW(o.oprname))::text), o.oprowner::text, NULL \
      FROM pg_catalog.pg_operator o WHERE md5((ROW(o.oprname))::text) = ANY($2)";
