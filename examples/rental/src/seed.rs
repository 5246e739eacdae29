//! Fills an empty database with a repeatable office of any size, by COPY.

mod rows;
pub(crate) mod words;

use std::time::Instant;

use bytes::Bytes;
use futures_util::SinkExt as _;
use jiff::civil::Date;
use serde::Serialize;
use tokio_postgres::{Client, Transaction};

use crate::database::{ConnectError, DatabaseUrl};
use crate::limits::{
    COPY_MESSAGE_BYTES, LIMIT_COMPANIES, LIMIT_CONNECT, LIMIT_GIGABYTES, SEED_CHUNK_BYTES,
};
use crate::schema::{self, SchemaError};
use rows::{Lines, Shape, VehicleLines};

/// What to make.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedPlan {
    /// The same seed and day give the same rows.
    pub seed: u64,
    /// The day on which the office stands.
    pub today: Date,
    /// Rental companies.
    pub companies: u32,
    /// Size of the database in units of 10^9 bytes, or `None` for the small set.
    pub gigabytes: Option<f64>,
}

/// What was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SeedSummary {
    /// The seed.
    pub seed: u64,
    /// The day on which the office stands.
    pub today: String,
    /// Rows of `companies`.
    pub companies: u64,
    /// Rows of `locations`.
    pub locations: u64,
    /// Rows of `vehicles`.
    pub vehicles: u64,
    /// Rows of `customers`.
    pub customers: u64,
    /// Rows of `reservations`.
    pub reservations: u64,
    /// Rows of `payments`.
    pub payments: u64,
    /// Rows of `outbox`.
    pub emails: u64,
    /// Rows of `vehicle_history`.
    pub history: u64,
    /// Size of the database afterwards.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Why the office was not made, or only in part.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// There are rows already.
    #[error("the database already holds an office; nothing was changed; use an empty database")]
    NotEmpty,
    /// The plan asks for too much.
    #[error("{0}; nothing was changed")]
    Plan(String),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema could not be created.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A statement failed.
    #[error("cannot {step}; the office is incomplete: drop the database and seed a new one")]
    Statement {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// Making the rows ended unexpectedly.
    #[error(
        "making the rows ended unexpectedly; the office is incomplete: drop the database and seed a new one"
    )]
    Worker,
}

impl SeedPlan {
    fn shape(&self) -> Result<Shape, SeedError> {
        if !(1..=LIMIT_COMPANIES).contains(&self.companies) {
            let text = format!("--companies is not between 1 and {LIMIT_COMPANIES}");
            return Err(SeedError::Plan(text));
        }
        let gigabytes = self.gigabytes.unwrap_or(0.0);
        if !(0.0..=LIMIT_GIGABYTES).contains(&gigabytes) {
            let text = format!("--gigabytes is not between 0 and {LIMIT_GIGABYTES}");
            return Err(SeedError::Plan(text));
        }
        let (locations_each, small_vehicles) = (2, 10);
        let locations = self.companies * locations_each;
        let vehicles_each =
            small_vehicles + whole(gigabytes * VEHICLES_PER_GIGABYTE / f64::from(locations));
        let vehicles = f64::from(vehicles_each * locations);
        let history_bytes = gigabytes * 1e9 - EMPTY_BYTES - vehicles * VEHICLE_BYTES;
        let history_per_vehicle = match self.gigabytes {
            Some(_) => whole(history_bytes.max(0.0) / HISTORY_ROW_BYTES / vehicles),
            None => 5,
        };
        Ok(Shape {
            seed: self.seed,
            today: self.today,
            companies: self.companies,
            locations_each,
            vehicles_each,
            customers_per_vehicle: 7,
            history_per_vehicle,
        })
    }
}

/// Creates schema and rows; `progress` is called with the vehicles done and their number in all.
///
/// # Errors
/// All of `SeedError`. `Statement` may leave an incomplete office, which a second run refuses to mend.
pub async fn seed(
    url: &DatabaseUrl,
    plan: SeedPlan,
    mut progress: impl FnMut(u64, u64),
) -> Result<SeedSummary, SeedError> {
    let started = Instant::now();
    let shape = plan.shape()?;
    let mut connection = url
        .connect(tokio::time::Instant::now() + LIMIT_CONNECT)
        .await?;
    let client = &mut connection.client;
    schema::apply(client).await?;
    let step = |step| move |source| SeedError::Statement { step, source };
    let sql = "SELECT EXISTS (SELECT FROM companies)";
    let row = client
        .query_one(sql, &[])
        .await
        .map_err(step("look for an office"))?;
    if row.try_get(0).map_err(step("look for an office"))? {
        return Err(SeedError::NotEmpty);
    }
    let mut summary = SeedSummary {
        seed: plan.seed,
        today: plan.today.to_string(),
        ..SeedSummary::default()
    };
    fill_base(client, &shape, &mut summary)
        .await
        .map_err(step("copy companies and customers"))?;
    fill_vehicles(client, &shape, &mut summary, &mut progress).await?;
    summary.bytes = finish(client).await.map_err(step("analyse the tables"))?;
    summary.seconds = started.elapsed().as_secs_f64();
    Ok(summary)
}

async fn fill_base(
    client: &mut Client,
    shape: &Shape,
    summary: &mut SeedSummary,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let tables = [
        (
            "companies (id, name, currency)",
            shape.company_lines(),
            &mut summary.companies,
        ),
        (
            "locations (id, company_id, name, city, time_zone, phone)",
            shape.location_lines(),
            &mut summary.locations,
        ),
        (
            "vehicles (id, company_id, location_id, plate, category, model, daily_rate_cents)",
            shape.vehicle_lines(),
            &mut summary.vehicles,
        ),
    ];
    for (table, lines, rows) in tables {
        *rows += copy(&transaction, table, lines).await?;
    }
    let customers = "customers (id, company_id, full_name, email, phone, licence, created_at)";
    let mut first = 1;
    while first <= shape.customers() {
        let last = shape
            .customers()
            .min(first.saturating_add(CUSTOMERS_AT_ONCE - 1));
        let lines = shape.customer_lines(first, last);
        summary.customers += copy(&transaction, customers, lines).await?;
        first = last + 1;
    }
    transaction.commit().await
}

/// Copies what belongs to the vehicles; the next rows are made while the server takes the last ones.
async fn fill_vehicles(
    client: &mut Client,
    shape: &Shape,
    summary: &mut SeedSummary,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(), SeedError> {
    let make = |first| {
        let shape = *shape;
        tokio::task::spawn_blocking(move || chunk(&shape, first))
    };
    let mut making = make(1);
    loop {
        let (lines, next) = making.await.map_err(|_panicked| SeedError::Worker)?;
        making = make(next);
        if lines.bytes() == 0 {
            return Ok(());
        }
        copy_vehicles(client, lines, summary)
            .await
            .map_err(|source| SeedError::Statement {
                step: "copy the reservations",
                source,
            })?;
        progress(u64::from(next - 1), u64::from(shape.vehicles()));
    }
}

/// The rows of the vehicles from `first` on, and the vehicle after them.
fn chunk(shape: &Shape, first: u32) -> (VehicleLines, u32) {
    let mut lines = VehicleLines::default();
    let mut vehicle = first;
    while vehicle <= shape.vehicles() && lines.bytes() < SEED_CHUNK_BYTES {
        shape.vehicle(vehicle, &mut lines);
        vehicle += 1;
    }
    (lines, vehicle)
}

/// Copies a chunk in one transaction; the e-mails are written here and not once more by the triggers.
async fn copy_vehicles(
    client: &mut Client,
    lines: VehicleLines,
    summary: &mut SeedSummary,
) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let switch = |state| {
        format!(
            "ALTER TABLE reservations {state} TRIGGER reservation_mail; ALTER TABLE payments {state} TRIGGER payment_mail"
        )
    };
    transaction.batch_execute(&switch("DISABLE")).await?;
    let tables = [
        (
            "reservations (id, vehicle_id, location_id, customer_id, during, status, total_cents, note, created_at)",
            lines.reservations,
            &mut summary.reservations,
        ),
        (
            "payments (id, reservation_id, amount_cents, method, paid_at)",
            lines.payments,
            &mut summary.payments,
        ),
        (
            "outbox (id, reservation_id, recipient, subject, body, created_at, sent_at)",
            lines.outbox,
            &mut summary.emails,
        ),
        (
            "vehicle_history (id, vehicle_id, happened_at, kind, note, details)",
            lines.history,
            &mut summary.history,
        ),
    ];
    for (table, lines, rows) in tables {
        *rows += copy(&transaction, table, lines).await?;
    }
    transaction.batch_execute(&switch("ENABLE")).await?;
    transaction.commit().await
}

async fn copy(
    transaction: &Transaction<'_>,
    table: &str,
    lines: Lines,
) -> Result<u64, tokio_postgres::Error> {
    if lines.rows == 0 {
        return Ok(0);
    }
    let sink = transaction
        .copy_in(&format!("COPY {table} FROM STDIN"))
        .await?;
    let mut sink = Box::pin(sink);
    let mut text = Bytes::from(lines.text);
    while !text.is_empty() {
        let part = text.split_to(text.len().min(COPY_MESSAGE_BYTES));
        sink.feed(part).await?;
    }
    sink.as_mut().finish().await
}

/// Moves the id counters behind the copied rows, gathers statistics, and returns the size in bytes.
async fn finish(client: &Client) -> Result<u64, tokio_postgres::Error> {
    for table in ["customers", "outbox", "vehicle_history"] {
        let sql = format!(
            "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT coalesce(max(id), 1) FROM {table}))"
        );
        client.batch_execute(&sql).await?;
    }
    client.batch_execute("ANALYZE").await?;
    let row = client
        .query_one("SELECT pg_database_size(current_database())", &[])
        .await?;
    let bytes: i64 = row.try_get(0)?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Rounds down to a whole number.
fn whole(number: f64) -> u32 {
    // The largest power of two that still fits is added bit by bit: there is no checked conversion.
    let mut whole = 0_u32;
    for bit in (0..32).rev() {
        let candidate = whole | (1 << bit);
        if f64::from(candidate) <= number {
            whole = candidate;
        }
    }
    whole
}

/// Vehicles that a large office has more than the small one, for each gigabyte.
const VEHICLES_PER_GIGABYTE: f64 = 300.0;

/// Size of the database without vehicles, measured on PostgreSQL 15.
const EMPTY_BYTES: f64 = 8.0e6;

/// Bytes of a vehicle with its customers, reservations, payments and e-mails, measured.
const VEHICLE_BYTES: f64 = 20_000.0;

/// Bytes of one row of history with its index entries, measured.
const HISTORY_ROW_BYTES: f64 = 1_030.0;

/// Customers copied at once.
const CUSTOMERS_AT_ONCE: u32 = 50_000;
