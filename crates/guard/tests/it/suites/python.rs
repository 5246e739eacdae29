//! The suites that drivers for Python publish with their sources.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use super::stage::{self, Results, Rights, Stage, Target, compare, drivers, junit};

/// The longest that one run may take.
const LIMIT: Duration = Duration::from_secs(400);

pub struct Suite<'a> {
    pub name: &'a str,
    pub folder: PathBuf,
    pub arguments: Vec<String>,
    pub variables: Vec<(&'a str, String)>,
}

async fn pytest(suite: Suite<'_>, target: &Target, side: &str) -> Results {
    let report = std::env::temp_dir().join(format!(
        "holdfast-{}-{}-{side}.xml",
        suite.name,
        std::process::id()
    ));
    let mut python = Command::new(drivers().join("venv/bin/python"));
    python
        .args([
            "-m",
            "pytest",
            "-q",
            "-x",
            "--maxfail=1000",
            "--timeout=60",
            "--cache-clear",
            "-o",
            "junit_logging=no",
        ])
        .arg(format!("--junitxml={}", report.display()))
        .args(&suite.arguments)
        .current_dir(&suite.folder)
        .envs(target.variables())
        .envs(suite.variables);
    // A few of its tests, for whoever looks into a difference.
    if let Some(only) = std::env::var_os("HOLDFAST_SUITES_ONLY") {
        python.arg("--durations=20").arg("-k").arg(only);
    }
    let said = stage::run(python, LIMIT).await;
    if std::env::var_os("HOLDFAST_SUITES_LOG").is_some() {
        std::fs::write(
            std::env::temp_dir().join(format!("holdfast-{}-{side}.log", suite.name)),
            &said,
        )
        .unwrap();
    }
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    println!("{} {side}: {last:?}", suite.name);
    assert!(report.exists(), "{said}");
    let results = junit(&report);
    drop(std::fs::remove_file(&report));
    results
}

/// The parts that take long run by command only, with `HOLDFAST_LONG=1`.
fn is_long() -> bool {
    std::env::var_os("HOLDFAST_LONG").is_some()
}

pub async fn both(
    (rights, database): (Rights, &'static str),
    explained: &[(&str, &str)],
    suite: impl Fn(&Target) -> Suite<'static>,
) {
    let stage = Stage::new(rights, database).await;
    let (direct, door) = tokio::join!(
        pytest(suite(&stage.direct), &stage.direct, "direct"),
        pytest(suite(&stage.door), &stage.door, "door")
    );
    compare(suite(&stage.door).name, (&direct, &door), explained);
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_suite_ends_the_same_through_the_door_on_demand() {
    if !is_long() {
        println!("asyncpg: runs with HOLDFAST_LONG=1 only");
        return;
    }
    // Its pools ask for the database `postgres` by name.
    both((Rights::Superuser, "postgres"), ASYNCPG, |_| Suite {
        name: "asyncpg",
        folder: drivers().join("asyncpg"),
        arguments: asyncpg(),
        variables: Vec::new(),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg2_suite_ends_the_same_through_the_door() {
    both((Rights::Superuser, "shop"), PSYCOPG2, |target| Suite {
        name: "psycopg2",
        folder: drivers().join("psycopg2"),
        arguments: psycopg2(),
        variables: vec![
            (
                "PSYCOPG2_TEST_FAST",
                if is_long() { "" } else { "1" }.to_owned(),
            ),
            ("PSYCOPG2_TESTDB", "shop".to_owned()),
            ("PSYCOPG2_TESTDB_HOST", "127.0.0.1".to_owned()),
            ("PSYCOPG2_TESTDB_PORT", target.port.to_string()),
            ("PSYCOPG2_TESTDB_USER", target.user.clone()),
            ("PSYCOPG2_TESTDB_PASSWORD", target.password.clone()),
        ],
    })
    .await;
}

/// Without cursors `WITH HOLD`, which are refused.
fn psycopg2() -> Vec<String> {
    let refused = "not withhold";
    match is_long() {
        true => vec!["tests".to_owned()],
        false => ["tests", "-k", refused].map(str::to_owned).to_vec(),
    }
}

/// Without its pools, whose tests wait for most of their time, and without what reads its own sources.
fn asyncpg() -> Vec<String> {
    let files = [
        "codecs",
        "copy",
        "cursor",
        "exceptions",
        "execute",
        "introspection",
        "listeners",
        "logging",
        "prepare",
        "record",
        "transaction",
        "types",
        "utils",
    ];
    let all = [
        "tests",
        "--deselect=tests/test__sourcecode.py",
        "--deselect=tests/test_subinterpreters.py",
    ];
    match is_long() {
        true => all.map(str::to_owned).to_vec(),
        false => files.map(|file| format!("tests/test_{file}.py")).to_vec(),
    }
}

/// psycopg 3 does not publish its tests with its sources: a checkout of its repository is named by
/// `HOLDFAST_PSYCOPG`; without one, nothing is shown here and psycopg2's suite stands for it.
#[tokio::test(flavor = "multi_thread")]
async fn psycopg_suite_of_a_checkout_ends_the_same_through_the_door() {
    let Some(checkout) = std::env::var_os("HOLDFAST_PSYCOPG").map(PathBuf::from) else {
        println!("psycopg: HOLDFAST_PSYCOPG names no checkout");
        return;
    };
    both((Rights::Superuser, "shop"), PSYCOPG, |target| {
        let mut arguments: Vec<String> = [
            "tests/pq",
            "tests/test_pipeline.py",
            "tests/test_copy.py",
            "tests/test_prepared.py",
            "tests/test_notify.py",
            "tests/test_cursor_server.py",
            "tests/test_connection.py",
            "tests/test_tpc.py",
            "-m",
            "not slow and not timing",
            "--test-dsn",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!(
            "host=127.0.0.1 port={} user={} password={} dbname=shop",
            target.port, target.user, target.password
        ));
        Suite {
            name: "psycopg",
            folder: checkout.clone(),
            arguments,
            variables: vec![
                ("PYTHONPATH", "psycopg:psycopg_pool".to_owned()),
                ("PSYCOPG_IMPL", "python".to_owned()),
            ],
        }
    })
    .await;
}

const HELD_CURSOR: &str = "a cursor WITH HOLD would run inside the COMMIT, unmeasured (ZS403)";
const READS_BY_DEFAULT: &str =
    "SHOW default_transaction_read_only says `on`: sessions read only by the door's default";

const ONE_DATABASE: &str =
    "a lease leads to one database, and these tests make another for themselves";
const EARLY: &str = "whether an error comes back before 4 MiB are written is a question of speed; on a busy machine it fails directly too";

const ASYNCPG: &[(&str, &str)] = &[
    ("TestIntrospection::", ONE_DATABASE),
    ("test_executemany_server_failure_during_writes", EARLY),
];
const PSYCOPG2: &[(&str, &str)] = &[
    ("NamedCursorTests::test_withhold", HELD_CURSOR),
    ("test_mixing_session_attribs", READS_BY_DEFAULT),
];
const PSYCOPG: &[(&str, &str)] = &[
    ("test_hold[", HELD_CURSOR),
    ("test_transaction_param_default", READS_BY_DEFAULT),
    (
        "test_set_transaction_param_reset[read_only]",
        READS_BY_DEFAULT,
    ),
];
