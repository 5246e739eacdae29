//! Which rows of the catalogs an open transaction has made, changed and removed, one by one.
//!
//! The transaction says what it sees of the rows that it wrote; guard's own connection says what
//! everybody else sees of the same rows. The difference is what will change with the `COMMIT`,
//! whoever did it: no statement, function or trigger has to be believed.

mod entries;
mod judged;

use super::evidence::{Row, Said};

pub(super) use entries::{CATALOGS, Catalog};
pub(super) use judged::{INHERITS, PROC, Sight, Taken, conclude};

/// A row of a catalog as one side sees it; names and texts are digests, so that no encoding and no
/// length matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number of the catalog.
    pub catalog: u32,
    pub oid: u32,
    /// The column, where the row is about one.
    pub sub: i32,
    /// The relation, schema or type that it belongs to.
    pub parent: u32,
    pub name: String,
    pub owner: String,
    pub rights: String,
    /// A few letters that tell what it is and how it stands.
    pub kind: String,
    pub body: String,
    /// Functions that its expressions call.
    pub calls: Vec<u32>,
}

impl Entry {
    /// What makes it the same row on both sides.
    pub(super) fn key(&self) -> (u32, u32, i32) {
        (self.catalog, self.oid, self.sub)
    }

    /// The letter of its kind at a position.
    pub(super) fn letter(&self, at: usize) -> Option<char> {
        self.kind.chars().nth(at)
    }
}

/// Rows of catalogs that one transaction may write before its changes are no longer looked at.
pub(super) const LIMIT_ENTRIES: usize = 50_000;

/// Returns the question about the catalogs that the transaction wrote to, or `None` when it wrote to
/// none of those that are looked at row by row.
pub(super) fn question(said: &Said) -> Option<String> {
    let xid = said.transaction?;
    let asked: Vec<String> = written(said)
        .map(|catalog| {
            let own = format!(
                "pg_catalog.age(x.xmin) OPERATOR(pg_catalog.<=) pg_catalog.age('{xid}'::pg_catalog.xid)"
            );
            catalog.select(&own)
        })
        .collect();
    let limit = LIMIT_ENTRIES.saturating_add(1);
    (!asked.is_empty()).then(|| format!("{} LIMIT {limit}", asked.join(" UNION ALL ")))
}

/// The catalogs that the transaction wrote to.
pub(super) fn written(said: &Said) -> impl Iterator<Item = &'static Catalog> + '_ {
    CATALOGS
        .iter()
        .filter(|catalog| said.rows.iter().any(|(oid, _)| *oid == catalog.oid))
}

/// Reads an answer; `None` when anything about it is not as expected.
pub(super) fn read(rows: &[Row]) -> Option<Vec<Entry>> {
    if rows.len() > LIMIT_ENTRIES {
        return None;
    }
    rows.iter()
        .map(|row| entry(&|at| row.get(at).and_then(Option::as_deref)))
        .collect()
}

/// Reads one row, field by field.
pub(super) fn entry<'t>(field: &impl Fn(usize) -> Option<&'t str>) -> Option<Entry> {
    let text = |at: usize| field(at).unwrap_or_default().to_owned();
    let calls = field(9).unwrap_or_default().split(',');
    let calls: Result<Vec<u32>, _> = calls.filter(|x| !x.is_empty()).map(str::parse).collect();
    Some(Entry {
        catalog: field(0)?.parse().ok()?,
        oid: field(1)?.parse().ok()?,
        sub: field(2)?.parse().ok()?,
        parent: field(3)?.parse().ok()?,
        name: text(4),
        owner: text(5),
        rights: text(6),
        kind: field(7)?.to_owned(),
        body: text(8),
        calls: calls.ok()?,
    })
}
