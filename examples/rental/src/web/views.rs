//! The pages as templates, and how money and days are written on them.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use jiff::civil::{Date, Weekday};

use super::forms::BookingForm;
use crate::desk::{
    Company, CounterDay, CounterRow, Fleet, FleetRow, Location, PaymentRow, ReservationPage,
    VehicleChoice,
};

/// Where on the site a page stands.
#[derive(Debug, Default)]
pub struct Nav {
    /// The counter, if the page belongs to one.
    pub counter: Option<Location>,
    /// Which of its pages.
    pub here: Here,
}

/// The pages of a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Here {
    /// Availability.
    Fleet,
    /// The booking form.
    Form,
    /// The counter list.
    List,
    /// None of them.
    #[default]
    Other,
}

/// What went wrong with a form, and what to do.
#[derive(Debug)]
pub struct Notice {
    /// What happened.
    pub what: String,
    /// What did not happen, and what to do next.
    pub then: String,
}

/// `/`
#[derive(Template)]
#[template(path = "companies.html")]
pub struct CompaniesPage {
    pub nav: Nav,
    pub companies: Vec<Company>,
}

/// `/counter/{location}`
#[derive(Template)]
#[template(path = "counter.html")]
pub struct CounterPage {
    pub nav: Nav,
    pub location: Location,
    pub title: String,
    pub day: Date,
    pub before: Date,
    pub after: Date,
    pub is_today: bool,
    pub list: CounterDay,
}

/// `/fleet/{location}`
#[derive(Template)]
#[template(path = "fleet.html")]
pub struct FleetPage {
    pub nav: Nav,
    pub location: Location,
    pub first_label: String,
    pub before: Date,
    pub after: Date,
    pub days: Vec<DayHead>,
    pub fleet: Fleet,
}

/// Head of one column of the availability page.
pub struct DayHead {
    pub iso: Date,
    pub weekday: String,
    pub number: i8,
    pub weekend: bool,
    pub past: bool,
}

/// `/book/{location}`
#[derive(Template)]
#[template(path = "book.html")]
pub struct BookPage {
    pub nav: Nav,
    pub location: Location,
    pub vehicles: Vec<VehicleChoice>,
    pub form: BookingForm,
    pub problem: Option<Notice>,
}

/// `/reservations/{id}`
#[derive(Template)]
#[template(path = "reservation.html")]
pub struct OneReservation {
    pub nav: Nav,
    pub page: ReservationPage,
    pub payment_id: String,
    pub amount: String,
    pub method: String,
    pub done: Option<&'static str>,
    pub problem: Option<Notice>,
}

/// Everything that went wrong.
#[derive(Template)]
#[template(path = "trouble.html")]
pub struct TroublePage {
    pub nav: Nav,
    pub title: String,
    pub what: String,
    pub then: String,
    pub detail: String,
    pub refresh: bool,
    pub again: bool,
    pub fields: Vec<(String, String)>,
}

impl Nav {
    /// The navigation of one page of a counter.
    pub fn at(counter: &Location, here: Here) -> Self {
        Self {
            counter: Some(counter.clone()),
            here,
        }
    }

    /// Page, address and words of each link.
    pub fn links(&self) -> Vec<(Here, String, &'static str)> {
        let Some(Location { id, .. }) = self.counter else {
            return Vec::new();
        };
        vec![
            (Here::List, format!("/counter/{id}"), "Counter list"),
            (Here::Fleet, format!("/fleet/{id}"), "Availability"),
            (Here::Form, format!("/book/{id}"), "New booking"),
        ]
    }
}

impl FleetPage {
    /// Whether some of the days are over: the first is then.
    fn shows_past(&self) -> bool {
        self.days.first().is_some_and(|day| day.past)
    }
}

impl DayHead {
    /// The head for one day; nothing is booked for a day before `today`.
    pub fn of(day: Date, today: Date) -> Self {
        let weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        Self {
            iso: day,
            weekday: day.strftime("%a").to_string(),
            number: day.day(),
            weekend,
            past: day < today,
        }
    }
}

impl CounterRow {
    fn due(&self) -> String {
        money(self.due_cents)
    }
}

impl FleetRow {
    fn rate(&self) -> String {
        format!("{} a day", money(self.daily_rate_cents))
    }
}

impl VehicleChoice {
    fn rate(&self) -> String {
        format!("{} a day", money(self.daily_rate_cents))
    }
}

impl PaymentRow {
    fn amount(&self) -> String {
        money(self.amount_cents)
    }
}

impl ReservationPage {
    fn total(&self) -> String {
        money(self.total_cents)
    }

    fn due(&self) -> String {
        money(self.due_cents)
    }
}

/// Renders a page.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        // Writing into memory does not fail; a person gets words all the same.
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "this page cannot be shown",
        )
            .into_response(),
    }
}

/// A day as people say it.
pub fn long_day(day: Date) -> String {
    day.strftime("%A, %-d %B %Y").to_string()
}

/// Cents as dollars: `$1,234.50`.
pub fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let (dollars, rest) = (cents.unsigned_abs() / 100, cents.unsigned_abs() % 100);
    let digits = dollars.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}${grouped}.{rest:02}")
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::{long_day, money};

    #[test]
    fn money_is_written_with_groups_and_two_places() {
        let cases = [
            (0, "$0.00"),
            (5, "$0.05"),
            (-120, "-$1.20"),
            (99_999, "$999.99"),
            (100_000, "$1,000.00"),
            (123_456_789, "$1,234,567.89"),
            (i64::MIN, "-$92,233,720,368,547,758.08"),
        ];
        for (cents, text) in cases {
            assert_eq!(money(cents), text);
        }
    }

    #[test]
    fn days_are_written_out() {
        assert_eq!(long_day(date(2026, 11, 4)), "Wednesday, 4 November 2026");
    }
}
