//! The pages that only read: counters, the counter list, availability.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use jiff::ToSpan as _;
use jiff::civil::Date;

use super::forms::Fields;
use super::trouble::Trouble;
use super::views::{CompaniesPage, CounterPage, DayHead, FleetPage, Here, Nav, long_day, page};
use super::{Office, Shared};
use crate::desk::DeskError;
use crate::limits::AVAILABILITY_DAYS;

type Pairs = Query<Vec<(String, String)>>;

/// `GET /`
pub async fn companies(State(office): Shared) -> Response {
    let companies = async { office.pages.desk().await?.companies().await }.await;
    match companies {
        Ok(companies) => page(
            StatusCode::OK,
            &CompaniesPage {
                nav: Nav::default(),
                companies,
            },
        ),
        Err(error) => Trouble::reading(&office, &error).into_response(),
    }
}

/// `GET /counter/{location}?day=YYYY-MM-DD`
pub async fn counter(
    State(office): Shared,
    Path(location): Path<String>,
    Query(pairs): Pairs,
) -> Response {
    let wanted = Fields(pairs).text("day").parse().ok();
    match counter_page(&office, &location, wanted).await {
        Ok(list) => page(StatusCode::OK, &list),
        Err(error) => Trouble::reading(&office, &error).into_response(),
    }
}

/// `GET /fleet/{location}?from=YYYY-MM-DD`
pub async fn fleet(
    State(office): Shared,
    Path(location): Path<String>,
    Query(pairs): Pairs,
) -> Response {
    let wanted = Fields(pairs).text("from").parse().ok();
    match fleet_page(&office, &location, wanted).await {
        Ok(fleet) => page(StatusCode::OK, &fleet),
        Err(error) => Trouble::reading(&office, &error).into_response(),
    }
}

/// The number of a counter out of an address.
pub fn counter_number(text: &str) -> Result<i32, DeskError> {
    text.parse()
        .map_err(|_| DeskError::NotFound { what: "counter" })
}

async fn counter_page(
    office: &Office,
    location: &str,
    wanted: Option<Date>,
) -> Result<CounterPage, DeskError> {
    let mut desk = office.pages.desk().await?;
    let location = desk.location(counter_number(location)?).await?;
    let day = near(wanted.unwrap_or(location.today), location.today);
    let list = desk.counter_day(location.id, day).await?;
    let is_today = day == location.today;
    let title = if is_today {
        format!("Today, {}", long_day(day))
    } else {
        long_day(day)
    };
    let (before, after) = (day - 1.day(), day + 1.day());
    let nav = Nav::at(&location, Here::List);
    Ok(CounterPage {
        nav,
        location,
        title,
        day,
        before,
        after,
        is_today,
        list,
    })
}

async fn fleet_page(
    office: &Office,
    location: &str,
    wanted: Option<Date>,
) -> Result<FleetPage, DeskError> {
    let mut desk = office.pages.desk().await?;
    let location = desk.location(counter_number(location)?).await?;
    let first = near(wanted.unwrap_or(location.today), location.today);
    let fleet = desk.fleet(location.id, first).await?;
    let days = (0..AVAILABILITY_DAYS)
        .map(|number| DayHead::of(first + number.days(), location.today))
        .collect();
    let (before, after) = (
        first - AVAILABILITY_DAYS.days(),
        first + AVAILABILITY_DAYS.days(),
    );
    let nav = Nav::at(&location, Here::Fleet);
    Ok(FleetPage {
        nav,
        location,
        first_label: long_day(first),
        before,
        after,
        days,
        fleet,
    })
}

/// The day, if it is within some years of today: calendars end, and so does the books' meaning.
fn near(day: Date, today: Date) -> Date {
    let years = 20.years();
    let (first, last) = (today.saturating_sub(years), today.saturating_add(years));
    day.clamp(first, last)
}
