//! What is permitted before it starts really runs, and its answer is the server's.

use holdfast_core::RowCount;
use holdfast_guard::lease::{LeaseMode, RowBudget};
use holdfast_judge::policy::Policy;
use holdfast_testing::postgres;

use super::bench::{Bench, Wanted};

/// Everything is permitted, so that only the door itself can make a difference.
pub const EVERYTHING: &str = "@id(\"all\") @message(\"everything is permitted\") \
    permit (principal, action, resource);";

/// A door that lets everything through.
async fn open() -> Bench {
    let wanted = Wanted {
        mode: LeaseMode::Schema,
        is_proven: true,
        policy: Policy::parse(EVERYTHING).unwrap(),
        budget: RowBudget {
            transaction: RowCount(u64::MAX / 2),
            hour: RowCount(u64::MAX / 2),
        },
        database: "shop",
    };
    Bench::wanted(&postgres::newest().unwrap(), wanted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_decided_before_it_starts_runs_once_it_is_permitted() {
    let bench = open().await;
    let said = bench
        .psql(&[
            "SET standard_conforming_strings TO off",
            "SHOW standard_conforming_strings",
            "SELECT setval('tickets', 70)",
            "SELECT nextval('tickets')",
        ])
        .await;
    assert!(said.ok, "{said:?}");
    assert_eq!(said.out, "off\n70\n71");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_grammar_does_not_read_runs_once_it_is_permitted() {
    let bench = open().await;
    let client = bench.client().await;
    // Beyond what is parsed.
    let long = format!("SELECT length('{}')", "x".repeat(3 << 20));
    let answer = client.simple_query(&long).await.unwrap();
    let rows: Vec<&str> = answer
        .iter()
        .filter_map(|one| match one {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    assert_eq!(rows, [(3 << 20).to_string()]);
    // Two statements in a text that is not parsed: nothing of it runs.
    let two = format!(
        "INSERT INTO audit (what) VALUES ('{}'); COMMIT",
        "x".repeat(3 << 20)
    );
    let refused = client.simple_query(&two).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42601");
    assert_eq!(bench.number("SELECT count(*) FROM audit").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_begin_that_comes_bound_after_a_rollback_begins() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let client = bench.client().await;
    let undone = "BEGIN; DELETE FROM settings WHERE key = 'key 1'; ROLLBACK";
    client.batch_execute(undone).await.unwrap();
    client.execute("BEGIN", &[]).await.unwrap();
    client
        .execute("INSERT INTO settings VALUES ('a', 'b')", &[])
        .await
        .unwrap();
    client.execute("COMMIT", &[]).await.unwrap();
    assert_eq!(bench.number("SELECT count(*) FROM settings").await, 11);
}
