//! The suite that tokio-postgres publishes with its source.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use super::stage::{self, Ended, Results, Rights, Stage, Target, compare, drivers};

/// The longest that one run may take.
const LIMIT: Duration = Duration::from_secs(170);

/// The tests of logins by passwords of roles that only the server knows: a door admits leases.
const LOGINS: [&str; 3] = ["plain_password_", "md5_password_", "scram_password_"];

/// The program that `scripts/driver-suites` built.
fn program() -> PathBuf {
    drivers().join("tokio/suite")
}

async fn run(target: &Target, side: &str) -> Results {
    let mut suite = Command::new(program());
    suite
        .arg("--test-threads=2")
        .args(LOGINS.iter().flat_map(|login| ["--skip", login]))
        .env("SUITE_ADDRESS", format!("127.0.0.1:{}", target.port))
        .env(
            "SUITE_LOGIN",
            format!(
                "user={} password={} dbname={}",
                target.user, target.password, target.database
            ),
        );
    let said = stage::run(suite, LIMIT).await;
    let mut results = Results::new();
    for line in said.lines() {
        let Some((name, ended)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        else {
            continue;
        };
        let ended = match ended {
            "ok" => Ended::Passed,
            "ignored" => Ended::Skipped,
            _ => Ended::Failed,
        };
        results.insert(name.to_owned(), ended);
    }
    assert!(results.len() > 50, "tokio-postgres {side}: {said}");
    if std::env::var_os("HOLDFAST_SUITES_LOG").is_some() {
        println!("{said}");
    }
    results
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres_suite_ends_the_same_through_the_door() {
    let stage = Stage::new(Rights::Superuser, "shop").await;
    stage.extend(EXTENSIONS).await;
    let (direct, door) = tokio::join!(run(&stage.direct, "direct"), run(&stage.door, "door"));
    compare("tokio-postgres", (&direct, &door), TOKIO);
}

/// What its types are in.
const EXTENSIONS: &str = "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION ltree";

const TOKIO: &[(&str, &str)] = &[(
    "notices",
    "what the server remarks while the door logs in to it is not passed on",
)];
