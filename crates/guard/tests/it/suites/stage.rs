//! Two servers that are alike: one is reached directly, the other through a door.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_core::RowCount;
use holdfast_guard::clock;
use holdfast_guard::lease::role::{LeaseRole, create_role, draw_password};
use holdfast_guard::lease::{LeaseMode, RowBudget};
use holdfast_judge::policy::Policy;
use holdfast_testing::postgres;
use tokio::process::Command;

use crate::pg_door::bench::{Bench, GUARD, Wanted};
use crate::pg_door::permitted::EVERYTHING;

/// Where a suite connects to.
#[derive(Clone, Debug)]
pub struct Target {
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: &'static str,
}

impl Target {
    pub fn url(&self) -> String {
        format!(
            "postgresql://{}:{}@127.0.0.1:{}/{}",
            self.user, self.password, self.port, self.database
        )
    }

    /// What every client of PostgreSQL's looks at.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGPASSWORD", self.password.clone()),
            ("PGDATABASE", self.database.to_owned()),
        ]
    }
}

/// What the role of a suite may do, directly as through the door.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rights {
    /// Those of a schema lease.
    Lease,
    /// More than any lease has: the suite makes roles, or ends sessions of others.
    Superuser,
}

pub struct Stage {
    pub direct: Target,
    pub door: Target,
    pub through: Bench,
    _past: Bench,
}

impl Stage {
    pub async fn new(rights: Rights, database: &'static str) -> Self {
        let installation = postgres::installation(15).unwrap();
        let wanted = || Wanted {
            mode: LeaseMode::Schema,
            is_proven: true,
            policy: Policy::parse(EVERYTHING).unwrap(),
            budget: RowBudget {
                transaction: RowCount(u64::MAX / 2),
                hour: RowCount(u64::MAX / 2),
            },
            database,
        };
        let (past, through) = tokio::join!(
            Bench::wanted(&installation, wanted()),
            Bench::wanted(&installation, wanted())
        );
        let role = "holdfast_suite".to_owned();
        let mut root = past.server.connect_to(database).await.unwrap();
        let wanted = LeaseRole {
            name: role.clone(),
            database: database.to_owned(),
            guard: GUARD.to_owned(),
            mode: LeaseMode::Schema,
            expires: clock::now().plus(Duration::from_secs(3600)),
        };
        create_role(&mut root, &wanted).await.unwrap();
        let password = draw_password(&root, &role).await.unwrap();
        let direct = Target {
            port: past.server.port(),
            user: role.clone(),
            password: password.expose().to_owned(),
            database,
        };
        let door = Target {
            port: through.door.port(),
            user: through.lease.lease.pg.as_ref().unwrap().role.clone(),
            password: through.lease.token.expose().to_owned(),
            database,
        };
        if rights == Rights::Superuser {
            for (bench, role) in [(&past, &role), (&through, &door.user)] {
                let root = bench.server.connect_to("shop").await.unwrap();
                root.batch_execute(&format!("ALTER ROLE {role} SUPERUSER"))
                    .await
                    .unwrap();
            }
        }
        Self {
            direct,
            door,
            through,
            _past: past,
        }
    }
}

impl Stage {
    /// Puts extensions into the databases of both servers.
    pub async fn extend(&self, sql: &str) {
        for bench in [&self._past, &self.through] {
            let root = bench.server.connect_to(self.door.database).await.unwrap();
            root.batch_execute(sql).await.unwrap();
        }
    }
}

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Passed,
    Failed,
    Skipped,
}

pub type Results = BTreeMap<String, Ended>;

/// The folder that `scripts/driver-suites` fills.
pub fn drivers() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let drivers = root.canonicalize().unwrap().join(".drivers");
    assert!(
        drivers.join("ready").exists(),
        "the suites of the drivers are not there: run scripts/setup"
    );
    drivers
}

/// Runs a command to its end; answers what it said.
pub async fn run(mut command: Command, limit: Duration) -> String {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let begun = Instant::now();
    let ran = tokio::time::timeout(limit, command.output()).await;
    let ran = ran.unwrap_or_else(|_| panic!("{command:?} takes longer than {limit:?}"));
    let ran = ran.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
    format!("{text}\n({:.1} s)", begun.elapsed().as_secs_f64())
}

/// Compares test by test. A difference needs an explanation, and an explanation a difference.
pub fn compare(suite: &str, (direct, door): (&Results, &Results), explained: &[(&str, &str)]) {
    let count =
        |results: &Results, wanted: Ended| results.values().filter(|one| **one == wanted).count();
    for (name, results) in [("direct", direct), ("through the door", door)] {
        println!(
            "{suite}, {name}: {} passed, {} failed, {} skipped",
            count(results, Ended::Passed),
            count(results, Ended::Failed),
            count(results, Ended::Skipped)
        );
    }
    let names: std::collections::BTreeSet<&String> = direct.keys().chain(door.keys()).collect();
    let mut unexplained = Vec::new();
    for name in names {
        let (past, through) = (direct.get(name), door.get(name));
        if past == through {
            continue;
        }
        match explained.iter().find(|(test, _)| name.contains(test)) {
            Some((_, why)) => {
                println!("{suite}: {name}: {past:?} / {through:?}: {why}");
            }
            None => unexplained.push(format!(
                "{name}: direct {past:?}, through the door {through:?}"
            )),
        }
    }
    assert!(
        unexplained.is_empty(),
        "{suite}: {} differences that nothing explains:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
}

/// Reads the report that pytest writes.
pub fn junit(file: &Path) -> Results {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut results = Results::new();
    for case in text.split("<testcase ").skip(1) {
        let attribute = |name: &str| {
            let (_, rest) = case.split_once(&format!("{name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let (head, rest) = case.split_once('>').unwrap();
        let inner = match head.ends_with('/') {
            true => "",
            false => rest.split("</testcase>").next().unwrap_or_default(),
        };
        let ended = if inner.contains("<failure") || inner.contains("<error") {
            Ended::Failed
        } else if inner.contains("<skipped") {
            Ended::Skipped
        } else {
            Ended::Passed
        };
        // A test that failed and whose teardown failed too stands there twice.
        let name = format!("{}::{}", attribute("classname"), attribute(" name"));
        let worse = results.get(&name) == Some(&Ended::Failed);
        results.insert(name, if worse { Ended::Failed } else { ended });
    }
    assert!(!results.is_empty(), "{} has no test", file.display());
    results
}
