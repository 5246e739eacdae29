//! One counter clerk: picks an operation, does it, writes the journal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::totals::Tally;
use crate::desk::{Booking, Customer, DeskError, Method, Payment, Pool, Rental, StatusChange};
use crate::dice::{Dice, uuid_v4};
use crate::journal::{Entry, Journal, JournalError, Kind, Outcome};
use crate::limits::{BACKOFF_FIRST, BACKOFF_LONGEST, LIMIT_REMEMBERED_BOOKINGS};
use crate::seed::words::{FIRST_NAMES, LAST_NAMES, WISHES};

/// What all workers share.
pub struct Shared {
    /// Connections.
    pub pool: Arc<Pool>,
    /// Where acknowledged work is written.
    pub journal: Arc<Journal>,
    /// Counts.
    pub tally: Arc<Tally>,
    /// Vehicles with their counters; never empty.
    pub vehicles: Arc<[(i32, i32)]>,
}

/// One worker.
pub struct Worker {
    shared: Shared,
    dice: Dice,
    /// Acknowledged bookings that are neither paid nor cancelled.
    open: VecDeque<String>,
}

impl Worker {
    /// Worker `number` of a seed.
    pub fn new(shared: Shared, seed: u64, number: u64) -> Self {
        Self {
            shared,
            dice: Dice::new(seed, "traffic", number),
            open: VecDeque::new(),
        }
    }

    /// Works until `end` becomes true; an operation that has begun is finished.
    pub async fn run(
        mut self,
        pace: Option<Duration>,
        mut end: watch::Receiver<bool>,
    ) -> Result<(), JournalError> {
        let mut ticks = pace.map(interval);
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut backoff = BACKOFF_FIRST;
        loop {
            let pause = async {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
            };
            tokio::select! {
                biased;
                _ = end.wait_for(|end| *end) => return Ok(()),
                () = pause => {}
            }
            if self.work().await? {
                backoff = BACKOFF_FIRST;
                continue;
            }
            tokio::select! {
                _ = end.wait_for(|end| *end) => return Ok(()),
                () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_LONGEST),
            }
        }
    }

    /// Does one operation; false when the database was at fault.
    async fn work(&mut self) -> Result<bool, JournalError> {
        match self.dice.between(1, 100) {
            1..=55 => self.book().await,
            56..=75 => self.pay().await,
            76..=85 => self.cancel().await,
            _ => Ok(self.read().await),
        }
    }

    async fn book(&mut self) -> Result<bool, JournalError> {
        let booking = self.booking();
        let started = Instant::now();
        let outcome = async { self.shared.pool.desk().await?.book(&booking).await }.await;
        if outcome.is_ok() {
            self.open.push_back(booking.id.clone());
            if self.open.len() > LIMIT_REMEMBERED_BOOKINGS {
                self.open.pop_front();
            }
        }
        self.settle(Kind::Booking, &booking.id, started, &outcome)
    }

    async fn pay(&mut self) -> Result<bool, JournalError> {
        let Some(reservation_id) = self.open_booking() else {
            return self.book().await;
        };
        let method = [Method::Card, Method::Card, Method::Cash, Method::Transfer];
        let payment = Payment {
            id: uuid_v4(rand::random()),
            reservation_id,
            amount_cents: i64::from(self.dice.between(1_000, 3_000)),
            method: self.dice.pick(&method).copied().unwrap_or(Method::Card),
        };
        let started = Instant::now();
        let outcome = async { self.shared.pool.desk().await?.pay(&payment).await }.await;
        self.settle(Kind::Payment, &payment.id, started, &outcome)
    }

    async fn cancel(&mut self) -> Result<bool, JournalError> {
        let Some(id) = self.open_booking() else {
            return self.book().await;
        };
        let started = Instant::now();
        let outcome = async {
            self.shared
                .pool
                .desk()
                .await?
                .change(&id, StatusChange::Cancel)
                .await
        }
        .await;
        self.settle(Kind::Cancellation, &id, started, &outcome)
    }

    async fn read(&mut self) -> bool {
        let Some((_, location)) = self.dice.pick(&self.shared.vehicles).copied() else {
            return false;
        };
        let outcome = async {
            let mut desk = self.shared.pool.desk().await?;
            desk.counter_day(location, today()).await.map(drop)
        }
        .await;
        self.shared.tally.count_read(&outcome);
        !outcome.is_err_and(|error| error.is_outage())
    }

    /// Writes the journal first and counts afterwards, so that no count is ahead of the journal.
    fn settle(
        &self,
        kind: Kind,
        id: &str,
        started: Instant,
        outcome: &Result<(), DeskError>,
    ) -> Result<bool, JournalError> {
        let took = started.elapsed();
        let word = match outcome {
            Ok(()) => Some(Outcome::Acknowledged),
            Err(DeskError::Unknown { .. }) => Some(Outcome::Unknown),
            Err(_) => None,
        };
        if let Some(outcome) = word {
            let at = Timestamp::now().to_string();
            self.shared.journal.append(&Entry {
                at,
                kind,
                id: id.to_owned(),
                outcome,
            })?;
        }
        self.shared.tally.count(kind, took, outcome);
        Ok(!outcome.as_ref().is_err_and(DeskError::is_outage))
    }

    /// Takes an open booking out of memory.
    fn open_booking(&mut self) -> Option<String> {
        let index = self.dice.index(self.open.len())?;
        self.open.swap_remove_back(index)
    }

    /// Mostly far in the future, sometimes today, sometimes where everybody else wants to book too.
    fn booking(&mut self) -> Booking {
        let dice = &mut self.dice;
        let contested = dice.chance(5);
        let among = if contested {
            self.shared.vehicles.get(..1)
        } else {
            None
        };
        let vehicle = dice
            .pick(among.unwrap_or(&self.shared.vehicles))
            .copied()
            .unwrap_or((1, 1));
        let days = match dice.between(1, 100) {
            _ if contested => dice.between(1, 2),
            1..=8 => 0,
            _ => dice.between(1, 1_500),
        };
        let hour = i8::try_from(dice.between(7, 21)).unwrap_or(9);
        let minute = i8::try_from(dice.between(0, 3) * 15).unwrap_or(0);
        let from = (today() + i64::from(days).days()).at(hour, minute, 0, 0);
        let until = from + i64::from(dice.between(3, 72)).hours();
        let (first, last) = (dice.word(FIRST_NAMES), dice.word(LAST_NAMES));
        let plain: String = last.chars().filter(char::is_ascii_alphabetic).collect();
        Booking {
            id: uuid_v4(rand::random()),
            customer: Customer {
                full_name: format!("{first} {last}"),
                email: format!("{first}.{plain}.{}@post.example", dice.between(1, 40))
                    .to_lowercase(),
                phone: String::new(),
            },
            rental: Rental {
                vehicle_id: vehicle.0,
                from,
                until,
            },
            note: dice.word(WISHES).to_owned(),
        }
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}
