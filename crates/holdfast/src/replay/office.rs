//! The rental office: pages, traffic, the journal outside the database, and the count at the end.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_core::Timestamp;
use serde_json::Value;

use super::http;
use super::limits::{
    BOOKINGS_BEFORE, COMMAND_ENDS, COMPANIES, FIRST_BOOKINGS, PROGRAM_UP, SERVING_AGAIN,
    TRAFFIC_PER_SECOND, TRAFFIC_WORKERS,
};
use super::process::Process;
use super::stage::{Stage, number_at, text_at};
use super::trouble::Trouble;

/// A running office.
#[derive(Debug)]
pub struct Office {
    /// Where its pages are.
    pub pages: SocketAddr,
    journal: PathBuf,
    url_file: PathBuf,
    _serving: Process,
    traffic: Option<Process>,
}

/// A moment, and the end of the journal in it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    skip: u64,
    at: Timestamp,
}

/// What the journal and the database say about bookings.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    /// Acknowledged to the customer.
    pub acknowledged: u64,
    /// Of these, in the database.
    pub present: u64,
    /// Of these, not.
    pub lost: u64,
    /// Answers that were lost.
    pub unknown: u64,
}

impl Office {
    /// Fills the database, serves the pages and lets customers in.
    ///
    /// # Errors
    /// [`Trouble::Part`].
    pub fn open(stage: &Stage, database_url: &str) -> Result<Self, Trouble> {
        let url_file = stage.folder.join("database.url");
        let journal = stage.folder.join("journal.jsonl");
        stage.write_file(&url_file, &format!("{database_url}\n"))?;
        let rental = |verb: &str| {
            let mut command = Command::new(&stage.programs.rental);
            command.arg(verb).arg("--database-url-file").arg(&url_file);
            command
        };
        stage.progress.wait("rental", "fills the office's database");
        let seed = stage.seed.to_string();
        let mut command = rental("seed");
        command.args(["--companies", &COMPANIES.to_string()]);
        command.args(["--seed", &seed, "--json"]);
        stage.ask("rental-seed", command, COMMAND_ENDS)?;

        let ready_file = stage.folder.join("rental.ready.json");
        let mut command = rental("serve");
        command.arg("--ready-file").arg(&ready_file);
        let mut serving = stage.start("rental-serve", command)?;
        let ready: Value = serving.wait_until(&stage.stop, PROGRAM_UP, |_| {
            serde_json::from_slice(&fs::read(&ready_file).ok()?).ok()
        })?;
        let url = text_at(&ready, "/url", "rental-serve")?;
        let pages = url
            .trim_start_matches("http://")
            .parse()
            .map_err(|_| Trouble::part("rental-serve", format!("`{url}` names no address")))?;

        let mut command = rental("traffic");
        command.arg("--journal").arg(&journal);
        command.args(["--seed", &seed, "--json"]);
        command.args(["--workers", &TRAFFIC_WORKERS.to_string()]);
        command.args(["--rate", &TRAFFIC_PER_SECOND.to_string()]);
        let traffic = stage.start("rental-traffic", command)?;
        Ok(Self {
            pages,
            journal,
            url_file,
            _serving: serving,
            traffic: Some(traffic),
        })
    }

    /// Waits until the journal has the first bookings.
    ///
    /// # Errors
    /// [`Trouble::Part`] when they do not come.
    pub fn wait_busy(&mut self, stage: &Stage) -> Result<(), Trouble> {
        stage
            .progress
            .wait("rental", "waits for the first bookings");
        self.wait_bookings(stage, 0, BOOKINGS_BEFORE, FIRST_BOOKINGS)
    }

    /// Waits until `more` bookings were acknowledged after the first `skip` bytes of the journal.
    fn wait_bookings(
        &mut self,
        stage: &Stage,
        skip: u64,
        more: usize,
        limit: Duration,
    ) -> Result<(), Trouble> {
        let journal = self.journal.clone();
        let Some(traffic) = &mut self.traffic else {
            return Err(Trouble::part("rental-traffic", "it was ended already"));
        };
        traffic.wait_until(&stage.stop, limit, |_| {
            (bookings(&journal, skip).len() >= more).then_some(())
        })
    }

    /// Remembers the end of the journal now.
    pub fn mark(&self) -> Mark {
        Mark {
            skip: fs::metadata(&self.journal).map_or(0, |found| found.len()),
            at: crate::wiring::now(),
        }
    }

    /// Waits until a booking after the mark is acknowledged and the pages say that they can write; returns
    /// the seconds from the mark to that booking.
    ///
    /// # Errors
    /// [`Trouble::Part`] when that does not come.
    pub fn wait_serving(&mut self, stage: &Stage, mark: &Mark) -> Result<f64, Trouble> {
        self.wait_bookings(stage, mark.skip, 1, SERVING_AGAIN)?;
        let booked = bookings(&self.journal, mark.skip).into_iter().next();
        let after = booked.map_or(0.0, |at| at.since(mark.at).as_secs_f64());
        let pages = self.pages;
        let well = stage
            .stop
            .poll(SERVING_AGAIN, || Ok(http::is_well(pages).then_some(())))?;
        match well {
            Some(()) => Ok(after),
            None => Err(Trouble::part(
                "rental-serve",
                "bookings are accepted, but the pages do not say that they can write",
            )),
        }
    }

    /// Points pages and traffic at another server.
    ///
    /// # Errors
    /// [`Trouble::System`].
    pub fn point_at(&self, stage: &Stage, database_url: &str) -> Result<(), Trouble> {
        stage.write_file(&self.url_file, &format!("{database_url}\n"))
    }

    /// Closes the counters: operations that have begun are finished, then nothing is booked any more.
    ///
    /// # Errors
    /// [`Trouble::Part`] when the traffic had ended by itself.
    pub fn close(&mut self) -> Result<(), Trouble> {
        let Some(mut traffic) = self.traffic.take() else {
            return Ok(());
        };
        if let Some(status) = traffic.status()? {
            return Err(traffic.trouble(&format!("it ended too early ({status})")));
        }
        traffic.end();
        Ok(())
    }

    /// Compares the journal with the database.
    ///
    /// # Errors
    /// [`Trouble::Part`] when the count cannot be made.
    pub fn count(&self, stage: &Stage) -> Result<Count, Trouble> {
        let mut command = Command::new(&stage.programs.rental);
        command.args(["verify", "--json", "--gone-is-lost"]);
        command.arg("--database-url-file").arg(&self.url_file);
        command.arg("--journal").arg(&self.journal);
        let found = stage.ask("rental-verify", command, COMMAND_ENDS)?;
        let number = |name: &str| number_at(&found, name, "rental-verify");
        Ok(Count {
            acknowledged: number("/acknowledged")?,
            present: number("/present")?,
            lost: number("/lost")?,
            unknown: number("/unknown")?,
        })
    }
}

/// Returns when bookings after the first `skip` bytes of the journal were acknowledged.
fn bookings(journal: &Path, skip: u64) -> Vec<Timestamp> {
    let read = || {
        let mut file = fs::File::open(journal)?;
        file.seek(SeekFrom::Start(skip))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().unwrap_or_default();
    let lines = String::from_utf8_lossy(&text);
    let booked = |line: &str| {
        let entry: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let is_it = text("kind") == Some("booking") && text("outcome") == Some("acknowledged");
        is_it.then(|| text("at")?.parse().ok()).flatten()
    };
    lines.lines().filter_map(booked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_acknowledged_bookings_after_the_skipped_bytes_count() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.jsonl");
        assert!(bookings(&journal, 0).is_empty());
        let entry = |kind: &str, outcome: &str| {
            let at = "2026-11-24T14:45:23.453303437Z";
            format!(
                "{{\"at\":\"{at}\",\"kind\":\"{kind}\",\"id\":\"y\",\"outcome\":\"{outcome}\"}}\n"
            )
        };
        let first = format!(
            "{{\"journal\":\"rental\",\"version\":1}}\n{}",
            entry("booking", "acknowledged")
        );
        let rest = entry("payment", "acknowledged")
            + &entry("booking", "unknown")
            + &entry("booking", "acknowledged")
            + "{\"kind\":\"booking\",\"outcome\":\"ackn";
        fs::write(&journal, format!("{first}{rest}")).unwrap();
        assert_eq!(bookings(&journal, 0).len(), 2);
        assert_eq!(
            bookings(&journal, u64::try_from(first.len()).unwrap()).len(),
            1
        );
    }
}
