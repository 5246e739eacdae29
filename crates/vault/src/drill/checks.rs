//! What a drill asks the restored server: databases, tables, indexes, rows, the user's assertions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holdfast_core::{Check, CheckOutcome, ErrorChain, RowCount, Untrusted};
use holdfast_wire::pg::replication::quote_identifier;

use super::server::Server;
use crate::config::Assertion;
use crate::limits;
use crate::source::{Connection, Reply, SourceError};

/// Rows per table, named `database.schema.table`.
pub(super) type Rows = BTreeMap<String, u64>;

/// The check that counts every table.
pub(super) const TABLES_READ: &str = "tables can be read";

const ASSERTIONS: &str = "ask an assertion";
const ASK: &str = "look at the catalogs";
const COUNT: &str = "count the rows of a table";
const AMCHECK: &str = "check structures with amcheck";

/// Tables that hold rows of their own and are there after a restore, the small ones first.
const TABLES: &str = "
    SELECT c.oid, n.nspname, c.relname, c.relkind,
           n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') AS system
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' AND c.relispopulated
    ORDER BY c.relpages, c.oid";

const INDEXES: &str = "
    SELECT c.oid, n.nspname, c.relname
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_am a ON a.oid = c.relam
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
      AND i.indisvalid AND i.indisready
    ORDER BY c.relpages, c.oid";

const DATABASES: &str = "
    SELECT datname FROM pg_catalog.pg_database
    WHERE datallowconn AND datconnlimit <> -2 ORDER BY oid";

/// Asks everything within one budget of time and remembers the answers.
pub(super) struct Checks<'a> {
    server: &'a Server,
    deadline: Instant,
    done: Vec<Check>,
    rows: Rows,
}

/// One table of the server.
struct Table {
    oid: String,
    name: String,
    quoted: String,
    is_system: bool,
    is_toast: bool,
}

/// How far one kind of check came.
#[derive(Default)]
struct Tally {
    done: u64,
    left: u64,
    findings: Vec<String>,
    more_findings: u64,
    /// Why it could not be done at all, somewhere.
    missing: Option<String>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(server: &'a Server, deadline: Instant) -> Self {
        Self {
            server,
            deadline,
            done: Vec::new(),
            rows: Rows::new(),
        }
    }

    /// Runs everything; what the budget does not reach is reported as not run.
    pub(super) fn run(&mut self, assertions: &[Assertion]) {
        for assertion in assertions {
            self.assert(assertion);
        }
        let Some(databases) = self.databases() else {
            return;
        };
        let mut tables = Tally::default();
        let mut heaps = Tally::default();
        let mut indexes = Tally::default();
        let mut broken = Vec::new();
        for database in &databases {
            let connected = self.server.connect(database);
            let looked = connected.and_then(|mut connection| {
                self.count(&mut connection, database, &mut tables)?;
                self.amcheck(&mut connection, database, (&mut indexes, &mut heaps))
            });
            if let Err(error) = looked {
                broken.push(format!("{}: {}", Untrusted(database), ErrorChain(&error)));
            }
        }
        let count = databases.len();
        self.done.push(match broken.is_empty() {
            true => check(
                "databases",
                CheckOutcome::Passed,
                format!("{count} can be used"),
            ),
            false => check("databases", CheckOutcome::Failed, broken.join("; ")),
        });
        self.done.push(tables.into_check(TABLES_READ));
        self.done
            .push(indexes.into_check("structure of B-tree indexes"));
        self.done.push(heaps.into_check("structure of tables"));
    }

    /// Returns what was checked, and the rows that were counted.
    pub(super) fn finish(self) -> (Vec<Check>, Rows) {
        (self.done, self.rows)
    }

    fn databases(&mut self) -> Option<Vec<String>> {
        let asked = self
            .server
            .connect_anywhere()
            .and_then(|mut connection| connection.query(DATABASES, ASK));
        match asked {
            Ok(reply) => Some(reply.firsts().map(str::to_owned).collect()),
            Err(error) => {
                let detail = ErrorChain(&error).to_string();
                self.done
                    .push(check("databases", CheckOutcome::Failed, detail));
                None
            }
        }
    }

    fn assert(&mut self, assertion: &Assertion) {
        let name = format!("assertion `{}`", Untrusted(&assertion.name));
        let (outcome, detail) = match self.left() {
            None => (CheckOutcome::NotRun, "the time was up".to_owned()),
            Some(left) => {
                let answer = self.server.connect(&assertion.database).and_then(|mut c| {
                    c.query("SET default_transaction_read_only = on", ASSERTIONS)?;
                    timed(&mut c, &assertion.sql, ASSERTIONS, left)
                });
                match answer {
                    Ok(reply) => judge_assertion(&reply),
                    Err(error) => (CheckOutcome::Failed, ErrorChain(&error).to_string()),
                }
            }
        };
        self.done.push(check(&name, outcome, detail));
    }

    fn count(
        &mut self,
        connection: &mut Connection,
        database: &str,
        tally: &mut Tally,
    ) -> Result<(), SourceError> {
        for table in tables(connection)? {
            let Some(left) = self.left() else {
                tally.left += 1;
                continue;
            };
            let sql = format!("SELECT count(*) FROM ONLY {}", table.quoted);
            match timed(connection, &sql, COUNT, left) {
                Ok(reply) => {
                    tally.done += 1;
                    let rows = reply.single().and_then(|rows| rows.parse().ok());
                    if let (Some(rows), false) = (rows, table.is_system)
                        && self.rows.len() < limits::DRILL_TABLES
                    {
                        self.rows.insert(format!("{database}.{}", table.name), rows);
                    }
                }
                Err(error) => tally.note(&format!("{database}.{}", table.name), &error)?,
            }
        }
        Ok(())
    }

    fn amcheck(
        &self,
        connection: &mut Connection,
        database: &str,
        (indexes, heaps): (&mut Tally, &mut Tally),
    ) -> Result<(), SourceError> {
        let schema = match amcheck_schema(connection)? {
            Ok(schema) => schema,
            Err(why) => {
                indexes.missing = Some(why.clone());
                heaps.missing = Some(why);
                return Ok(());
            }
        };
        let reply = connection.query(INDEXES, ASK)?;
        for row in reply.rows() {
            let [Some(oid), Some(space), Some(name)] = row.as_slice() else {
                continue;
            };
            let Some(left) = self.left() else {
                indexes.left += 1;
                continue;
            };
            let sql = format!("SELECT {schema}.bt_index_check({oid}::regclass, true)");
            match timed(connection, &sql, AMCHECK, left) {
                Ok(_) => indexes.done += 1,
                Err(error) => indexes.note(&format!("{database}.{space}.{name}"), &error)?,
            }
        }
        if connection.major() < 14 {
            heaps.missing = Some("PostgreSQL 13 cannot check tables".to_owned());
            return Ok(());
        }
        for table in tables(connection)? {
            let Some(left) = self.left() else {
                heaps.left += 1;
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
                    heaps.done += 1;
                    for finding in reply.firsts() {
                        heaps.find(format!("{}: {}", Untrusted(&name), Untrusted(finding)));
                    }
                }
                Err(error) => heaps.note(&name, &error)?,
            }
        }
        Ok(())
    }

    /// Returns the time that is left, or `None` when it is up.
    fn left(&self) -> Option<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        (left > Duration::from_millis(1)).then_some(left)
    }
}

impl Tally {
    fn find(&mut self, finding: String) {
        if self.findings.len() < limits::DRILL_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }

    /// Notes that a question failed; a lost connection ends the whole database.
    fn note(&mut self, name: &str, error: &SourceError) -> Result<(), SourceError> {
        match error.sqlstate() {
            // 57014: we ourselves gave it no more time.
            Some("57014") => self.left += 1,
            _ => self.find(format!("{}: {}", Untrusted(name), ErrorChain(error))),
        }
        match error {
            SourceError::Refused { .. } => Ok(()),
            _ => Err(SourceError::nonsense(
                AMCHECK,
                "the server closed the connection",
            )),
        }
    }

    fn into_check(self, name: &str) -> Check {
        let numbers = match self.left {
            0 => format!("{} checked", self.done),
            left => format!("{} checked, {left} not for want of time", self.done),
        };
        if !self.findings.is_empty() {
            let mut text = self.findings.join("; ");
            if self.more_findings > 0 {
                text = format!("{text}; and {} more", self.more_findings);
            }
            return check(name, CheckOutcome::Failed, format!("{text} ({numbers})"));
        }
        match (self.done, self.missing) {
            (_, Some(why)) => check(name, CheckOutcome::NotRun, format!("{why} ({numbers})")),
            (0, None) => check(name, CheckOutcome::NotRun, numbers),
            (_, None) => check(name, CheckOutcome::Passed, numbers),
        }
    }
}

/// Compares the rows of each table with those of the drill before.
///
/// A table that lost more than half of at least [`limits::DRILL_ROWS_MIN`] rows fails, whatever the
/// reason: it is reported once, because the next drill compares with this one.
pub(super) fn compare(before: Option<&Rows>, now: &Rows, is_complete: bool) -> Check {
    const NAME: &str = "rows compared with the drill before";
    let Some(before) = before else {
        let detail = "there is no drill before".to_owned();
        return check(NAME, CheckOutcome::NotRun, detail);
    };
    let mut tally = Tally::default();
    for (table, before) in before {
        let now = match now.get(table) {
            Some(now) => *now,
            None if is_complete => 0,
            None => {
                tally.left += 1;
                continue;
            }
        };
        tally.done += 1;
        if *before >= limits::DRILL_ROWS_MIN && now < *before / 2 {
            let (before, now) = (RowCount(*before), RowCount(now));
            tally.find(format!(
                "{}: {before} rows before, {now} now",
                Untrusted(table)
            ));
        }
    }
    match tally.done {
        0 => check(
            NAME,
            CheckOutcome::NotRun,
            "no table was there before".to_owned(),
        ),
        _ => tally.into_check(NAME),
    }
}

pub(super) fn check(name: &str, outcome: CheckOutcome, detail: String) -> Check {
    Check {
        name: name.to_owned(),
        outcome,
        detail,
    }
}

fn judge_assertion(reply: &Reply) -> (CheckOutcome, String) {
    match (reply.rows(), reply.single()) {
        ([_], Some("t")) => (CheckOutcome::Passed, "it holds".to_owned()),
        ([_], Some(other)) => {
            let text = format!("it answered `{}` instead of `t`", Untrusted(other));
            (CheckOutcome::Failed, text)
        }
        ([_], None) => (
            CheckOutcome::Failed,
            "it answered NULL instead of `t`".to_owned(),
        ),
        (rows, _) => {
            let text = format!("it answered {} rows instead of one", rows.len());
            (CheckOutcome::Failed, text)
        }
    }
}

/// Asks with a limit on the server's side, and a little more patience on ours.
fn timed(
    connection: &mut Connection,
    sql: &str,
    step: &'static str,
    left: Duration,
) -> Result<Reply, SourceError> {
    let limit = left.as_millis().clamp(1, 2_147_483_647);
    connection.query(&format!("SET statement_timeout = {limit}"), step)?;
    connection.query_within(sql, step, left.saturating_add(limits::DRILL_SLACK))
}

fn tables(connection: &mut Connection) -> Result<Vec<Table>, SourceError> {
    connection.query("SET statement_timeout = 0", ASK)?;
    let reply = connection.query(TABLES, ASK)?;
    let table = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(oid), Some(space), Some(name), Some(kind), Some(system)] => Some(Table {
            oid: oid.clone(),
            name: format!("{space}.{name}"),
            quoted: format!("{}.{}", quote_identifier(space), quote_identifier(name)),
            is_system: system == "t",
            is_toast: kind == "t",
        }),
        _ => None,
    };
    Ok(reply.rows().iter().filter_map(table).collect())
}

/// Returns the quoted schema of the extension, making it where it is installed; or why there is none.
fn amcheck_schema(connection: &mut Connection) -> Result<Result<String, String>, SourceError> {
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
        let why = "the extension amcheck is not installed beside this PostgreSQL";
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

    fn rows(list: &[(&str, u64)]) -> Rows {
        list.iter()
            .map(|(name, rows)| ((*name).to_owned(), *rows))
            .collect()
    }

    #[test]
    fn a_table_that_lost_most_of_its_rows_is_named_with_numbers() {
        let before = rows(&[
            ("a.public.orders", 1_000),
            ("a.public.small", 9),
            ("a.public.gone", 200),
        ]);
        let now = rows(&[
            ("a.public.orders", 499),
            ("a.public.small", 0),
            ("a.public.new", 0),
        ]);
        let found = compare(Some(&before), &now, true);
        assert_eq!(found.outcome, CheckOutcome::Failed);
        assert!(
            found
                .detail
                .contains("a.public.orders: 1_000 rows before, 499 now"),
            "{found:?}"
        );
        assert!(
            found
                .detail
                .contains("a.public.gone: 200 rows before, 0 now"),
            "{found:?}"
        );
        assert!(!found.detail.contains("small"), "{found:?}");
        // What was not counted says nothing about what was lost.
        let found = compare(Some(&before), &rows(&[("a.public.orders", 500)]), false);
        assert_eq!(found.outcome, CheckOutcome::Passed, "{found:?}");
        assert_eq!(compare(None, &now, true).outcome, CheckOutcome::NotRun);
    }
}
