//! What comes out of a submitted form, checked field by field.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

use crate::desk::{Booking, Customer, DeskError, Method, Payment, Rental};
use crate::dice::uuid_v4;

/// The fields of a form, in the order sent.
#[derive(Debug, Clone)]
pub struct Fields(pub Vec<(String, String)>);

/// The booking form as it stands on the page.
#[derive(Debug, Clone, Default)]
pub struct BookingForm {
    /// Id of the booking to be made: sent twice, it is made once.
    pub id: String,
    /// Vehicle.
    pub vehicle: String,
    /// Pickup, `YYYY-MM-DDTHH:MM`.
    pub from: String,
    /// Return, `YYYY-MM-DDTHH:MM`.
    pub until: String,
    /// Customer's name.
    pub name: String,
    /// E-mail address.
    pub email: String,
    /// Telephone.
    pub phone: String,
    /// Note.
    pub note: String,
}

impl Fields {
    /// The first value of a field, or the empty text.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value.trim())
    }
}

impl BookingForm {
    /// Two days from ten o'clock; today from the next full hour when that is later, and never in the past.
    pub fn proposed(day: Date, today: Date, clock: &str) -> Self {
        let hour: i8 = clock
            .split_once(':')
            .and_then(|(hour, _)| hour.parse().ok())
            .unwrap_or(0);
        let day = day.max(today);
        let (day, hour) = match hour.saturating_add(1) {
            _ if day != today => (day, 10),
            24.. => (day.saturating_add(1.days()), 10),
            next => (day, next.max(10)),
        };
        let until = day.saturating_add(2.days());
        Self {
            from: format!("{day}T{hour:02}:00"),
            until: format!("{until}T{hour:02}:00"),
            ..Self::default()
        }
    }

    /// The form as it was sent.
    pub fn sent(fields: &Fields) -> Self {
        let text = |name| fields.text(name).to_owned();
        Self {
            id: text("id"),
            vehicle: text("vehicle"),
            from: text("from"),
            until: text("until"),
            name: text("name"),
            email: text("email"),
            phone: text("phone"),
            note: text("note"),
        }
    }

    /// The booking it asks for.
    ///
    /// # Errors
    /// `DeskError::Refused` with the field that is wrong.
    pub fn booking(&self) -> Result<Booking, DeskError> {
        let vehicle = self.vehicle.parse::<i32>();
        let booking = Booking {
            id: checked_id(&self.id).ok_or_else(|| wrong("the form is damaged: load it again"))?,
            customer: Customer {
                full_name: self.name.clone(),
                email: self.email.clone(),
                phone: self.phone.clone(),
            },
            rental: Rental {
                vehicle_id: vehicle.map_err(|_| wrong("no vehicle is chosen"))?,
                from: moment(&self.from, "the pickup is not a day and time")?,
                until: moment(&self.until, "the return is not a day and time")?,
            },
            note: self.note.clone(),
        };
        booking.check()?;
        Ok(booking)
    }
}

/// The payment that a form asks for.
///
/// # Errors
/// `DeskError::Refused` with the field that is wrong.
pub fn payment(reservation_id: &str, fields: &Fields) -> Result<Payment, DeskError> {
    let method = match fields.text("method") {
        "card" => Method::Card,
        "cash" => Method::Cash,
        "transfer" => Method::Transfer,
        _ => return Err(wrong("the way of paying is not card, cash or transfer")),
    };
    let id = checked_id(fields.text("id"));
    let amount = cents(fields.text("amount"));
    Ok(Payment {
        id: id.ok_or_else(|| wrong("the form is damaged: load it again"))?,
        reservation_id: reservation_id.to_owned(),
        amount_cents: amount.ok_or_else(|| wrong("the amount is not one, like 120.50"))?,
        method,
    })
}

/// A new id for a form.
pub fn new_id() -> String {
    uuid_v4(rand::random())
}

/// The id in lower case, if it is a UUID with hyphens.
pub fn checked_id(text: &str) -> Option<String> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hexadecimal = groups.concat().chars().all(|c| c.is_ascii_hexdigit());
    (lengths == [8, 4, 4, 4, 12] && hexadecimal).then(|| text.to_ascii_lowercase())
}

/// `120`, `120.5` or `$1,120.50` as cents.
fn cents(text: &str) -> Option<i64> {
    let plain = text.trim().trim_start_matches('$').replace(',', "");
    let (whole, part) = plain.split_once('.').unwrap_or((&plain, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if whole.is_empty() || part.len() > 2 || !digits(whole) || !digits(part) {
        return None;
    }
    let part = format!("{part:0<2}").parse::<i64>().ok()?;
    whole
        .parse::<i64>()
        .ok()?
        .checked_mul(100)?
        .checked_add(part)
}

fn moment(text: &str, reason: &str) -> Result<DateTime, DeskError> {
    text.parse().map_err(|_| wrong(reason))
}

fn wrong(reason: &str) -> DeskError {
    DeskError::Refused {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{BookingForm, Fields, cents, checked_id, new_id, payment};

    #[test]
    fn no_pickup_is_proposed_in_the_past() {
        let today = jiff::civil::date(2026, 11, 24);
        for (day, clock, from) in [
            (today, "07:59", "2026-11-24T10:00"),
            (today, "20:10", "2026-11-24T21:00"),
            (today, "23:01", "2026-11-25T10:00"),
            (today.tomorrow().unwrap(), "20:10", "2026-11-25T10:00"),
            (today.yesterday().unwrap(), "20:10", "2026-11-24T21:00"),
        ] {
            assert_eq!(BookingForm::proposed(day, today, clock).from, from);
        }
    }

    #[test]
    fn amounts_are_read_as_cents_or_refused() {
        let cases = [
            ("120", Some(12_000)),
            ("120.5", Some(12_050)),
            ("$1,120.50", Some(112_050)),
            ("0.07", Some(7)),
            ("", None),
            (".50", None),
            ("1.234", None),
            ("-5", None),
            ("1e3", None),
            ("12 0", None),
            ("99999999999999999999", None),
            ("92233720368547758.08", None),
        ];
        for (text, expected) in cases {
            assert_eq!(cents(text), expected, "{text}");
        }
    }

    #[test]
    fn ids_are_uuids_or_nothing() {
        assert!(checked_id(&new_id()).is_some());
        let good = "00000000-0000-4000-8000-00000000000A";
        assert_eq!(
            checked_id(good).as_deref(),
            Some("00000000-0000-4000-8000-00000000000a")
        );
        for bad in [
            "",
            "x",
            "00000000000040008000000000000000",
            "0000000g-0000-4000-8000-000000000000",
        ] {
            assert_eq!(checked_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_form_that_lacks_something_says_what() {
        let whole = [
            ("id", "00000000-0000-4000-8000-000000000000"),
            ("vehicle", "3"),
            ("from", "2026-11-24T10:00"),
            ("until", "2026-11-26T10:00"),
            ("name", "Ann Lee"),
            ("email", "ann@mail.example"),
        ];
        let fields = |without: &str| {
            let left = whole.iter().filter(|(name, _)| *name != without);
            Fields(
                left.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        assert!(BookingForm::sent(&fields("")).booking().is_ok());
        let cases = [
            ("id", "damaged"),
            ("vehicle", "vehicle"),
            ("from", "pickup"),
            ("until", "return"),
            ("name", "name"),
            ("email", "e-mail"),
        ];
        for (without, expected) in cases {
            let said = BookingForm::sent(&fields(without))
                .booking()
                .unwrap_err()
                .to_string();
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_payment_needs_a_method() {
        let fields = Fields(vec![("method".to_owned(), "gold".to_owned())]);
        let said = payment("x", &fields).unwrap_err().to_string();
        assert!(said.contains("card, cash or transfer"), "{said}");
    }
}
