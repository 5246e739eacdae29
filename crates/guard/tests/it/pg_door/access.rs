//! Who gets in, and when a session ends.

use std::time::{Duration, Instant};

use holdfast_core::Principal;
use holdfast_guard::door::pg::end_lease;
use holdfast_guard::lease::LeaseMode;
use holdfast_testing::postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::bench::Bench;

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

async fn bench() -> Bench {
    Bench::new(&postgres::newest().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_token_of_a_lease_opens_the_door() {
    let bench = bench().await;
    let token = bench.lease.token.expose();
    let wrong = bench.url.expose().replace(token, "hfl_wrong");
    let said = bench.psql_at(&wrong, &["SELECT 1"]).await;
    assert!(
        !said.ok && said.err.contains("no lease has this role and this token"),
        "{said:?}"
    );
    let role = &bench.lease.lease.pg.as_ref().unwrap().role;
    let nobody = bench.url.expose().replace(role.as_str(), "postgres");
    let said = bench.psql_at(&nobody, &["SELECT 1"]).await;
    assert!(
        said.err.contains("no lease has this role and this token"),
        "{said:?}"
    );
    let elsewhere = bench.url.expose().replace("/shop", "/postgres");
    let said = bench.psql_at(&elsewhere, &["SELECT 1"]).await;
    assert!(
        said.err.contains("leads to the database `shop` only"),
        "{said:?}"
    );
    // The token is no password of the source.
    let direct = format!(
        "postgresql://{role}:{token}@127.0.0.1:{}/shop",
        bench.server.port()
    );
    let said = bench.psql_at(&direct, &["SELECT 1"]).await;
    assert!(
        !said.ok && said.err.contains("password authentication failed"),
        "{said:?}"
    );
    let leaked = std::fs::read(bench.folder.path().join("state.db")).unwrap();
    let leaked = String::from_utf8_lossy(&leaked).into_owned();
    assert!(!leaked.contains(token), "the token lies in the state file");
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_and_strange_encodings_are_refused_or_declined() {
    let bench = bench().await;
    let url = format!("{}?replication=database", bench.url.expose());
    let said = bench.psql_at(&url, &["IDENTIFY_SYSTEM"]).await;
    assert!(said.err.contains("does not pass replication"), "{said:?}");
    let url = format!("{}?client_encoding=SJIS", bench.url.expose());
    let said = bench.psql_at(&url, &["SELECT 1"]).await;
    assert!(said.err.contains("does not pass this encoding"), "{said:?}");
    let said = bench.psql(&["SET client_encoding TO 'GBK'"]).await;
    assert!(said.err.contains("ZH002"), "{said:?}");
    let said = bench.psql(&["SELECT speak('GBK')", "SELECT 1"]).await;
    assert!(said.err.contains("does not pass this encoding"), "{said:?}");
    let url = format!("{}?gssencmode=prefer&sslmode=prefer", bench.url.expose());
    let said = bench.psql_at(&url, &["SELECT 1"]).await;
    assert_eq!(said.out, "1", "{said:?}");
    let url = format!(
        "{}?options=-c%20default_transaction_read_only%3Doff%20-c%20work_mem%3D5MB",
        bench.url.expose()
    );
    let said = bench
        .psql_at(&url, &["SHOW work_mem", "SELECT wipe()"])
        .await;
    assert!(said.out == "5MB" && said.err.contains("ZH001"), "{said:?}");
    assert_eq!(bench.orders().await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_lease_ends_its_sessions_at_once_and_loses_its_role() {
    let bench = bench().await;
    let client = bench.client().await;
    client
        .batch_execute("BEGIN; DELETE FROM settings WHERE key = 'key 1'")
        .await
        .unwrap();
    let begun = Instant::now();
    bench
        .leases
        .revoke(&bench.lease.lease.id, Principal::human("ann"))
        .unwrap();
    while !client.is_closed() {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the session goes on"
        );
        tokio::time::sleep(POLL).await;
    }
    let said = bench.psql(&["SELECT 1"]).await;
    assert!(said.err.contains("was revoked"), "{said:?}");
    assert_eq!(bench.number("SELECT count(*) FROM settings").await, 10);
    let pg = bench.lease.lease.pg.clone().unwrap();
    end_lease(&bench.source, &pg).await.unwrap();
    end_lease(&bench.source, &pg).await.unwrap();
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'holdfast\\_%'";
    assert_eq!(bench.number(roles).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_agents_read_nothing_and_commit_nothing() {
    let bench = bench().await;
    let client = bench.client().await;
    client
        .batch_execute("BEGIN; INSERT INTO settings VALUES ('x', 'y')")
        .await
        .unwrap();
    bench
        .gatekeeper
        .set_frozen(true, Principal::human("ann"))
        .unwrap();
    let refused = client.batch_execute("COMMIT").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "ZH004");
    let said = bench.psql(&["SELECT 1"]).await;
    assert!(said.err.contains("ZH004"), "{said:?}");
    assert_eq!(bench.number("SELECT count(*) FROM settings").await, 10);
    bench
        .gatekeeper
        .set_frozen(false, Principal::human("ann"))
        .unwrap();
    let said = bench.psql(&["SELECT 1"]).await;
    assert!(said.ok, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_reads_has_no_right_to_write() {
    for installation in postgres::all().unwrap() {
        let bench = Bench::with(&installation, LeaseMode::ReadOnly, true).await;
        let said = bench
            .psql(&[
                "SELECT count(*) FROM orders",
                "DELETE FROM orders WHERE id = 1",
            ])
            .await;
        assert!(said.out == "1000" && said.err.contains("42501"), "{said:?}");
        let bench = Bench::with(&installation, LeaseMode::Data, true).await;
        let said = bench
            .psql(&["DELETE FROM orders WHERE id = 1", "DROP TABLE audit"])
            .await;
        assert!(
            said.err.contains("42501") && !said.err.contains("ZH"),
            "{said:?}"
        );
        assert_eq!(bench.orders().await, 999);
        let role = bench.lease.lease.pg.as_ref().unwrap().role.clone();
        let powers = format!(
            "SELECT count(*) FROM pg_roles WHERE rolname = '{role}' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"
        );
        assert_eq!(bench.number(&powers).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_first_bytes_are_refused_and_the_door_stays_open() {
    let bench = bench().await;
    let packets: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\xff\xff\xff\xff\x00\x03\x00\x00",
        b"\x00\x00\x00\x08\x00\x02\x00\x00",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x16\x03\x01",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x08\x00\x03\x00\x00",
        b"\x00\x00\x00\x13\x00\x03\x00\x00user\x00nobody\x00\x00p\x00\x00\x00\x04",
        b"\x00\x00\x00\x13\x00\x03\x00\x00user\x00nobody\x00\x00Q\x7f\xff\xff\xff",
    ];
    for packet in packets {
        let mut stream = TcpStream::connect(bench.door).await.unwrap();
        stream.write_all(packet).await.unwrap();
        // Half closed: a handshake that is cut off has ended as well.
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        // A reset is as good as a close.
        let _ = tokio::time::timeout(Duration::from_secs(10), reading)
            .await
            .expect("it closes");
        let ready = answer.windows(5).any(|bytes| bytes == b"Z\0\0\0\x05");
        assert!(!ready, "{packet:?}: {answer:?}");
    }
    let said = bench.psql(&["SELECT 1"]).await;
    assert_eq!(said.out, "1");
}
