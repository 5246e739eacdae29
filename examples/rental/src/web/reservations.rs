//! The pages that change the books: booking, payment, handing over, taking back, cancelling.

use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::civil::Date;

use super::counters::counter_number;
use super::forms::{BookingForm, Fields, checked_id, new_id, payment};
use super::trouble::{Trouble, notice, status};
use super::views::{BookPage, Here, Nav, Notice, OneReservation, page};
use super::{Office, Shared};
use crate::desk::{Desk, DeskError, StatusChange};

type Pairs = Vec<(String, String)>;

/// `GET /book/{location}?vehicle=ID&from=YYYY-MM-DD`
pub async fn form(
    State(office): Shared,
    Path(location): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let fields = Fields(pairs);
    let outcome = async {
        let mut desk = office.pages.desk().await?;
        let mut page = book_page(&mut desk, &location, BookingForm::default()).await?;
        let today = page.location.today;
        let day = fields.text("from").parse::<Date>().unwrap_or(today);
        page.form = BookingForm {
            id: new_id(),
            vehicle: fields.text("vehicle").to_owned(),
            ..BookingForm::proposed(day, today, &page.location.clock)
        };
        Ok(page)
    };
    match outcome.await {
        Ok(form) => page(StatusCode::OK, &form),
        Err(error) => Trouble::reading(&office, &error).into_response(),
    }
}

/// `POST /book/{location}`
pub async fn book(
    State(office): Shared,
    Path(location): Path<String>,
    Form(pairs): Form<Pairs>,
) -> Response {
    let fields = Fields(pairs);
    let sent = BookingForm::sent(&fields);
    let outcome = async {
        let counter = counter_number(&location)?;
        let booking = sent.booking()?;
        let mut desk = office.pages.desk().await?;
        if !desk.is_at(counter, booking.rental.vehicle_id).await? {
            let reason = "the vehicle is not one of this counter".to_owned();
            return Err(DeskError::Refused { reason });
        }
        desk.book(&booking).await.map(|()| booking.id)
    };
    let error = match outcome.await {
        Ok(id) => return Redirect::to(&format!("/reservations/{id}?done=booked")).into_response(),
        Err(error) => error,
    };
    let Some(notice) = notice(&error) else {
        return Trouble::writing(&office, &error, &fields).into_response();
    };
    let again = async {
        let mut desk = office.pages.desk().await?;
        book_page(&mut desk, &location, sent).await
    };
    match again.await {
        Ok(form) => page(
            status(&error),
            &BookPage {
                problem: Some(notice),
                ..form
            },
        ),
        Err(error) => Trouble::writing(&office, &error, &fields).into_response(),
    }
}

/// `GET /reservations/{id}?done=WORD`
pub async fn show(
    State(office): Shared,
    Path(id): Path<String>,
    Query(pairs): Query<Pairs>,
) -> Response {
    let done = match Fields(pairs).text("done") {
        "booked" => Some("Booked. The confirmation e-mail is waiting to be sent."),
        "paid" => Some("The payment is entered."),
        "cancel" => Some("The booking is cancelled."),
        "hand-over" => Some("The vehicle is handed over."),
        "take-back" => Some("The vehicle is taken back."),
        _ => None,
    };
    match reservation_page(&office, &id).await {
        Ok(one) => page(StatusCode::OK, &OneReservation { done, ..one }),
        Err(error) => Trouble::reading(&office, &error).into_response(),
    }
}

/// `POST /reservations/{id}/pay`
pub async fn pay(
    State(office): Shared,
    Path(id): Path<String>,
    Form(pairs): Form<Pairs>,
) -> Response {
    let fields = Fields(pairs);
    let outcome = async {
        let payment = payment(&reservation_id(&id)?, &fields)?;
        office.pages.desk().await?.pay(&payment).await
    };
    match outcome.await {
        Ok(()) => Redirect::to(&format!("/reservations/{id}?done=paid")).into_response(),
        Err(error) => refused(&office, &id, &error, &fields).await,
    }
}

/// `POST /reservations/{id}/cancel`, `.../hand-over`, `.../take-back`
pub async fn change(
    State(office): Shared,
    Path((id, word)): Path<(String, String)>,
    Form(pairs): Form<Pairs>,
) -> Response {
    let change = match word.as_str() {
        "cancel" => StatusChange::Cancel,
        "hand-over" => StatusChange::HandOver,
        "take-back" => StatusChange::TakeBack,
        _ => return Trouble::no_page().into_response(),
    };
    let fields = Fields(pairs);
    let outcome = async {
        let id = reservation_id(&id)?;
        office.pages.desk().await?.change(&id, change).await
    };
    match outcome.await {
        Ok(()) => Redirect::to(&after(&fields, &id, &word)).into_response(),
        Err(error) => refused(&office, &id, &error, &fields).await,
    }
}

/// Where to go after a change: back to a counter list of this site, or to the reservation.
fn after(fields: &Fields, id: &str, word: &str) -> String {
    let then = fields.text("then");
    if then.starts_with("/counter/") && then.chars().all(|c| c.is_ascii_graphic()) {
        return then.to_owned();
    }
    format!("/reservations/{id}?done={word}")
}

/// Shows the reservation with the reason on top, or the trouble when the database is at fault.
async fn refused(office: &Office, id: &str, error: &DeskError, fields: &Fields) -> Response {
    let Some(problem) = notice(error) else {
        return Trouble::writing(office, error, fields).into_response();
    };
    match reservation_page(office, id).await {
        Ok(one) => page(status(error), &with_problem(one, problem, fields)),
        Err(error) => Trouble::writing(office, &error, fields).into_response(),
    }
}

fn with_problem(one: OneReservation, problem: Notice, fields: &Fields) -> OneReservation {
    let amount = match fields.text("amount") {
        "" => one.amount.clone(),
        sent => sent.to_owned(),
    };
    OneReservation {
        problem: Some(problem),
        amount,
        method: fields.text("method").to_owned(),
        ..one
    }
}

async fn book_page(
    desk: &mut Desk<'_>,
    location: &str,
    form: BookingForm,
) -> Result<BookPage, DeskError> {
    let location = desk.location(counter_number(location)?).await?;
    let vehicles = desk.vehicle_choices(location.id).await?;
    Ok(BookPage {
        nav: Nav::at(&location, Here::Form),
        location,
        vehicles,
        form,
        problem: None,
    })
}

async fn reservation_page(office: &Office, id: &str) -> Result<OneReservation, DeskError> {
    let id = reservation_id(id)?;
    let mut desk = office.pages.desk().await?;
    let page = desk.reservation(&id).await?;
    let location = desk.location(page.location_id).await?;
    let due = page.due_cents.max(0);
    Ok(OneReservation {
        nav: Nav::at(&location, Here::Other),
        payment_id: new_id(),
        amount: format!("{}.{:02}", due / 100, due % 100),
        method: String::new(),
        page,
        done: None,
        problem: None,
    })
}

fn reservation_id(text: &str) -> Result<String, DeskError> {
    checked_id(text).ok_or(DeskError::NotFound {
        what: "reservation",
    })
}

#[cfg(test)]
mod tests {
    use super::{Fields, after};

    #[test]
    fn a_change_leads_back_to_a_counter_of_this_site_only() {
        let cases = [
            ("/counter/3?day=2026-11-24", "/counter/3?day=2026-11-24"),
            ("", "/reservations/x?done=cancel"),
            ("//evil.example/counter/3", "/reservations/x?done=cancel"),
            ("https://evil.example", "/reservations/x?done=cancel"),
            ("/counter/3\r\nSet-Cookie: a", "/reservations/x?done=cancel"),
        ];
        for (then, expected) in cases {
            let fields = Fields(vec![("then".to_owned(), then.to_owned())]);
            assert_eq!(after(&fields, "x", "cancel"), expected);
        }
    }
}
