//! What makes leases weaker is said where a lease is issued, and listed by `source check`.

use std::time::Duration;

use holdfast_testing::postgres::{self, Server};
use holdfast_testing::process::Process;
use holdfast_testing::signals;

use crate::desk::{Desk, Ran};

fn issue(desk: &Desk, more: &[&str]) -> Ran {
    let args = ["lease", "issue", "--source", "prod", "--agent", "cursor"];
    desk.run(&[&args[..], &["--purpose", "tidy up"], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_a_lease_weaker_is_said_when_it_is_issued_and_listed_by_source_check() {
    let server = Server::builder(&postgres::newest().unwrap())
        .start()
        .unwrap();
    let root = server.connect().await.unwrap();
    root.batch_execute("CREATE ROLE app").await.unwrap();
    root.batch_execute("CREATE DATABASE shop OWNER app")
        .await
        .unwrap();
    let desk = Desk::init("weak");
    desk.secret("guard-url", &server.url_for("shop"));
    let add = ["source", "add", "prod", "--guard-url", "file:guard-url"];
    desk.run(&add).done();
    let guard = Process::spawn(desk.command(&["guard", "run"]), &desk.join("guard.log")).unwrap();
    let mut clean = issue(&desk, &["--json"]);
    let is_up = signals::wait_until(Duration::from_secs(60), || {
        clean = issue(&desk, &["--json"]);
        clean.status == 0
    });
    assert!(is_up.is_ok(), "{clean:?}\n{}", guard.log_tail());
    assert_eq!(clean.json()["weaker"], 0, "{clean:?}");
    assert!(!clean.stderr.contains("weaker"), "{clean:?}");
    let check = desk.run(&["source", "check", "prod"]).done();
    assert!(
        check.stdout.contains("nothing was found in `shop`"),
        "{check:?}"
    );

    let shop = server.connect_to("shop").await.unwrap();
    shop.batch_execute(
        "CREATE FUNCTION wipe() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
         GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER ROLE app CREATEROLE",
    )
    .await
    .unwrap();
    let data = issue(&desk, &[]).done();
    let said = "2 things make this lease weaker: holdfast source check prod";
    assert!(data.stderr.contains(said), "{data:?}");
    let schema = issue(&desk, &["--schema", "--json"]).done();
    assert_eq!(schema.json()["weaker"], 3);
    let check = desk.run(&["source", "check", "prod", "--json"]).done();
    let ids: Vec<String> = check.json()["leases"]["found"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap().to_owned())
        .collect();
    let wanted = [
        "definer-functions-of-superusers",
        "public-create",
        "owner-powers",
    ];
    assert_eq!(ids, wanted);
    let check = desk.run(&["source", "check", "prod"]).done();
    for text in [
        "3 things make them weaker",
        "public.wipe()",
        "REVOKE EXECUTE",
    ] {
        assert!(check.stdout.contains(text), "{check:?}");
    }
    let absent = ["source", "check", "prod", "--database", "nowhere"];
    desk.run(&absent).refused(1, &["ZS401"]);
}
