//! What the office reads: locations, the counter's day, availability, one reservation.
//!
//! Times come as text in the location's own time zone, formatted by PostgreSQL, which knows the zones.

use jiff::civil::Date;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Desk, DeskError, Param, shape};
use crate::limits::{AVAILABILITY_DAYS, LIMIT_LIST_ROWS, LIMIT_TRAFFIC_VEHICLES};

/// A rental company and its counters.
#[derive(Debug, Clone)]
pub struct Company {
    /// Name.
    pub name: String,
    /// Its counters, by name.
    pub locations: Vec<Location>,
}

/// A counter.
#[derive(Debug, Clone)]
pub struct Location {
    /// Id.
    pub id: i32,
    /// Name of the company.
    pub company: String,
    /// Name.
    pub name: String,
    /// City.
    pub city: String,
    /// Today there.
    pub today: Date,
    /// Local time there, `HH:MM`.
    pub clock: String,
    /// Time zone, as the IANA names it.
    pub time_zone: String,
}

/// The list of one counter for one day.
#[derive(Debug, Clone)]
pub struct CounterDay {
    /// Vehicles that leave.
    pub pickups: Vec<CounterRow>,
    /// Vehicles that come back.
    pub returns: Vec<CounterRow>,
    /// Vehicles that should have come back on an earlier day; only for today.
    pub overdue: Vec<CounterRow>,
}

/// One line of the counter list.
#[derive(Debug, Clone)]
pub struct CounterRow {
    /// Reservation.
    pub id: String,
    /// Local time, `HH:MM`, or day and time when overdue.
    pub time: String,
    /// Who.
    pub customer: String,
    /// Telephone, may be empty.
    pub phone: String,
    /// Model.
    pub model: String,
    /// Plate.
    pub plate: String,
    /// `booked`, `out`, `returned` or `cancelled`.
    pub status: String,
    /// Cents that are still due.
    pub due_cents: i64,
    /// The time has passed and nothing has happened.
    pub late: bool,
}

/// The vehicles of a counter and on which days they are free.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// First day shown.
    pub first: Date,
    /// The vehicles, at most `LIMIT_LIST_ROWS`.
    pub rows: Vec<FleetRow>,
    /// Vehicles that there are in all.
    pub total: i64,
}

/// One vehicle and its days.
#[derive(Debug, Clone)]
pub struct FleetRow {
    /// Vehicle.
    pub id: i32,
    /// Plate.
    pub plate: String,
    /// Model.
    pub model: String,
    /// Category.
    pub category: String,
    /// Cents for a day.
    pub daily_rate_cents: i64,
    /// For each day shown: the reservation that touches it first, if any.
    pub days: Vec<Option<String>>,
}

/// A vehicle to choose in the booking form.
#[derive(Debug, Clone)]
pub struct VehicleChoice {
    /// Vehicle.
    pub id: i32,
    /// Category, model and plate.
    pub label: String,
    /// Cents for a day.
    pub daily_rate_cents: i64,
}

/// Everything about one reservation.
#[derive(Debug, Clone)]
pub struct ReservationPage {
    /// Reservation.
    pub id: String,
    /// Its counter.
    pub location_id: i32,
    /// Company and name of the counter.
    pub counter: String,
    /// Who.
    pub customer: String,
    /// E-mail address.
    pub email: String,
    /// Telephone, may be empty.
    pub phone: String,
    /// Model and plate.
    pub vehicle: String,
    /// Pickup, local time.
    pub from: String,
    /// Return, local time.
    pub until: String,
    /// `booked`, `out`, `returned` or `cancelled`.
    pub status: String,
    /// Cents.
    pub total_cents: i64,
    /// Cents that are still due.
    pub due_cents: i64,
    /// Remark.
    pub note: String,
    /// Payments, oldest first.
    pub payments: Vec<PaymentRow>,
    /// E-mails, oldest first.
    pub mails: Vec<MailRow>,
}

/// One payment.
#[derive(Debug, Clone)]
pub struct PaymentRow {
    /// Local time.
    pub at: String,
    /// `card`, `cash` or `transfer`.
    pub method: String,
    /// Cents.
    pub amount_cents: i64,
}

/// One e-mail.
#[derive(Debug, Clone)]
pub struct MailRow {
    /// Local time it was written.
    pub at: String,
    /// Subject.
    pub subject: String,
    /// Whether it has left.
    pub sent: bool,
}

type Read<T> = Result<T, tokio_postgres::Error>;

impl Desk<'_> {
    /// All companies with their counters.
    ///
    /// # Errors
    /// `Away` when the database cannot be read.
    pub async fn companies(&mut self) -> Result<Vec<Company>, DeskError> {
        let sql = format!("{LOCATION} ORDER BY co.name, l.name");
        let mut companies: Vec<Company> = Vec::new();
        for row in self.query(&sql, &[]).await? {
            let location = location(&row).map_err(shape)?;
            match companies.last_mut() {
                Some(last) if last.name == location.company => last.locations.push(location),
                Some(_) | None => companies.push(Company {
                    name: location.company.clone(),
                    locations: vec![location],
                }),
            }
        }
        Ok(companies)
    }

    /// One counter.
    ///
    /// # Errors
    /// `NotFound`, and `Away` when the database cannot be read.
    pub async fn location(&mut self, id: i32) -> Result<Location, DeskError> {
        let sql = format!("{LOCATION} WHERE l.id = $1");
        let row = self.row("counter", &sql, &[(&id, Type::INT4)]).await?;
        location(&row).map_err(shape)
    }

    /// The counter list of a day.
    ///
    /// # Errors
    /// `Away` when the database cannot be read.
    pub async fn counter_day(&mut self, location: i32, day: Date) -> Result<CounterDay, DeskError> {
        let within = |edge: &str| {
            format!(
                "{edge}(r.during) >= ($2::date)::timestamp AT TIME ZONE l.time_zone
                 AND {edge}(r.during) < ($2::date + 1)::timestamp AT TIME ZONE l.time_zone"
            )
        };
        let pickups = self
            .counter_rows("lower", &within("lower"), (location, day))
            .await?;
        let returns = format!("{} AND r.status <> 'cancelled'", within("upper"));
        let returns = self
            .counter_rows("upper", &returns, (location, day))
            .await?;
        let overdue = "r.status = 'out' AND $2::date = (now() AT TIME ZONE l.time_zone)::date
            AND upper(r.during) < ($2::date)::timestamp AT TIME ZONE l.time_zone
            AND upper(r.during) > now() - interval '60 days'";
        let overdue = self.counter_rows("upper", overdue, (location, day)).await?;
        Ok(CounterDay {
            pickups,
            returns,
            overdue,
        })
    }

    async fn counter_rows(
        &mut self,
        edge: &str,
        which: &str,
        (location, day): (i32, Date),
    ) -> Result<Vec<CounterRow>, DeskError> {
        let waiting = if edge == "lower" { "booked" } else { "out" };
        let sql = format!(
            "SELECT r.id::text, to_char({edge}(r.during) AT TIME ZONE l.time_zone,
                    CASE WHEN ({edge}(r.during) AT TIME ZONE l.time_zone)::date = $2::date
                         THEN 'HH24:MI' ELSE 'FMDD Mon HH24:MI' END),
                c.full_name, c.phone, v.model, v.plate, r.status,
                r.total_cents - coalesce((SELECT sum(p.amount_cents)::bigint FROM payments p
                                          WHERE p.reservation_id = r.id), 0),
                {edge}(r.during) < now() AND r.status = '{waiting}'
             FROM reservations r
             JOIN locations l ON l.id = r.location_id
             JOIN vehicles v ON v.id = r.vehicle_id
             JOIN customers c ON c.id = r.customer_id
             WHERE r.location_id = $1 AND {which}
             ORDER BY {edge}(r.during), r.id LIMIT {LIMIT_LIST_ROWS}"
        );
        let params: [Param<'_>; 2] = [(&location, Type::INT4), (&day, Type::DATE)];
        let rows = self.query(&sql, &params).await?;
        rows.iter()
            .map(counter_row)
            .collect::<Read<_>>()
            .map_err(shape)
    }

    /// The vehicles of a counter with their free days from `first` on.
    ///
    /// # Errors
    /// `Away` when the database cannot be read.
    pub async fn fleet(&mut self, location: i32, first: Date) -> Result<Fleet, DeskError> {
        let sql = format!(
            "SELECT id, plate, model, category, daily_rate_cents, count(*) OVER ()
             FROM vehicles WHERE location_id = $1 ORDER BY category, plate LIMIT {LIMIT_LIST_ROWS}"
        );
        let vehicles = self.query(&sql, &[(&location, Type::INT4)]).await?;
        let total = match vehicles.first() {
            Some(row) => row.try_get(5).map_err(shape)?,
            None => 0,
        };
        let mut rows = vehicles
            .iter()
            .map(fleet_row)
            .collect::<Read<Vec<_>>>()
            .map_err(shape)?;
        let ids: Vec<i32> = rows.iter().map(|row| row.id).collect();
        let sql = format!(
            "SELECT r.vehicle_id, r.id::text,
                (lower(r.during) AT TIME ZONE l.time_zone)::date - $2::date,
                ((upper(r.during) - interval '1 second') AT TIME ZONE l.time_zone)::date - $2::date
             FROM reservations r JOIN vehicles v ON v.id = r.vehicle_id JOIN locations l ON l.id = v.location_id
             WHERE r.vehicle_id = ANY ($1) AND r.status <> 'cancelled'
               AND r.during && tstzrange(($2::date)::timestamp AT TIME ZONE l.time_zone,
                       ($2::date + {AVAILABILITY_DAYS})::timestamp AT TIME ZONE l.time_zone)
             ORDER BY lower(r.during)"
        );
        let params: [Param<'_>; 2] = [(&ids, Type::INT4_ARRAY), (&first, Type::DATE)];
        for row in self.query(&sql, &params).await? {
            mark(&mut rows, &row).map_err(shape)?;
        }
        Ok(Fleet { first, rows, total })
    }

    /// The vehicles of a counter for the booking form.
    ///
    /// # Errors
    /// `Away` when the database cannot be read.
    pub async fn vehicle_choices(
        &mut self,
        location: i32,
    ) -> Result<Vec<VehicleChoice>, DeskError> {
        let sql = "SELECT id, category || ': ' || model || ', ' || plate, daily_rate_cents
            FROM vehicles WHERE location_id = $1 ORDER BY category, plate LIMIT 1000";
        let rows = self.query(sql, &[(&location, Type::INT4)]).await?;
        let read = |row: &Row| {
            Ok(VehicleChoice {
                id: row.try_get(0)?,
                label: row.try_get(1)?,
                daily_rate_cents: row.try_get(2)?,
            })
        };
        rows.iter().map(read).collect::<Read<_>>().map_err(shape)
    }

    /// Whether the vehicle stands at the counter; a vehicle that does not exist stands nowhere.
    ///
    /// # Errors
    /// `NotFound` when there is no such counter, and `Away` when the database cannot be read.
    pub async fn is_at(&mut self, location: i32, vehicle: i32) -> Result<bool, DeskError> {
        let sql = "SELECT EXISTS (SELECT FROM vehicles WHERE id = $2 AND location_id = l.id)
            FROM locations l WHERE l.id = $1";
        let params: [Param<'_>; 2] = [(&location, Type::INT4), (&vehicle, Type::INT4)];
        let row = self.row("counter", sql, &params).await?;
        row.try_get(0).map_err(shape)
    }

    /// Vehicles with their counters, for traffic.
    ///
    /// # Errors
    /// `Away` when the database cannot be read.
    pub async fn bookable(&mut self) -> Result<Vec<(i32, i32)>, DeskError> {
        let sql = format!(
            "SELECT id, location_id FROM vehicles ORDER BY id LIMIT {LIMIT_TRAFFIC_VEHICLES}"
        );
        let rows = self.query(&sql, &[]).await?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(read).collect::<Read<_>>().map_err(shape)
    }

    /// One reservation with its payments and e-mails.
    ///
    /// # Errors
    /// `NotFound`, and `Away` when the database cannot be read.
    pub async fn reservation(&mut self, id: &str) -> Result<ReservationPage, DeskError> {
        let sql = "SELECT r.id::text, r.location_id, co.name || ', ' || l.name, c.full_name, c.email, c.phone,
                v.model || ', ' || v.plate,
                to_char(lower(r.during) AT TIME ZONE l.time_zone, 'FMDy FMDD Mon YYYY, HH24:MI'),
                to_char(upper(r.during) AT TIME ZONE l.time_zone, 'FMDy FMDD Mon YYYY, HH24:MI'),
                r.status, r.total_cents,
                r.total_cents - coalesce((SELECT sum(p.amount_cents)::bigint FROM payments p
                                          WHERE p.reservation_id = r.id), 0), r.note
            FROM reservations r
            JOIN locations l ON l.id = r.location_id
            JOIN companies co ON co.id = l.company_id
            JOIN vehicles v ON v.id = r.vehicle_id
            JOIN customers c ON c.id = r.customer_id
            WHERE r.id = $1::uuid";
        let row = self.row("reservation", sql, &[(&id, Type::TEXT)]).await?;
        let mut page = reservation_page(&row).map_err(shape)?;
        let sql = "SELECT to_char(p.paid_at AT TIME ZONE l.time_zone, 'FMDD Mon HH24:MI'), p.method, p.amount_cents
            FROM payments p JOIN reservations r ON r.id = p.reservation_id JOIN locations l ON l.id = r.location_id
            WHERE p.reservation_id = $1::uuid ORDER BY p.paid_at, p.id LIMIT 100";
        for row in self.query(sql, &[(&id, Type::TEXT)]).await? {
            page.payments.push(payment_row(&row).map_err(shape)?);
        }
        let sql = "SELECT to_char(o.created_at AT TIME ZONE l.time_zone, 'FMDD Mon HH24:MI'), o.subject,
                o.sent_at IS NOT NULL
            FROM outbox o JOIN reservations r ON r.id = o.reservation_id JOIN locations l ON l.id = r.location_id
            WHERE o.reservation_id = $1::uuid ORDER BY o.id LIMIT 100";
        for row in self.query(sql, &[(&id, Type::TEXT)]).await? {
            page.mails.push(mail_row(&row).map_err(shape)?);
        }
        Ok(page)
    }
}

const LOCATION: &str =
    "SELECT l.id, co.name, l.name, l.city, (now() AT TIME ZONE l.time_zone)::date,
    to_char(now() AT TIME ZONE l.time_zone, 'HH24:MI'), l.time_zone
    FROM locations l JOIN companies co ON co.id = l.company_id";

fn location(row: &Row) -> Read<Location> {
    Ok(Location {
        id: row.try_get(0)?,
        company: row.try_get(1)?,
        name: row.try_get(2)?,
        city: row.try_get(3)?,
        today: row.try_get(4)?,
        clock: row.try_get(5)?,
        time_zone: row.try_get(6)?,
    })
}

fn counter_row(row: &Row) -> Read<CounterRow> {
    Ok(CounterRow {
        id: row.try_get(0)?,
        time: row.try_get(1)?,
        customer: row.try_get(2)?,
        phone: row.try_get(3)?,
        model: row.try_get(4)?,
        plate: row.try_get(5)?,
        status: row.try_get(6)?,
        due_cents: row.try_get(7)?,
        late: row.try_get(8)?,
    })
}

fn fleet_row(row: &Row) -> Read<FleetRow> {
    Ok(FleetRow {
        id: row.try_get(0)?,
        plate: row.try_get(1)?,
        model: row.try_get(2)?,
        category: row.try_get(3)?,
        daily_rate_cents: row.try_get(4)?,
        days: vec![None; usize::try_from(AVAILABILITY_DAYS).unwrap_or(0)],
    })
}

/// Marks the days that one reservation touches.
fn mark(rows: &mut [FleetRow], row: &Row) -> Read<()> {
    let vehicle: i32 = row.try_get(0)?;
    let id: String = row.try_get(1)?;
    let (first, last): (i32, i32) = (row.try_get(2)?, row.try_get(3)?);
    let Some(vehicle) = rows.iter_mut().find(|row| row.id == vehicle) else {
        return Ok(());
    };
    for (number, day) in (0_i32..).zip(&mut vehicle.days) {
        if (first..=last).contains(&number) && day.is_none() {
            *day = Some(id.clone());
        }
    }
    Ok(())
}

fn reservation_page(row: &Row) -> Read<ReservationPage> {
    Ok(ReservationPage {
        id: row.try_get(0)?,
        location_id: row.try_get(1)?,
        counter: row.try_get(2)?,
        customer: row.try_get(3)?,
        email: row.try_get(4)?,
        phone: row.try_get(5)?,
        vehicle: row.try_get(6)?,
        from: row.try_get(7)?,
        until: row.try_get(8)?,
        status: row.try_get(9)?,
        total_cents: row.try_get(10)?,
        due_cents: row.try_get(11)?,
        note: row.try_get(12)?,
        payments: Vec::new(),
        mails: Vec::new(),
    })
}

fn payment_row(row: &Row) -> Read<PaymentRow> {
    Ok(PaymentRow {
        at: row.try_get(0)?,
        method: row.try_get(1)?,
        amount_cents: row.try_get(2)?,
    })
}

fn mail_row(row: &Row) -> Read<MailRow> {
    Ok(MailRow {
        at: row.try_get(0)?,
        subject: row.try_get(1)?,
        sent: row.try_get(2)?,
    })
}
