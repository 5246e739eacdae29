//! An agent's sandbox: a clone behind the door, judged as a copy that cannot be left.

use holdfast_testing::postgres;
use holdfast_testing::process::Process;
use serde_json::Value;

use super::{COUNT, ask, connect, execute, open, protect, text, wait};
use crate::desk::{Desk, Ran};

/// Runs SQL; answers the SQLSTATE of what is refused.
fn attempt(url: &str, sql: &str) -> Result<(), String> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let Some(client) = connect(url).await else {
            return Err("nobody answers".to_owned());
        };
        let done = client.batch_execute(sql).await;
        done.map_err(|error| match error.as_db_error() {
            Some(said) => said.code().code().to_owned(),
            None => error.to_string(),
        })
    })
}

fn issue(desk: &Desk, clone: &str, more: &[&str]) -> Ran {
    let args = ["lease", "issue", "--clone", clone, "--agent", "cursor"];
    let purpose = ["--purpose", "try it", "--json"];
    desk.run(&[&args[..], &purpose, more].concat())
}

fn state(desk: &Desk, lease: &Value) -> String {
    let list = desk.run(&["lease", "list", "--json"]).done().json();
    let leases = list.as_array().unwrap();
    let found = leases.iter().find(|one| one["id"] == lease["id"]).unwrap();
    assert_eq!(found["sandbox_of"], "prod");
    text(found, "state").to_owned()
}

/// `app` owns the database, as it should where agents migrate.
const OWNED: &str = "CREATE ROLE app; ALTER DATABASE postgres OWNER TO app; ALTER TABLE bookings OWNER TO app; \
    CREATE VIEW early AS SELECT * FROM bookings WHERE n < 10; ALTER VIEW early OWNER TO app";

#[test]
fn a_lease_for_a_clone_destroys_what_it_likes_there_and_leaves_it_nowhere() {
    let desk = Desk::init("sandbox");
    let (source, vault) = protect(&postgres::installation(15).unwrap(), &desk);
    let guard = Process::spawn(desk.command(&["guard", "run"]), &desk.join("guard.log")).unwrap();
    wait("guard answers", || {
        let asked = issue(&desk, "prod-000000", &[]);
        asked.stderr.contains("ZU372")
    });
    let clone = open(&desk, &[]);
    let (id, inside) = (text(&clone, "id"), text(&clone, "url"));
    if text(&clone["confinement"], "kept") != "enforced" {
        issue(&desk, id, &[]).refused(2, &["ZU520", "settings alone"]);
        return;
    }
    execute(inside, OWNED);
    let data = issue(&desk, id, &[]).done().json();
    assert_eq!(
        (text(&data, "sandbox_of"), text(&data, "mode")),
        ("prod", "data")
    );
    assert_eq!(data["budget"]["transaction"], 100_000);
    assert!(text(&data, "expires") <= text(&clone, "expires"));
    let url = text(&data, "url");
    assert_eq!(ask(url, COUNT), Some(1000));

    // Far beyond what it may do in production, unasked; beyond the wider budget it is held.
    assert_eq!(attempt(url, "DELETE FROM bookings"), Ok(()));
    assert_eq!(
        (ask(inside, COUNT), ask(&source.url(), COUNT)),
        (Some(0), Some(1000))
    );
    let many = "INSERT INTO bookings SELECT generate_series(1, 100001)";
    assert_eq!(attempt(url, many), Err("ZH001".to_owned()));
    // What would leave the clone is denied before it starts, whatever keeps the clone in.
    for leaving in [
        "COPY bookings TO PROGRAM 'cat > /tmp/out'",
        "SELECT pg_read_file('/etc/passwd')",
    ] {
        assert_eq!(attempt(url, leaving), Err("ZH002".to_owned()), "{leaving}");
    }
    assert_eq!(ask(inside, COUNT), Some(0));

    let schema = issue(&desk, id, &["--schema"]).done().json();
    let migrate = text(&schema, "url");
    for change in [
        "CREATE OR REPLACE VIEW early AS SELECT * FROM bookings WHERE n < 20",
        "TRUNCATE bookings",
        "DROP TABLE bookings CASCADE",
    ] {
        assert_eq!(attempt(migrate, change), Ok(()), "{change}");
    }
    assert_eq!(
        (ask(inside, COUNT), ask(&source.url(), COUNT)),
        (None, Some(1000))
    );

    // A revocation ends the sessions and the role in the clone at once; the clone stays.
    let revoked = desk.run(&["lease", "revoke", text(&data, "id")]).done();
    assert!(!revoked.stderr.contains("warning"), "{revoked:?}");
    assert_eq!(ask(url, "SELECT 1::bigint"), None);
    let (_, user) = url.split_once("://").unwrap();
    let (user, _) = user.split_once(':').unwrap();
    let roles = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{user}'");
    assert_eq!(ask(inside, &roles), Some(0));
    // A lease ends with its clone, and opens nothing from then on.
    assert_eq!(state(&desk, &schema), "open");
    desk.run(&["clone", "close", id]).done();
    assert_eq!(ask(migrate, "SELECT 1::bigint"), None);
    wait("the lease ends with its clone", || {
        state(&desk, &schema) == "revoked"
    });
    drop((vault, guard));
}
