//! What earlier drills leave for the next: rows to compare with, losses that stand, what is due.
//!
//! It is folded from the vault's ledger once when the vault starts, and then kept up with each entry, so
//! that a restart changes nothing.

use std::collections::BTreeMap;

use holdfast_core::ledger::Entry;
use holdfast_core::{
    DrillOf, DrillReport, LOSS_ACCEPTED, PointId, ProvenPoint, SignedProof, SourceName,
    TableChange, Timestamp, rows_recorded,
};
use holdfast_store::ledger::{self, Ledger, LedgerError};

use super::memory::{IN_REPOSITORY, report};
use super::rows::{Rows, is_lost};
use crate::limits;

/// What is known of the drills of every source.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    sources: BTreeMap<SourceName, Known>,
}

/// What is known of the drills of a source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// What the next drill is compared with: the rows of the newest one, except that a table that lost
    /// most of its rows keeps its number until they are back or the loss is accepted.
    before: Baseline,
    /// The newest drill of the newest point.
    newest: Option<DrillReport>,
    /// Drills of the newest point that failed since the last that passed.
    pub(crate) failures: u32,
    /// The newest drill of each point.
    pub(crate) points: BTreeMap<PointId, PointDrill>,
    /// When the first drill ended.
    pub(crate) first: Option<Timestamp>,
    /// The newest proof of the newest point, as it lies in the ledger.
    proof: Option<SignedProof>,
}

/// The newest drill of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PointDrill {
    /// When it ended.
    pub(crate) at: Timestamp,
    /// How.
    pub(crate) passed: bool,
    /// As which kind.
    pub(crate) of: DrillOf,
    /// When a proof of it was last kept in the repository.
    stored: Option<Timestamp>,
}

/// What rows are compared with.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    cluster: u64,
    pub(super) rows: Rows,
    /// When the newest of them were counted.
    pub(super) at: Option<Timestamp>,
    /// The rows of the newest drill as they were counted.
    counted: Rows,
    /// The newest proven point in which nothing was lost.
    pub(super) proven: Option<ProvenPoint>,
    /// What is lost and not accepted.
    losses: Vec<TableChange>,
}

impl History {
    /// Reads it from a ledger, which is verified.
    pub(crate) fn read(ledger: &Ledger) -> Result<Self, LedgerError> {
        let mut history = Self::default();
        ledger::verify(ledger.folder(), &ledger.public_key(), |entry| {
            history.take(entry);
        })?;
        Ok(history)
    }

    /// Takes up an entry; those about other things are passed over.
    pub(crate) fn take(&mut self, entry: &Entry) {
        if entry.draft.kind == LOSS_ACCEPTED {
            if let Some(source) = &entry.draft.source {
                self.known(source).before.accept();
            }
        } else if let Some(report) = report(entry) {
            let rows = rows_recorded(entry).unwrap_or_default();
            let known = self.known(&report.source.clone());
            let stored = entry.draft.body.get(IN_REPOSITORY);
            let is_stored = stored.and_then(serde_json::Value::as_bool) == Some(true);
            known.drilled((report, rows), is_stored.then_some(entry.draft.at));
            let signed = entry.draft.body.get("proof").cloned();
            let signed = signed.and_then(|signed| serde_json::from_value(signed).ok());
            if let (Some(signed), true) = (signed, known.is_newest_at(entry.draft.at)) {
                known.proof = Some(signed);
            }
        }
    }

    /// Returns what is known of a source.
    pub(crate) fn of(&self, source: &SourceName) -> Option<&Known> {
        self.sources.get(source)
    }

    /// Returns what a drill of a cluster is compared with, when there is anything.
    pub(super) fn before(&self, source: &SourceName, cluster: u64) -> Option<&Baseline> {
        let before = &self.of(source)?.before;
        (before.cluster == cluster && !before.rows.is_empty()).then_some(before)
    }

    fn known(&mut self, source: &SourceName) -> &mut Known {
        self.sources.entry(source.clone()).or_default()
    }
}

impl Known {
    /// Returns the newest drill of the newest point.
    pub(crate) fn newest(&self) -> Option<&DrillReport> {
        self.newest.as_ref()
    }

    /// Returns the tables that lost most of their rows, which nobody has accepted.
    pub(crate) fn losses(&self) -> &[TableChange] {
        &self.before.losses
    }

    /// Returns the points whose newest drill failed.
    pub(crate) fn failed(&self) -> Vec<PointId> {
        let failed = self.points.iter().filter(|(_, drill)| !drill.passed);
        failed.map(|(point, _)| point.clone()).collect()
    }

    /// Returns the newest proof of the newest point, which is yet to be verified.
    pub(crate) fn proof(&self) -> Option<&SignedProof> {
        self.proof.as_ref()
    }

    /// Tells whether a proof of a point was kept in the repository not long ago.
    pub(super) fn is_stored(&self, point: &PointId, now: Timestamp) -> bool {
        let stored = self.points.get(point).and_then(|drill| drill.stored);
        stored.is_some_and(|at| at <= now && now.since(at) < limits::PROOF_STORE_EVERY)
    }

    fn is_newest_at(&self, at: Timestamp) -> bool {
        self.newest
            .as_ref()
            .is_some_and(|newest| newest.drilled_at == at)
    }

    fn drilled(&mut self, (report, rows): (DrillReport, Rows), stored: Option<Timestamp>) {
        let passed = report.passed();
        self.first.get_or_insert(report.drilled_at);
        let before = self.points.get(&report.point);
        let drill = PointDrill {
            at: report.drilled_at,
            passed,
            of: report.details.of,
            stored: stored.or(before.and_then(|before| before.stored)),
        };
        self.points.insert(report.point.clone(), drill);
        while self.points.len() > limits::DRILL_POINTS {
            let oldest = self.points.iter().min_by_key(|(_, drill)| drill.at);
            let Some(oldest) = oldest.map(|(point, _)| point.clone()) else {
                break;
            };
            self.points.remove(&oldest);
        }
        if report.details.of == DrillOf::Older {
            return;
        }
        self.failures = match passed {
            true => 0,
            false => self.failures.saturating_add(1),
        };
        if self.before.cluster != report.system_identifier {
            self.before = Baseline {
                cluster: report.system_identifier,
                ..Baseline::default()
            };
        }
        // A drill that did not come as far as counting leaves what was known before.
        if !rows.is_empty() {
            self.before.count(rows, &report);
        }
        self.newest = Some(report);
    }
}

impl Baseline {
    fn count(&mut self, rows: Rows, report: &DrillReport) {
        let is_first_version = report.details.version == 1;
        let mut next = rows.clone();
        for (table, &before) in &self.rows {
            match rows.get(table) {
                Some(now) if !is_first_version && is_lost(before, *now) => {
                    next.insert(table.clone(), before);
                }
                // A table that is gone stays a loss; one that was not counted stays as it was known.
                None if !report.details.is_complete || is_lost(before, 0) => {
                    next.insert(table.clone(), before);
                }
                _ => {}
            }
        }
        if report.passed() && report.details.losses.is_empty() {
            self.proven = Some(report.proven());
        }
        self.losses = report.details.losses.clone();
        self.rows = next;
        self.counted = rows;
        self.at = Some(report.drilled_at);
    }

    fn accept(&mut self) {
        self.rows = self.counted.clone();
        self.losses.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_core::ledger::{Chain, Draft};
    use holdfast_core::{
        ByteCount, Check, CheckOutcome, DRILL_PASSED, DrillDetails, Lsn, Principal,
    };

    use super::super::rows::{Count, compare};
    use super::*;

    struct Story {
        chain: Chain,
        history: History,
        at: i64,
    }

    fn source() -> SourceName {
        "prod".parse().unwrap()
    }

    impl Story {
        fn new() -> Self {
            Self {
                chain: Chain::default(),
                history: History::default(),
                at: 0,
            }
        }

        fn append(&mut self, draft: Draft) {
            let (entry, _) = self.chain.append(draft).unwrap();
            self.history.take(&entry);
        }

        /// A drill that counts, as the vault runs it; returns what it lost.
        fn drill(&mut self, rows: &[(&str, u64)]) -> Vec<String> {
            self.at += 1_000_000;
            let rows: Rows = rows
                .iter()
                .map(|(table, count)| ((*table).to_owned(), *count))
                .collect();
            let before = self.history.before(&source(), 7).map(|b| b.rows.clone());
            let compared = compare(before.as_ref(), &rows, Count::Complete);
            let report = DrillReport {
                source: source(),
                system_identifier: 7,
                point: PointId::from_random([1; 10]),
                timeline: 1,
                reached: Lsn(u64::try_from(self.at).unwrap()),
                covers_until: Timestamp(self.at),
                drilled_at: Timestamp(self.at),
                rto: Duration::from_secs(1),
                restored: ByteCount(1),
                checks: vec![
                    Check {
                        name: "server".to_owned(),
                        outcome: CheckOutcome::Passed,
                        detail: String::new(),
                    },
                    compared.check,
                ],
                details: DrillDetails {
                    is_complete: true,
                    losses: compared.losses.clone(),
                    ..DrillDetails::new(DrillOf::Newest, "latest")
                },
            };
            let draft = Draft::new(
                DRILL_PASSED,
                Principal::service("vault"),
                Timestamp(self.at),
            )
            .source(source())
            .with("report", serde_json::to_value(&report).unwrap())
            .with("rows", serde_json::to_value(&rows).unwrap());
            self.append(draft);
            compared.losses.into_iter().map(|loss| loss.table).collect()
        }
    }

    #[test]
    fn a_loss_stands_until_the_rows_are_back_or_somebody_accepts_it() {
        let mut story = Story::new();
        assert_eq!(story.drill(&[("a", 1_000), ("b", 1_000)]), [""; 0]);
        assert_eq!(story.drill(&[("a", 1_100), ("b", 1_000)]), [""; 0]);
        let proven = story.history.before(&source(), 7).unwrap().proven.clone();
        assert_eq!(story.drill(&[("a", 10), ("b", 1_000)]), ["a"]);
        // Not told once and then forgotten.
        assert_eq!(story.drill(&[("a", 11)]), ["a", "b"]);
        assert_eq!(story.drill(&[("a", 12)]), ["a", "b"]);
        let before = story.history.before(&source(), 7).unwrap();
        assert_eq!(before.rows.get("a"), Some(&1_100));
        assert_eq!(before.proven, proven, "the way back from before it stays");
        assert_eq!(story.history.of(&source()).unwrap().losses().len(), 2);
        // The rows come back.
        assert_eq!(story.drill(&[("a", 900), ("b", 600)]), [""; 0]);
        assert_eq!(story.drill(&[("a", 9), ("b", 600)]), ["a"]);
        let accepted = Draft::new(LOSS_ACCEPTED, Principal::service("x"), Timestamp(story.at));
        story.append(accepted.source(source()));
        assert_eq!(story.history.of(&source()).unwrap().losses().len(), 0);
        assert_eq!(story.drill(&[("a", 9), ("b", 600)]), [""; 0]);
        // Another cluster of the same name is not compared.
        assert!(story.history.before(&source(), 8).is_none());
    }
}
