//! Every wait, queue and size of the rental office that has a limit, by name.

use std::time::Duration;

/// A page, `GET /health` included, is answered within this time, database or no database.
pub const LIMIT_PAGE: Duration = Duration::from_millis(1_800);

/// One operation of `rental traffic`: longer than a page, so that a database that only pauses
/// does not turn every commit into an unknown one.
pub const LIMIT_TRAFFIC_OPERATION: Duration = Duration::from_secs(5);

/// Opening one connection to the database.
pub const LIMIT_CONNECT: Duration = Duration::from_millis(1_500);

/// Rolling back after a refused statement; a connection that is slower is thrown away.
pub const LIMIT_ROLLBACK: Duration = Duration::from_millis(150);

/// Attempts at one booking when PostgreSQL breaks a deadlock between two of them.
pub const LIMIT_BOOKING_ATTEMPTS: u32 = 4;

/// Connections that `rental serve` opens at most for its pages.
pub const LIMIT_PAGE_CONNECTIONS: u32 = 8;

/// Connections that `rental serve` opens at most for `GET /health`.
pub const LIMIT_HEALTH_CONNECTIONS: u32 = 2;

/// Workers of `rental traffic`: each has a connection, and PostgreSQL has 100 by default.
pub const LIMIT_TRAFFIC_WORKERS: u32 = 64;

/// First wait of a traffic worker after an error of the database.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(20);

/// Longest wait of a traffic worker after an error of the database.
pub const BACKOFF_LONGEST: Duration = Duration::from_millis(500);

/// Bookings that one traffic worker remembers to pay or cancel later.
pub const LIMIT_REMEMBERED_BOOKINGS: usize = 512;

/// Vehicles that traffic books at most.
pub const LIMIT_TRAFFIC_VEHICLES: i64 = 10_000;

/// Rows of one list on a page; the page says how many more there are.
pub const LIMIT_LIST_ROWS: i64 = 100;

/// Days that the availability page shows.
pub const AVAILABILITY_DAYS: i32 = 14;

/// Ids that `rental verify` asks for in one query.
pub const LIMIT_IDS_PER_QUERY: usize = 5_000;

/// Missing ids that `rental verify` names.
pub const LIMIT_MISSING_NAMED: usize = 20;

/// Longest line of a journal that is read.
pub const LIMIT_JOURNAL_LINE_BYTES: usize = 4_096;

/// Length of a text field of a form, in characters.
pub const LIMIT_FIELD_CHARS: usize = 200;

/// Longest form that is read; the longest that the pages send has a tenth of it.
pub const LIMIT_FORM_BYTES: usize = 64 << 10;

/// First year that the books hold; earlier ones are slips of the pen.
pub const BOOKS_FIRST_YEAR: i16 = 2000;

/// Last year that the books hold; PostgreSQL and the driver have ends of their own, far beyond it.
pub const BOOKS_LAST_YEAR: i16 = 2199;

/// Longest rental.
pub const LIMIT_RENTAL_DAYS: i32 = 90;

/// Companies that `rental seed` makes at most.
pub const LIMIT_COMPANIES: u32 = 500;

/// Size that `rental seed` makes at most, in gigabytes.
pub const LIMIT_GIGABYTES: f64 = 2_000.0;

/// Bytes of rows that `rental seed` gathers before it copies them in one transaction.
pub const SEED_CHUNK_BYTES: usize = 16 << 20;

/// Bytes handed to one COPY message.
pub const COPY_MESSAGE_BYTES: usize = 256 << 10;

/// Size of a database URL file that is read at most.
pub const LIMIT_URL_FILE_BYTES: u64 = 16 << 10;

/// How long `rental traffic` waits at its start for a database that can be read.
pub const LIMIT_TRAFFIC_START: Duration = Duration::from_secs(10);

/// Reading everything that `rental verify` reads.
pub const LIMIT_VERIFY: Duration = Duration::from_secs(120);

/// How long open connections of browsers may last after `rental serve` was asked to stop.
pub const LIMIT_SHUTDOWN: Duration = Duration::from_secs(2);
