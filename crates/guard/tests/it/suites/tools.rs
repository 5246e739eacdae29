//! PostgreSQL's own programs, node-postgres and an ORM with its migrations.

use std::path::Path;
use std::time::Duration;

use holdfast_testing::postgres;
use tokio::process::Command;

use super::python::{Suite, both};
use super::stage::{self, Ended, Results, Rights, Stage, Target, compare, drivers};

/// The longest that one program may take.
const LIMIT: Duration = Duration::from_secs(100);

fn lists() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orm_and_its_migrations_end_the_same_through_the_door() {
    both((Rights::Lease, "shop"), &[], |_| Suite {
        name: "sqlalchemy-alembic",
        folder: lists().join("orm"),
        arguments: vec!["test_orm.py".to_owned()],
        variables: Vec::new(),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_ends_the_same_through_the_door() {
    let stage = Stage::new(Rights::Superuser, "shop").await;
    let (direct, door) = tokio::join!(node(&stage.direct), node(&stage.door));
    compare("node-postgres", (&direct, &door), &[]);
}

async fn node(target: &Target) -> Results {
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=tap"])
        .arg(lists().join("node.test.mjs"))
        .env("HOLDFAST_NODE", drivers().join("node"))
        .envs(target.variables());
    let said = stage::run(node, LIMIT).await;
    let mut results = Results::new();
    for line in said.lines().map(str::trim_start) {
        let ended = match line {
            line if line.starts_with("ok ") => Ended::Passed,
            line if line.starts_with("not ok ") => Ended::Failed,
            _ => continue,
        };
        if let Some((_, name)) = line.split_once(" - ") {
            results.insert(name.to_owned(), ended);
        }
    }
    let passed = results
        .values()
        .filter(|one| **one == Ended::Passed)
        .count();
    assert!(passed > 15, "{said}");
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_dump_writes_the_same_through_the_door() {
    let stage = Stage::new(Rights::Lease, "shop").await;
    let past = stage.through.server.url_for("shop");
    for arguments in [
        &[][..],
        &["--inserts"],
        &["--schema-only"],
        &["--table=orders", "--rows-per-insert=7", "--inserts"],
    ] {
        let mut dumps = Vec::new();
        for url in [past.clone(), stage.door.url()] {
            let mut dump = Command::new(postgres::installation(15).unwrap().program("pg_dump"));
            dump.args(arguments).arg(url);
            let said = stage::run(dump, LIMIT).await;
            assert!(said.contains("PostgreSQL database dump complete"), "{said}");
            // A key that is drawn anew each time, and how long it took.
            let kept = said.lines().filter(|line| {
                !line.starts_with("\\restrict")
                    && !line.starts_with("\\unrestrict")
                    && !line.ends_with(" s)")
            });
            dumps.push(kept.map(str::to_owned).collect::<Vec<_>>());
        }
        assert!(dumps[0].len() > 50);
        assert!(dumps[0] == dumps[1], "{arguments:?}: the dumps differ");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_runs_through_the_door_in_every_mode() {
    let stage = Stage::new(Rights::Lease, "shop").await;
    for target in [&stage.direct, &stage.door] {
        let bench = |arguments: &[&str]| {
            let mut bench = Command::new(postgres::installation(15).unwrap().program("pgbench"));
            bench.args(arguments).envs(target.variables());
            stage::run(bench, LIMIT)
        };
        let said = bench(&["-i", "-s", "1", "-q"]).await;
        assert!(said.contains("done in"), "{said}");
        for mode in ["simple", "extended", "prepared"] {
            for script in ["tpcb-like", "simple-update", "select-only"] {
                let said = bench(&["-n", "-M", mode, "-b", script, "-c", "4", "-t", "40"]).await;
                let processed = "transactions actually processed: 160/160";
                assert!(said.contains(processed), "{mode} {script}: {said}");
            }
        }
    }
    let rows = "SELECT count(*) FROM pgbench_history";
    assert_eq!(stage.through.number(rows).await, 2 * 3 * 160);
}
