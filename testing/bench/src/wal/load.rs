//! `pgbench` whose commits can be counted one by one, at the client and in a restore.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use holdfast_testing::postgres::Server;
use serde::Serialize;

use crate::ground::Ground;
use crate::limits;
use crate::machine::as_f64;
use crate::meter::Measured;

/// Where every transaction leaves who it was.
pub const TABLE: &str = "CREATE TABLE acknowledged (client int, number bigint)";

/// What `pgbench` does in each transaction: its own, and a row that says which one it was.
const SCRIPT: &str = r"
\set n :n + 1
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
INSERT INTO acknowledged VALUES (:client_id, :n);
END;
";

/// Eight clients that run until their server is gone.
pub struct Load {
    process: Measured,
    log: PathBuf,
}

/// Which commits the clients were told of: for each client, when.
pub struct Acknowledged {
    at: BTreeMap<u32, Vec<f64>>,
}

/// How many commits of each client a restore has.
pub type Kept = BTreeMap<u32, u64>;

/// What became of acknowledged commits.
#[derive(Clone, Debug, Serialize)]
pub struct Loss {
    /// Commits that a client was told of.
    pub acknowledged: u64,
    /// Those of them that the restore does not have.
    pub lost: u64,
    /// From the first lost one to the last acknowledged one.
    pub seconds: f64,
}

impl Load {
    /// Starts the clients.
    pub fn start(ground: &Ground, server: &Server) -> Result<Self> {
        let folder = ground.folder("load")?;
        for old in crate::ground::files(&folder)? {
            fs::remove_file(old).context("remove an old log")?;
        }
        let script = folder.join("script.sql");
        fs::write(&script, SCRIPT).context("write the script")?;
        let seconds = (limits::LOAD.as_secs() * 10).to_string();
        let mut pgbench = ground.command(&ground.postgres.program("pgbench"));
        pgbench
            .args([
                "-n", "-c", "8", "-j", "2", "-D", "n=0", "-D", "scale=20", "-T", &seconds,
            ])
            .arg("-f")
            .arg(&script)
            .args(["-l", "--log-prefix"])
            .arg(folder.join("log"))
            .args([
                "-h",
                "127.0.0.1",
                "-U",
                "postgres",
                "-p",
                &server.port().to_string(),
            ])
            .arg("postgres")
            .env("PGPASSWORD", server.password());
        Ok(Self {
            process: Measured::start(pgbench, &ground.path("load.txt"), None)?,
            log: folder,
        })
    }

    /// Commits until now, about: what the clients have written down is a little behind.
    pub fn commits_so_far(&self) -> Result<f64> {
        Ok(as_f64(
            self.read()?.at.values().map(Vec::len).sum::<usize>(),
        ))
    }

    /// Waits until the clients have noticed that their server is gone.
    pub fn finish(self) -> Result<Acknowledged> {
        let log = self.log.clone();
        let Self { process, .. } = self;
        process.ended()?;
        read(&log)
    }

    fn read(&self) -> Result<Acknowledged> {
        read(&self.log)
    }
}

/// Reads what the clients have written down: `client number latency script seconds microseconds`.
fn read(folder: &std::path::Path) -> Result<Acknowledged> {
    let mut at: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for file in crate::ground::files(folder)? {
        let text = fs::read_to_string(&file).context("read a log of pgbench")?;
        // The newest line may be half written while the clients still run.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let fields: Vec<f64> = line.split(' ').filter_map(|f| f.parse().ok()).collect();
            if let [client, _, _, _, seconds, microseconds] = fields.as_slice() {
                let client = format!("{client:.0}")
                    .parse()
                    .context("read a client's number")?;
                at.entry(client)
                    .or_default()
                    .push(seconds + microseconds / 1e6);
            }
        }
    }
    for times in at.values_mut() {
        times.sort_by(f64::total_cmp);
    }
    Ok(Acknowledged { at })
}

impl Acknowledged {
    /// Commits a second, from a second after the first one on.
    pub fn tps(&self) -> f64 {
        let mut all: Vec<f64> = self.at.values().flatten().copied().collect();
        all.sort_by(f64::total_cmp);
        let (Some(first), Some(last)) = (all.first().copied(), all.last().copied()) else {
            return 0.0;
        };
        let counted = all.iter().filter(|at| **at > first + WARM_UP_S).count();
        as_f64(counted) / (last - first - WARM_UP_S).max(f64::EPSILON)
    }

    /// Compares with what a restore has. Commits of one client follow each other, so a client's lost
    /// ones are its last ones.
    pub fn lost(&self, kept: &Kept) -> Loss {
        let last = self.at.values().flatten().copied().fold(0.0, f64::max);
        let mut loss = Loss {
            acknowledged: 0,
            lost: 0,
            seconds: 0.0,
        };
        for (client, times) in &self.at {
            let has = kept.get(client).copied().unwrap_or(0);
            let told = u64::try_from(times.len()).unwrap_or(u64::MAX);
            loss.acknowledged += told;
            loss.lost += told.saturating_sub(has);
            let first_lost = usize::try_from(has).ok().and_then(|has| times.get(has));
            if let Some(at) = first_lost {
                loss.seconds = loss.seconds.max(last - at);
            }
        }
        loss
    }
}

const WARM_UP_S: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_last_commits_are_the_lost_ones() {
        let at = BTreeMap::from([(0, vec![1.0, 2.0, 3.0]), (1, vec![1.5, 3.5])]);
        let told = Acknowledged { at };
        let loss = told.lost(&Kept::from([(0, 1), (1, 3)]));
        assert_eq!((loss.acknowledged, loss.lost), (5, 2));
        assert!((loss.seconds - 1.5).abs() < 1e-9);
        let none = told.lost(&Kept::from([(0, 3), (1, 2)]));
        assert_eq!((none.lost, none.seconds), (0, 0.0));
    }
}
