//! The first committed write, and what a recovered database holds.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::cluster;
use crate::limits;

/// Commits a row as soon as the server takes it.
pub fn first_write(url: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        match cluster::ask(url, WRITE) {
            Ok(written) => {
                ensure!(written == "1", "the first write says `{written}`");
                return Ok(());
            }
            Err(error) if began.elapsed() > limits::ANSWER => {
                return Err(error).context("the server takes no write");
            }
            // A server that was just promoted may still refuse connections.
            Err(_) => std::thread::sleep(limits::POLL),
        }
    }
}

/// Adds up what the newest transactions have changed, without reading the whole database.
pub fn sums(url: &str) -> Result<String> {
    cluster::ask(
        url,
        "SELECT concat_ws(' ', (SELECT count(*) FROM pgbench_history WHERE tid <> 0),
            (SELECT sum(delta) FROM pgbench_history), (SELECT sum(bbalance) FROM pgbench_branches),
            (SELECT sum(tbalance) FROM pgbench_tellers),
            (SELECT count(*) FROM pg_class WHERE relname = 'doomed'))",
    )
}

/// It changes no sum.
const WRITE: &str = "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
    VALUES (0, 0, 0, 0, now()) RETURNING 1";
