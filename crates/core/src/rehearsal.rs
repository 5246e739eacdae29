//! Running a held action on a thin clone to measure it: what guard asks and what the vault answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ByteCount, Digest, DigestBuilder, Evidence, HoldId, Lsn, RowCount, SourceName, Timestamp,
};

/// Bytes of what was asked: a statement or its parameters. They may hold personal data, so they show
/// nothing of themselves and are kept in memory only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Verbatim(pub Vec<u8>);

impl fmt::Debug for Verbatim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

impl Serialize for Verbatim {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Verbatim {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = data_encoding::BASE64.decode(text.as_bytes());
        bytes.map(Self).map_err(serde::de::Error::custom)
    }
}

/// Parameters as the client bound them, in PostgreSQL's own form.
///
/// # Source
/// <https://www.postgresql.org/docs/18/protocol-message-formats.html>, `Parse` and `Bind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundParameters {
    /// The types of `Parse`, as they stand in the message; empty for none.
    pub types: Verbatim,
    /// Formats and values of `Bind`, as they stand in the message.
    pub values: Verbatim,
}

/// One thing that ran in the held transaction, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalStep {
    /// The text, one statement or several.
    pub text: Verbatim,
    /// Its parameters; a simple query has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<BoundParameters>,
}

/// How a held action is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RehearsalFrame {
    /// Outside of transactions, as PostgreSQL demands of it; what came before it ran in none either.
    Bare,
    /// In one transaction, which is rolled back.
    Transaction,
}

/// A held action that is to be run on a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RehearsalRequest {
    /// The hold that it is for.
    pub hold: HoldId,
    /// Digest of the held action.
    pub action: Digest,
    /// Where it was to run.
    pub source: SourceName,
    /// In which database.
    pub database: String,
    /// The role of the lease: it is run with that role's rights and with no others.
    pub role: String,
    /// It may act outside of the server: it is run only where a clone is confined by the system.
    #[serde(default)]
    pub leaves: bool,
    /// Where production was when it was held: the clone has to hold everything up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Lsn>,
    /// Transaction or not.
    pub frame: RehearsalFrame,
    /// Settings of the session, which come first and are not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub session: Vec<RehearsalStep>,
    /// What ran, in order.
    pub steps: Vec<RehearsalStep>,
}

impl RehearsalRequest {
    /// Returns what binds a rehearsal to exactly this: equal requests of two holds have one digest.
    pub fn digest(&self) -> Digest {
        let mut digest = DigestBuilder::new("holdfast rehearsal request 1")
            .field(&self.action.0)
            .field(self.source.as_str().as_bytes())
            .field(self.database.as_bytes())
            .field(self.role.as_bytes())
            .field(match self.frame {
                RehearsalFrame::Bare => b"bare",
                RehearsalFrame::Transaction => b"transaction",
            });
        for step in self.session.iter().chain(&self.steps) {
            digest = digest.field(&step.text.0);
            digest = match &step.parameters {
                None => digest.field(b"simple"),
                Some(bound) => digest.field(&bound.types.0).field(&bound.values.0),
            };
        }
        digest.finish()
    }

    /// Returns the bytes that it takes.
    pub fn bytes(&self) -> ByteCount {
        let steps = self.session.iter().chain(&self.steps);
        let bytes = steps.fold(0_usize, |sum, step| {
            let bound = step.parameters.as_ref();
            let bound = bound.map_or(0, |bound| {
                bound.types.0.len().saturating_add(bound.values.0.len())
            });
            sum.saturating_add(step.text.0.len()).saturating_add(bound)
        });
        ByteCount(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// Schema and name, quoted where needed.
    pub table: String,
    /// Rows inserted.
    pub inserted: RowCount,
    /// Rows updated.
    pub updated: RowCount,
    /// Rows deleted, one by one; those of a table that is dropped or emptied are with the object.
    pub deleted: RowCount,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectFate {
    /// It is changed.
    Altered,
    /// It is new.
    Created,
    /// It is gone.
    Dropped,
    /// Its contents are written anew, or gone: `TRUNCATE`, a rewrite, `REFRESH`.
    Rewritten,
}

impl ObjectFate {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Created => "created",
            Self::Dropped => "dropped",
            Self::Rewritten => "rewritten",
        }
    }
}

/// An object that is dropped, created or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectChange {
    /// `table`, `index`, `function`, …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub fate: ObjectFate,
    /// Rows that were in it before, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCount>,
}

/// A lock that it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockTaken {
    /// The relation.
    pub relation: String,
    /// The mode, such as `AccessExclusiveLock`.
    pub mode: String,
    /// From when it was first seen to the end of the transaction; a real one lasts as long as its
    /// client takes besides.
    pub held: Duration,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRun {
    /// What the server said of its last statement, such as `DELETE 12`.
    pub tag: String,
    /// How long it took.
    pub took: Duration,
}

/// The step that failed, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailed {
    /// Which step, from 1; one more than there are means the end of the transaction.
    pub step: usize,
    /// SQLSTATE.
    pub code: String,
    /// What the server said.
    pub message: String,
}

/// Whether what runs on the clone can act outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confinement {
    /// Settings and rights keep it in; the system does not.
    Advisory,
    /// The system keeps it in.
    Enforced,
}

/// What was measured on a clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Digest of what was run.
    pub request: Digest,
    /// The clone holds everything up to here.
    pub position: Lsn,
    /// The newest commit in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_commit: Option<Timestamp>,
    /// When it was measured.
    pub at: Timestamp,
    /// How the clone was made: `mounted` or `restored`.
    pub form: String,
    /// Whether it was confined.
    pub confinement: Confinement,
    /// How long the clone took to open; nothing when one was open.
    pub opened: Duration,
    /// Each step that ran to its end.
    pub steps: Vec<StepRun>,
    /// The step that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<StepFailed>,
    /// Rows per table: cascades and triggers included.
    pub rows: Vec<TableRows>,
    /// Objects by name.
    pub objects: Vec<ObjectChange>,
    /// Objects beyond those that are named.
    #[serde(default)]
    pub objects_more: u64,
    /// Locks by relation and mode, but those for reading.
    pub locks: Vec<LockTaken>,
    /// Locks beyond those that are named.
    #[serde(default)]
    pub locks_more: u64,
    /// What was not measured, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Rehearsal {
    /// Returns what an approval is bound to that was given after somebody looked at it.
    pub fn digest(&self) -> Digest {
        let text = serde_json::to_vec(self).unwrap_or_default();
        DigestBuilder::new("holdfast rehearsal 1")
            .field(&text)
            .finish()
    }

    /// Returns rows per table in the words of [`Evidence`], as guard measures them on production.
    pub fn row_facts(&self) -> BTreeMap<String, u64> {
        let mut facts = BTreeMap::new();
        for table in &self.rows {
            let each = [
                ("inserted in", table.inserted),
                ("changed in", table.updated),
                ("removed from", table.deleted),
            ];
            for (what, rows) in each.into_iter().filter(|(_, rows)| rows.0 > 0) {
                facts.insert(format!("rows {what} {}", table.table), rows.0);
            }
        }
        facts
    }

    /// Returns where the rows that were measured on production differ from those on the clone, one
    /// line each; nothing when they agree.
    pub fn differs_from(&self, evidence: &Evidence) -> Vec<String> {
        let is_cut = evidence
            .items
            .iter()
            .any(|item| item.fact == "further facts");
        if is_cut || evidence.items.is_empty() || self.failed.is_some() {
            // Nothing, or not everything, was measured there or here.
            return Vec::new();
        }
        let here = self.row_facts();
        let there = evidence.row_facts();
        let facts: std::collections::BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let number = |facts: &BTreeMap<String, u64>, fact: &str| {
            facts.get(fact).copied().unwrap_or_default()
        };
        facts
            .into_iter()
            .map(|fact| (fact, number(&here, fact), number(&there, fact)))
            .filter(|(_, here, there)| here != there)
            .map(|(fact, here, there)| {
                format!("{fact}: {here} on the clone, {there} on production")
            })
            .collect()
    }
}

/// How a rehearsal stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum RehearsalState {
    /// It was measured.
    Done {
        /// What.
        rehearsal: Box<Rehearsal>,
    },
    /// It cannot be rehearsed.
    Impossible {
        /// Why, for a person.
        why: String,
        /// Since when that is known.
        at: Timestamp,
    },
    /// It waits for its turn.
    Pending {
        /// Since when.
        since: Timestamp,
    },
    /// A clone is opened, or it runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
}

impl RehearsalState {
    /// Returns its word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Impossible { .. } => "impossible",
            Self::Pending { .. } => "pending",
            Self::Running { .. } => "running",
        }
    }

    /// Tells whether something may still come of it.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Pending { .. } | Self::Running { .. })
    }

    /// Returns what was measured, once it is.
    pub fn rehearsal(&self) -> Option<&Rehearsal> {
        match self {
            Self::Done { rehearsal } => Some(rehearsal),
            Self::Impossible { .. } | Self::Pending { .. } | Self::Running { .. } => None,
        }
    }
}

/// Why an action was not rehearsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "no_rehearsal")]
pub enum NoRehearsal {
    /// Whoever asked does not want it any more.
    #[error("it was cancelled, because its hold has ended")]
    Cancelled,
    /// The clone broke in the middle.
    #[error("the clone failed: {why}")]
    Clone {
        /// What it said.
        why: String,
    },
    /// There is nothing to run it with, or running it here could do harm.
    #[error("{why}")]
    NotHere {
        /// What is missing.
        why: String,
    },
    /// No clone of the source can be opened.
    #[error("no clone of the source can be opened: {why}")]
    NotOpened {
        /// What stands in the way.
        why: String,
    },
    /// The vault does not protect this source.
    #[error("the source is not protected by the vault")]
    UnknownSource,
    /// The vault does not run or did not answer.
    #[error("the vault does not answer")]
    Unreachable,
}

/// Runs held actions on thin clones.
pub trait Rehearse: Send + Sync {
    /// Runs `request` on a clone of its source at the newest position and measures it.
    ///
    /// It blocks, and asks `cancelled` again and again whether it is still wanted.
    ///
    /// # Errors
    /// [`NoRehearsal`]; the hold stays as it is, and says why.
    fn rehearse(
        &self,
        request: &RehearsalRequest,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Rehearsal, NoRehearsal>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> RehearsalRequest {
        let step = RehearsalStep {
            text: Verbatim(text.as_bytes().to_vec()),
            parameters: Some(BoundParameters {
                types: Verbatim(vec![0, 0]),
                values: Verbatim(b"ada@example.org".to_vec()),
            }),
        };
        RehearsalRequest {
            hold: HoldId::from_random([1; 8]),
            action: Digest::of(b"a"),
            source: "prod".parse().unwrap(),
            database: "shop".to_owned(),
            role: "holdfast_x".to_owned(),
            leaves: false,
            after: None,
            frame: RehearsalFrame::Transaction,
            session: Vec::new(),
            steps: vec![step],
        }
    }

    fn rehearsal() -> Rehearsal {
        Rehearsal {
            request: Digest::of(b"r"),
            position: Lsn(7),
            newest_commit: None,
            at: Timestamp(1),
            form: "restored".to_owned(),
            confinement: Confinement::Advisory,
            opened: Duration::ZERO,
            steps: Vec::new(),
            failed: None,
            rows: vec![TableRows {
                table: "public.a".to_owned(),
                inserted: RowCount(0),
                updated: RowCount(0),
                deleted: RowCount(5),
            }],
            objects: Vec::new(),
            objects_more: 0,
            locks: Vec::new(),
            locks_more: 0,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_request_is_bound_to_its_bytes_and_shows_none_of_them() {
        let one = request("DELETE FROM a WHERE mail = $1");
        assert!(!format!("{one:?}").contains("ada"), "{one:?}");
        let mut other = one.clone();
        other.hold = HoldId::from_random([2; 8]);
        assert_eq!(one.digest(), other.digest());
        for change in [
            |r: &mut RehearsalRequest| r.role.push('x'),
            |r: &mut RehearsalRequest| r.frame = RehearsalFrame::Bare,
            |r: &mut RehearsalRequest| r.steps[0].text.0.push(b' '),
            |r: &mut RehearsalRequest| r.steps[0].parameters = None,
        ] {
            let mut other = one.clone();
            change(&mut other);
            assert_ne!(one.digest(), other.digest());
        }
        let back: RehearsalRequest =
            serde_json::from_value(serde_json::to_value(&one).unwrap()).unwrap();
        assert_eq!(back, one);
        assert_eq!(one.bytes().0, 29 + 2 + 15);
    }

    #[test]
    fn a_difference_to_production_is_named() {
        let mut evidence = Evidence::default();
        evidence.push("rows removed from public.a", "5");
        evidence.push("rows inserted/changed/removed in pg_class", "1/0/0");
        assert!(rehearsal().differs_from(&evidence).is_empty());
        evidence.push("rows inserted in public.b", "1");
        let differs = rehearsal().differs_from(&evidence);
        assert_eq!(
            differs,
            ["rows inserted in public.b: 0 on the clone, 1 on production"]
        );
    }

    #[test]
    fn what_was_looked_at_has_a_digest_of_its_own() {
        let one = rehearsal();
        let mut other = one.clone();
        other.rows[0].deleted = RowCount(6);
        assert_ne!(one.digest(), other.digest());
        let back: Rehearsal = serde_json::from_value(serde_json::to_value(&one).unwrap()).unwrap();
        assert_eq!(back.digest(), one.digest());
    }
}
