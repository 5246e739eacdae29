//! What a drill did and found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ByteCount, Digest, DigestBuilder, Lsn, PointId, SourceName, Timestamp};

/// The version of the reports that are written.
pub const REPORT_VERSION: u32 = 2;

/// How one check of a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// It was run and the point can be brought back, but a person must look at what is in it.
    Alarm,
    /// It was run and found something wrong.
    Failed,
    /// It was not run; `detail` says why.
    NotRun,
    /// It was run and found nothing wrong.
    Passed,
}

/// One thing that a drill checked, or did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, such as `page checksums`.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// Numbers or the reason, for a person.
    pub detail: String,
}

/// Which of a source's points was drilled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillOf {
    /// The newest, up to the end of the log: what a recovery would take now.
    #[default]
    Newest,
    /// An older one: it says that history comes back, and nothing of what is newest.
    Older,
}

/// How the drill opened the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrillForm {
    /// Blocks were fetched as they were touched.
    Mounted,
    /// Every block was fetched, written and opened.
    #[default]
    Restored,
}

/// The rows of a table in two drills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableChange {
    /// `database.schema.table`.
    pub table: String,
    /// Rows in the drill that it was compared with.
    pub before: u64,
    /// Rows now; `None` when the table is gone.
    pub now: Option<u64>,
}

/// A point that was proven, as something to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenPoint {
    /// The base that was restored.
    pub point: PointId,
    /// Recovery reached this position; it can be given to `--at`.
    pub reached: Lsn,
    /// The newest commit that it contained.
    pub covers_until: Timestamp,
    /// When the drill ended.
    pub drilled_at: Timestamp,
}

/// What reports say since version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillDetails {
    /// The version of the report; 1 when nothing of this is stated.
    pub version: u32,
    /// Which point it was.
    pub of: DrillOf,
    /// How it was opened.
    pub form: DrillForm,
    /// The target of the recovery, as `holdfast restore --at` takes it.
    pub target: String,
    /// When the drill began.
    pub began: Option<Timestamp>,
    /// What ran, such as `15.18`.
    pub server: Option<String>,
    /// The drill ran with low priority or a limited rate, so that a recovery takes less than its RTO.
    pub paced: bool,
    /// Tables whose rows were counted.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Every table was counted, so that one without a count is gone.
    pub is_complete: bool,
    /// [`rows_digest`] of the counts that lie beside the report in the ledger.
    pub rows_digest: Option<Digest>,
    /// When the drill ended that the rows were compared with.
    pub compared_with: Option<Timestamp>,
    /// The tables whose rows changed most since then.
    pub changes: Vec<TableChange>,
    /// The tables that lost most of their rows, now or before, and nobody has accepted that.
    pub losses: Vec<TableChange>,
    /// The newest proven point from before the losses.
    pub before_loss: Option<ProvenPoint>,
}

impl Default for DrillDetails {
    fn default() -> Self {
        Self {
            version: 1,
            of: DrillOf::default(),
            form: DrillForm::default(),
            target: "latest".to_owned(),
            began: None,
            server: None,
            paced: false,
            tables: 0,
            rows: 0,
            is_complete: false,
            rows_digest: None,
            compared_with: None,
            changes: Vec::new(),
            losses: Vec::new(),
            before_loss: None,
        }
    }
}

impl DrillDetails {
    /// Begins the details of a drill in the newest version.
    pub fn new(of: DrillOf, target: impl Into<String>) -> Self {
        Self {
            version: REPORT_VERSION,
            of,
            target: target.into(),
            ..Self::default()
        }
    }
}

/// What a drill did and found: the restore point was really restored, started and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The source whose point was restored.
    pub source: SourceName,
    /// PostgreSQL's system identifier of the source, so that a proof is not taken for another cluster.
    pub system_identifier: u64,
    /// The base that was restored.
    pub point: PointId,
    /// The timeline that was recovered.
    pub timeline: u32,
    /// Recovery reached this position.
    pub reached: Lsn,
    /// The newest commit that the restored server contained, or when the drill read the position.
    pub covers_until: Timestamp,
    /// When the drill ended.
    pub drilled_at: Timestamp,
    /// Time from the start of the restore to the first committed write.
    pub rto: Duration,
    /// Bytes written by the restore.
    pub restored: ByteCount,
    /// What was checked and what was not.
    pub checks: Vec<Check>,
    /// What reports say since version 2.
    #[serde(default)]
    pub details: DrillDetails,
}

impl DrillReport {
    /// Tells whether something was checked and nothing failed. An alarm is no failure: what was
    /// destroyed in the source comes back as it was captured.
    pub fn passed(&self) -> bool {
        let passed = |check: &Check| check.outcome == CheckOutcome::Passed;
        let failed = |check: &Check| check.outcome == CheckOutcome::Failed;
        self.checks.iter().any(passed) && !self.checks.iter().any(failed)
    }

    /// Returns what a person must look at although the point can be brought back.
    pub fn alarm(&self) -> Option<String> {
        self.told(CheckOutcome::Alarm)
    }

    /// Returns what was found wrong.
    pub fn failure(&self) -> Option<String> {
        self.told(CheckOutcome::Failed)
    }

    /// Returns the drill as something to go back to.
    pub fn proven(&self) -> ProvenPoint {
        ProvenPoint {
            point: self.point.clone(),
            reached: self.reached,
            covers_until: self.covers_until,
            drilled_at: self.drilled_at,
        }
    }

    fn told(&self, outcome: CheckOutcome) -> Option<String> {
        let checks = self.checks.iter().filter(|check| check.outcome == outcome);
        let told: Vec<String> = checks
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}

/// Returns what binds row counts to a report that names only their digest.
pub fn rows_digest(rows: &BTreeMap<String, u64>) -> Digest {
    let mut digest = DigestBuilder::new("holdfast rows 1");
    for (table, count) in rows {
        digest = digest.field(table.as_bytes()).field(&count.to_be_bytes());
    }
    digest.finish()
}

/// Returns the version that a report states, or `None` when it is no report.
pub(super) fn version_of(report: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Stated {
        #[serde(default)]
        details: Details,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    struct Details {
        version: u32,
    }
    impl Default for Details {
        fn default() -> Self {
            Self { version: 1 }
        }
    }
    let stated: Stated = serde_json::from_str(report).ok()?;
    Some(stated.details.version)
}
