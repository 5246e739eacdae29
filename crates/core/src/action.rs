//! Who asks for what, on what, and what was measured about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ActionId, Digest, LeaseId, SourceName, Timestamp};

/// The kind of principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrincipalKind {
    /// A model that acts by itself.
    Agent,
    /// A person.
    Human,
    /// A program of ours or of the user's.
    Service,
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Agent, human or service.
    pub kind: PrincipalKind,
    /// The name it goes by, such as `cursor`.
    pub name: String,
}

impl Principal {
    /// Names an agent.
    pub fn agent(name: impl Into<String>) -> Self {
        Self {
            kind: PrincipalKind::Agent,
            name: name.into(),
        }
    }

    /// Names a person.
    pub fn human(name: impl Into<String>) -> Self {
        Self {
            kind: PrincipalKind::Human,
            name: name.into(),
        }
    }

    /// Names a program.
    pub fn service(name: impl Into<String>) -> Self {
        Self {
            kind: PrincipalKind::Service,
            name: name.into(),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PrincipalKind::Agent => "agent",
            PrincipalKind::Human => "human",
            PrincipalKind::Service => "service",
        };
        write!(f, "{kind}:{}", crate::Untrusted(&self.name))
    }
}

/// The protocol of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorKind {
    /// An agent's own hook, asked before it acts; advisory.
    Hook,
    /// HTTP APIs of providers.
    Http,
    /// The Model Context Protocol.
    Mcp,
    /// PostgreSQL's protocol.
    Pg,
}

impl DoorKind {
    /// Returns the word used in policies, JSON and messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Http => "http",
            Self::Mcp => "mcp",
            Self::Pg => "pg",
        }
    }
}

/// A thing that an action touches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resource {
    /// What kind of thing, with its family before a colon: `pg:table`, `railway:volume`.
    pub kind: String,
    /// What it is called there: `public.orders`, a volume's id.
    pub name: String,
    /// The source it belongs to, once that is known from the target itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
}

impl Resource {
    /// Names a thing whose source is not known yet.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            name: name.into(),
            source: None,
        }
    }

    /// States the source it belongs to.
    #[must_use]
    pub fn of(mut self, source: SourceName) -> Self {
        self.source = Some(source);
        self
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self
            .kind
            .split_once(':')
            .map_or(self.kind.as_str(), |(_, kind)| kind);
        write!(f, "{kind} `{}`", crate::Untrusted(&self.name))
    }
}

/// One thing asked for at a door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Its id, new for every attempt.
    pub id: ActionId,
    /// Who asks.
    pub principal: Principal,
    /// Under which lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// The source that the door leads to, where it leads to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// Where it was asked.
    pub door: DoorKind,
    /// What is asked, short and for people; never contains a secret.
    pub summary: String,
    /// Digest of exactly what was asked; the same request has the same digest.
    pub digest: Digest,
    /// When it arrived.
    pub at: Timestamp,
}

/// One measured fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// What was measured, such as `rows deleted in public.orders`.
    pub fact: String,
    /// What it was.
    pub value: String,
}

/// Measured facts about an action, with the position or time at which they were measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The facts, in the order they were measured.
    pub items: Vec<EvidenceItem>,
}

impl Evidence {
    /// Adds one fact.
    pub fn push(&mut self, fact: impl Into<String>, value: impl Into<String>) {
        self.items.push(EvidenceItem {
            fact: fact.into(),
            value: value.into(),
        });
    }

    /// Returns the digest that an approval is bound to.
    pub fn digest(&self) -> Digest {
        let mut digest = crate::DigestBuilder::new("holdfast evidence 1");
        for item in &self.items {
            digest = digest
                .field(item.fact.as_bytes())
                .field(item.value.as_bytes());
        }
        digest.finish()
    }

    /// Returns the facts that are a number of rows of one table.
    pub fn row_facts(&self) -> BTreeMap<String, u64> {
        let rows = |item: &EvidenceItem| {
            let is_rows = item.fact.starts_with("rows ");
            let number = item.value.parse().ok().filter(|_| is_rows)?;
            Some((item.fact.clone(), number))
        };
        self.items.iter().filter_map(rows).collect()
    }

    /// Returns the same with other numbers of rows, such as those of a rehearsal.
    #[must_use]
    pub fn with_rows(&self, rows: &BTreeMap<String, u64>) -> Self {
        let own = self.row_facts();
        let items = self.items.iter();
        let mut other = Self {
            items: items
                .filter(|item| !own.contains_key(&item.fact))
                .cloned()
                .collect(),
        };
        for (fact, number) in rows {
            other.push(fact.clone(), number.to_string());
        }
        other
    }

    /// Returns how what is measured now differs from this by more than is tolerated, one line each;
    /// nothing when an approval of this stands.
    pub fn lapses(&self, measured: &Self, tolerance: Tolerance) -> Vec<String> {
        let (before, now) = (by_fact(self), by_fact(measured));
        let facts: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
        let mut lines = Vec::new();
        for fact in facts {
            let (before, now) = (before.get(fact), now.get(fact));
            let number = |value: Option<&String>| value.map_or(Some(0), |v| v.parse().ok());
            let is_near = fact.starts_with("rows ")
                && matches!((number(before), number(now)),
                    (Some(before), Some(now)) if tolerance.covers(before, now));
            if before != now && !is_near {
                let text = |value: Option<&String>| value.map_or("nothing", |v| v).to_owned();
                let (before, now) = (text(before), text(now));
                lines.push(format!("{fact}: {before} when it was approved, {now} now"));
            }
        }
        lines
    }
}

/// Sorts values by fact; a fact that stands there twice has both.
fn by_fact(evidence: &Evidence) -> BTreeMap<&str, String> {
    let mut facts: BTreeMap<&str, String> = BTreeMap::new();
    for item in &evidence.items {
        let value = facts.entry(&item.fact).or_default();
        if !value.is_empty() {
            value.push_str(" and ");
        }
        value.push_str(&item.value);
    }
    facts
}

/// By which share of the approved number of rows production may have moved, in per cent; 0 is exact.
///
/// Objects are never tolerated: whatever is dropped, emptied or changed must be what was approved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tolerance(pub u8);

impl Tolerance {
    fn covers(self, approved: u64, measured: u64) -> bool {
        let moved = u128::from(approved.abs_diff(measured)).saturating_mul(100);
        moved <= u128::from(approved).saturating_mul(u128::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(facts: &[(&str, &str)]) -> Evidence {
        let mut evidence = Evidence::default();
        for (fact, value) in facts {
            evidence.push(*fact, *value);
        }
        evidence
    }

    #[test]
    fn an_approval_lapses_when_rows_move_by_more_than_is_tolerated() {
        let rows = |n: &str| {
            evidence(&[
                ("rows removed from a", n),
                ("rows inserted/changed/removed in pg_class", "0/1/0"),
            ])
        };
        for (before, now, percent, stands) in [
            ("1000", "1000", 0, true),
            ("1000", "1001", 0, false),
            ("1000", "999", 0, false),
            ("1000", "1100", 10, true),
            ("1000", "1101", 10, false),
            ("1000", "899", 10, false),
            ("0", "1", 100, false),
            ("18446744073709551615", "1", 99, false),
        ] {
            let lapses = rows(before).lapses(&rows(now), Tolerance(percent));
            assert_eq!(
                lapses.is_empty(),
                stands,
                "{before} {now} {percent}: {lapses:?}"
            );
        }
    }

    #[test]
    fn no_share_tolerates_another_object_or_another_catalog() {
        let approved = evidence(&[
            ("rows removed from a", "10"),
            ("table a", "dropped"),
            ("rows inserted/changed/removed in pg_class", "0/1/0"),
        ]);
        for other in [
            &[
                ("rows removed from a", "10"),
                ("table b", "dropped"),
                ("rows inserted/changed/removed in pg_class", "0/1/0"),
            ][..],
            &[
                ("rows removed from a", "10"),
                ("table a", "dropped"),
                ("rows inserted/changed/removed in pg_class", "0/2/0"),
            ],
            &[
                ("rows removed from a", "10"),
                ("table a", "dropped"),
                ("rows inserted/changed/removed in pg_class", "0/1/0"),
                ("rows removed from b", "1"),
            ],
        ] {
            let lapses = approved.lapses(&evidence(other), Tolerance(100));
            assert!(!lapses.is_empty(), "{other:?}");
        }
        let renumbered = approved.with_rows(&[("rows removed from a".to_owned(), 11)].into());
        assert!(!approved.lapses(&renumbered, Tolerance(0)).is_empty());
        assert!(approved.lapses(&renumbered, Tolerance(10)).is_empty());
    }
}
