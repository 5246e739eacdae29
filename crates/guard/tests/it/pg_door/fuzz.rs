//! Statements drawn at random, played through the door at a real server: whatever changed more than
//! the budget must have been stopped.
//!
//! A case is a deed in wrappings. The deeds are those that the state of a database tells of, so that
//! no message has to be believed; what the door lets through by design is not among them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use holdfast_guard::lease::LeaseMode;
use holdfast_testing::postgres;

use super::corpus::case::{Case, Label, Step};
use super::corpus::run::{Stage, Way};

/// Cases in a short run.
const CASES: u64 = 90;

/// How long a long run draws new cases.
const LONG: Duration = Duration::from_secs(600);

/// Cases that run at once.
const WORKERS: usize = 4;

/// How long a case may take.
const CASE_WAITS_MAX: Duration = Duration::from_secs(60);

/// Draws numbers, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % u64::try_from(sides).unwrap()).unwrap()
    }

    fn one_of<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.roll(all.len())]
    }
}

/// Tables with a key and something to change in them.
const TABLES: &[(&str, &str, &str)] = &[
    ("orders", "id", "total = total + 1"),
    ("lines", "id", "what = 'x'"),
    ("audit", "length(what)", "what = what || '.'"),
    ("reviews", "id", "stars = 1 + stars"),
    ("events", "id", "what = 'x'"),
    ("things", "id", "name = 'y'"),
    ("jobs", "id", "done = 1"),
    ("queue", "id", "body = 'x'"),
    ("accounts", "id", "balance = balance - 1"),
    ("customers", "id", "name = 'x'"),
    ("children", "id", "parent = 1"),
    ("big_orders", "id", "note = 'x'"),
];

/// Changes of structure that take something from somebody.
const STRUCTURE: &[&str] = &[
    "DROP TABLE audit",
    "DROP TABLE IF EXISTS lines, reviews CASCADE",
    "DROP VIEW order_names",
    "DROP FUNCTION count_orders()",
    "DROP INDEX orders_at",
    "DROP SEQUENCE tickets",
    "DROP TYPE status CASCADE",
    "DROP TRIGGER noted ON orders",
    "DROP RULE swap ON ruled",
    "DROP POLICY own_secrets ON secrets",
    "DROP STATISTICS order_stats",
    "ALTER TABLE orders DROP COLUMN note",
    "ALTER TABLE orders DROP CONSTRAINT orders_total_check",
    "ALTER TABLE lines DROP CONSTRAINT lines_order_id_fkey",
    "ALTER TABLE orders RENAME TO gone",
    "ALTER TABLE orders RENAME COLUMN total TO gone",
    "ALTER TABLE accounts ALTER COLUMN balance TYPE text",
    "ALTER TABLE audit ALTER COLUMN what TYPE text USING ''",
    "ALTER TABLE events DETACH PARTITION events_old",
    "ALTER TABLE big_things NO INHERIT things",
    "ALTER TABLE orders DISABLE TRIGGER noted",
    "ALTER TABLE secrets DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE audit SET UNLOGGED",
    "ALTER TABLE ruled DISABLE RULE swap",
    "ALTER TABLE customers ALTER COLUMN vip DROP DEFAULT",
    "ALTER SEQUENCE orders_id_seq INCREMENT BY 7",
    "ALTER FUNCTION count_orders() SECURITY DEFINER",
    "ALTER FUNCTION count_orders() RENAME TO gone",
    "ALTER DOMAIN percent DROP CONSTRAINT percent_check",
    "ALTER TYPE status RENAME VALUE 'paid' TO 'gone2'",
    "ALTER POLICY own_secrets ON secrets USING (true)",
    "ALTER VIEW order_names SET (security_barrier = true)",
    "CREATE OR REPLACE FUNCTION count_orders() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 0::bigint'",
    "CREATE OR REPLACE VIEW order_names AS SELECT id, 'x'::text AS name, total FROM orders",
    "CREATE RULE nothing AS ON INSERT TO audit DO INSTEAD NOTHING",
    "CREATE POLICY everything ON secrets USING (true)",
    "CREATE FUNCTION leak() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::text'",
    "GRANT ALL ON orders TO PUBLIC",
    "GRANT UPDATE ON settings TO clerk",
    "GRANT EXECUTE ON FUNCTION wipe() TO clerk",
    "REVOKE ALL ON orders FROM app",
    "ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO clerk",
    "TRUNCATE audit",
    "TRUNCATE customers CASCADE",
    "TRUNCATE ONLY things",
    "TRUNCATE lines RESTART IDENTITY",
    "REFRESH MATERIALIZED VIEW totals WITH NO DATA",
    "DROP SCHEMA public CASCADE",
    "DROP OWNED BY app",
];

/// Work that adds, beside which a deed may hide.
const WORK: &[&str] = &[
    "CREATE TABLE mine (n int)",
    "CREATE TABLE IF NOT EXISTS mine2 AS SELECT 1 AS n",
    "CREATE VIEW seen AS SELECT 1 AS n",
    "CREATE INDEX ON orders (note)",
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'",
    "CREATE TYPE mood AS ENUM ('good')",
    "CREATE SCHEMA reports",
    "COMMENT ON COLUMN settings.value IS NULL",
    "INSERT INTO settings VALUES ('k', 'v') ON CONFLICT DO NOTHING",
    "SELECT count(*) FROM orders",
    "SET search_path TO pg_catalog, public",
    "SET CONSTRAINTS ALL DEFERRED",
    "LISTEN x",
    "ANALYZE settings",
    "CREATE TEMP TABLE t0 AS SELECT 1 AS n",
];

/// A statement, and whether rows are all that it changes.
struct Deed {
    sql: String,
    is_rows: bool,
}

impl Dice {
    fn condition(&mut self, key: &str) -> String {
        match self.roll(6) {
            0 => "true".to_owned(),
            1 => format!("{key} > 0"),
            2 => format!("{key} % {} = 0", 1 + self.roll(3)),
            3 => format!("{key} <= {}", self.roll(300)),
            4 => format!("{key} IN (SELECT generate_series(1, {}))", self.roll(400)),
            _ => "EXISTS (SELECT FROM settings)".to_owned(),
        }
    }

    fn deed(&mut self) -> Deed {
        if self.roll(2) == 0 {
            let sql = self.one_of(STRUCTURE).to_owned();
            return Deed {
                sql,
                is_rows: false,
            };
        }
        let (table, key, change) = TABLES[self.roll(TABLES.len())];
        let condition = self.condition(key);
        let sql = match self.roll(8) {
            0 | 1 => format!("DELETE FROM {table} WHERE {condition}"),
            2 | 3 => format!("UPDATE {table} SET {change} WHERE {condition}"),
            4 => format!(
                "DELETE FROM {table} USING settings s WHERE {condition} AND s.key = 'key 1'"
            ),
            5 => format!(
                "MERGE INTO accounts a USING generate_series(1, {}) n ON a.id = n WHEN MATCHED THEN DELETE",
                50 + self.roll(100)
            ),
            6 => format!(
                "INSERT INTO accounts SELECT id, 0 FROM accounts WHERE id <= {} ON CONFLICT (id) DO UPDATE SET balance = 0",
                50 + self.roll(100)
            ),
            _ => "INSERT INTO trapped VALUES (1)".to_owned(),
        };
        Deed { sql, is_rows: true }
    }

    /// The same text as an expression of pieces, so that no word in it can be found.
    fn pieces(&mut self, sql: &str) -> String {
        let at = 1 + self.roll(sql.len() - 1);
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        match sql.is_char_boundary(at) {
            true => format!("{} || {}", quoted(&sql[..at]), quoted(&sql[at..])),
            false => quoted(sql),
        }
    }

    /// A text that runs another one.
    fn hidden(&mut self, sql: &str) -> String {
        let pieces = self.pieces(sql);
        match self.roll(3) {
            0 => format!("DO $do$ BEGIN EXECUTE {pieces}; END $do$"),
            1 => format!("SELECT run_it({pieces})"),
            _ => format!(
                "DO $do$ BEGIN BEGIN EXECUTE {pieces}; EXCEPTION WHEN division_by_zero THEN NULL; END; END $do$"
            ),
        }
    }

    /// Texts that do a deed, one after the other.
    fn wrapped(&mut self, deed: &Deed) -> Vec<(&'static str, String)> {
        let sql = match self.roll(4) {
            0 => self.hidden(&deed.sql),
            _ => deed.sql.clone(),
        };
        let pieces = self.pieces(&sql);
        let function = format!(
            "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN EXECUTE {pieces}; RETURN 1; END $f$"
        );
        let trigger = format!(
            "CREATE FUNCTION pg_temp.g() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN EXECUTE {pieces}; RETURN NEW; END $f$"
        );
        let q = |text: &str| ("q", text.to_owned());
        match self.roll(17) {
            0 | 1 => vec![("q", sql)],
            2 => vec![("x", sql)],
            3 => vec![("q", format!("BEGIN; {sql}; COMMIT"))],
            4 => vec![q("BEGIN"), ("x", sql), q("COMMIT")],
            5 => vec![("q", format!("SELECT 1; {sql}; SELECT 2"))],
            6 => vec![("q", format!("BEGIN; SAVEPOINT a; {sql}; RELEASE a; COMMIT"))],
            7 => vec![(
                "q",
                format!("BEGIN; SAVEPOINT a; {sql}; ROLLBACK TO a; {sql}; SAVEPOINT b; COMMIT"),
            )],
            8 => vec![("q", function), q("SELECT pg_temp.f()")],
            9 => vec![
                ("q", function),
                q("CREATE TEMP TABLE t (n int DEFAULT pg_temp.f())"),
                q("INSERT INTO t DEFAULT VALUES"),
            ],
            10 => vec![
                ("q", function),
                q("UPDATE settings SET value = pg_temp.f()::text WHERE key = 'key 1'"),
            ],
            11 => vec![
                ("q", trigger),
                q(
                    "CREATE TEMP TABLE t (n int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.g()",
                ),
                q("INSERT INTO t VALUES (1)"),
            ],
            12 => vec![
                ("q", trigger),
                q(
                    "CREATE TEMP TABLE t (n int); CREATE CONSTRAINT TRIGGER g AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.g()",
                ),
                ("x", "INSERT INTO t VALUES (1)".to_owned()),
            ],
            13 => vec![
                q("BEGIN"),
                ("q", sql),
                q("PREPARE TRANSACTION 'drawn'"),
                q("COMMIT PREPARED 'drawn'"),
            ],
            14 if deed.is_rows => vec![("q", format!("PREPARE p AS {}", deed.sql)), q("EXECUTE p")],
            15 if deed.is_rows => vec![("q", format!("EXPLAIN ANALYZE {}", deed.sql))],
            16 if deed.is_rows && !deed.sql.starts_with("MERGE") => vec![(
                "q",
                format!(
                    "WITH d AS ({} RETURNING 1) SELECT count(*) FROM d",
                    deed.sql
                ),
            )],
            _ => {
                let work = self.one_of(WORK);
                vec![("q", format!("BEGIN; {work}; {sql}; COMMIT"))]
            }
        }
    }
}

fn draw(seed: u64) -> Case {
    let mut dice = Dice::new(seed);
    let mode = match dice.roll(4) {
        0 => LeaseMode::Data,
        _ => LeaseMode::Schema,
    };
    let deed = dice.deed();
    let mut steps: Vec<(&str, String)> = Vec::new();
    if dice.roll(4) == 0 {
        steps.push(("q", dice.one_of(WORK).to_owned()));
    }
    steps.extend(dice.wrapped(&deed));
    let steps = steps.into_iter().map(|(what, text)| Step {
        session: 1,
        what: what.to_owned(),
        text,
    });
    Case {
        file: "drawn".to_owned(),
        name: seed.to_string(),
        mode,
        label: Label::Stop,
        steps: steps.collect(),
        checks: Vec::new(),
        by_rights: false,
        budget: 100,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn whatever_is_drawn_changes_no_more_than_the_budget() {
    let is_long = std::env::var_os("HOLDFAST_LONG").is_some();
    let (installation, seeds) = match (std::env::var("HOLDFAST_SEED"), is_long) {
        (Ok(seed), _) => {
            let seed: u64 = seed.parse().unwrap();
            (postgres::oldest().unwrap(), seed..seed + 1)
        }
        (Err(_), true) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let begin = now.unwrap().as_secs() * 1000;
            (postgres::oldest().unwrap(), begin..begin + 1_000_000)
        }
        (Err(_), false) => (postgres::oldest().unwrap(), 1..CASES + 1),
    };
    let begun = Instant::now();
    println!("seeds from {}", seeds.start);
    let stage = Arc::new(Stage::new(&installation).await);
    let seeds: Arc<Mutex<VecDeque<u64>>> = Arc::new(Mutex::new(seeds.collect()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (stage, seeds) = (stage.clone(), seeds.clone());
            tokio::spawn(async move {
                let mut database = stage.database(number).await;
                let (mut lost, mut played) = (Vec::new(), 0);
                while !is_long || begun.elapsed() < LONG {
                    let Some(seed) = seeds.lock().unwrap().pop_front() else {
                        break;
                    };
                    let case = draw(seed);
                    let texts: Vec<&String> = case.steps.iter().map(|step| &step.text).collect();
                    let running = stage.run(&case, &mut database, Way::Door);
                    let Ok(outcome) = tokio::time::timeout(CASE_WAITS_MAX, running).await else {
                        panic!("seed {seed} does not end: {texts:#?}");
                    };
                    played += 1;
                    if !outcome.lost.is_empty() {
                        let line = format!(
                            "HOLDFAST_SEED={seed}: {:?} {texts:#?} LOST {:?}: {:?}",
                            case.mode, outcome.lost, outcome.said
                        );
                        println!("{line}");
                        lost.push(line);
                    }
                }
                (lost, played)
            })
        })
        .collect();
    let (mut lost, mut played) = (Vec::new(), 0);
    for worker in workers {
        let (some, count) = worker.await.unwrap();
        lost.extend(some);
        played += count;
    }
    println!(
        "{played} cases drawn, {} lose something, {:.1} s",
        lost.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(lost.is_empty(), "{}", lost.join("\n"));
}
