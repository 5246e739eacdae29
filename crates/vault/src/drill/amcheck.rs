//! The structure of tables and indexes, by PostgreSQL's own `pg_amcheck` or through its extension.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use holdfast_core::{ErrorChain, Untrusted};
use holdfast_wire::pg::replication::quote_identifier;

use super::checks::{ASK, Checks, tables, timed};
use super::tally::Tally;
use crate::limits;
use crate::restore::{LocalServer, Programs, command};
use crate::source::{Connection, SourceError};

/// The check of indexes.
pub(super) const INDEXES: &str = "structure of B-tree indexes";
/// The check of tables.
pub(super) const HEAPS: &str = "structure of tables";
/// The program, and its files of output in the drill's folder.
const PROGRAM: &str = "pg_amcheck";
const AMCHECK: &str = "check structures with amcheck";

const BTREES: &str = "
    SELECT c.oid, n.nspname, c.relname
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
      AND i.indisvalid AND i.indisready
    ORDER BY c.relpages, c.oid";

/// What was found in indexes and in tables.
#[derive(Default)]
pub(super) struct Structures {
    pub(super) indexes: Tally,
    pub(super) heaps: Tally,
}

/// Runs the program on every database of a server, if it is there and comes to an end.
///
/// `None` when there is no such program or it could not do its work: the extension is asked then.
pub(super) fn by_program(
    programs: &Programs,
    (server, folder): (&LocalServer, &Path),
    deadline: Instant,
) -> Option<Structures> {
    let program = programs.bin.join(PROGRAM);
    if !program.is_file() {
        return None;
    }
    let (out, err) = (folder.join("pg_amcheck.out"), folder.join("pg_amcheck.err"));
    let ended = run(programs, (server, &out, &err), deadline);
    let (said, told) = (tail(&out), tail(&err));
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(%error, "pg_amcheck cannot be run");
            return None;
        }
    };
    let mut found = read(&said, &told);
    match ended {
        // SOURCE: PostgreSQL 18, `bin/pg_amcheck/pg_amcheck.c`: 2 is corruption, 1 a failure of its own.
        Ended::With(Some(0 | 2)) => Some(found),
        Ended::With(code) => {
            let last = told.lines().last().unwrap_or_default();
            tracing::warn!(?code, last = %Untrusted(last), "pg_amcheck did not end its work");
            None
        }
        Ended::Late => {
            for tally in [&mut found.indexes, &mut found.heaps] {
                tally.missing = Some("the time was up".to_owned());
            }
            Some(found)
        }
    }
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It was stopped when the time was up.
    Late,
    /// By itself, with this code.
    With(Option<i32>),
}

fn run(
    programs: &Programs,
    (server, out, err): (&LocalServer, &Path, &Path),
    deadline: Instant,
) -> io::Result<Ended> {
    let mut asked = command(
        programs.bin.join(PROGRAM).as_os_str(),
        programs.account.as_ref(),
    );
    let mut child = asked
        .args([
            "--all",
            "--install-missing",
            "--heapallindexed",
            "--parent-check",
        ])
        .args(["--no-password", "--verbose", "--host"])
        .arg(&server.sockets)
        .args(["--port", &server.port.to_string()])
        .args(["--username", &server.superuser])
        .stdout(Stdio::from(File::create(out)?))
        .stderr(Stdio::from(File::create(err)?))
        .spawn()?;
    let ended = wait(&mut child, deadline);
    if !matches!(ended, Ok(Ended::With(_))) {
        // It may have ended meanwhile; the wait takes it away in any case.
        let _ = child.kill();
        child.wait()?;
    }
    ended
}

fn wait(child: &mut Child, deadline: Instant) -> io::Result<Ended> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::With(status.code()));
        }
        if Instant::now() >= deadline {
            return Ok(Ended::Late);
        }
        std::thread::sleep(limits::DRILL_POLL);
    }
}

/// Returns the beginning of a file of output, which may be cut.
fn tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(limits::DRILL_OUTPUT_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_default()
}

/// Reads what the program wrote: a heading for each finding, and what it is on the lines below.
fn read(said: &str, told: &str) -> Structures {
    let mut found = Structures::default();
    for line in said.lines().chain(told.lines()) {
        if line.contains("checking btree index") {
            found.indexes.done = found.indexes.done.saturating_add(1);
        } else if line.contains("checking heap table") {
            found.heaps.done = found.heaps.done.saturating_add(1);
        }
    }
    for tally in [&mut found.indexes, &mut found.heaps] {
        tally.by = Some(PROGRAM.to_owned());
    }
    let mut heading: Option<&str> = None;
    for line in said.lines() {
        if line.starts_with("heap table") || line.starts_with("btree index") {
            heading = Some(line.trim_end_matches(':'));
        } else if let (Some(of), true) = (heading, line.starts_with(' ')) {
            let finding = format!("{}: {}", Untrusted(of), Untrusted(line.trim()));
            match of.starts_with("btree") {
                true => found.indexes.find(finding),
                false => found.heaps.find(finding),
            }
            // What follows belongs to the same finding: hints, details, queries.
            heading = None;
        }
    }
    found
}

/// Asks the extension about the database that the connection is in.
pub(super) fn by_extension(
    checks: &Checks<'_>,
    connection: &mut Connection,
    database: &str,
    found: &mut Structures,
) -> Result<(), SourceError> {
    let schema = match schema(connection)? {
        Ok(schema) => schema,
        Err(why) => {
            found.indexes.missing = Some(why.clone());
            found.heaps.missing = Some(why);
            return Ok(());
        }
    };
    for tally in [&mut found.indexes, &mut found.heaps] {
        tally.by = Some("the extension amcheck".to_owned());
    }
    let reply = connection.query(BTREES, ASK)?;
    for row in reply.rows() {
        let [Some(oid), Some(space), Some(name)] = row.as_slice() else {
            continue;
        };
        let Some(left) = checks.left() else {
            found.indexes.left = found.indexes.left.saturating_add(1);
            continue;
        };
        let sql = format!("SELECT {schema}.bt_index_parent_check({oid}::regclass, true)");
        match timed(connection, &sql, AMCHECK, left) {
            Ok(_) => found.indexes.done = found.indexes.done.saturating_add(1),
            Err(error) => found
                .indexes
                .note(&format!("{database}.{space}.{name}"), &error)?,
        }
    }
    if connection.major() < 14 {
        found.heaps.missing = Some("PostgreSQL 13 cannot check tables".to_owned());
        return Ok(());
    }
    heaps(checks, connection, (database, &schema), &mut found.heaps)
}

fn heaps(
    checks: &Checks<'_>,
    connection: &mut Connection,
    (database, schema): (&str, &str),
    found: &mut Tally,
) -> Result<(), SourceError> {
    for table in tables(connection)? {
        let Some(left) = checks.left() else {
            found.left = found.left.saturating_add(1);
            continue;
        };
        let toast = if table.is_toast { "false" } else { "true" };
        let sql = format!(
            "SELECT 'block ' || blkno || ': ' || msg
             FROM {schema}.verify_heapam({}::regclass, check_toast => {toast}) LIMIT 3",
            table.oid
        );
        let name = format!("{database}.{}", table.name);
        match timed(connection, &sql, AMCHECK, left) {
            Ok(reply) => {
                found.done = found.done.saturating_add(1);
                for finding in reply.firsts() {
                    found.find(format!("{}: {}", Untrusted(&name), Untrusted(finding)));
                }
            }
            Err(error) => found.note(&name, &error)?,
        }
    }
    Ok(())
}

/// Returns the quoted schema of the extension, making it where it is installed; or why there is none.
fn schema(connection: &mut Connection) -> Result<Result<String, String>, SourceError> {
    const WHERE: &str = "SELECT n.nspname FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'";
    connection.query("SET statement_timeout = 0", ASK)?;
    if let Some(schema) = connection.query(WHERE, ASK)?.single() {
        return Ok(Ok(quote_identifier(schema)));
    }
    let installed = connection.query(
        "SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'",
        ASK,
    )?;
    if installed.single().is_none() {
        let why =
            "neither pg_amcheck nor the extension amcheck is installed beside this PostgreSQL";
        return Ok(Err(why.to_owned()));
    }
    let made = connection.query(
        "CREATE SCHEMA IF NOT EXISTS holdfast_drill; CREATE EXTENSION amcheck SCHEMA holdfast_drill",
        AMCHECK,
    );
    match made {
        Ok(_) => Ok(Ok("holdfast_drill".to_owned())),
        Err(error @ SourceError::Refused { .. }) => Ok(Err(ErrorChain(&error).to_string())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_of_the_program_are_told_from_what_it_says_besides() {
        let said = "heap table \"a.public.t\", block 3, offset 2:\n    line pointer to page offset 9000 is out of range\nbtree index \"a.public.t_pkey\":\n    ERROR:  heap tuple (0,1) from table \"t\" lacks matching index tuple within index \"t_pkey\"\n    HINT:  Retrying verification might provide a more specific error.\n";
        let told = "pg_amcheck: checking heap table \"a.public.t\"\npg_amcheck: checking btree index \"a.public.t_pkey\"\npg_amcheck: checking btree index \"a.public.u_pkey\"\n";
        let found = read(said, told);
        let heaps = found.heaps.into_check(HEAPS);
        assert!(heaps.detail.contains("block 3"), "{heaps:?}");
        assert!(
            heaps.detail.contains("1 checked by pg_amcheck"),
            "{heaps:?}"
        );
        let indexes = found.indexes.into_check(INDEXES);
        assert!(indexes.detail.contains("lacks matching"), "{indexes:?}");
        assert!(!indexes.detail.contains("HINT"), "{indexes:?}");
        assert!(indexes.detail.contains("2 checked"), "{indexes:?}");
        let clean = read("", told);
        let check = clean.indexes.into_check(INDEXES);
        assert_eq!(check.outcome, holdfast_core::CheckOutcome::Passed);
    }
}
