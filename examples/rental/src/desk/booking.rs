//! What changes the books: booking, payment, cancellation, handing over, taking back.
//!
//! Every one may be repeated with the same id after an unknown outcome: it is then done once.

use jiff::Unit;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::{Desk, DeskError, shape};
use crate::limits::{
    BOOKS_FIRST_YEAR, BOOKS_LAST_YEAR, LIMIT_BOOKING_ATTEMPTS, LIMIT_FIELD_CHARS, LIMIT_RENTAL_DAYS,
};

/// A person who rents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// First and last name.
    pub full_name: String,
    /// The address by which the office knows the person again.
    pub email: String,
    /// Telephone, may be empty.
    pub phone: String,
}

/// A vehicle from one moment to another, in the local time of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rental {
    /// The vehicle.
    pub vehicle_id: i32,
    /// Pickup.
    pub from: DateTime,
    /// Return.
    pub until: DateTime,
}

/// A reservation to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// A new UUID; the same again is the same booking.
    pub id: String,
    /// Who rents.
    pub customer: Customer,
    /// What and when.
    pub rental: Rental,
    /// A remark for the counter, may be empty.
    pub note: String,
}

/// Money to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// A new UUID; the same again is the same payment.
    pub id: String,
    /// What is paid.
    pub reservation_id: String,
    /// Cents, more than zero.
    pub amount_cents: i64,
    /// How it is paid.
    pub method: Method,
}

/// How something is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By card.
    Card,
    /// In cash.
    Cash,
    /// By bank transfer.
    Transfer,
}

/// A change of a reservation's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusChange {
    /// `booked` to `cancelled`.
    Cancel,
    /// `booked` to `out`.
    HandOver,
    /// `out` to `returned`.
    TakeBack,
}

impl Booking {
    /// Checks what can be checked without the database.
    ///
    /// # Errors
    /// `DeskError::Refused` with the field that is wrong.
    pub fn check(&self) -> Result<(), DeskError> {
        let customer = &self.customer;
        let fields = [
            ("the name", &customer.full_name),
            ("the e-mail address", &customer.email),
            ("the telephone number", &customer.phone),
            ("the note", &self.note),
        ];
        for (name, text) in fields {
            if text.chars().count() > LIMIT_FIELD_CHARS {
                return refuse(format!(
                    "{name} is longer than {LIMIT_FIELD_CHARS} characters"
                ));
            }
            if text.chars().any(char::is_control) {
                return refuse(format!("{name} holds a character that cannot be printed"));
            }
        }
        if customer.full_name.trim().is_empty() {
            return refuse("the name is missing".to_owned());
        }
        let at = customer.email.trim().split_once('@');
        if !at.is_some_and(|(user, host)| !user.is_empty() && host.contains('.')) {
            return refuse("the e-mail address is not one".to_owned());
        }
        self.rental.check()
    }
}

impl Rental {
    fn check(&self) -> Result<(), DeskError> {
        for (name, moment) in [("pickup", self.from), ("return", self.until)] {
            if !(BOOKS_FIRST_YEAR..=BOOKS_LAST_YEAR).contains(&moment.year()) {
                return refuse(format!(
                    "the year of the {name} is not between {BOOKS_FIRST_YEAR} and {BOOKS_LAST_YEAR}"
                ));
            }
        }
        if self.until <= self.from {
            return refuse("the return is not after the pickup".to_owned());
        }
        match self.from.until((Unit::Day, self.until)) {
            Ok(span) if span.get_days() < LIMIT_RENTAL_DAYS => Ok(()),
            Ok(_) | Err(_) => refuse(format!(
                "a rental of more than {LIMIT_RENTAL_DAYS} days needs a contract"
            )),
        }
    }
}

impl Method {
    /// The word the database holds.
    pub fn word(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Cash => "cash",
            Self::Transfer => "transfer",
        }
    }
}

impl StatusChange {
    /// Status before and after.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Cancel => ("booked", "cancelled"),
            Self::HandOver => ("booked", "out"),
            Self::TakeBack => ("out", "returned"),
        }
    }
}

/// What the database knows about the vehicle of a booking.
struct Terms {
    company_id: i32,
    location_id: i32,
    total_cents: i64,
    in_the_past: bool,
}

impl Desk<'_> {
    /// Books a vehicle; `Ok` means that PostgreSQL has acknowledged the COMMIT.
    ///
    /// # Errors
    /// `Taken` when the vehicle is booked in that time, `Refused` for a rule of the office, `Unknown`
    /// when the answer to COMMIT was lost; after the latter the same booking may be sent again.
    pub async fn book(&mut self, booking: &Booking) -> Result<(), DeskError> {
        booking.check()?;
        let mut attempt = 1;
        loop {
            match self.book_once(booking).await {
                Err(DeskError::Busy) if attempt < LIMIT_BOOKING_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// Takes a payment; `Ok` means that PostgreSQL has acknowledged the COMMIT.
    ///
    /// # Errors
    /// `Refused` when less is due, `NotFound` when there is no such reservation, `Unknown` when the
    /// answer to COMMIT was lost.
    pub async fn pay(&mut self, payment: &Payment) -> Result<(), DeskError> {
        if payment.amount_cents <= 0 {
            return refuse("the amount is not more than zero".to_owned());
        }
        self.begin().await?;
        let outcome = self.pay_inside(payment).await;
        self.end(outcome).await
    }

    /// Changes the status of a reservation; `Ok` means that PostgreSQL has acknowledged the COMMIT.
    ///
    /// # Errors
    /// `Refused` when the status does not allow it, `NotFound`, and `Unknown` when the answer to COMMIT
    /// was lost.
    pub async fn change(&mut self, id: &str, change: StatusChange) -> Result<(), DeskError> {
        self.begin().await?;
        let outcome = self.change_inside(id, change).await;
        self.end(outcome).await
    }

    /// Ends the transaction as its outcome says.
    async fn end(&mut self, outcome: Result<(), DeskError>) -> Result<(), DeskError> {
        match outcome {
            Ok(()) => self.commit().await,
            Err(error) => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    async fn book_once(&mut self, booking: &Booking) -> Result<(), DeskError> {
        self.begin().await?;
        let outcome = self.book_inside(booking).await;
        match self.end(outcome).await {
            Err(DeskError::Broken {
                code: Some(code), ..
            }) if code == SqlState::EXCLUSION_VIOLATION => {
                Err(self.who_has_it(&booking.rental).await?)
            }
            Err(DeskError::Broken {
                code: Some(code), ..
            }) if code == SqlState::UNIQUE_VIOLATION => self.is_the_same(booking).await,
            outcome => outcome,
        }
    }

    async fn book_inside(&mut self, booking: &Booking) -> Result<(), DeskError> {
        let terms = self.terms(&booking.rental).await?;
        if terms.in_the_past {
            return refuse("the pickup is in the past".to_owned());
        }
        let customer_id = self.customer(terms.company_id, &booking.customer).await?;
        let rental = &booking.rental;
        let sql = "INSERT INTO reservations (id, vehicle_id, location_id, customer_id, during, total_cents, note)
            SELECT $1::uuid, $2, l.id, $4,
                   tstzrange($5 AT TIME ZONE l.time_zone, $6 AT TIME ZONE l.time_zone), $7, $8
            FROM locations l WHERE l.id = $3 RETURNING 1";
        let params: [super::Param<'_>; 8] = [
            (&booking.id, Type::TEXT),
            (&rental.vehicle_id, Type::INT4),
            (&terms.location_id, Type::INT4),
            (&customer_id, Type::INT8),
            (&rental.from, Type::TIMESTAMP),
            (&rental.until, Type::TIMESTAMP),
            (&terms.total_cents, Type::INT8),
            (&booking.note, Type::TEXT),
        ];
        self.row("location", sql, &params).await.map(drop)
    }

    async fn terms(&mut self, rental: &Rental) -> Result<Terms, DeskError> {
        let sql = "SELECT v.company_id, v.location_id,
                v.daily_rate_cents * greatest(1, ceil(extract(epoch FROM $3::timestamp - $2::timestamp) / 86400)::bigint),
                $2::timestamp AT TIME ZONE l.time_zone < now() - interval '1 day'
            FROM vehicles v JOIN locations l ON l.id = v.location_id WHERE v.id = $1";
        let params: [super::Param<'_>; 3] = [
            (&rental.vehicle_id, Type::INT4),
            (&rental.from, Type::TIMESTAMP),
            (&rental.until, Type::TIMESTAMP),
        ];
        let row = self.row("vehicle", sql, &params).await?;
        let read = |row: &Row| {
            Ok(Terms {
                company_id: row.try_get(0)?,
                location_id: row.try_get(1)?,
                total_cents: row.try_get(2)?,
                in_the_past: row.try_get(3)?,
            })
        };
        read(&row).map_err(shape)
    }

    /// Finds the customer by e-mail address, keeps name and telephone up to date, or makes a new one.
    async fn customer(&mut self, company_id: i32, who: &Customer) -> Result<i64, DeskError> {
        let (name, email, phone) = (who.full_name.trim(), who.email.trim(), who.phone.trim());
        let find = "SELECT id, full_name = $3 AND ($4 IN ('', phone)) FROM customers
            WHERE company_id = $1 AND lower(email) = lower($2)";
        let params: [super::Param<'_>; 4] = [
            (&company_id, Type::INT4),
            (&email, Type::TEXT),
            (&name, Type::TEXT),
            (&phone, Type::TEXT),
        ];
        if let Some(row) = self.query(find, &params).await?.first() {
            let id: i64 = row.try_get(0).map_err(shape)?;
            if !row.try_get::<_, bool>(1).map_err(shape)? {
                let sql =
                    "UPDATE customers SET full_name = $2, phone = coalesce(nullif($3, ''), phone)
                    WHERE id = $1";
                let params: [super::Param<'_>; 3] =
                    [(&id, Type::INT8), (&name, Type::TEXT), (&phone, Type::TEXT)];
                self.query(sql, &params).await?;
            }
            return Ok(id);
        }
        let make =
            "INSERT INTO customers (company_id, email, full_name, phone) VALUES ($1, $2, $3, $4)
            ON CONFLICT DO NOTHING RETURNING id";
        let made = self.query(make, &params).await?;
        let row = made.first().ok_or(DeskError::Busy)?;
        row.try_get(0).map_err(shape)
    }

    async fn pay_inside(&mut self, payment: &Payment) -> Result<(), DeskError> {
        let sql = "SELECT r.status,
                r.total_cents - (SELECT coalesce(sum(amount_cents), 0)::bigint FROM payments WHERE reservation_id = r.id),
                EXISTS (SELECT FROM payments WHERE id = $2::uuid AND reservation_id = r.id)
            FROM reservations r WHERE r.id = $1::uuid FOR UPDATE OF r";
        let params: [super::Param<'_>; 2] = [
            (&payment.reservation_id, Type::TEXT),
            (&payment.id, Type::TEXT),
        ];
        let row = self.row("reservation", sql, &params).await?;
        let status: String = row.try_get(0).map_err(shape)?;
        let due_cents: i64 = row.try_get(1).map_err(shape)?;
        if row.try_get::<_, bool>(2).map_err(shape)? {
            return Ok(());
        }
        if status == "cancelled" {
            return refuse("the reservation is cancelled".to_owned());
        }
        if payment.amount_cents > due_cents {
            return refuse("the amount is more than what is still due".to_owned());
        }
        let sql = "INSERT INTO payments (id, reservation_id, amount_cents, method)
            VALUES ($1::uuid, $2::uuid, $3, $4) RETURNING 1";
        let method = payment.method.word();
        let params: [super::Param<'_>; 4] = [
            (&payment.id, Type::TEXT),
            (&payment.reservation_id, Type::TEXT),
            (&payment.amount_cents, Type::INT8),
            (&method, Type::TEXT),
        ];
        self.row("reservation", sql, &params).await.map(drop)
    }

    async fn change_inside(&mut self, id: &str, change: StatusChange) -> Result<(), DeskError> {
        let (before, after) = change.words();
        let sql = "SELECT status FROM reservations WHERE id = $1::uuid FOR UPDATE";
        let row = self.row("reservation", sql, &[(&id, Type::TEXT)]).await?;
        let status: String = row.try_get(0).map_err(shape)?;
        if status == after {
            return Ok(());
        }
        if status != before {
            return refuse(format!("the reservation is `{status}`, not `{before}`"));
        }
        let sql = "UPDATE reservations SET status = $2 WHERE id = $1::uuid RETURNING 1";
        self.row(
            "reservation",
            sql,
            &[(&id, Type::TEXT), (&after, Type::TEXT)],
        )
        .await
        .map(drop)
    }

    /// The booking that is in the way.
    async fn who_has_it(&mut self, rental: &Rental) -> Result<DeskError, DeskError> {
        let sql = "SELECT v.model || ' ' || v.plate,
                to_char(lower(r.during) AT TIME ZONE l.time_zone, 'FMDy FMDD Mon HH24:MI'),
                to_char(upper(r.during) AT TIME ZONE l.time_zone, 'FMDy FMDD Mon HH24:MI')
            FROM reservations r JOIN vehicles v ON v.id = r.vehicle_id JOIN locations l ON l.id = v.location_id
            WHERE r.vehicle_id = $1 AND r.status <> 'cancelled'
              AND r.during && tstzrange($2 AT TIME ZONE l.time_zone, $3 AT TIME ZONE l.time_zone)
            ORDER BY lower(r.during) LIMIT 1";
        let params: [super::Param<'_>; 3] = [
            (&rental.vehicle_id, Type::INT4),
            (&rental.from, Type::TIMESTAMP),
            (&rental.until, Type::TIMESTAMP),
        ];
        // The one in the way may have been cancelled meanwhile: then trying again helps.
        let rows = self.query(sql, &params).await?;
        let Some(row) = rows.first() else {
            return Ok(DeskError::Busy);
        };
        let read = |row: &Row| {
            Ok(DeskError::Taken {
                vehicle: row.try_get(0)?,
                from: row.try_get(1)?,
                to: row.try_get(2)?,
            })
        };
        read(row).map_err(shape)
    }

    /// Whether a booking with this id is this one, made before.
    async fn is_the_same(&mut self, booking: &Booking) -> Result<(), DeskError> {
        let rental = &booking.rental;
        let sql = "SELECT r.vehicle_id = $2 AND r.during =
                tstzrange($3 AT TIME ZONE l.time_zone, $4 AT TIME ZONE l.time_zone)
            FROM reservations r JOIN locations l ON l.id = r.location_id WHERE r.id = $1::uuid";
        let params: [super::Param<'_>; 4] = [
            (&booking.id, Type::TEXT),
            (&rental.vehicle_id, Type::INT4),
            (&rental.from, Type::TIMESTAMP),
            (&rental.until, Type::TIMESTAMP),
        ];
        let rows = self.query(sql, &params).await?;
        match rows.first().map(|row| row.try_get::<_, bool>(0)) {
            Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => refuse("this form was already used for another booking".to_owned()),
            Some(Err(error)) => Err(shape(error)),
            None => Err(DeskError::Busy),
        }
    }
}

fn refuse<T>(reason: String) -> Result<T, DeskError> {
    Err(DeskError::Refused { reason })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::{Booking, Customer, Rental};

    type Spoil = fn(&mut Booking);

    fn booking() -> Booking {
        Booking {
            id: "00000000-0000-4000-8000-000000000000".to_owned(),
            customer: Customer {
                full_name: "Ann Lee".to_owned(),
                email: "ann@mail.example".to_owned(),
                phone: String::new(),
            },
            rental: Rental {
                vehicle_id: 1,
                from: date(2026, 11, 24).at(10, 0, 0, 0),
                until: date(2026, 11, 26).at(10, 0, 0, 0),
            },
            note: String::new(),
        }
    }

    #[test]
    fn a_plain_booking_passes() {
        assert!(booking().check().is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(&str, Spoil); 10] = [
            ("year of the pickup", |b| {
                b.rental.from = date(1999, 12, 31).at(10, 0, 0, 0)
            }),
            ("year of the return", |b| {
                b.rental.until = date(9999, 12, 31).at(10, 0, 0, 0)
            }),
            ("name is missing", |b| {
                b.customer.full_name = "  ".to_owned()
            }),
            ("e-mail address is not one", |b| {
                b.customer.email = "ann".to_owned()
            }),
            ("e-mail address is not one", |b| {
                b.customer.email = "@mail.example".to_owned()
            }),
            ("longer than 200", |b| b.note = "x".repeat(201)),
            ("cannot be printed", |b| b.customer.phone = "1\0".to_owned()),
            ("not after the pickup", |b| b.rental.until = b.rental.from),
            ("not after the pickup", |b| {
                std::mem::swap(&mut b.rental.until, &mut b.rental.from)
            }),
            ("90 days", |b| {
                b.rental.until = date(2027, 11, 26).at(10, 0, 0, 0)
            }),
        ];
        for (expected, spoil) in cases {
            let mut spoilt = booking();
            spoil(&mut spoilt);
            let said = spoilt.check().unwrap_err().to_string();
            assert!(
                said.contains(expected) && said.contains("nothing was saved"),
                "{said}"
            );
        }
    }
}
