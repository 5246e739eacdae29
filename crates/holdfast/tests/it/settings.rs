//! `source add --apply`: what a server lacks is shown, and done with consent alone.

use std::os::unix::fs::PermissionsExt;

use holdfast_testing::postgres::{self, Server};
use tokio_postgres::NoTls;

use crate::desk::Desk;

async fn ask(url: &str, sql: &str) -> String {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

const ROLE: &str = "SELECT count(*)::text FROM pg_roles WHERE rolname = 'vault' AND rolreplication";
const SLOTS: &str = "SELECT coalesce(string_agg(slot_name, ',' ORDER BY slot_name), 'none') FROM pg_replication_slots";

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_made_ready_with_consent_and_untouched_without() {
    let server = Server::builder(&postgres::newest().unwrap())
        .hba_line("host all vault 127.0.0.1/32 scram-sha-256")
        .hba_line("host replication vault 127.0.0.1/32 scram-sha-256")
        .start()
        .unwrap();
    let desk = Desk::init("settings");
    let port = server.port();
    let own = format!("postgresql://vault:s3cret@127.0.0.1:{port}/postgres");
    for (file, text) in [("vault-url", own), ("admin-url", server.url())] {
        let file = desk.join(file);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let add = ["source", "add", "prod", "--vault-url", "file:vault-url"];
    let apply = ["--apply", "--admin-url", "file:admin-url"];
    let refused = desk.run(&[&add[..], &apply].concat());
    refused.refused(2, &["ZU608", "nothing was changed in it", "--yes prod"]);
    assert!(refused.stderr.contains("CREATE ROLE"), "{refused:?}");
    assert_eq!(ask(&server.url(), ROLE).await, "0");
    assert_eq!(ask(&server.url(), SLOTS).await, "none");

    // The source is in the configuration by now; the same is said of it.
    let check = ["source", "check", "prod"];
    let wrong = desk.run(&[&check[..], &apply, &["--yes", "production"]].concat());
    wrong.refused(2, &["ZU608"]);
    assert_eq!(ask(&server.url(), ROLE).await, "0");
    let done = desk.run(&[&check[..], &apply, &["--yes", "prod"]].concat());
    let all = format!("{}{}", done.stdout, done.stderr);
    assert!(!all.contains("s3cret"), "{all}");
    done.done();
    assert_eq!(ask(&server.url(), ROLE).await, "1");
    assert_eq!(ask(&server.url(), SLOTS).await, "holdfast_prod");
    let kept = "SELECT current_setting('max_slot_wal_keep_size')";
    assert_eq!(ask(&server.url(), kept).await, "10GB");
    let again = desk.run(&[&check[..], &apply].concat()).done();
    let text = format!("{}{}", again.stdout, again.stderr);
    assert!(text.contains("nothing to apply"), "{again:?}");
    // A second one, with everything in one command.
    let add = ["source", "add", "other", "--vault-url", "file:vault-url"];
    desk.run(&[&add[..], &apply, &["--yes", "other"]].concat())
        .done();
    let both = "holdfast_other,holdfast_prod";
    assert_eq!(ask(&server.url(), SLOTS).await, both);
    let removed = desk.run(&["source", "remove", "other", "--yes", "other"]);
    let removed = removed.done();
    let text = format!("{}{}", removed.stdout, removed.stderr);
    let drop = "pg_drop_replication_slot('holdfast_other')";
    assert!(text.contains(drop), "{text}");
}
