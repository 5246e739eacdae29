//! What a drill asks the restored server: databases, tables, indexes, rows, the user's assertions.

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_core::{Check, CheckOutcome, DrillOf, ErrorChain, Untrusted};
use holdfast_wire::pg::replication::quote_identifier;

use super::amcheck::{self, Structures};
use super::catalogs;
use super::rows::Rows;
use super::server::Server;
use super::tally::{Answer, Tally, check, late, short, verdict};
use crate::config::Assertion;
use crate::limits;
use crate::source::{Connection, Reply, SourceError};

/// The check that counts every table.
pub(super) const TABLES_READ: &str = "tables can be read";
/// The check of the catalogs.
const CATALOGS: &str = "catalogs agree";

const ASSERTIONS: &str = "ask an assertion";
/// The step of the small questions.
pub(super) const ASK: &str = "look at the catalogs";
const COUNT: &str = "count the rows of a table";
/// Tables that hold rows of their own and are there after a restore, the small ones first.
const TABLES: &str = "
    SELECT c.oid, n.nspname, c.relname, c.relkind,
           n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast') AS system
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' AND c.relispopulated
    ORDER BY c.relpages, c.oid";

const DATABASES: &str = "
    SELECT datname FROM pg_catalog.pg_database
    WHERE datallowconn AND datconnlimit <> -2 ORDER BY oid";

/// Asks everything within one budget of time and remembers the answers.
pub(super) struct Checks<'a> {
    server: &'a Server,
    /// A folder for output of programs.
    folder: &'a Path,
    budget: Duration,
    deadline: Instant,
    done: Vec<Check>,
    rows: Rows,
}

/// One table of the server.
pub(super) struct Table {
    pub(super) oid: String,
    pub(super) name: String,
    quoted: String,
    is_system: bool,
    pub(super) is_toast: bool,
}

/// What is found in each database.
#[derive(Default)]
struct Tallies {
    tables: Tally,
    catalogs: Tally,
    broken: Vec<String>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(server: &'a Server, folder: &'a Path, budget: Duration) -> Self {
        Self {
            server,
            folder,
            budget,
            deadline: Instant::now() + budget,
            done: Vec::new(),
            rows: Rows::new(),
        }
    }

    /// Runs everything; what the budget does not reach is reported as not run.
    pub(super) fn run(&mut self, assertions: &[Assertion], of: DrillOf) {
        for assertion in assertions {
            match of {
                DrillOf::Newest => self.assert(assertion),
                DrillOf::Older => {
                    let why = "it is asked of the newest point only";
                    let name = name_of(assertion);
                    self.done.push(check(&name, CheckOutcome::NotRun, why));
                }
            }
        }
        let Some(databases) = self.databases() else {
            return;
        };
        let mut found = Tallies::default();
        for database in &databases {
            self.look(database, &mut found);
        }
        // Last: it takes longest, and what is left of the time is its own.
        let structures = match self.amcheck() {
            Some(structures) => structures,
            None => self.ask_amcheck(&databases, &mut found.broken),
        };
        let count = databases.len();
        self.done.push(match found.broken.is_empty() {
            true => check(
                "databases",
                CheckOutcome::Passed,
                format!("{count} can be used"),
            ),
            false => check("databases", CheckOutcome::Failed, found.broken.join("; ")),
        });
        self.done.push(found.tables.into_check(TABLES_READ));
        self.done.push(found.catalogs.into_check(CATALOGS));
        let indexes = structures.indexes.into_check(amcheck::INDEXES);
        self.done.push(indexes);
        let heaps = structures.heaps.into_check(amcheck::HEAPS);
        self.done.push(heaps);
    }

    /// Asks the extension in every database.
    fn ask_amcheck(&self, databases: &[String], broken: &mut Vec<String>) -> Structures {
        let mut found = Structures::default();
        for database in databases {
            let asked = self.server.connect(database).and_then(|mut connection| {
                amcheck::by_extension(self, &mut connection, database, &mut found)
            });
            if let Err(error) = asked {
                let what = format!("{}: {}", Untrusted(database), ErrorChain(&error));
                broken.push(what);
            }
        }
        found
    }

    /// Runs PostgreSQL's own program, where there is one and the time is not up.
    fn amcheck(&self) -> Option<Structures> {
        self.left()?;
        let (local, programs) = self.server.programs()?;
        amcheck::by_program(programs, (local, self.folder), self.deadline)
    }

    /// Looks at one database.
    fn look(&mut self, database: &str, found: &mut Tallies) {
        let connected = self.server.connect(database);
        let looked = connected.and_then(|mut connection| {
            self.count(&mut connection, database, &mut found.tables)?;
            let Some(left) = self.left() else {
                found.catalogs.left = found.catalogs.left.saturating_add(1);
                return Ok(());
            };
            let ask = |connection: &mut Connection, sql: &str| timed(connection, sql, ASK, left);
            catalogs::look(&mut connection, database, &mut found.catalogs, ask)
        });
        if let Err(error) = looked {
            let what = format!("{}: {}", Untrusted(database), ErrorChain(&error));
            found.broken.push(what);
        }
    }

    /// Returns what was checked, and the rows that were counted.
    pub(super) fn finish(self) -> (Vec<Check>, Rows) {
        (self.done, self.rows)
    }

    /// Returns when the time is up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
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
        let name = name_of(assertion);
        let Some(left) = self.left() else {
            self.done.push(late(&name, self.budget));
            return;
        };
        let answer = self.server.connect(&assertion.database).and_then(|mut c| {
            c.query("SET default_transaction_read_only = on", ASSERTIONS)?;
            timed(&mut c, &assertion.sql, ASSERTIONS, left)
        });
        let (outcome, detail) = match answer {
            Ok(reply) => judge_assertion(&reply),
            Err(error) => match verdict(&error) {
                Answer::Late => {
                    let seconds = left.as_secs();
                    let what = format!("it did not end within the {seconds} s that were left");
                    (CheckOutcome::NotRun, what)
                }
                Answer::Short => (CheckOutcome::NotRun, short(&error)),
                Answer::Wrong => {
                    let sql = Untrusted(&assertion.sql);
                    let what = format!("{} (asked: {sql})", ErrorChain(&error));
                    (CheckOutcome::Failed, what)
                }
            },
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
                tally.left = tally.left.saturating_add(1);
                continue;
            };
            let sql = format!("SELECT count(*) FROM ONLY {}", table.quoted);
            match timed(connection, &sql, COUNT, left) {
                Ok(reply) => {
                    tally.done = tally.done.saturating_add(1);
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

    /// Returns the time that is left, or `None` when it is up.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        (left > Duration::from_millis(1)).then_some(left)
    }
}

fn name_of(assertion: &Assertion) -> String {
    format!("assertion `{}`", Untrusted(&assertion.name))
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
pub(super) fn timed(
    connection: &mut Connection,
    sql: &str,
    step: &'static str,
    left: Duration,
) -> Result<Reply, SourceError> {
    let limit = left.as_millis().clamp(1, 2_147_483_647);
    connection.query(&format!("SET statement_timeout = {limit}"), step)?;
    connection.query_within(sql, step, left.saturating_add(limits::DRILL_SLACK))
}

/// Lists the tables of a database.
pub(super) fn tables(connection: &mut Connection) -> Result<Vec<Table>, SourceError> {
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
