//! What could reach outside, found in the data and disabled; what cannot be disabled is told too.

use holdfast_core::Untrusted;

use super::record::Role;
use super::server::Server;
use super::settings::{LEASES, OUTWARD, is_harmless};
use super::{CloneError, CloneId, Disabled, Kept};
use crate::source::{Connection, Reply, SourceError};

/// Makes the two roles; whoever reaches the socket may still come in.
pub(super) fn make_roles(
    connection: &mut Connection,
    (keeper, role): (&Role, &Role),
    kept: Kept,
) -> Result<(), SourceError> {
    const STEP: &str = "make the roles";
    // Where nothing but settings keeps it in, nobody else gets the right to run programs.
    let rights = match kept {
        Kept::Enforced => "SUPERUSER",
        Kept::Advisory => "NOSUPERUSER CREATEDB",
    };
    // A clone that is opened again may have them.
    let make = |role: &Role, rights: &str| {
        format!(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{name}')
             THEN CREATE ROLE \"{name}\"; END IF; END $$;
             ALTER ROLE \"{name}\" LOGIN {rights} PASSWORD '{password}';",
            name = role.name,
            password = role.password,
        )
    };
    let mut sql = "SET password_encryption = 'scram-sha-256';
        SET default_transaction_read_only = off;"
        .to_owned();
    sql.push_str(&make(keeper, "SUPERUSER"));
    sql.push_str(&make(role, rights));
    // Whoever is a member of it may come in; in the beginning nobody is.
    sql.push_str(&format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{name}{LEASES}')
         THEN CREATE ROLE \"{name}{LEASES}\" NOLOGIN; END IF; END $$;",
        name = role.name
    ));
    if kept == Kept::Advisory {
        sql.push_str(&format!(
            "DO $$ DECLARE owner text; BEGIN
               FOR owner IN SELECT rolname FROM pg_catalog.pg_roles WHERE NOT rolsuper AND rolname !~ '^pg_'
                 AND rolname NOT IN ('{name}', '{keeper}') LOOP
                 EXECUTE pg_catalog.format('GRANT %I TO %I', owner, '{name}');
               END LOOP;
               FOR owner IN SELECT rolname FROM pg_catalog.pg_roles
                 WHERE rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_monitor') LOOP
                 EXECUTE pg_catalog.format('GRANT %I TO %I', owner, '{name}');
               END LOOP; END $$;",
            name = role.name,
            keeper = keeper.name,
        ));
    }
    connection.query(&sql, STEP).map(|_| ())
}

/// Disables everything in every database, and returns what there was.
pub(super) fn all(
    server: &Server,
    id: &CloneId,
    (keeper, role): (&Role, &Role),
    libraries: &[String],
) -> Result<Vec<Disabled>, CloneError> {
    let step = "disable what could reach outside";
    let failed = |source| CloneError::Disarm {
        id: id.clone(),
        step,
        source,
    };
    let mut found = Vec::new();
    for library in libraries.iter().filter(|name| !is_harmless(name)) {
        found.push(of_cluster("library", library, "not loaded at start"));
    }
    let mut first = anywhere(server, keeper).map_err(failed)?;
    found.extend(settings(&mut first).map_err(failed)?);
    let databases = first
        .query(
            "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY datname",
            "list the databases",
        )
        .map_err(failed)?;
    drop(first);
    for database in databases.firsts() {
        let mut connection = server.connect(keeper, database).map_err(failed)?;
        connection
            .query(
                "SET default_transaction_read_only = off; SET search_path = pg_catalog;
                 SET client_min_messages = error; SET lock_timeout = '10s'",
                "prepare to disable",
            )
            .map_err(failed)?;
        if server.confinement.kept == Kept::Advisory {
            connection
                .query(&rights(role), "give rights")
                .map_err(failed)?;
        }
        let reply = connection
            .query(FIND, "look for what reaches outside")
            .map_err(failed)?;
        found.extend(disable(&mut connection, database, &reply));
        let jobs = connection.query(JOBS, "look for jobs").map_err(failed)?;
        found.extend(disable(&mut connection, database, &jobs));
    }
    Ok(found)
}

/// Gives a role that may not run programs everything that it can be given in a database.
fn rights(role: &Role) -> String {
    format!(
        "DO $$ DECLARE s text; BEGIN
           EXECUTE pg_catalog.format('GRANT ALL ON DATABASE %I TO %I', pg_catalog.current_database(), '{name}');
           FOR s IN SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_'
             AND nspname <> 'information_schema' LOOP
             EXECUTE pg_catalog.format('GRANT ALL ON SCHEMA %I TO %I', s, '{name}');
             EXECUTE pg_catalog.format('GRANT ALL ON ALL TABLES IN SCHEMA %I TO %I', s, '{name}');
             EXECUTE pg_catalog.format('GRANT ALL ON ALL SEQUENCES IN SCHEMA %I TO %I', s, '{name}');
           END LOOP; END $$",
        name = role.name
    )
}

/// Connects to a database that every cluster has, unless somebody dropped it.
pub(super) fn anywhere(server: &Server, role: &Role) -> Result<Connection, SourceError> {
    server
        .connect(role, "postgres")
        .or_else(|error| match error {
            SourceError::Refused { .. } => server.connect(role, "template1"),
            error => Err(error),
        })
}

fn of_cluster(kind: &str, name: &str, how: &str) -> Disabled {
    Disabled {
        kind: kind.to_owned(),
        name: Untrusted(name).to_string(),
        database: None,
        how: how.to_owned(),
        failed: false,
    }
}

/// Returns the settings in the source's files that lead outside; the command line has overruled them.
fn settings(connection: &mut Connection) -> Result<Vec<Disabled>, SourceError> {
    let names = OUTWARD.map(|name| format!("'{name}'")).join(", ");
    let sql = format!(
        "SELECT DISTINCT name FROM pg_catalog.pg_file_settings
         WHERE name IN ({names}) AND setting NOT IN ('', 'off', 'false', '(disabled)') ORDER BY name"
    );
    let reply = connection.query(&sql, "read the settings of the source")?;
    let of = |name| of_cluster("setting", name, "overruled on the command line");
    Ok(reply.firsts().map(of).collect())
}

/// Runs what was found, one by one: one that fails keeps no other from being disabled.
fn disable(connection: &mut Connection, database: &str, found: &Reply) -> Vec<Disabled> {
    let text =
        |row: &[Option<String>], at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let rows = found.rows().iter();
    rows.map(|row| {
        let (kind, name, how) = (text(row, 0), text(row, 1), text(row, 2));
        let done = match text(row, 3) {
            sql if sql.is_empty() => Ok(()),
            sql => connection
                .query(&sql, "disable what reaches outside")
                .map(|_| ()),
        };
        let (how, failed) = match done {
            Ok(()) => (how, false),
            Err(error) => {
                let why = holdfast_core::ErrorChain(&error).to_string();
                (format!("could not be disabled: {}", Untrusted(&why)), true)
            }
        };
        Disabled {
            name: Untrusted(&name).to_string(),
            kind,
            database: Some(database.to_owned()),
            how,
            failed,
        }
    })
    .collect()
}

/// What a database has that reaches outside: kind, name, what is done, and the statement that does it.
///
/// # Source
/// PostgreSQL 18, chapters 51.10 to 51.21 (catalogs), `ALTER SUBSCRIPTION`, `ALTER SERVER`,
/// `ALTER FOREIGN DATA WRAPPER`
const FIND: &str = r"
SELECT 'subscription', subname::text, 'disabled, and its slot forgotten',
  format('ALTER SUBSCRIPTION %I DISABLE; ALTER SUBSCRIPTION %I SET (slot_name = NONE)', subname, subname)
FROM pg_subscription
WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
UNION ALL
SELECT 'foreign server', s.srvname::text, 'leads nowhere',
  CASE WHEN w.fdwname IN ('postgres_fdw', 'dblink_fdw') OR o.names && ARRAY['host', 'hostaddr', 'service']
  THEN format('ALTER SERVER %I OPTIONS (%s)', s.srvname, concat_ws(', ',
    CASE WHEN 'hostaddr' = ANY (o.names) THEN 'DROP hostaddr' END,
    CASE WHEN 'service' = ANY (o.names) THEN 'DROP service' END,
    CASE WHEN 'host' = ANY (o.names) THEN 'SET' ELSE 'ADD' END || ' host ''/a-clone-reaches-nothing'''))
  END
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw,
  LATERAL (SELECT coalesce(array_agg(option_name::text), '{}') AS names
           FROM pg_options_to_table(s.srvoptions)) o
UNION ALL
SELECT 'password of a foreign server', format('%s for %s', srvname, usename), 'removed',
  format('ALTER USER MAPPING FOR %s SERVER %I OPTIONS (DROP password)',
         CASE WHEN umuser = 0 THEN 'PUBLIC' ELSE quote_ident(usename) END, srvname)
FROM pg_user_mappings
WHERE EXISTS (SELECT FROM pg_options_to_table(umoptions) WHERE option_name = 'password')
UNION ALL
SELECT 'foreign data wrapper', fdwname::text, 'has no handler any more',
  format('ALTER FOREIGN DATA WRAPPER %I NO HANDLER', fdwname)
FROM pg_foreign_data_wrapper WHERE fdwhandler <> 0
UNION ALL
SELECT 'extension', extname::text, 'its worker is not loaded, so that what is queued stays queued', NULL
FROM pg_extension WHERE extname IN ('pg_net', 'pg_background', 'pglogical', 'wal2mongo')
UNION ALL
SELECT 'jobs', extname::text, 'set inactive, and its worker is not loaded',
  CASE extname
    WHEN 'pg_cron' THEN 'UPDATE cron.job SET active = false WHERE active'
    WHEN 'pgagent' THEN 'UPDATE pgagent.pga_job SET jobenabled = false WHERE jobenabled'
  END
FROM pg_extension WHERE extname IN ('pg_cron', 'pgagent', 'pg_timetable', 'pg_partman')
";

/// Jobs of a library that is not installed here as an extension: known by their table alone.
const JOBS: &str = r"
SELECT 'jobs', format('%I.%I', n.nspname, c.relname), 'set inactive',
  format('UPDATE %I.%I SET active = false WHERE active', n.nspname, c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'active' AND a.atttypid = 'bool'::regtype
WHERE n.nspname = 'cron' AND c.relname = 'job' AND c.relkind = 'r'
  AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron')
";
