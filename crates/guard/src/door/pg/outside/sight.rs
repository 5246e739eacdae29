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
            armed: joining(&client, &inside).await?,
            used: used(&client, role, &inside).await?,
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

/// Looks which known tables that become parts of others bring something along that acts.
async fn joining(client: &Client, inside: &[Entry]) -> Result<HashSet<u32>, String> {
    let children = numbers(inside, changes::INHERITS);
    if children.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = client.query(ARMED, &[&children]).await.map_err(told)?;
    rows.iter()
        .map(|row| row.try_get(0).map_err(told))
        .collect()
}

/// Looks which functions stand behind tables of others.
async fn used(client: &Client, role: &str, inside: &[Entry]) -> Result<HashSet<u32>, String> {
    let functions = numbers(inside, changes::PROC);
    if functions.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = client
        .query(USED, &[&functions, &role])
        .await
        .map_err(told)?;
    rows.iter()
        .map(|row| row.try_get(0).map_err(told))
        .collect()
}

fn numbers(inside: &[Entry], catalog: u32) -> Vec<u32> {
    let of = inside.iter().filter(|entry| entry.catalog == catalog);
    of.map(|entry| entry.oid).collect()
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
///
/// A function that was made a part of an extension later is none of its own.
const HARMLESS: &str = "SELECT p.oid FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang WHERE p.oid = ANY($1) AND ( \
    p.oid < 10000 AND (p.provolatile <> 'v' OR p.proname IN ('clock_timestamp', 'gen_random_uuid', \
      'nextval', 'pg_backend_pid', 'random', 'timeofday', 'uuidv4', 'uuidv7')) \
    OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
      WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' \
      AND (l.lanname IN ('c', 'internal') OR p.xmin = e.xmin) \
      AND e.extname IN ('btree_gin', 'btree_gist', 'citext', 'cube', 'earthdistance', \
        'fuzzystrmatch', 'hstore', 'intarray', 'isn', 'ltree', 'pg_trgm', 'pg_uuidv7', 'pgcrypto', \
        'pgx_ulid', 'postgis', 'unaccent', 'uuid-ossp', 'vector')))";

/// Tables with triggers, rules, row security, or checks that call functions which somebody made.
const ARMED: &str = "SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid = ANY($1) AND c.relkind IN ('r', 'p', 'f') \
    AND (c.relhasrules OR c.relrowsecurity \
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgparentid = 0) \
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint k, \
      regexp_matches(k.conbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m \
      WHERE k.conrelid = c.oid AND m[1]::oid >= 16384) \
    OR EXISTS (SELECT FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_attribute a \
      ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> '', \
      regexp_matches(f.adbin::text, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m \
      WHERE f.adrelid = c.oid AND m[1]::oid >= 16384) \
    OR EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND t.oid >= 16384 AND t.typtype IN ('c', 'd', 'r', 'm')))";

/// Functions on which something of a table or type depends that another role owns.
const USED: &str = "SELECT DISTINCT d.refobjid FROM pg_catalog.pg_depend d \
    LEFT JOIN pg_catalog.pg_trigger g ON d.classid = 'pg_catalog.pg_trigger'::regclass AND g.oid = d.objid \
    LEFT JOIN pg_catalog.pg_attrdef f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND f.oid = d.objid \
    LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid \
    LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid \
    LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid \
    LEFT JOIN pg_catalog.pg_class c ON c.oid = COALESCE(g.tgrelid, f.adrelid, NULLIF(k.conrelid, 0), \
      w.ev_class, p.polrelid, CASE WHEN d.classid = 'pg_catalog.pg_class'::regclass THEN d.objid END) \
    LEFT JOIN pg_catalog.pg_type t ON t.oid = COALESCE(NULLIF(k.contypid, 0), \
      CASE WHEN d.classid = 'pg_catalog.pg_type'::regclass THEN d.objid END) \
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = COALESCE(c.relowner, t.typowner) \
    WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid = ANY($1) \
    AND COALESCE(c.oid, t.oid) IS NOT NULL AND r.rolname IS DISTINCT FROM $2";

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
    UNION ALL SELECT '1247', t.typnamespace, md5((ROW(t.typname))::text), t.typowner::text, NULL \
      FROM pg_catalog.pg_type t WHERE t.typtype <> 'c' AND t.typcategory <> 'A' \
      AND md5((ROW(t.typname))::text) = ANY($2) \
    UNION ALL SELECT '1255', p.pronamespace, md5((ROW(p.proname))::text), p.proowner::text, \
      CASE WHEN p.pronargdefaults = 0 AND p.provariadic = 0 THEN p.pronargs::int4 END \
      FROM pg_catalog.pg_proc p WHERE md5((ROW(p.proname))::text) = ANY($2) \
    UNION ALL SELECT '2617', o.oprnamespace, md5((ROW(o.oprname))::text), o.oprowner::text, NULL \
      FROM pg_catalog.pg_operator o WHERE md5((ROW(o.oprname))::text) = ANY($2)";
