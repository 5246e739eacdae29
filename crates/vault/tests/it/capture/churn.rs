//! A source in which everything changes, told by a seed, and what is in it as text.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_testing::postgres::Server;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// Changes one after the other, the same for the same seed.
pub struct Churn {
    state: u64,
    databases: u64,
    major: u32,
}

impl Churn {
    pub fn new(seed: u64, major: u32) -> Self {
        Self {
            state: seed,
            databases: 0,
            major,
        }
    }

    /// SOURCE: <https://prng.di.unimi.it/splitmix64.c>
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    /// Makes what the changes work on; `tablespace` is an empty folder of the server's user.
    pub async fn prepare(&mut self, server: &Server, tablespace: &Path) {
        let client = server.connect().await.unwrap();
        let space = format!("CREATE TABLESPACE side LOCATION '{}'", tablespace.display());
        run(&client, &space).await;
        for table in 0..TABLES {
            for statement in [
                format!("CREATE TABLE t{table} (k int, note text, at point, tags int[])"),
                format!("CREATE INDEX t{table}_k ON t{table} (k)"),
                format!("CREATE INDEX ON t{table} USING gin (tags)"),
                format!("CREATE INDEX ON t{table} USING gist (at)"),
                format!("CREATE INDEX ON t{table} USING spgist (at)"),
                format!("CREATE INDEX ON t{table} USING hash (note)"),
                format!("CREATE INDEX ON t{table} USING brin (k)"),
                rows(table, 2000),
            ] {
                run(&client, &statement).await;
            }
        }
        for statement in [
            "CREATE TABLE big (k int, note text)",
            "INSERT INTO big SELECT n, repeat(md5(n::text), 6) FROM generate_series(1, 20000) n",
            "CREATE TABLE load (id int PRIMARY KEY, n int)",
            "INSERT INTO load SELECT n, 0 FROM generate_series(1, 500) n",
            "CREATE TABLE loaded (n int)",
            "CREATE UNLOGGED TABLE u (n int PRIMARY KEY)",
            "CREATE SEQUENCE s",
        ] {
            run(&client, statement).await;
        }
    }

    /// Makes `count` changes.
    pub async fn changes(&mut self, server: &Server, count: u32) {
        let client = server.connect().await.unwrap();
        for _ in 0..count {
            self.change(server, &client).await;
        }
    }

    async fn change(&mut self, server: &Server, client: &Client) {
        let (t, m) = (self.below(TABLES), 2 + self.below(9));
        let (c, n) = (self.below(m), 1 + self.below(1500));
        let x = self.below(3);
        let statement = match self.below(25) {
            0 => rows(t, n),
            1 => format!("UPDATE t{t} SET note = md5(random()::text), at = point(k, {n}) WHERE k % {m} = {c}"),
            2 => format!("DELETE FROM t{t} WHERE k % {m} = {c}"),
            3 => format!("VACUUM t{t}"),
            4 => format!("VACUUM FULL t{t}"),
            5 => format!("CLUSTER t{t} USING t{t}_k"),
            6 => format!("REINDEX TABLE t{t}"),
            7 => format!("TRUNCATE t{t}"),
            8 => format!("DROP TABLE IF EXISTS x{x}"),
            9 => format!("CREATE TABLE IF NOT EXISTS x{x} AS SELECT g AS k, md5(g::text) AS note FROM generate_series(1, {n}) g"),
            10 => format!("ALTER TABLE t{t} SET TABLESPACE side"),
            11 => format!("ALTER TABLE t{t} SET TABLESPACE pg_default"),
            12 => "SELECT nextval('s') FROM generate_series(1, 50)".to_owned(),
            13 => format!("SELECT lo_from_bytea(0, decode(repeat('{n:08x}', 9000), 'hex'))"),
            14 => "SELECT lo_unlink(oid) FROM (SELECT min(oid) AS oid FROM pg_largeobject_metadata HAVING count(*) > 0) a".to_owned(),
            15 => format!("INSERT INTO big SELECT g, repeat(md5(g::text), 8) FROM generate_series(1, {n}) g"),
            16 => format!("DELETE FROM big WHERE ctid > '({},0)'", 20 * m),
            17 => "VACUUM big".to_owned(),
            18 => format!("INSERT INTO u VALUES ({n}) ON CONFLICT DO NOTHING"),
            19 => format!("ALTER TABLE u SET {}", if c == 0 { "LOGGED" } else { "UNLOGGED" }),
            20 => "CHECKPOINT".to_owned(),
            21 => format!("INSERT INTO big SELECT {n}, string_agg(md5(random()::text), '') FROM generate_series(1, 3000)"),
            22 => format!("CREATE TEMP TABLE IF NOT EXISTS mine AS SELECT g FROM generate_series(1, {n}) g"),
            23 => format!("DO $$ BEGIN INSERT INTO t{t} VALUES ({n}); CREATE TABLE never AS SELECT 1; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$"),
            _ => return self.database(server, client).await,
        };
        run(client, &statement).await;
    }

    /// Makes a database with something in it, or removes one.
    async fn database(&mut self, server: &Server, client: &Client) {
        if self.databases > 0 && self.below(3) == 0 {
            self.databases -= 1;
            run(client, &format!("DROP DATABASE d{}", self.databases)).await;
            return;
        }
        let name = format!("d{}", self.databases);
        self.databases += 1;
        let how = match (self.major >= 15, self.below(3)) {
            (true, 0) => " STRATEGY wal_log",
            (true, 1) => " STRATEGY file_copy",
            (_, 2) => " TABLESPACE side",
            _ => "",
        };
        run(client, &format!("CREATE DATABASE {name}{how}")).await;
        let inside = server.connect_to(&name).await.unwrap();
        let made = "CREATE TABLE inside AS SELECT g, md5(g::text) FROM generate_series(1, 500) g";
        run(&inside, made).await;
    }
}

const TABLES: u64 = 4;

fn rows(table: u64, count: u64) -> String {
    format!(
        "INSERT INTO t{table} SELECT g, md5(g::text), point(g, g % 77), ARRAY[g % 5, g % 11]
         FROM generate_series(1, {count}) g"
    )
}

async fn run(client: &Client, statement: &str) {
    let done = client.batch_execute(statement).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
}

/// Small transactions that go on while a restore point is taken.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub async fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for session in 0..2 {
            let client = server.connect().await.unwrap();
            let stop = Arc::clone(&stop);
            tasks.push(tokio::spawn(async move {
                let mut turn = session;
                while !stop.load(Ordering::Relaxed) {
                    turn += 7;
                    let id = turn % 500 + 1;
                    let both = format!(
                        "BEGIN; UPDATE load SET n = n + 1 WHERE id = {id};
                         INSERT INTO loaded SELECT {turn} FROM generate_series(1, 20); COMMIT"
                    );
                    run(&client, &both).await;
                }
            }));
        }
        Self { stop, tasks }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Returns what every database of a server has: of each table how many rows and a digest of them.
pub async fn contents(url: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let client = connect(url, "postgres").await;
    let names = "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1";
    for database in client.query(names, &[]).await.unwrap() {
        let name: String = database.get(0);
        let client = connect(url, &name).await;
        let tables = "SELECT oid::regclass::text FROM pg_class
            WHERE relkind = 'r' AND relpersistence = 'p'
            AND relname NOT IN ('pg_statistic', 'pg_statistic_ext_data')";
        for table in client.query(tables, &[]).await.unwrap() {
            let table: String = table.get(0);
            let digest = format!(
                "SELECT count(*)::text || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '')
                 FROM {table} t"
            );
            let row = client.query_one(&digest, &[]).await;
            let row = row.unwrap_or_else(|error| panic!("{name} {table}: {error:?}"));
            all.insert(format!("{name} {table}"), row.get(0));
        }
        if name == "postgres" && all.contains_key("postgres t0") {
            all.extend(through_indexes(&client).await);
        }
    }
    all
}

/// Asks what only the indexes are asked for.
async fn through_indexes(client: &Client) -> BTreeMap<String, String> {
    run(client, "SET enable_seqscan = off").await;
    let mut all = BTreeMap::new();
    for table in 0..TABLES {
        for condition in [
            "k BETWEEN 100 AND 900",
            "tags @> ARRAY[3]",
            "at <@ box '((0,0),(500,40))'",
            "note = md5('77')",
        ] {
            let sql = format!("SELECT count(*)::text FROM t{table} WHERE {condition}");
            let row = client.query_one(&sql, &[]).await;
            let row = row.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            all.insert(sql, row.get(0));
        }
    }
    all
}

async fn connect(url: &str, database: &str) -> Client {
    let (front, _) = url.rsplit_once('/').unwrap();
    let (client, connection) = tokio_postgres::connect(&format!("{front}/{database}"), NoTls)
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}
