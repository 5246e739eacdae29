//! Many sessions of one lease at once: together they change no more than one could.

use holdfast_guard::decide::rows_of_entry;
use holdfast_testing::postgres;

use super::bench::Bench;

/// Sessions that run at once.
const SESSIONS: i32 = 12;

/// Transactions that each of them tries, of so many rows.
const TRIES: i32 = 4;
const ROWS: i32 = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_sessions_of_a_lease_change_no_more_than_its_budget_together() {
    let bench = Bench::new(&postgres::newest().unwrap()).await;
    let begin = std::sync::Arc::new(tokio::sync::Barrier::new(
        usize::try_from(SESSIONS).unwrap(),
    ));
    let mut sessions = Vec::new();
    for session in 0..SESSIONS {
        let (client, begin) = (bench.client().await, begin.clone());
        sessions.push(tokio::spawn(async move {
            let mut passed = 0;
            for one in 0..TRIES {
                let first = 1 + (session * TRIES + one) * ROWS;
                let delete = format!(
                    "DELETE FROM orders WHERE id BETWEEN {first} AND {}",
                    first + ROWS - 1
                );
                // Half of them stand open at once and commit at once.
                let begun = match session % 2 {
                    0 => client.batch_execute(&format!("BEGIN; {delete}")).await,
                    _ => Ok(()),
                };
                begun.unwrap();
                begin.wait().await;
                let done = match session % 2 {
                    0 => client.batch_execute("COMMIT").await,
                    _ => client.batch_execute(&delete).await,
                };
                passed += i64::from(done.is_ok());
            }
            passed
        }));
    }
    let mut passed = 0;
    for session in sessions {
        passed += session.await.unwrap();
    }
    let gone = 1000 - bench.orders().await;
    assert_eq!(gone, passed * i64::from(ROWS));
    // All that the hour has room for, and not one transaction more.
    assert_eq!(passed, 250 / i64::from(ROWS));
    // A door that starts again counts the same from the ledger.
    let mut told = 0;
    let key = bench.ledger.public_key();
    holdfast_store::ledger::verify(bench.ledger.folder(), &key, |entry| {
        told += rows_of_entry(entry).map_or(0, |(_, rows, _)| rows.0);
    })
    .unwrap();
    assert_eq!(i64::try_from(told).unwrap(), gone);
}
