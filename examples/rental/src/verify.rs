//! Compares the journal with the database: which acknowledged work is there, and which is lost.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::database::{ConnectError, DatabaseUrl};
use crate::desk::{describe, is_missing};
use crate::journal::{self, Entry, JournalError, Kind, Outcome};
use crate::limits::{LIMIT_CONNECT, LIMIT_IDS_PER_QUERY, LIMIT_MISSING_NAMED, LIMIT_VERIFY};

/// What a database that cannot be reached means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// Nothing is known: an error.
    IsAnError,
    /// Everything in it is lost.
    MeansLost,
}

/// The comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Reservations inserted.
    #[serde(flatten)]
    pub bookings: Presence,
    /// Payments inserted.
    pub payments: Presence,
    /// Reservations cancelled: present when the reservation is there and cancelled.
    pub cancellations: Presence,
    /// Rules that must hold in what is there, or `None` when a table is gone.
    pub invariants: Option<Invariants>,
    /// About the journal.
    pub journal: JournalNote,
    /// What is gone as a whole: the database, all tables, or one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One kind of work, counted by distinct ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// In the journal as acknowledged.
    pub acknowledged: u64,
    /// Of these, in the database.
    pub present: u64,
    /// Of these, not in the database.
    pub lost: u64,
    /// In the journal as unknown.
    pub unknown: u64,
    /// Of these, in the database; either is right.
    pub unknown_present: u64,
    /// The first ids that are lost.
    pub missing: Vec<String>,
}

/// Rules that must hold, each with the number of rows that break it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Invariants {
    /// Reservations that overlap another of the same vehicle, found without the exclusion constraint.
    pub double_booked: u64,
    /// Payments without a reservation.
    pub payments_without_reservation: u64,
}

/// About the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JournalNote {
    /// Complete lines after the first.
    pub entries: u64,
    /// The last line was incomplete and is not counted.
    pub torn_tail: bool,
}

/// Why the comparison could not be made; nothing is known about what is lost.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No connection.
    #[error(
        "nothing was compared; if the database is known to be gone, say so with --gone-is-lost"
    )]
    Connect(#[from] ConnectError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Reading took too long.
    #[error("the database did not answer within {} s; nothing was compared; try again", LIMIT_VERIFY.as_secs())]
    Late,
    /// A statement failed.
    #[error("cannot read the tables of the office; nothing was compared; try again")]
    Read(#[from] tokio_postgres::Error),
}

/// Reads the journal, then the database in one consistent view.
///
/// # Errors
/// `VerifyError`; lost rows are no error, and neither are missing tables or a missing database.
pub async fn verify(
    url: &DatabaseUrl,
    journal: &Path,
    unreachable: Unreachable,
) -> Result<Verification, VerifyError> {
    let record = journal::read(journal)?;
    let mut found = Verification {
        journal: JournalNote {
            entries: u64::try_from(record.entries.len()).unwrap_or(u64::MAX),
            torn_tail: record.torn_tail,
        },
        ..Verification::default()
    };
    let outcome = read_all(url, &record.entries, &mut found).await;
    if let Err(error) = outcome {
        let Some(note) = gone(&error, unreachable) else {
            return Err(error);
        };
        all_lost(&record.entries, &mut found);
        found.note = Some(note);
    }
    Ok(found)
}

async fn read_all(
    url: &DatabaseUrl,
    entries: &[Entry],
    found: &mut Verification,
) -> Result<(), VerifyError> {
    let connection = url.connect(Instant::now() + LIMIT_CONNECT).await?;
    let client = &connection.client;
    let reading = async {
        // Without indexes: what counts is what the tables hold, even when an index is damaged.
        let begin =
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_indexscan = off;
            SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off";
        client.batch_execute(begin).await?;
        let reservations = table(client, "reservations").await?;
        let payments = table(client, "payments").await?;
        found.bookings = presence(client, entries, Kind::Booking, reservations).await?;
        found.payments = presence(client, entries, Kind::Payment, payments).await?;
        found.cancellations = presence(client, entries, Kind::Cancellation, reservations).await?;
        found.note = match (reservations, payments) {
            (Table::There, Table::There) => None,
            (Table::Gone, Table::Gone) => Some("the tables of the office are gone".to_owned()),
            (Table::Gone, Table::There) => Some("the table reservations is gone".to_owned()),
            (Table::There, Table::Gone) => Some("the table payments is gone".to_owned()),
        };
        if found.note.is_none() {
            found.invariants = Some(invariants(client).await?);
        }
        client.batch_execute("COMMIT").await
    };
    Ok(timeout(LIMIT_VERIFY, reading)
        .await
        .map_err(|_elapsed| VerifyError::Late)??)
}

/// Whether a table is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Gone,
    There,
}

async fn table(client: &Client, name: &str) -> Result<Table, tokio_postgres::Error> {
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    let row = client.query_typed_one(sql, &[(&name, Type::TEXT)]).await?;
    Ok(if row.try_get(0)? {
        Table::There
    } else {
        Table::Gone
    })
}

async fn presence(
    client: &Client,
    entries: &[Entry],
    kind: Kind,
    table: Table,
) -> Result<Presence, tokio_postgres::Error> {
    let ids = Ids::of(entries, kind);
    if table == Table::Gone {
        return Ok(ids.none_present());
    }
    let lost = absent(client, kind, &ids.acknowledged).await?;
    let unknown_absent = absent(client, kind, &ids.unknown).await?;
    Ok(ids.presence(&lost, &unknown_absent))
}

/// Of `ids`, those that are not in the database.
async fn absent(
    client: &Client,
    kind: Kind,
    ids: &BTreeSet<String>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let which = match kind {
        Kind::Booking => "SELECT id FROM reservations",
        Kind::Cancellation => "SELECT id FROM reservations WHERE status = 'cancelled'",
        Kind::Payment => "SELECT id FROM payments",
    };
    let sql = format!(
        "SELECT wanted FROM unnest($1::text[]) wanted WHERE wanted::uuid NOT IN ({which}) ORDER BY wanted"
    );
    let mut absent = Vec::new();
    let ids: Vec<&String> = ids.iter().collect();
    for part in ids.chunks(LIMIT_IDS_PER_QUERY) {
        for row in client
            .query_typed(&sql, &[(&part, Type::TEXT_ARRAY)])
            .await?
        {
            absent.push(row.try_get(0)?);
        }
    }
    Ok(absent)
}

async fn invariants(client: &Client) -> Result<Invariants, tokio_postgres::Error> {
    let sql = "SELECT
        (SELECT count(*) FROM (
            SELECT lower(during) < max(upper(during)) OVER (PARTITION BY vehicle_id ORDER BY lower(during), id
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS overlapping
            FROM reservations WHERE status <> 'cancelled') pairs WHERE overlapping),
        (SELECT count(*) FROM payments p
            WHERE p.reservation_id NOT IN (SELECT id FROM reservations))";
    let row = client.query_typed_one(sql, &[]).await?;
    let count = |column| {
        row.try_get::<_, i64>(column)
            .map(|n| u64::try_from(n).unwrap_or(0))
    };
    Ok(Invariants {
        double_booked: count(0)?,
        payments_without_reservation: count(1)?,
    })
}

/// The ids of one kind; one that is both acknowledged and unknown counts as acknowledged.
struct Ids {
    acknowledged: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

impl Ids {
    fn of(entries: &[Entry], kind: Kind) -> Self {
        let of = |outcome| {
            let ours = entries
                .iter()
                .filter(|e| e.kind == kind && e.outcome == outcome);
            ours.map(|entry| entry.id.clone()).collect::<BTreeSet<_>>()
        };
        let (acknowledged, mut unknown) = (of(Outcome::Acknowledged), of(Outcome::Unknown));
        unknown.retain(|id| !acknowledged.contains(id));
        Self {
            acknowledged,
            unknown,
        }
    }

    fn none_present(&self) -> Presence {
        let list = |ids: &BTreeSet<String>| ids.iter().cloned().collect::<Vec<_>>();
        self.presence(&list(&self.acknowledged), &list(&self.unknown))
    }

    fn presence(&self, lost: &[String], unknown_absent: &[String]) -> Presence {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Presence {
            acknowledged: count(self.acknowledged.len()),
            present: count(self.acknowledged.len() - lost.len()),
            lost: count(lost.len()),
            unknown: count(self.unknown.len()),
            unknown_present: count(self.unknown.len() - unknown_absent.len()),
            missing: lost.iter().take(LIMIT_MISSING_NAMED).cloned().collect(),
        }
    }
}

fn all_lost(entries: &[Entry], found: &mut Verification) {
    let nothing_there = |kind| Ids::of(entries, kind).none_present();
    found.bookings = nothing_there(Kind::Booking);
    found.payments = nothing_there(Kind::Payment);
    found.cancellations = nothing_there(Kind::Cancellation);
    found.invariants = None;
}

/// Why nothing is there, or `None` when that cannot be said.
fn gone(error: &VerifyError, unreachable: Unreachable) -> Option<String> {
    let (source, place) = match error {
        VerifyError::Connect(ConnectError::Late { place }) => (None, place.as_str()),
        VerifyError::Connect(ConnectError::Refused { place, source }) => {
            (Some(source), place.as_str())
        }
        VerifyError::Read(source) => (Some(source), "its place"),
        VerifyError::Connect(ConnectError::Url(_))
        | VerifyError::Journal(_)
        | VerifyError::Late => return None,
    };
    let code = source.and_then(tokio_postgres::Error::code);
    let said = source.map_or_else(|| "no answer".to_owned(), describe);
    if code.is_some_and(is_missing) {
        let what = if code == Some(&SqlState::INVALID_CATALOG_NAME) {
            "database is"
        } else {
            "tables are"
        };
        return Some(format!("the {what} gone: {said}"));
    }
    // A refusal by a living server (wrong password, starting up) proves nothing; lost files do.
    let unreachable_now = code.is_none_or(|code| code.code().starts_with("58"));
    match unreachable {
        Unreachable::MeansLost if unreachable_now => {
            Some(format!("the database at {place} cannot be reached: {said}"))
        }
        Unreachable::MeansLost | Unreachable::IsAnError => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Ids, Verification, all_lost};
    use crate::journal::{Entry, Kind, Outcome};

    fn entries() -> Vec<Entry> {
        let rows = [
            (Kind::Booking, "a", Outcome::Acknowledged),
            (Kind::Booking, "b", Outcome::Unknown),
            (Kind::Booking, "c", Outcome::Acknowledged),
            (Kind::Booking, "a", Outcome::Unknown),
            (Kind::Payment, "p", Outcome::Acknowledged),
            (Kind::Cancellation, "c", Outcome::Acknowledged),
        ];
        let entry = |(kind, id, outcome): (Kind, &str, Outcome)| Entry {
            at: String::new(),
            kind,
            id: id.to_owned(),
            outcome,
        };
        rows.into_iter().map(entry).collect()
    }

    #[test]
    fn ids_are_counted_once_and_the_unknown_apart() {
        let ids = Ids::of(&entries(), Kind::Booking);
        let presence = ids.presence(&["a".to_owned()], &[]);
        assert_eq!(
            (presence.acknowledged, presence.present, presence.lost),
            (2, 1, 1)
        );
        assert_eq!((presence.unknown, presence.unknown_present), (1, 1));
        assert_eq!(presence.missing, ["a"]);
    }

    #[test]
    fn when_all_is_gone_nothing_is_present() {
        let mut found = Verification::default();
        all_lost(&entries(), &mut found);
        let text = serde_json::to_value(&found).unwrap();
        assert_eq!(
            (&text["acknowledged"], &text["present"], &text["lost"]),
            (&2.into(), &0.into(), &2.into())
        );
        assert_eq!(
            (&text["unknown"], &text["unknown_present"]),
            (&1.into(), &0.into())
        );
        assert_eq!(
            (&text["payments"]["lost"], &text["cancellations"]["lost"]),
            (&1.into(), &1.into())
        );
        assert!(text["invariants"].is_null());
    }
}
